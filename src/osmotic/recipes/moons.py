"""Two moons, points in the plane: ``python -m osmotic.recipes.moons RUN``."""

import sys
from pathlib import Path

import numpy as np

import osmotic
from osmotic.data.dataset import open_data
from osmotic.report.plots import scatter
from osmotic.training.recipe import Process, Recipe


def main(out: str) -> None:
    """Train by flow matching on the straight path, and draw a thousand points on the data."""
    dataset = open_data("moons")
    process = Process(schedule="rectified", target="velocity", law="uniform")
    osmotic.train(dataset, out, Recipe(process=process), tell=print)
    model = osmotic.load(out)
    real = model.spec.decode(dataset.batch(np.arange(1000))[0].numpy())
    print(scatter(model.decode(model.sample(1000, steps=20)), Path(out) / "moons.png", real))


if __name__ == "__main__":
    main(*sys.argv[1:])
