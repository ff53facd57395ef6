"""Which solver and grid ten steps should use: python benchmarks/grids.py RUN (a run of the demo)

The RMS distance to the converged samples of the same noise in deviations of the data; and, without guidance, the share
of 2,000 digits in the class asked for, the accuracy on held-out real digits of a classifier trained on them, and the
share nearer to a training digit than half of the held-out digits (1/2 is right).
"""

import sys
from pathlib import Path

import numpy as np

from osmotic.data.dataset import open_data, split
from osmotic.metrics import accuracy_of_training_on, agreement, fit_classifier, share_closer
from osmotic.recipes.demo import HOLDOUT, everything
from osmotic.times import Karras, LogSNR, Span
from osmotic.training.model import load, suggested_grid

SOLVERS = ("flow-2pc", "flow-3pc", "dpmpp-2m")


def main(run: str) -> None:
    """Print and store the table."""
    model = load(run)
    training, held_out = (everything(p) for p in split(open_data("digits"), HOLDOUT, model.recipe.options.seed))
    judge, labels = fit_classifier(*training), np.arange(2000) % 10
    sd = model.recipe.process.sigma_data or 1.0
    grids = {
        "suggested": suggested_grid(model.spec, model.recipe),
        "span, 1/20 to 26 deviations": Span(sd / 20, 26 * sd),
        "span, 1/10 to 12 deviations": Span(sd / 10, 12 * sd),
        "log-SNR, 1/40 to 26 deviations": LogSNR(sd / 40, 26 * sd),
        "EDM's, 0.002 to 80": Karras(),
    }
    exact = model.sample(512, labels[:512], sampler="flow-3pc", grid=Span(sd / 20, 40 * sd), steps=150)
    head = ["grid", "solver", "error", "asked class", "learned from samples", "nearer than held out"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, grid in grids.items():
        for solver in SOLVERS:
            x = model.sample(2000, labels, sampler=solver, steps=10, grid=grid)
            error = float((x[:512] - exact).square().mean().sqrt()) / sd
            array = x.numpy()
            learned = accuracy_of_training_on(array, labels, *held_out)
            closer = share_closer(array, held_out[0], training[0])
            asked = agreement(judge, array, labels)
            lines.append(f"| {name} | {solver} | {error:.3f} | {asked:.2%} | {learned:.2%} | {closer:.2f} |")
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "results" / "grids.md").write_text(f"`python benchmarks/grids.py RUN`\n\n{text}\n")


if __name__ == "__main__":
    main(sys.argv[1])
