"""A student beside its teacher: quality at every number of evaluations, and the same noise drawn by both."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from osmotic.recipes.bench import bench
from osmotic.recipes.scores import FOLDER
from osmotic.report import pictures
from osmotic.training.model import Model, load
from osmotic.training.run import Run
from osmotic.training.sampling import SAMPLER

BUDGETS, MINUTES = (1, 2, 4, 8, 20), 2.0
"""Evaluations at which student and teacher are compared, and about how long that takes."""

DDIM = "ddim"
"""Beside the default solver: the only one that is what it is in a single step."""

SHOWN = 10
DRAWN = (1, 2, 4)


def beside(
    teacher: Path,
    student: Path,
    data: Any = None,
    tell: Callable[[str], None] | None = None,
    weights: str | None = None,
    count: int | None = None,
) -> tuple[list[str], list[Path]]:
    """The student beside its teacher at every number of evaluations: the lines of a table, and the files.

    The student's earlier rounds are measured too, where they are few-step models. Everything is stored in the student's
    run, nothing in the teacher's.

    Args:
        weights: of the teacher, as in :func:`osmotic.load`.
        count: samples at each number of evaluations; by default as many as fit into :data:`MINUTES`.
    """
    runs = [teacher, *Run.open(student).stages(), student]
    command = ["osmotic", "bench", *map(str, runs), "--nfe", *map(str, BUDGETS), "--sampler", SAMPLER, DDIM]
    lines, paths = bench(
        runs,
        data,
        sampler=(SAMPLER, DDIM),
        nfe=BUDGETS,
        count=count,
        minutes=MINUTES,
        command=shlex.join(command),
        home=student,
        tell=tell,
        weights=[weights, *[None] * (len(runs) - 1)],
    )
    picture = draw(load(teacher, weights), load(student), student / FOLDER / "beside.png")
    return lines, paths if picture is None else [picture, *paths]


def draw(teacher: Model, student: Model, path: Path) -> Path | None:
    """The same noise drawn by the teacher and by the student in 1, 2 and 4 steps; None for other data than pictures."""
    spec = student.spec
    if spec.kind != "images":
        return None
    labels = None if spec.classes is None else [i % len(spec.classes) for i in range(SHOWN)]
    rows = [*_teachers(teacher, labels), *_students(student, labels)]
    images = np.concatenate([spec.decode(x) for _, x in rows])
    return pictures.save(pictures.grid(images, SHOWN, [name for name, _ in rows]), path)


def _teachers(model: Model, labels: list[int] | None) -> Iterator[tuple[str, Any]]:
    yield "teacher, 20 steps", model.sample(SHOWN, labels, steps=20, sampler=SAMPLER).cpu().numpy()
    for steps in reversed(DRAWN):
        yield f"teacher, {steps}, DDIM", model.sample(SHOWN, labels, steps=steps, sampler=DDIM).cpu().numpy()


def _students(model: Model, labels: list[int] | None) -> Iterator[tuple[str, Any]]:
    stops = model.denoiser.stops
    for steps in DRAWN if stops is None else (len(stops),):
        yield f"student, {steps}", model.sample(SHOWN, labels, steps=steps).cpu().numpy()
