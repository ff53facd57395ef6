"""Quality against cost: curves over evaluations and seconds, and what guidance trades."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from osmotic.report.plots import GREY, _figure, _write

COLORS = ("#2166ac", "#d6604d", "#4d9221", "#8073ac", "#b8860b", "#01665e", "#c51b7d", "#666666")
MARKS = "os^Dv<>P"
LINES = ("-", "--", ":")  # another for each round through the colours


class Mark(NamedTuple):
    """One setting: which curve it belongs to, what it costs, how good it is (with an interval), how it was guided."""

    curve: str
    evaluations: int
    seconds: float
    value: float
    low: float
    high: float
    guidance: float
    agreement: float | None


def draw(marks: Sequence[Mark], path: Path, score: str, real: float | None, guided: Sequence[Mark] = ()) -> Path:
    """Two panels, the score against evaluations and against seconds; a third for guidance where it was swept.

    Args:
        marks: of all curves.
        path: of the PNG.
        score: its name, for the axis.
        real: what real data get, drawn as a line.
        guided: one solver and budget under several guidance scales.
    """
    figure, panels = _figure(1, 3 if guided else 2, 5, 4)
    row = list(panels[0])
    _curves(row[0], marks, "evaluations", score, real)
    row[0].set_xlabel("evaluations of the network for each sample")
    _curves(row[1], marks, "seconds", score, real)
    row[1].set_xlabel("seconds for all samples on this machine")
    if guided:
        _trade(row[2], guided, score)
    handles, names = row[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=8, loc="outside lower center", ncols=min(6, len(names)))
    return _write(figure, path)


def _curves(panel: Any, marks: Sequence[Mark], cost: str, score: str, real: float | None) -> None:
    curves = list(dict.fromkeys(mark.curve for mark in marks))
    for i, curve in enumerate(curves):
        mine = sorted((m for m in marks if m.curve == curve), key=lambda m: float(getattr(m, cost)))
        x, y = [getattr(m, cost) for m in mine], [m.value for m in mine]
        reach = [[m.value - m.low for m in mine], [m.high - m.value for m in mine]]
        panel.errorbar(
            x,
            y,
            yerr=reach,
            color=COLORS[i % len(COLORS)],
            marker=MARKS[(i + i // len(COLORS)) % len(MARKS)],
            linestyle=LINES[i // len(COLORS) % len(LINES)],
            markersize=4,
            linewidth=1.2,
            elinewidth=0.8,
            label=curve,
        )
    panel.set_xscale("log")
    if all(m.value > 0 for m in marks):
        panel.set_yscale("log")
    else:  # unbiased distances lie on both sides of 0: even around it, within their error
        widths = sorted(m.high - m.low for m in marks if m.high > m.low) or [1.0]
        panel.set_yscale("symlog", linthresh=widths[len(widths) // 2])
    if real is not None and real > 0:
        panel.axhline(real, color=GREY, linestyle=":", linewidth=1.2, label="real data in place of samples")
    for axis in (panel.xaxis, panel.yaxis):
        _plain(axis)
    panel.set_ylabel(score if panel.get_yscale() == "log" else f"{score} (unbiased: 0 within its error)", fontsize=9)
    panel.grid(color="#eeeeee")
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8)


def _plain(axis: Any) -> None:
    """Numbers without powers of ten on a logarithmic axis, a few of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if axis.get_scale() == "symlog":
        axis.set_major_formatter("{x:.3g}")
    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _trade(panel: Any, guided: Sequence[Mark], score: str) -> None:
    """Agreement with the class asked for against the score, each point named by its scale."""
    mine = sorted(guided, key=lambda m: m.guidance)
    told = all(m.agreement is not None for m in mine)
    x = [m.agreement if told else m.guidance for m in mine]
    panel.plot(x, [m.value for m in mine], "o-", color=COLORS[0], markersize=4)
    for place, m in zip(x, mine, strict=True):
        panel.annotate(f"{m.guidance:g}", (place, m.value), textcoords="offset points", xytext=(5, 4), fontsize=8)
    panel.set_xlabel("share in the class asked for, by a judge" if told else "guidance scale")
    panel.set_ylabel(score, fontsize=9)
    panel.set_title("guidance (the numbers are the scales)", fontsize=9, loc="left")
    panel.grid(color="#eeeeee")
    panel.tick_params(labelsize=8)
