"""How training went: losses, the loss by noise level, learning rate, gradient norm and speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.parts import letter
from osmotic.report.page.axes import Axis, thinned
from osmotic.report.page.chart import Series, bars, lines
from osmotic.report.page.document import section
from osmotic.report.page.html import Html, paragraph, tag

Points = Sequence[tuple[float, float]]
SPREAD = 1.5
"""A logarithmic axis is taken where the largest value is so many times the smallest."""
AVERAGED, RAW, OTHER = 0, 1, -1


def curves(runs: Sequence[Facts]) -> Html:
    """All charts that have something to show."""
    charts = [
        _losses(runs),
        _held_out(runs),
        _by_noise(runs),
        _one(runs, "gradient_norm", "Gradient norm", log=True),
        _one(runs, "learning_rate", "Learning rate"),
        _speed(runs),
    ]
    drawn = [chart for chart in charts if chart is not None]
    if not drawn:
        return section("curves", "Training", paragraph("Nothing was logged yet.", quiet=True))
    return section("curves", "Training", tag("div", *drawn, class_="plots"))


def averaged(run: Facts) -> str | None:
    """The name of the weights that are sampled by default, among the held-out losses."""
    return run.weights[min(1, len(run.weights) - 1)] if run.weights else None


def _losses(runs: Sequence[Facts]) -> Html | None:
    """Training beside held-out loss of the averaged weights."""
    series = []
    for i, run in enumerate(runs):
        tone = i if len(runs) > 1 else OTHER
        series.append(Series(letter(runs, i, "training"), thinned(run.curve("loss")), tone, dashed=len(runs) > 1))
        if (weights := averaged(run)) is not None:
            points = thinned(run.held_out(weights))
            series.append(Series(letter(runs, i, f"held out, {weights}"), points, i, dots=len(points) <= 40))
    return _drawn("Loss", series)


def _held_out(runs: Sequence[Facts]) -> Html | None:
    """Held-out loss of raw and averaged weights, without the untrained network's."""
    series = []
    for i, run in enumerate(runs):
        for k, weights in enumerate(run.weights):
            points = thinned([p for p in run.held_out(weights) if p[0] > 0])
            tone = i if len(runs) > 1 else {0: RAW, 1: AVERAGED}.get(k, k)
            series.append(Series(letter(runs, i, weights), points, tone, dots=len(points) <= 40, dashed=k == 0))
    return _drawn("Held-out loss, raw and averaged weights", series)


def _by_noise(runs: Sequence[Facts]) -> Html | None:
    found = [(i, run.by_noise or (run.quality.by_noise if run.quality else ())) for i, run in enumerate(runs)]
    known = [(i, dict(bins)) for i, bins in found if bins]
    if not known:
        return None
    names = list(dict.fromkeys(name for _, bins in known for name in bins))
    series = [(letter(runs, i, "held out"), [bins.get(name, math.nan) for name in names]) for i, bins in known]
    return bars("Held-out loss by noise level", names, series, "log-SNR, noise to data")


def _one(runs: Sequence[Facts], name: str, title: str, log: bool = False) -> Html | None:
    return _drawn(title, _each(runs, lambda run: run.curve(name)), log)


def _speed(runs: Sequence[Facts]) -> Html | None:
    def speed(run: Facts) -> Points:
        return [(float(r["step"]), float(r["samples_per_second"])) for r in run.timing if "samples_per_second" in r]

    return _drawn("Samples a second", _each(runs, speed), log=False, zero=True)


def _each(runs: Sequence[Facts], points: Callable[[Facts], Points]) -> list[Series]:
    return [Series(letter(runs, i, "").rstrip(", "), thinned(points(run)), i) for i, run in enumerate(runs)]


def _drawn(title: str, series: Sequence[Series], log: bool = True, zero: bool = False) -> Html | None:
    """The chart over the steps; None where no series has two finite points."""
    series = [s for s in series if any(math.isfinite(y) for _, y in s.points)]
    values = [y for s in series for _, y in s.points if math.isfinite(y)]
    if not values:
        return None
    log = log and min(values) > 0 and max(values) > SPREAD * min(values)
    x = Axis.around([x for s in series for x, _ in s.points], "step")
    broken = sum(not math.isfinite(y) for s in series for _, y in s.points)
    note = f"{broken:,} values that were not finite are left out." if broken else ""
    return lines(title, series, x, Axis.around(values, log=log, zero=zero), note)
