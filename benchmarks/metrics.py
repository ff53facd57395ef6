"""Which score catches which fault: five models of the digits, four of them spoiled on purpose, measured alike.

    python benchmarks/metrics.py [STEPS]     # writes docs/metrics.md; about ten minutes on two cores

A good model; one that never saw a class; one trained on slightly blurred pictures (0.4 pixels; with 0.6, tried first,
everything sees it); one trained on ten pictures of each class; one that knows all of its training data by heart and
nothing else. All are measured beside the same held-out digits. A score catches a
fault where the interval of the faulty model lies apart from the good model's, on the bad side of it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from osmotic.data.dataset import Dataset, Subset, open_data, split
from osmotic.oracles import Dataset as Dataset_
from osmotic.recipes.demo import recipe
from osmotic.recipes.quality.drawing import shares
from osmotic.recipes.quality.features import seen, usual
from osmotic.recipes.quality.measure import scored
from osmotic.recipes.quality.sets import Context, arrays, of_arrays, of_dataset
from osmotic.recipes.quality.table import number
from osmotic.recipes.scores import Score
from osmotic.recipes.train import train
from osmotic.training.model import load

COUNT, DROPPED, EACH, BLUR = 1000, 3, 10, 0.4
TARGET = Path(__file__).parents[1] / "docs" / "metrics.md"


class Blurred(Dataset):
    """Pictures blurred by a Gaussian of 0.4 pixels."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.spec, self.labels, self.texts = dataset.spec, dataset.labels, dataset.texts

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, labels = self.dataset.batch(indices)
        return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, BLUR, BLUR))), labels

    def name(self, index: int) -> str:
        return self.dataset.name(index)


def without(dataset: Subset) -> Subset:
    """All but one class."""
    return Subset(dataset, np.flatnonzero(dataset.labels != DROPPED))


def few(dataset: Subset) -> Subset:
    """The first ten of each class."""
    return Subset(dataset, np.concatenate([np.flatnonzero(dataset.labels == c)[:EACH] for c in range(10)]))


MODELS: dict[str, Callable[[Subset], Dataset]] = {
    "good": lambda dataset: dataset,
    "dropped class": without,
    "blurred": Blurred,
    "few data": few,
    "by heart": few,
}


def measured(name: str, steps: int, folder: Path) -> list[Score]:
    """The scores of one model."""
    training, held = split(open_data("digits"), 0.2, 0)
    asked = recipe().model_copy(update={"holdout": 0.0})
    train(MODELS[name](training), folder / name, asked, steps=2 if name == "by heart" else steps)
    model = load(folder / name)
    labels = shares(training, 2 * COUNT, 0)
    if name == "dropped class":
        labels = labels[labels != DROPPED]
    labels = labels[:COUNT]
    if name == "by heart":  # no network learns that much in minutes; the exact denoiser of the training data has
        points, point_labels = training.batch(np.arange(len(training)))
        model.denoiser = Dataset_(model.denoiser.schedule, points, point_labels)
        model.denoiser.register_parameter(
            "anchor", torch.nn.Parameter(torch.zeros(1))
        )  # a model knows its device by it
    x = model.sample(COUNT, labels, steps=40 if name == "by heart" else None).numpy()
    known, classes = arrays(training, len(training), 0)
    features = usual(seen(known, classes, model.spec, len(held)))
    sets = (of_arrays(x, model.spec, features, labels), of_dataset(held, features, len(held), 0))
    context = Context(model.spec, *sets, of_arrays(known, model.spec, features, classes), features, True, 0)
    return list(scored(context))


def caught(score: Score, good: Score) -> bool:
    """Whether the intervals lie apart, on the bad side; points without an interval never do."""
    if None in (score.low, score.high, good.low, good.high):
        return False
    apart = score.low > good.high or score.high < good.low
    if good.better == "real":
        return apart and abs(score.value - good.real) > abs(good.value - good.real)
    return apart and (score.value > good.value) == (good.better == "lower")


def table(found: dict[str, list[Score]]) -> list[str]:
    """Rows of scores, columns of models; what is caught in bold."""
    names = list(found)
    lines = [f"| score | better | real data | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for rows in zip(*found.values(), strict=True):
        good = rows[0]
        cells = []
        for score in rows:
            reach = "" if score.low is None else f" ({number(score.low)} to {number(score.high)})"
            text = f"{number(score.value)}{reach}"
            cells.append(f"**{text}**" if score is not good and caught(score, good) else text)
        better = "as real" if good.better == "real" else good.better
        real = "" if good.real is None else number(good.real)
        lines.append(f"| {good.name} | {better} | {real} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Train, measure, write the page."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measured(name, steps, Path(folder)) for name in MODELS}
    text = [
        "# Which score catches which fault",
        "",
        f"Made by `python benchmarks/metrics.py {steps}`: models of the embedded digits, {steps:,} steps each, "
        f"{COUNT:,} samples each beside 360 held-out digits, all on the default features. One never saw the class "
        f"{DROPPED}, one was trained on pictures blurred by {BLUR:g} pixels (0.6, tried first, is seen by everything), "
        f"one on {EACH} pictures of each class, and the last is the exact denoiser of the training data, which can "
        "only repeat them. In bold: the 95 % interval lies apart from the good model's, on the bad side.",
        "",
        *table(found),
        "",
        "No single score sees everything: look at a distance, at coverage, and at the neighbours.",
    ]
    TARGET.write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
