"""What was tried for a budget of evaluations, as a table for a terminal and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from osmotic.data.errors import plural
from osmotic.report.plots import BLUE, GREY, ORANGE, _figure, _write

BAR = 24
SMALLEST, MARGIN = 1e-9, 1.4
CONVERGED = "distance to the converged samples"
OPTIMIZED = "optimized"
"""The grid without a name of its own: a list of stops."""
ORDER = "best first by the larger of the two errors"


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
    head = f"  {'solver':<{wide[0]}}  {'grid':<{wide[1]}}  steps  evaluations    error  on fresh noise"

    def line(mark: str, r: Row) -> str:
        bar = "#" * max(1, round(BAR * r.confirmed / most))
        return (
            f"{mark} {r.sampler:<{wide[0]}}  {r.grid:<{wide[1]}}  {r.steps:>5}  {r.evaluations:>11}  {r.error:7.3g}  "
            f"{r.confirmed:7.3g} {bar}"
        )

    lines = [line("*" if i == 0 else " ", r) for i, r in enumerate(rows)]
    notes = [f"* the choice, = the ordinary default within this budget; {ORDER}"]
    if any(r.grid == OPTIMIZED for r in every):
        notes.append(
            f"{OPTIMIZED}: a list of stops made for its solver, which `osmotic sample` uses where it is chosen"
        )
    return [head, *lines, line("=", default), *notes]


def draw(rows: Sequence[Row], default: Row, path: Path, title: str, measure: str = CONVERGED) -> Path:
    """Two marks a row on a logarithmic axis, the errors on fresh and on the tuning noise; best first, the default last.

    Args:
        rows: best first; the first is the choice.
        default: the ordinary default within the same budget.
        path: of the PNG.
        title: what was tuned.
        measure: what the errors are.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    every = [*rows, default]
    figure, panels = _figure(1, 1, 8.5, 1.6 + 0.34 * len(every))
    panel = panels[0, 0]
    places = range(len(every))
    colors = [ORANGE, *[BLUE] * (len(rows) - 1), GREY]
    # An error of exactly 0 has no place on a logarithmic axis.
    errors, fresh = [max(r.error, SMALLEST) for r in every], [max(r.confirmed, SMALLEST) for r in every]
    panel.hlines(places, errors, fresh, color=colors, linewidth=2)
    panel.scatter(fresh, places, color=colors, s=50, zorder=3)
    panel.plot(errors, places, "|", color="black", markersize=13, zorder=4, label="on the noise it was tuned on")
    panel.plot([], [], "o", color=BLUE, label="on fresh noise; the larger of the two decides")
    panel.axvline(
        max(errors[-1], fresh[-1]), color=GREY, linewidth=1, linestyle=":", label="the default's larger error"
    )
    names = [f"{r.sampler}, {plural(r.steps, 'step')}, {r.grid}" for r in rows]
    panel.set_yticks(places, [*names, f"default: {default.sampler}, {plural(default.steps, 'step')}"], fontsize=9)
    panel.get_yticklabels()[0].set_fontweight("bold")
    panel.set_ylim(len(every) - 0.4, -0.6)
    panel.set_xscale("log")
    low, high = min(errors + fresh) / MARGIN, max(errors + fresh) * MARGIN
    panel.set_xlim(low, high)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 7)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="x", labelsize=8)
    panel.grid(axis="x", color="#eeeeee")
    panel.set_axisbelow(True)
    panel.set_xlabel(f"{measure}, in standard deviations of the data (log scale)", fontsize=9)
    panel.set_title(f"{title}\n{ORDER}, the choice on top in orange, the default last", fontsize=9, loc="left")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return _write(figure, path)
