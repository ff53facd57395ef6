"""How samples are drawn from what was said, what was tuned and what is the default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from osmotic.data.errors import closest
from osmotic.data.spec import Spec
from osmotic.samplers import CATALOG, Sampler
from osmotic.schedules import Schedule
from osmotic.times import GRIDS, Cosine, Fixed, Grid, Karras, LogSNR, Power, Span, suggested
from osmotic.training.recipe import Recipe
from osmotic.training.sampling import SAMPLER, STEPS, Tuned, Tuning

SUGGESTED = "suggested"


class Plan(NamedTuple):
    """How samples will be drawn: the solver, its steps and its stops, and the stored choice if they come from it."""

    sampler: Sampler
    steps: int
    grid: Grid
    tuned: Tuned | None


def choose(
    spec: Spec,
    recipe: Recipe,
    tuning: Tuning | None,
    sampler: str | Sampler | None,
    steps: int | None,
    grid: str | Grid | None,
    nfe: int | None,
    schedule: Schedule | None,
) -> Plan:
    """The plan of :meth:`osmotic.training.model.Model.plan`, for a model of this data, recipe and run."""
    if nfe is not None and (sampler, steps, grid) != (None, None, None):
        raise ValueError("A tuned budget brings its solver, steps and grid; name it alone, or leave it out.")
    tuned = _stored(tuning, sampler, steps, grid, nfe)
    if tuned is not None and _fits(tuned, schedule):
        return Plan(named(tuned.choice.sampler, CATALOG, "sampler"), tuned.choice.steps, Fixed(tuned.log_snr), tuned)
    solver = sampler or SAMPLER
    stops = _grid(grid, grids(spec, recipe)) if isinstance(grid, str) else grid or suggested_grid(spec, recipe)
    return Plan(
        named(solver, CATALOG, "sampler") if isinstance(solver, str) else solver,
        steps if steps is not None else stops.steps or STEPS,
        stops,
        None,
    )


def _stored(
    tuning: Tuning | None, sampler: str | Sampler | None, steps: int | None, grid: str | Grid | None, nfe: int | None
) -> Tuned | None:
    """The stored choice, unless something else is said."""
    if tuning is None:
        if nfe is not None:
            raise ValueError("This model comes from no run, so nothing was tuned; name a solver and its steps.")
        return None
    if nfe is not None:
        return tuning.read(nfe)
    if grid is not None or not isinstance(sampler, str | None):
        return None
    tuned = tuning.last()
    same = tuned is not None and sampler in (None, tuned.choice.sampler) and steps in (None, tuned.choice.steps)
    return tuned if same else None


def _fits(tuned: Tuned, schedule: Schedule | None) -> bool:
    """Whether a stored grid lies within a path."""
    return schedule is None or not tuned.log_snr or float(schedule.log_snr(1.0)) < tuned.log_snr[0]


def suggested_grid(spec: Spec, recipe: Recipe) -> Grid:
    """:func:`osmotic.times.suggested` for the scale and the positions of a model's data.

    On the digits at ten steps, with the default solver, it comes twice as near to the exact flow as log-SNR from 26 to
    1/40 deviations with DPM-Solver++(2M), and class scores do not change (benchmarks/grids.py).
    """
    return suggested(recipe.process.sigma_data or 1.0, math.prod(spec.shape[1:]))


def _grid(name: str, made: Mapping[str, Grid]) -> Grid:
    """A grid made for the model, else of the catalogue."""
    found: Grid = named(name, GRIDS | {other: partial(made.__getitem__, other) for other in made}, "grid")
    return found


def grids(spec: Spec, recipe: Recipe) -> dict[str, Grid]:
    """The closed-form grids made for a model: stops in units of its data's deviation, by name.

    ``osmotic tune`` tries them; ``osmotic sample --grid`` and :meth:`osmotic.training.model.Model.sample` take the
    same names, beside those of :data:`osmotic.times.GRIDS`.
    """
    sd = recipe.process.sigma_data or 1.0
    top = sd * max(12.0, 3.3 * math.sqrt(math.prod(spec.shape[1:])))
    return {
        SUGGESTED: suggested_grid(spec, recipe),
        "cosine-data": Cosine(sd),
        "cosine-low": Cosine(sd / 2),
        "cosine-high": Cosine(sd * 2),
        "log-snr-short": LogSNR(sd / 10, top),
        "log-snr-long": LogSNR(sd / 160, top),
        "karras-data": Karras(sd / 40, top),
        "power-data": Power(4.0, top),
        "span-data": Span(sd / 10, sd * 12),
    }


def named(name: str, table: Mapping[str, Callable[[], Any]], what: str) -> Any:
    """The object of a catalogue.

    Raises:
        ValueError: if the catalogue has no such name, listing those it has.
    """
    if name not in table:
        raise ValueError(
            f"There is no {what} {name!r}; there are {', '.join(table)}{closest(name, list(table)) or '.'}"
        )
    return table[name]()
