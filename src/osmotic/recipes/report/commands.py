"""The commands that make a run again: its recipe turned back into flags."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from osmotic.data.spec import Spec
from osmotic.training.recipe import Recipe

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
