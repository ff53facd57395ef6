"""Text to image by latents on captioned pictures, such as emoji: ``python -m osmotic.recipes.emoji FOLDER OUT [PROMPT
...]``.

FOLDER holds pictures and a ``metadata.jsonl`` with a line for each, ``{"file_name": "0001.png", "text": "red heart"}``.
They are brought to 32 x 32. ``OUT/autoencoder`` is trained on them, ``OUT/model`` on its latents: a U-Net that attends
to the words and learns to do without them, for classifier-free guidance (Stable Diffusion's shape at small scale,
Rombach et al. 2022, arXiv 2112.10752). What is finished in OUT is not done again. Without prompts a row is drawn for
each of a few captions of the training pictures; afterwards ``osmotic sample OUT/model --prompt "red heart" --guidance
4``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import osmotic
from osmotic.data.dataset import Dataset, open_data
from osmotic.recipes.prompted import prompted
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.run import RECIPE

SIDE, ROWS = 32, 8
GUIDANCE = 4.0


AUTOENCODER = Recipe(process=Process(objective="autoencoder"), reading={"size": SIDE})
MODEL = Recipe(
    options=Options(steps=6000, batch_size=64, learning_rate=1e-3, warmup=200, ema=(500.0,)),
    architecture=Architecture(network="unet", widths=(64, 128), blocks=1, attention=(0, 1), dropout=0.1),
    reading={"size": SIDE},
)


@dataclass(frozen=True)
class Stages:
    """How both are trained; what they leave out is found from the data."""

    autoencoder: Recipe = AUTOENCODER
    model: Recipe = MODEL


def main(
    folder: str,
    out: str | Path,
    prompts: Sequence[str] = (),
    stages: Stages | None = None,
    tell: Callable[[str], None] = print,
) -> Path:
    """Train on captioned pictures, draw what prompts ask for, and return the picture of it.

    Raises:
        ValueError: for pictures without captions.
    """
    how, home = stages or Stages(), Path(out)
    data = open_data(folder, size=SIDE)
    if data.spec.captions is None:
        raise ValueError(f"{folder} has no captions; give metadata.jsonl a field text.")
    autoencoder, model = home / "autoencoder", home / "model"
    osmotic.train(data, autoencoder, how.autoencoder, resume=(autoencoder / RECIPE).exists(), tell=tell)
    osmotic.train(data, model, how.model, codec=autoencoder, resume=(model / RECIPE).exists(), tell=tell)
    return prompted(load(model), prompts or some(data), GUIDANCE, home / "prompts.png")


def some(data: Dataset) -> list[str]:
    """Captions of evenly chosen pictures."""
    assert data.texts is not None
    return [data.texts[i] for i in np.linspace(0, len(data) - 1, min(ROWS, len(data))).astype(int)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
