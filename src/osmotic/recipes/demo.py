"""The demo: a class-conditional model of real handwritten digits, trained, sampled, judged and drawn in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from osmotic.data.dataset import Dataset, open_data, split
from osmotic.data.images import save_npz
from osmotic.metrics import accuracy_of_training_on, agreement, fit_classifier, nearest, share_closer
from osmotic.recipes.strip import strip
from osmotic.recipes.train import train
from osmotic.report import pictures, plots
from osmotic.training.model import Model, load
from osmotic.training.options import Options
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run

CLASSES, JUDGED, LEARNED = 10, 1000, 2000
HOLDOUT = 0.2
GUIDANCE = 1.5
SHOWN = 10
SAMPLES = "demo"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """What the demo measured; shares in [0, 1].

    Args:
        judge: accuracy of the judge (an SVM trained on real training digits) on held-out real digits.
        agreement: share of guided samples that the judge puts in the class asked for.
        plain: the same for unguided samples.
        learned: accuracy on held-out real digits of a classifier trained on unguided samples alone.
        closer: share of unguided samples closer to the training set than the median held-out digit is.
        seconds: of sampling all of them.
    """

    judge: float
    agreement: float
    plain: float
    learned: float
    closer: float
    seconds: float

    def lines(self) -> list[str]:
        """The table that the demo prints."""
        rows = [
            ("judge (SVM on real training digits) on held-out real digits", self.judge),
            (f"judge agrees with the class asked for, {JUDGED:,} samples, guidance {GUIDANCE:g}", self.agreement),
            (f"judge agrees with the class asked for, {JUDGED:,} samples, no guidance", self.plain),
            (f"classifier trained on {LEARNED:,} samples alone, on held-out real digits", self.learned),
            ("samples nearer to a training digit than half of the held-out real digits are", self.closer),
        ]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {value:7.2%}" for name, value in rows]


def recipe(seed: int = 0) -> Recipe:
    """The demo's recipe."""
    return Recipe(options=Options(seed=seed), holdout=HOLDOUT)


def everything(dataset: Dataset) -> tuple[Array, NDArray[np.int64]]:
    """All samples and labels of a small data set."""
    x, labels = dataset.batch(np.arange(len(dataset)))
    assert labels is not None
    return x.numpy(), labels.numpy()


def demo(out: str | Path, seed: int = 0, tell: Callable[[str], None] | None = None) -> tuple[Scores, list[Path]]:
    """Train on the embedded digits, sample, judge and draw, all inside ``out``.

    Returns:
        The scores and the pictures, most worth looking at first.
    """
    dataset = open_data("digits")
    run = train(dataset, out, recipe(seed), tell=tell)
    return judge(load(out), dataset, run)


def judge(model: Model, dataset: Dataset, run: Run) -> tuple[Scores, list[Path]]:
    """Measure a model of the digits and draw it."""
    training, held_out = (everything(part) for part in split(dataset, HOLDOUT, model.recipe.options.seed))
    labels = np.arange(LEARNED) % CLASSES
    start = time.perf_counter()
    with tqdm(total=JUDGED + LEARNED, desc="sampling", unit="digit", delay=2, leave=False) as bar:
        guided = model.sample(JUDGED, labels[:JUDGED], GUIDANCE, progress=bar.update).cpu().numpy()
        plain = model.sample(LEARNED, labels, progress=bar.update).cpu().numpy()
    seconds = time.perf_counter() - start
    referee = fit_classifier(*training)
    scores = Scores(
        judge=agreement(referee, *held_out),
        agreement=agreement(referee, guided, labels[:JUDGED]),
        plain=agreement(referee, plain[:JUDGED], labels[:JUDGED]),
        learned=accuracy_of_training_on(plain, labels, *held_out),
        closer=share_closer(plain[:JUDGED], held_out[0], training[0]),
        seconds=seconds,
    )
    return scores, _draw(model, run, guided, labels, training[0])


def _draw(model: Model, run: Run, guided: Array, labels: NDArray[np.int64], training: Array) -> list[Path]:
    """The pictures: samples by class, a trajectory, nearest neighbours, losses."""
    folder, spec = run.directory / SAMPLES, model.spec
    names = [str(c) for c in range(CLASSES)]
    rows = np.argsort(labels[: CLASSES * SHOWN], kind="stable")
    images = spec.decode(guided)
    by_class = pictures.save(pictures.grid(images[rows], SHOWN, names), folder / "samples.png")
    strip_ = strip(model, folder / "trajectory.png", CLASSES, list(range(CLASSES)), GUIDANCE, model.plan(), rows=names)
    near_ones = spec.decode(training[nearest(guided[:SHOWN], training).index])
    pairs = np.concatenate([images[:SHOWN], near_ones])
    near = pictures.save(pictures.grid(pairs, SHOWN, ["sample", "nearest"]), folder / "neighbours.png")
    loss = plots.losses(run.metrics(), folder / "loss.png")
    save_npz(images, folder / "samples.npz", labels[: len(images)])
    return [by_class, strip_, near, loss]
