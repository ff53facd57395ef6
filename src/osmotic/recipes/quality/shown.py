"""The pictures of an evaluation: samples beside data, and beside what they are nearest to in the training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from osmotic.metrics import Neighbours
from osmotic.recipes.quality.measures import SEARCHED, first
from osmotic.recipes.quality.sets import Array, Context, nearest
from osmotic.recipes.scores import FOLDER
from osmotic.report import pictures, plots, samples

SHOWN = 10
"""Samples whose neighbours are shown."""

COMPARED = 2000
"""Samples that are drawn beside data, at most."""


def draw(context: Context, run: Path, strip: Callable[[Path], Path]) -> list[Path]:
    """Write them into ``RUN/evaluation``; the most telling first. ``strip`` draws a trajectory of pictures."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    if context.spec.kind == "images":
        beside = side_by_side(context, folder / "beside.png")
        return [beside, neighbours(context, folder / "neighbours.png"), strip(folder / "trajectory.png")]
    if context.spec.kind == "sequences":
        beside = plots.beside(context.samples.raw, context.held.raw, folder / "beside.png")
        return [beside, followed(context, folder / "neighbours.png")]
    part, held = context.samples.raw[:COMPARED], context.held.raw[:COMPARED]
    return [samples.draw(part, context.spec, folder / "beside.png", real=held)]


def most_alike(found: Neighbours) -> Array:
    """The samples that lie nearest to a training sample, the nearest first."""
    return np.argsort(found.distance, kind="stable")[:SHOWN]


def neighbours(context: Context, path: Path) -> Path:
    """The samples that are most like a training sample, above that sample, and any samples above theirs."""
    found = nearest(first(context.samples, SEARCHED), context)
    shown = [most_alike(found), np.arange(min(SHOWN, len(context.samples)))]
    rows = [raw for which in shown for raw in (context.samples.raw[which], context.training.raw[found.index[which]])]
    names = ["most alike", "training", "any", "training"]
    return pictures.save(pictures.grid(np.concatenate(rows), len(shown[0]), names), path)


def side_by_side(context: Context, path: Path) -> Path:
    """Eight rows of samples beside eight of held-out data."""
    count = 8
    each = min(count, len(context.samples) // count, len(context.held) // count) or 1
    gap = np.full((each, 1, *context.samples.raw.shape[1:]), 255, np.uint8)

    def block(raw: np.ndarray) -> np.ndarray:
        return raw[: each * count].reshape(each, -1, *raw.shape[1:])

    rows = np.concatenate([block(context.samples.raw), gap, block(context.held.raw)], 1)
    heads = ["samples"] + [""] * (rows.shape[1] // 2) + ["held-out data"]
    return pictures.save(pictures.grid(rows.reshape(-1, *rows.shape[2:]), rows.shape[1], heads=heads), path)


def followed(context: Context, path: Path) -> Path:
    """Sequences that are most like a training sequence, with that one beneath."""
    found = nearest(first(context.samples, SEARCHED), context)
    close = most_alike(found)
    return plots.pairs(context.samples.raw[close], context.training.raw[found.index[close]], path)
