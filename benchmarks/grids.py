"""Which grid ten steps of DPM-Solver++(2M) should use: python benchmarks/grids.py RUN (a run of the demo)

The share of 2,000 unguided digits in the class asked for, the accuracy on held-out real digits of a classifier trained
on them, and the share nearer to a training digit than half of the held-out digits (1/2 is right).
"""

import sys
from pathlib import Path

import numpy as np

from osmotic.data.dataset import open_data, split
from osmotic.metrics import accuracy_of_training_on, agreement, fit_classifier, share_closer
from osmotic.recipes.demo import HOLDOUT, everything
from osmotic.times import Karras, LogSNR, Uniform
from osmotic.training.model import load, suggested_grid


def main(run: str) -> None:
    """Print and store the table."""
    model = load(run)
    training, held_out = (everything(p) for p in split(open_data("digits"), HOLDOUT, model.recipe.options.seed))
    judge, labels = fit_classifier(*training), np.arange(2000) % 10
    grids = {
        "suggested": suggested_grid(model.spec, model.recipe),
        "EDM's, 0.002 to 80": Karras(),
        "Karras, 0.02 to 20": Karras(0.02, 20),
        "log-SNR, 0.02 to 20": LogSNR(0.02, 20),
        "log-SNR, 0.002 to 80": LogSNR(),
        "uniform in t": Uniform(),
    }
    lines = ["| grid | asked class | learned from samples | nearer than held out |", "|---|---|---|---|"]
    for name, grid in grids.items():
        x = model.sample(2000, labels, grid=grid).numpy()
        learned = accuracy_of_training_on(x, labels, *held_out)
        closer = share_closer(x, held_out[0], training[0])
        lines.append(f"| {name} | {agreement(judge, x, labels):.2%} | {learned:.2%} | {closer:.2f} |")
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "results" / "grids.md").write_text(f"`python benchmarks/grids.py RUN`\n\n{text}\n")


if __name__ == "__main__":
    main(sys.argv[1])
