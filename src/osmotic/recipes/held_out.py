"""The data that a run was not trained on, and the units in which their likelihood is told."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from osmotic.data.columns import Categorical, Columns
from osmotic.data.dataset import Dataset, Subset, main_size, open_data, split
from osmotic.data.encoding import Pixels, Standard
from osmotic.data.errors import DataError, differ
from osmotic.data.source import Options
from osmotic.data.spec import SAME, Spec
from osmotic.recipes.embedded import OF, as_told
from osmotic.recipes.subject import under
from osmotic.training.errors import RunError
from osmotic.training.model import stored
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run

EMBEDDED = " (embedded)"


def held_out(run: str | Path, data: Any = None) -> Subset:
    """The part of a run's data that it was not trained on; raises as :func:`parts` does."""
    return parts(run, data)[1]


def parts(run: str | Path, data: Any = None) -> tuple[Subset, Subset]:
    """What a run was trained on, and what was held out; of several sizes the commonest, which is drawn unasked.

    Raises:
        RunError: if nothing was held out, or the data cannot be found again or are others.
    """
    if stored(Run.open(run))[0].holdout == 0:
        raise RunError(f"{run} was trained on all of its data (--holdout 0), so none are left to evaluate it on.")
    return halves(run, data)


def halves(run: str | Path, data: Any = None) -> tuple[Subset, Subset]:
    """The same, with nothing in the second part where nothing was held out.

    Raises:
        RunError: if the data cannot be found again or are others.
    """
    first, second = whole(run, data)
    return main_size(first), main_size(second)


def whole(run: str | Path, data: Any = None) -> tuple[Subset, Subset]:
    """The same with samples of all sizes, where there are several.

    Raises:
        RunError: if the data cannot be found again or are others.
    """
    recipe, spec = stored(Run.open(run))
    return split(_found_again(run, spec, recipe, data), recipe.holdout, recipe.options.seed)


def _found_again(run: str | Path, spec: Spec, recipe: Recipe, data: Any) -> Dataset:
    """All data of a run, read as they were.

    Raises:
        RunError: if they cannot be found or are others.
    """
    named = spec.source if spec.embedding is None else spec.source.removeprefix(OF)
    source = named.removesuffix(EMBEDDED) if data is None else data
    if isinstance(source, str) and source.endswith(" in memory"):
        raise RunError(f"{run} was trained on an {source}, which is gone; save it in a file and pass that as --data.")
    if data is None and not spec.source.endswith(EMBEDDED) and not Path(source).expanduser().exists():
        raise RunError(f"{run} was trained on {source}, which is not there; say with --data where it is now.")
    try:
        dataset = data if isinstance(data, Dataset) else open_data(source, **asdict(Options(**recipe.reading)))
    except DataError as error:
        if data is None or not Path(source).expanduser().exists():
            raise
        raise RunError(f"{source} cannot be read as {spec.source} was, which {run} was trained on: {error}.") from None
    if recipe.adapted is not None:
        dataset = under(dataset, spec, recipe.adapted)
    if spec.embedding is not None and dataset.spec.embedding is None:
        dataset = as_told(run, _teacher(recipe), spec.embedding, dataset)
    for name in SAME:
        if getattr(spec, name) != getattr(dataset.spec, name):
            raise RunError(
                f"{source if isinstance(source, str) else dataset.spec.source} is not what {run} was trained on, its "
                f"{differ(name)}; that was {spec.source}."
            )
    return dataset


def _teacher(recipe: Recipe) -> str | None:
    """The folder of a student's teacher."""
    named = None if recipe.student is None else recipe.student.teacher
    return None if named is None else named.rsplit(" (", 1)[0]


def lattice(spec: Spec) -> float | None:
    """The spacing of a picture's values in the network's units; None for data that are no pictures.

    One unit of the file where its range counts in whole numbers, else that of bytes.
    """
    if not isinstance(spec.encoding, Pixels):
        return None
    span = spec.encoding.high - spec.encoding.low
    return 2 / span if span >= 2 and span == round(span) else 2 / 255


def unit(spec: Spec, spacing: float | None) -> str:
    """What a likelihood is relative to, in words."""
    if spacing is not None:
        return (
            f"nothing: probabilities of discrete data, {round(2 / spacing) + 1} levels, dequantised; bits are a bound"
        )
    if isinstance(spec.encoding, Standard):
        return "one unit of the data's own, in each dimension"
    relative = "the unit of the network's normal scores, in each coordinate"
    separate = without_density(spec)
    if not separate:
        return relative
    return (
        f"{relative}; {', '.join(separate)} take separate values, which have no density, so the number depends on the "
        "noise and compares with nothing but itself"
    )


def without_density(spec: Spec) -> list[str]:
    """The names of a table's columns that take separate values: categories, integers, and those with gaps."""
    if not isinstance(spec.encoding, Columns):
        return []
    return [
        column.name
        for column in spec.encoding.columns
        if isinstance(column, Categorical) or column.integer or column.missing > 0
    ]


def log_jacobian(spec: Spec) -> float:
    """``log |dx / draw|`` of a sample: what takes a density of standardised data back to the data's own units.

    Quantiles of a table's columns have no density of their own between the rows, so tables stay in normal scores.
    """
    if not isinstance(spec.encoding, Standard):
        return 0.0
    each = spec.shape[0] // len(spec.encoding.std) * math.prod(spec.shape[1:])
    return -each * sum(math.log(std) for std in spec.encoding.std)
