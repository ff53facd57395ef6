"""How samples are drawn from what was said, what was tuned and what is the default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from osmotic.data.errors import closest
from osmotic.data.spec import Spec
from osmotic.samplers import CATALOG, Sampler
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import Schedule
from osmotic.times import GRIDS, Cosine, Fixed, Grid, Karras, LogSNR, Power, Span, suggested
from osmotic.training.recipe import Recipe, Student
from osmotic.training.sampling import SAMPLER, STEPS, Tuned, Tuning

SUGGESTED = "suggested"


JUMPS = "jumps"


class Plan(NamedTuple):
    """How samples will be drawn: the solver, its steps and its stops, the stored choice if they come from it, and what
    solver and grid are called.
    """

    sampler: Sampler
    steps: int
    grid: Grid
    tuned: Tuned | None
    solver: str
    layout: str


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
    student = recipe.student
    if student is not None and student.stops is not None:
        return _own(student, SCHEDULES[recipe.process.schedule](), sampler, steps, grid, nfe)
    tuned = _stored(tuning, sampler, steps, grid, nfe)
    if tuned is not None and _fits(tuned, schedule):
        best = tuned.choice
        solved = named(best.sampler, CATALOG, "sampler")
        return Plan(solved, best.steps, Fixed(tuned.log_snr), tuned, best.sampler, best.grid)
    solver = sampler or (SAMPLER if student is None else student.sampler)
    layout = grid or (SUGGESTED if student is None or student.form == "denoiser" else JUMPS)
    stops = _grid(layout, grids(spec, recipe)) if isinstance(layout, str) else layout
    return Plan(
        _made(solver),
        steps if steps is not None else stops.steps or (STEPS if student is None else student.steps),
        stops,
        None,
        _called(solver),
        _called(layout),
    )


def _made(solver: str | Sampler) -> Sampler:
    found: Sampler = named(solver, CATALOG, "sampler") if isinstance(solver, str) else solver
    return found


def _called(thing: str | Sampler | Grid) -> str:
    return thing if isinstance(thing, str) else type(thing).__name__


def jumps(recipe: Recipe) -> Grid:
    """Where a flow map stops where nothing is said: even in the angle ``atan2(sigma, 2 sd alpha)``.

    Two steps stop once, at noise of twice the data's deviation: between the 0.82 / 0.5 of consistency models (Song et
    al. 2023, arXiv 2303.01469) and the 0.98 / 0.5 of sCM (Lu & Song 2024, arXiv 2410.11081).
    """
    return Cosine(2 * (recipe.process.sigma_data or 1.0))


def _own(
    student: Student,
    path: Schedule,
    sampler: str | Sampler | None,
    steps: int | None,
    grid: str | Grid | None,
    nfe: int | None,
) -> Plan:
    """The only plan of a student that knows a few times alone."""
    assert student.stops is not None
    count = len(student.stops)
    for what, said in (("--steps", steps), ("--nfe", nfe)):
        if said is not None and said != count:
            raise ValueError(
                f"This few-step model knows {count} jump{'s' * (count > 1)} of its own, so it is drawn in {count}; "
                f"leave out {what}, or distil another with more."
            )
    if isinstance(grid, str):
        raise ValueError(f"This few-step model knows its own stops alone, so leave out the grid {grid!r}.")
    solver = sampler or student.sampler
    stops = grid or Fixed.of(path, torch.tensor([*student.stops, 0.0], dtype=torch.float64))
    return Plan(_made(solver), count, stops, None, _called(solver), "its own")


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
        JUMPS: jumps(recipe),
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
