"""Quality against cost: what a benchmark of solvers, steps and guidance found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from osmotic.data.errors import plural
from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.headline import MEANING
from osmotic.recipes.report.parts import LETTERS, beside, missing, trouble
from osmotic.recipes.scores import Bench, Point, frontier, guided
from osmotic.report.page.axes import Axis
from osmotic.report.page.chart import TONES, Series, lines
from osmotic.report.page.document import section
from osmotic.report.page.html import Html, folded, join, paragraph, table, tag
from osmotic.report.page.words import date, duration, interval, number, rounded

LONG = 12
"""Tables of more rows are folded."""
Cost = Callable[[Point], float]


def cost(runs: Sequence[Facts]) -> Html:
    """Curves over evaluations and over time, then every point."""
    measured = [(i, bench) for i, run in enumerate(runs) if (bench := _own(run, len(runs) == 2)) is not None]
    charts = _charts(measured, len(runs) == 2) if measured else None
    about = "What samples of each quality cost; the lowest curve at a budget is the solver to take."
    if measured and measured[0][1].better == "higher":
        about = about.replace("lowest", "highest")
    return section("cost", "Quality against cost", charts, beside(runs, _points), about=about if measured else "")


def _own(run: Facts, alone: bool) -> Bench | None:
    """What was measured of a run: all that its file holds, or its own points ``alone`` where others stand beside."""
    if run.bench is None or not run.bench.points:
        return None
    here = run.run.directory.resolve()
    own = tuple(p for p in run.bench.points if Path(p.run).resolve() == here) if alone else ()
    return run.bench.model_copy(update={"points": own}) if own else run.bench


def _charts(measured: list[tuple[int, Bench]], two: bool) -> Html:
    benches = [bench for _, bench in measured]
    if len({(b.score, b.features, b.samples) for b in benches}) > 1:
        told = paragraph("The benchmarks measured different things, so they are not drawn over each other.", quiet=True)
        return join([told, *(_pair([(i, bench)], False) for i, bench in measured)])
    return _pair(measured, two)


def _pair(measured: list[tuple[int, Bench]], two: bool) -> Html:
    by_calls = _chart(measured, two, lambda p: float(p.evaluations), "evaluations of the network a sample")
    by_time = _chart(measured, two, lambda p: p.seconds, "seconds for all samples, on the machine that measured")
    traded = [] if two else [_traded(bench) for _, bench in measured]
    return tag("div", by_calls, by_time, *(chart for chart in traded if chart is not None), class_="plots")


def _traded(bench: Bench) -> Html | None:
    """What guidance trades: the score against the share in the class asked for, of the solver that it was swept on."""
    same = guided(bench.points)
    if not same:
        return None
    judged = all(p.agreement is not None for p in same)
    label = "share in the class asked for, by a judge" if judged else "guidance scale"
    series = [
        _joined(_named(same[0]), same, lambda p: p.agreement if judged and p.agreement is not None else p.guidance, 0)
    ]
    x = Axis.around([x for s in series for x, _ in s.points], label)
    y = Axis.around([v for s in series for _, v in s.points])
    scales = ", ".join(f"{p.guidance:g}" for p in same)
    return lines(f"{bench.score} under guidance of {scales}", series, x, y)


def _named(point: Point) -> str:
    return f"{point.sampler}, {plural(point.steps, 'step')}"


def _chart(measured: list[tuple[int, Bench]], two: bool, price: Cost, label: str) -> Html:
    first = measured[0][1]
    series = [one for i, bench in measured for one in (_best(i, bench, price) if two else _solvers(bench, price))]
    values = [v for s in series for _, v in s.points] + [v for s in series for ends in s.ends if ends for v in ends]
    log = min(values) > 0 and max(values) > 3 * min(values)
    x = Axis.around([x for s in series for x, _ in s.points], label, log=True)
    height = [] if first.real is None else [first.real]
    y = Axis.around([*values, *(v for v in height if v > 0 or not log)], log=log)
    level = (
        ("real data in place of samples", first.real)
        if first.real is not None and (first.real > 0 or not log)
        else None
    )
    return lines(f"{first.score}, {MEANING[first.better]}", series, x, y, level=level)


def _solvers(bench: Bench, price: Cost) -> list[Series]:
    """A line for each solver and grid; those whose best value is best are coloured."""
    groups: dict[str, list[Point]] = {}
    for point in _plain(bench):
        groups.setdefault(_name(bench, point), []).append(point)
    sign = 1 if bench.better == "lower" else -1
    ranked = sorted(groups, key=lambda name: min(sign * p.value for p in groups[name]))
    return [_series(name, groups[name], price, tone) for tone, name in enumerate(ranked)][: TONES + 4][::-1]


def _plain(bench: Bench) -> Sequence[Point]:
    """Without guidance; with it where nothing else was measured."""
    return [p for p in bench.points if p.guidance == 1] or bench.points


def _best(i: int, bench: Bench, price: Cost) -> list[Series]:
    """A run's points, and the line of the best that each cost buys."""
    front = frontier(_plain(bench), price, bench.better)
    return [_series(f"{LETTERS[i]}, the best at each cost", front, price, i)]


def _series(name: str, points: Sequence[Point], price: Cost, tone: int) -> Series:
    return _joined(name, sorted(points, key=price), price, tone)


def _joined(name: str, ordered: Sequence[Point], price: Cost, tone: int) -> Series:
    return Series(
        name,
        [(price(p), p.value) for p in ordered],
        tone,
        dots=True,
        ends=[None if p.low is None or p.high is None else (p.low, p.high) for p in ordered],
        tips=[_tip(p) for p in ordered],
    )


def _tip(p: Point) -> str:
    return (
        f"{p.sampler}, {p.grid}, {plural(p.steps, 'step')}, guidance {p.guidance:g}: {number(p.value)} in "
        f"{plural(p.evaluations, 'evaluation')}, {duration(p.seconds)}"
    )


def _name(bench: Bench, point: Point) -> str:
    """What tells a point's line apart: only what differs within the benchmark, besides the solver."""
    parts = [point.sampler]
    parts += [point.grid] if len({p.grid for p in bench.points}) > 1 else []
    parts += [f"guidance {point.guidance:g}"] if len({p.guidance for p in _plain(bench)}) > 1 else []
    parts += [point.run] if len({p.run for p in bench.points}) > 1 else []
    return ", ".join(parts)


def _points(run: Facts) -> Html:
    """Every point of a run, best first; or which command measures them."""
    if run.bench is None:
        return trouble(run, "cost") or missing(run, "bench")
    bench = run.bench
    listed = _table(bench)
    if len(bench.points) > LONG:
        listed = folded(f"All {plural(len(bench.points), 'setting')}, best first", listed)
    real = "" if bench.real is None else f" Real data in place of samples get {number(bench.real)}."
    told = (
        f"{bench.score} on {bench.features}, {plural(bench.samples, 'sample')} each; measured {date(bench.date)}.{real}"
    )
    return join([paragraph(told, quiet=True), listed, paragraph("Again: ", tag("code", bench.command), quiet=True)])


def _table(bench: Bench) -> Html:
    sign = 1 if bench.better == "lower" else -1
    judged = any(p.agreement is not None for p in bench.points)
    heads = ["solver", "grid", "steps", "guidance", "evaluations", "seconds", bench.score, "95 % interval", "coverage"]
    rows = [
        [
            p.sampler,
            p.grid,
            f"{p.steps:,}",
            f"{p.guidance:g}",
            f"{p.evaluations:,}",
            number(p.seconds, 3),
            rounded(p.value, p.low, p.high),
            interval(p.low, p.high) or "\u2013",
            f"{p.coverage:.1%}" if p.coverage is not None else "\u2013",
            *([f"{p.agreement:.1%}" if p.agreement is not None else "\u2013"] if judged else []),
            *([f"{p.spread:.2f}" if p.spread is not None else "\u2013"] if judged else []),
        ]
        for p in sorted(bench.points, key=lambda p: sign * p.value)
    ]
    return table([*heads, *(["judge agrees", "spread"] if judged else [])], rows, numbers=(2, 3, 4, 5, 6, 8, 9, 10))
