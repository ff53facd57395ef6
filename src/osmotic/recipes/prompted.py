"""What a model makes of some prompts, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from osmotic.report import pictures
from osmotic.training.model import Model

SHOWN = 8


def prompted(model: Model, prompts: Sequence[str], guidance: float, path: Path) -> Path:
    """A grid of samples, a row of eight for each prompt."""
    texts = [text for text in prompts for _ in range(SHOWN)]
    x = model.sample(len(texts), {"text": texts}, guidance)
    return pictures.save(pictures.grid(model.decode(x), SHOWN, prompts), path)
