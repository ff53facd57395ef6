"""Text to image on captioned pictures, such as emoji: ``python -m osmotic.recipes.emoji FOLDER RUN [PROMPT ...]``.

FOLDER holds pictures and a ``metadata.jsonl`` with a line for each, ``{"file_name": "0001.png", "text": "red heart"}``.
They are brought to 32 x 32. Without prompts a row is drawn for each of a few captions of the training pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import osmotic
from osmotic.data.dataset import Dataset, open_data
from osmotic.recipes.prompted import prompted
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

SIDE, ROWS = 32, 8
GUIDANCE = 4.0

RECIPE = Recipe(
    options=Options(steps=10_000, batch_size=64, learning_rate=1e-3),
    architecture=Architecture(network="unet", widths=(32, 64, 128), blocks=1, attention=(2,), dropout=0.1),
    reading={"size": SIDE},
)
"""For a few thousand pictures: minutes on a GPU, hours on two cores."""


def main(
    folder: str, out: str, prompts: Sequence[str] = (), recipe: Recipe = RECIPE, tell: Callable[[str], None] = print
) -> Path:
    """Train on captioned pictures, draw what prompts ask for, and return the picture of it."""
    data = open_data(folder, size=SIDE)
    if data.spec.captions is None:
        raise ValueError(f"{folder} has no captions; give metadata.jsonl a field text.")
    osmotic.train(data, out, recipe, tell=tell)
    return prompted(load(out), prompts or some(data), GUIDANCE, Path(out) / "prompts.png")


def some(data: Dataset) -> list[str]:
    """Captions of evenly chosen pictures."""
    assert data.texts is not None
    return [data.texts[i] for i in np.linspace(0, len(data) - 1, min(ROWS, len(data))).astype(int)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
