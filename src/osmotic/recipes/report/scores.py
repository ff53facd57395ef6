"""The scores of a run with their intervals, beside what real data get."""

from __future__ import annotations

from collections.abc import Sequence

from osmotic.data.errors import plural
from osmotic.recipes.report import compared
from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.headline import ARROWS
from osmotic.recipes.report.parts import LETTERS, beside, missing, shown, trouble
from osmotic.recipes.scores import FOLDER, Quality, Score
from osmotic.report.page.axes import Axis
from osmotic.report.page.chart import whisker
from osmotic.report.page.document import facts, section
from osmotic.report.page.html import Html, join, paragraph, table, tag
from osmotic.report.page.words import date, duration, interval, number, rounded

MOST = 4
"""Pictures of an evaluation that are shown, besides neighbours and trajectories."""
ELSEWHERE = ("neighbour", "trajectory")


def scores(runs: Sequence[Facts]) -> Html:
    """The table, one row a score, and how it was measured."""
    parts: list[Html | None] = [_table(runs)] if any(run.quality for run in runs) else []
    if len(runs) == 2 and all(run.quality for run in runs):
        obstacles = compared.obstacles(runs)
        parts += [paragraph(tag("span", text, class_="warn")) for text in obstacles]
        if obstacles:
            parts.append(paragraph("So no difference between the runs is marked.", quiet=True))
    parts.append(beside(runs, _measured))
    about = (
        "Each with its 95 % interval, and what real data get in place of samples: training data, or held-out data "
        "where copies or classes are judged."
    )
    return section("scores", "Scores", *parts, about=about)


def _table(runs: Sequence[Facts]) -> Html:
    names: list[str] = []
    for run in runs:
        names += [s.name for s in run.quality.scores if s.name not in names] if run.quality else []
    two = len(runs) == 2
    tell = two and not compared.obstacles(runs)
    rows = [_row(runs, name, tell) for name in names]
    if not two:
        heads: list[Html | str] = ["score", "value", "95 % interval", "", "real data", "better", "samples"]
        return table(heads, rows, numbers=(1, 4, 6))
    marks = [tag("span", LETTERS[i], class_=f"tag tone-{i}") for i in range(2)]
    return table(
        ["score", marks[0], marks[1], "", "real data", "better", "difference", "samples"],
        rows,
        numbers=(1, 2, 4, 7),
    )


def _row(runs: Sequence[Facts], name: str, tell: bool) -> list[Html | str]:
    found = [compared.score(run, name) for run in runs]
    known = [s for s in found if s is not None]
    first = known[0]
    ends = [v for s in known for v in (s.value, s.low, s.high, s.real) if v is not None]
    span = Axis.around(ends)
    drawn = join(whisker(span, s.value, s.low, s.high, s.real, i) for i, s in enumerate(found) if s is not None)
    better = tag("span", f"{ARROWS[first.better]} {first.better if first.better != 'real' else 'as real'}")
    real = join([_each([_real(s) for s in known])])
    samples = _each([f"{s.samples:,}" for s in known])
    head = join([name, tag("span", first.about, class_="about")])
    if len(runs) == 1:
        return [
            head,
            rounded(first.value, first.low, first.high),
            interval(first.low, first.high),
            drawn,
            real,
            better,
            samples,
        ]
    values = [_value(s) for s in found]
    return [head, *values, drawn, real, better, _difference(found, tell), samples]


def _each(texts: list[str]) -> Html:
    """One text where all are the same, else one a line."""
    return join([texts[0]]) if len(set(texts)) == 1 else tag("span", join(texts, between=" / "))


def _value(score: Score | None) -> Html:
    """A value with its interval below."""
    if score is None:
        return tag("span", "not measured", class_="quiet")
    known = interval(score.low, score.high)
    return join([rounded(score.value, score.low, score.high), tag("div", known, class_="quiet") if known else None])


def _real(score: Score) -> str:
    """What real data get, to the digits of the score beside it."""
    return number(score.real) if score.real is None else rounded(score.real, score.low, score.high)


def _difference(found: Sequence[Score | None], tell: bool) -> Html:
    a, b = found
    if a is None or b is None or not tell:
        return tag("span", "\u2013", class_="quiet")
    better = compared.verdict(a, b)
    if better is not None:
        return tag("span", f"{better} is better", class_="good")
    if None in (a.low, a.high, b.low, b.high):
        return tag("span", "no intervals", class_="quiet")
    apart = a.low > b.high or b.low > a.high  # type: ignore[operator]
    return tag("span", "apart, neither nearer to real" if apart else "intervals overlap", class_="quiet")


def _measured(run: Facts) -> Html:
    """How it was measured, its warnings and its pictures; or which command measures it."""
    if run.quality is None:
        return trouble(run, "scores") or missing(run, "evaluate")
    q = run.quality
    late = (
        [] if q.step == run.step else [f"Measured at step {q.step:,}; the newest checkpoint is of step {run.step:,}."]
    )
    told = [tag("p", text, class_="warn") for text in (*late, *q.warnings)]
    others = [name for name in q.pictures if not any(word in name.lower() for word in ELSEWHERE)]
    pictures = [shown(run.picture(f"{FOLDER}/{name}")) for name in others[:MOST]]
    return join([_how(q), *told, *pictures, paragraph("Again: ", tag("code", q.command), quiet=True)])


def _how(q: Quality) -> Html:
    drawn = q.sampled
    guided = f", guidance {drawn.guidance:g}" if drawn.guidance != 1 else ""
    given = ", given conditions" if drawn.conditional else ""
    return facts(
        [
            ("features", q.features),
            ("samples", f"{plural(q.samples, 'sample')} against {q.held_out:,} real ones that were held out"),
            ("neighbours", f"looked for among {plural(q.training, 'training sample')}"),
            (
                "drawn by",
                f"{drawn.sampler}, {plural(drawn.steps, 'step')} on the {drawn.grid} grid, "
                f"{plural(drawn.evaluations, 'evaluation')} a sample{guided}{given}, seed {drawn.seed}",
            ),
            ("weights", f"{q.weights} at step {q.step:,}"),
            ("measured", f"{date(q.date)}, in {duration(q.seconds)}"),
        ]
    )
