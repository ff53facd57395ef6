"""Your own folder of pictures: ``python -m osmotic.recipes.folder PICTURES RUN [SIDE]``."""

import sys
from pathlib import Path

import osmotic
from osmotic.data.dataset import open_data
from osmotic.report.samples import draw
from osmotic.training.recipe import Recipe


def main(pictures: str, out: str, side: str | None = None) -> None:
    """Train on pictures brought to one size, mirrored at random, and draw sixteen."""
    dataset = open_data(pictures, size=None if side is None else int(side))
    osmotic.train(dataset, out, Recipe(flip=True), tell=print)
    model = osmotic.load(out)
    print(draw(model.decode(model.sample(16)), model.spec, Path(out) / "pictures.png"))


if __name__ == "__main__":
    main(*sys.argv[1:])
