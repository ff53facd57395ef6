"""Drawings of the catalogue of schedules and of the field's history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from osmotic.report.figures.style import BLUE, INK, ORANGE, PALE, Numbers, canvas

COLUMNS = 5
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Above (1) or below (-1) the line, and the edge of the text that stands at the date.
ROOM = {
    "DDPM": (1, "right"),
    "DDIM": (-1, "right"),
    "Score SDE": (1, "left"),
    "EDM": (-1, "center"),
    "Consistency": (1, "left"),
    "CTM": (-1, "left"),
}


def schedules(numbers: Numbers, path: Path) -> Path:
    """One panel a schedule: signal and noise as shares."""
    t = numbers["t"]

    def draw(panel: Any, i: int) -> None:
        panel.plot(t, numbers["signal"][i], color=BLUE)
        panel.plot(t, numbers["noise"][i], color=ORANGE)
        panel.set(ylim=(0, 1.05), yticks=[0, 1])

    lines = (("signal", BLUE), ("noise", ORANGE))
    return _small(numbers, path, draw, lines)


def log_snr(numbers: Numbers, path: Path) -> Path:
    """One panel a schedule: its log-SNR among all the others'."""
    t = numbers["t"]

    def draw(panel: Any, i: int) -> None:
        panel.plot(t, numbers["log_snr"].T, color=PALE, linewidth=0.7)
        panel.plot(t, numbers["log_snr"][i], color=BLUE, linewidth=2)
        panel.set(ylim=(-15, 15), yticks=[-10, 0, 10])

    return _small(numbers, path, draw, (("this schedule", BLUE), ("all others", PALE)))


def _small(numbers: Numbers, path: Path, draw: Any, lines: tuple[tuple[str, str], ...]) -> Path:
    """Small panels alike, with one legend in the first free place."""
    names = numbers["name"]
    rows = len(names) // COLUMNS + 1
    with canvas(path, 1.65 * rows + 0.3, rows, COLUMNS, sharex=True, sharey=True) as panels:
        flat = list(panels.flat)
        for i, name in enumerate(names):
            draw(flat[i], i)
            flat[i].set_title(str(name), fontsize=9, loc="center")
            flat[i].set(xlim=(0, 1), xticks=[0, 0.5, 1])
            flat[i].set_xticklabels(["0", "", "1"])
        for panel in flat[len(names) :]:
            panel.set_axis_off()
        for panel in panels[-1]:
            panel.set_xlabel("t")
        for name, color in lines:
            flat[len(names)].plot([], [], color=color, label=name)
        flat[len(names)].legend(loc="center left")
    return path


def timeline(numbers: Numbers, path: Path) -> Path:
    """Names along the years, on the side where they have room."""
    dates = numbers["year"] + (numbers["month"] - 1) / 12
    with canvas(path, 2.9) as panels:
        panel = panels[0, 0]
        panel.axhline(0, color=INK, linewidth=1.5)
        for i, date in enumerate(dates):
            side, way = ROOM.get(str(numbers["name"][i]), (1, "center"))
            panel.plot([date, date], [0, 0.6 * side], color=PALE, linewidth=1.2, zorder=0)
            panel.plot(date, 0, "o", color=BLUE, markersize=6)
            when = f"{MONTHS[numbers['month'][i] - 1]} {numbers['year'][i]}, {numbers['group'][i]}"
            text, edge = f"{numbers['name'][i]}\n{when}\n{numbers['place'][i]}", "bottom" if side > 0 else "top"
            panel.text(date, 0.65 * side, text, ha=way, va=edge, multialignment=way, fontsize=9, linespacing=1.25)
        panel.set(ylim=(-1.8, 1.8), xlim=(2014, 2025.6), yticks=[], xticks=range(2015, 2025))
        panel.spines[["left", "bottom"]].set_visible(False)
    return path
