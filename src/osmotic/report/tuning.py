"""What was tried for a budget of evaluations, as a table for a terminal and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from osmotic.report.plots import BLUE, GREY, ORANGE, _figure, _write

BAR = 24


class Row(NamedTuple):
    """A solver on a grid: its name, steps, evaluations, and its errors on the tuning noise and on fresh noise."""

    sampler: str
    grid: str
    steps: int
    evaluations: int
    error: float
    confirmed: float


def table(rows: Sequence[Row], default: Row) -> list[str]:
    """Lines for a terminal: the rows, best first, then the default; bars show the error on fresh noise."""
    every = [*rows, default]
    wide = max(len(r.sampler) for r in every), max(len(r.grid) for r in every)
    most = max(r.confirmed for r in every) or 1.0
    head = f"  {'solver':<{wide[0]}}  {'grid':<{wide[1]}}  steps  evaluations  error  on fresh noise"

    def line(mark: str, r: Row) -> str:
        bar = "#" * max(1, round(BAR * r.confirmed / most))
        return (
            f"{mark} {r.sampler:<{wide[0]}}  {r.grid:<{wide[1]}}  {r.steps:>5}  {r.evaluations:>11}  {r.error:5.3f}  "
            f"{r.confirmed:5.3f} {bar}"
        )

    lines = [line("*" if i == 0 else " ", r) for i, r in enumerate(rows)]
    return [head, *lines, line("=", default), "* the choice, = the ordinary default within this budget"]


def draw(rows: Sequence[Row], default: Row, path: Path, title: str) -> Path:
    """The errors on fresh noise as bars, best first, the default last; a tick marks the error on the tuning noise.

    Args:
        rows: best first; the first is the choice.
        default: the ordinary default within the same budget.
        path: of the PNG.
        title: what was tuned.
    """
    every = [*rows, default]
    figure, panels = _figure(1, 1, 8.5, 1.2 + 0.34 * len(every))
    panel = panels[0, 0]
    places = range(len(every))
    colors = [ORANGE, *[BLUE] * (len(rows) - 1), GREY]
    panel.barh(places, [r.confirmed for r in every], color=colors, height=0.65, label="on fresh noise")
    panel.plot([r.error for r in every], places, "|", color="black", markersize=13, label="on the tuning noise")
    names = [f"{r.sampler}, {r.steps} steps, {r.grid}" for r in rows]
    panel.set_yticks(places, [*names, f"default: {default.sampler}, {default.steps} steps"], fontsize=9)
    panel.get_yticklabels()[0].set_fontweight("bold")
    panel.invert_yaxis()
    panel.set_xlabel("distance to the converged samples, in standard deviations of the data", fontsize=9)
    panel.set_title(title, fontsize=10, loc="left")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return _write(figure, path)
