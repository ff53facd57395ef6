"""What a benchmark found, as a table for a terminal and as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from osmotic.data.errors import plural
from osmotic.recipes.plan import duration
from osmotic.recipes.quality.table import number
from osmotic.recipes.scores import Bench, Point, frontier, guided
from osmotic.report import cost

HEADS = ("95 % interval", "coverage", "in class", "spread")

WORST = 20.0
"""A setting whose score is so many times the best one is no choice, however cheap."""


def table(found: Bench) -> list[str]:
    """The lines that the command prints: by run, then by evaluations; those that nothing cheaper beats are marked."""
    names = short(sorted({point.run for point in found.points}))
    several = len(names) > 1
    costs = ("steps", "evaluations", "guidance", "seconds")
    rows: list[tuple[str, ...]] = [("", "solver", *costs, found.score, *HEADS)]
    front = choices(found)
    for point in sorted(found.points, key=lambda p: (p.run, p.guidance != 1, p.evaluations, p.value)):
        name = f"{names[point.run]} {point.sampler}" if several else point.sampler
        rows.append(("*" if point in front else " ", name, *_cells(point)))
    filled = [any(row[i] for row in rows[1:]) for i in range(len(rows[0]))]
    rows = [tuple(c for c, told in zip(row, filled, strict=True) if told) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    judged = any(point.agreement is not None for point in found.points)
    real = "" if found.real is None else f"; real data in place of samples: {number(found.real)}"
    return [
        *lines,
        f"* nothing cheaper is as good, without guidance{real}",
        "coverage: of real data, by samples nearby"
        + ("; in class: judged so; spread: of a class, beside real data" if judged else ""),
        f"{plural(found.samples, 'sample')} each on {found.features}; {duration(found.seconds)} in all",
    ]


def _cells(point: Point) -> tuple[str, ...]:
    """What stands behind a setting's name."""
    reach = "" if point.low is None or point.high is None else f"{number(point.low)} to {number(point.high)}"
    return (
        str(point.steps),
        str(point.evaluations),
        f"{point.guidance:g}",
        f"{point.seconds:.2f}",
        number(point.value),
        reach,
        "" if point.coverage is None else f"{point.coverage:.1%}",
        "" if point.agreement is None else f"{point.agreement:.1%}",
        "" if point.spread is None else f"{point.spread:.2f}",
    )


def short(runs: Sequence[str]) -> dict[str, str]:
    """The shortest ends of the runs' paths that tell them apart."""
    parts = {run: Path(run).resolve().parts for run in runs}
    for length in range(1, max(map(len, parts.values())) + 1):
        ends = {run: "/".join(part[-length:]) for run, part in parts.items()}
        if len(set(ends.values())) == len(ends):
            break
    return ends


def choices(found: Bench) -> list[Point]:
    """The unguided settings that are better than all cheaper ones and not useless, by evaluations."""
    plain = [p for p in found.points if p.guidance == 1]
    usable = WORST * max(min(p.value for p in plain), 0.0) if plain else 0.0
    usable = usable or math.inf  # no multiple of a distance that may be 0 or below
    return frontier((p for p in plain if p.value <= usable), lambda p: p.evaluations, found.better)


def curves(found: Bench, path: Path) -> Path:
    """The picture."""
    names = short(sorted({point.run for point in found.points}))
    several = len(names) > 1

    def mark(point: Point) -> cost.Mark:
        name = f"{names[point.run]}, {point.sampler}" if several else point.sampler
        low, high = point.low, point.high
        return cost.Mark(
            name,
            point.evaluations,
            point.seconds,
            point.value,
            point.value if low is None else low,
            point.value if high is None else high,
            point.guidance,
            point.agreement,
        )

    plain = [mark(point) for point in found.points if point.guidance == 1]
    return cost.draw(plain, path, found.score, found.real, [mark(point) for point in guided(found.points)])
