"""Charts as inline SVG: their colours come from the page's style, so that they are right in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .axes import Axis, words
from .html import Html, join, tag
from .words import interval, number

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 40
TONES = 6
"""Colours of the style sheet; what comes after them is grey."""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: for the legend.
        points: (x, y), in the order in which they are joined.
        tone: its colour, 0 to 5; any other number is grey.
        dots: mark every point.
        dashed: a broken line.
        ends: lower and upper end of each point's interval, None where it has none; none at all if empty.
        tips: what is told of each point under the mouse; its numbers if empty.
    """

    name: str
    points: Sequence[tuple[float, float]]
    tone: int = 0
    dots: bool = False
    dashed: bool = False
    ends: Sequence[tuple[float, float] | None] = field(default=())
    tips: Sequence[str] = field(default=())

    @property
    def css(self) -> str:
        """The classes of its elements."""
        return f"tone-{self.tone if 0 <= self.tone < TONES else 'other'}{' dashed' if self.dashed else ''}"


def lines(
    title: str, series: Sequence[Series], x: Axis, y: Axis, note: str = "", level: tuple[str, float] | None = None
) -> Html:
    """A figure of lines over a common axis.

    Args:
        title: of the figure, with the unit of y.
        series: at least one.
        x, y: the axes; what lies beyond them is cut off at the frame.
        note: a quiet line below.
        level: the name and height of a horizontal line.
    """
    drawn: list[Html] = []
    if level is not None:
        height = _down(y, level[1])
        drawn.append(tag("line", x1=0, x2=_inner()[0], y1=height, y2=height, class_="level"))
    drawn += [_line(one, x, y) for one in series]
    width, height = _inner()
    clip = tag("svg", *drawn, x=LEFT, y=TOP, width=width, height=height)
    legend = [(one.name, one.css) for one in series] + ([(level[0], "level")] if level else [])
    return _figure(title, join([_frame(x, y), clip]), legend, note)


def bars(title: str, names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], label: str) -> Html:
    """A figure of bars, one group a name and one bar a series in each; a value that is no number has none.

    Args:
        title: of the figure.
        names: of the groups.
        series: their names and values, one for each group.
        label: of the axis below.
    """
    y = Axis.around([v for _, values in series for v in values], zero=True)
    width, height = _inner()
    wide = width / len(names)
    each = wide * 0.76 / len(series)
    drawn = []
    for k, (name, values) in enumerate(series):
        for i, value in enumerate(values):
            if not math.isfinite(value):
                continue
            at, left = _down(y, value), LEFT + wide * (i + 0.12) + each * k
            foot = _down(y, max(y.low, 0.0))
            bar = tag(
                "rect",
                x=left,
                y=TOP + min(at, foot),
                width=each * 0.94,
                height=abs(foot - at),
                class_=f"bar tone-{k}",
            )
            drawn.append(tag("g", bar, tag("title", f"{name}, {names[i]}: {number(value)}")))
    marks = [_text(LEFT + wide * (i + 0.5), TOP + height + 15, name, "middle") for i, name in enumerate(names)]
    frame = join([_rungs(y), *marks, _text(LEFT + width / 2, HEIGHT - 6, label, "middle", "label")])
    return _figure(title, join([frame, *drawn]), [(name, f"tone-{k}") for k, (name, _) in enumerate(series)], "")


def whisker(span: Axis, value: float, low: float | None, high: float | None, real: float | None, tone: int) -> Html:
    """A score as a dot with its interval, and what real data get as a line across, on an axis without ticks."""
    width, height = 120, 18
    middle = height / 2

    def at(v: float) -> float:
        return 4 + (width - 8) * span.share(v)

    parts = [tag("line", x1=0, x2=width, y1=middle, y2=middle, class_="rung")]
    if real is not None:
        parts.append(tag("line", x1=at(real), x2=at(real), y1=1, y2=height - 1, class_="level"))
    if low is not None and high is not None:
        parts.append(tag("line", x1=at(low), x2=at(high), y1=middle, y2=middle, class_=f"whisker tone-{tone}"))
    parts.append(tag("circle", cx=at(value), cy=middle, r=4, class_=f"dot tone-{tone}"))
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", width=width, height=height, class_="whiskers")


def _inner() -> tuple[int, int]:
    return WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def _across(x: Axis, value: float) -> float:
    return round(x.share(value) * _inner()[0], 2)


def _down(y: Axis, value: float) -> float:
    return round((1 - y.share(value)) * _inner()[1], 2)


def _line(one: Series, x: Axis, y: Axis) -> Html:
    """A series inside the frame; points that are no numbers, or have no logarithm, break it."""
    parts: list[list[tuple[float, float]]] = [[]]
    marks: list[Html] = []
    for i, (a, b) in enumerate(one.points):
        if not (math.isfinite(a) and math.isfinite(b)) or (x.log and a <= 0) or (y.log and b <= 0):
            parts.append([])
            continue
        at = _across(x, a), _down(y, b)
        parts[-1].append(at)
        ends = one.ends[i] if one.ends else None
        if ends is not None:
            marks.append(
                tag("line", x1=at[0], x2=at[0], y1=_down(y, ends[0]), y2=_down(y, ends[1]), class_=f"whisker {one.css}")
            )
        if one.dots or (one.ends and ends is None):
            range_ = "" if ends is None else f" ({interval(*ends)})"
            tip = one.tips[i] if one.tips else f"{one.name}: {number(b)}{range_} at {number(a)}"
            circle = tag("circle", cx=at[0], cy=at[1], r=3, class_=f"dot {one.css}")
            marks.append(tag("g", circle, tag("title", tip)))
    drawn = [
        tag("polyline", points=" ".join(f"{a:g},{b:g}" for a, b in part), class_=f"curve {one.css}")
        for part in parts
        if len(part) > 1
    ]
    return join([*drawn, *marks])


def _frame(x: Axis, y: Axis) -> Html:
    """Both axes: rungs and numbers on the left, numbers and the label below."""
    width, height = _inner()
    below = [
        _text(LEFT + _across(x, tick), TOP + height + 15, words(tick), "middle")
        for tick in x.ticks(6)
        if 0 <= x.share(tick) <= 1
    ]
    return join([_rungs(y), *below, _text(LEFT + width / 2, HEIGHT - 6, x.label, "middle", "label")])


def _rungs(y: Axis) -> Html:
    width = _inner()[0]
    drawn = []
    for tick in y.ticks(5):
        at = TOP + _down(y, tick)
        drawn += [
            tag("line", x1=LEFT, x2=LEFT + width, y1=at, y2=at, class_="rung"),
            _text(LEFT - 6, at + 4, words(tick), "end"),
        ]
    return join(drawn)


def _text(x: float, y: float, text: str, anchor: str, class_: str = "tick") -> Html:
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def _figure(title: str, inside: Html, legend: Sequence[tuple[str, str]], note: str) -> Html:
    """The picture with its title, its legend where there is more than one thing to tell apart, and a note."""
    picture = tag("svg", inside, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title, class_="chart")
    keys = [tag("li", tag("span", class_=f"key {css}"), name) for name, css in legend]
    shown = tag("ul", *keys, class_="legend") if len(keys) > 1 else None
    return tag(
        "figure",
        tag("figcaption", tag("strong", title)),
        shown,
        picture,
        tag("p", note, class_="quiet") if note else None,
        class_="plot",
    )
