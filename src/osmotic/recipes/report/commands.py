"""The commands that make a run again: its recipe turned back into flags."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from osmotic.data.spec import Spec
from osmotic.training.options import Options
from osmotic.training.recipe import Recipe
from osmotic.training.run import RECIPE, Run

EMBEDDED = " (embedded)"
FOUND = {"steps", "batch_size", "learning_rate", "network", "widths", "blocks", "attention", "dropout", "sigma_data"}
"""Fields whose defaults depend on the data: they are said, so that other defaults of another version change nothing."""
GROUPS = ("architecture", "process", "options")


def train(recipe: Recipe, spec: Spec, out: str) -> str | None:
    """The words of ``osmotic train`` that give the same recipe; None for data that were in memory."""
    source = spec.source.removesuffix(EMBEDDED)
    if source.endswith(" in memory"):
        return None
    words = ["osmotic", "train", source, "--out", out]
    for group in GROUPS:
        words += _flags(getattr(recipe, group))
    return shlex.join([*words, *_flags(recipe), *_words(recipe.reading.items())])


def distill(recipe: Recipe, out: str) -> str | None:
    """The words of ``osmotic distill`` that give the same student; None for one that nobody taught."""
    student, steps = recipe.student, recipe.options.steps
    if student is None or student.teacher is None:
        return None
    name = student.teacher
    while (Path(name) / RECIPE).is_file():  # an earlier stage, whose own teacher is nearer to the user's
        earlier = Recipe.model_validate(Run.open(name).recipe())
        if earlier.student is None or earlier.student.teacher is None:
            return None
        steps, name = steps + earlier.options.steps, earlier.student.teacher
    teacher, _, weights = name.rpartition(" (")
    staged = steps != recipe.options.steps
    options = recipe.options.model_dump(exclude={"seed"} | ({"ema", "warmup"} if staged else set()))
    words = ["osmotic", "distill", teacher, "--method", student.method, "--out", out]
    words += ["--weights", weights.partition(",")[0], *_flags(recipe.distillation)]
    return shlex.join([*words, *_flags(Options(**options | {"steps": steps}))])


def on(run: str, command: str, *more: str) -> str:
    """``osmotic COMMAND RUN ...`` as it is typed."""
    return shlex.join(["osmotic", command, run, *more])


def _flags(model: BaseModel) -> list[str]:
    """What differs from a model's defaults, and what has no fixed default."""
    fields = type(model).model_fields
    said = [
        (name, value)
        for name, field in fields.items()
        if not isinstance(value := getattr(model, name), BaseModel | dict) and (name in FOUND or value != field.default)
    ]
    return list(_words(said))


def _words(pairs: Any) -> Iterator[str]:
    for name, value in pairs:
        flag = f"--{name.replace('_', '-')}"
        if value is None or value is False:
            continue
        yield flag
        if isinstance(value, tuple | list):
            yield from map(_word, value)
        elif value is not True:
            yield _word(value)


def _word(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
