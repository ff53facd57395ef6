"""What stands behind the numbers: the data, the health of the training, what others published, the commands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from osmotic.data.errors import listed, plural
from osmotic.data.published import Table, published
from osmotic.recipes.report import commands
from osmotic.recipes.report.curves import averaged
from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.parts import beside
from osmotic.report.page.document import facts, section
from osmotic.report.page.html import Html, command, folded, join, paragraph, table, tag
from osmotic.report.page.words import number

RISE = 1.02
"""A held-out loss so many times its lowest has risen: below that it moves by the noise of a measurement."""
FEW = 20
LABEL = "Published by others, on other data, not measured here"


def data(runs: Sequence[Facts]) -> Html:
    """What the data are, as they were read."""
    return section("data", "Data", beside(runs, _data))


def health(runs: Sequence[Facts]) -> Html:
    """What went wrong or may have."""
    return section("health", "Health of the training", beside(runs, _health))


def context(runs: Sequence[Facts]) -> Html | None:
    """Tables of papers, folded; for models of pictures, since all of them are about pictures."""
    if not any(run.spec.kind == "images" for run in runs):
        return None
    told = paragraph(
        f"{LABEL}: other pictures, other features and 50,000 samples, so no number here can be held against one above. "
        "The same method has different numbers in different tables; cite the table's id."
    )
    tables = [folded(join([tag("strong", t.id), f" {t.title}"]), _published(t)) for t in published()]
    return section("published", "Context", folded(LABEL, told, *tables))


def again(runs: Sequence[Facts]) -> Html:
    """The commands that make everything on the page again."""
    about = "Same commands, same data, same version: the same weights, bit for bit on the same kind of machine."
    return section("again", "Reproduce", beside(runs, _again), about=about)


def _data(run: Facts) -> Html:
    spec = run.spec
    lines = [tag("li", line) for line in spec.describe()]
    encoding = f"{spec.kind}, encoded as {spec.encoding.type}"
    held = round(run.recipe.holdout * spec.count)
    more = [tag("li", encoding), tag("li", f"{run.recipe.holdout:.0%} held out, about {held:,}")]
    return tag("ul", *lines, *more)


def _health(run: Facts) -> Html:
    steps = run.recipe.options.steps
    skipped = run.skipped
    in_all = max([int(r["skipped_in_all"]) for r in run.records if "skipped_in_all" in r], default=0)
    broken = sum(math.isnan(y) for name in ("loss", "gradient_norm") for _, y in run.curve(name))
    pairs: list[tuple[str, Html | str]] = [
        ("finished", "yes" if run.step >= steps else _warn(f"no: step {run.step:,} of {steps:,}")),
        ("steps skipped", "none" if not max(in_all, len(skipped)) else _warn(f"{max(in_all, len(skipped)):,}")),
        ("logged values not finite", "none" if not broken else _warn(f"{broken:,}")),
        ("held-out loss", _turn(run)),
        ("checkpoints", ", ".join(f"step {m.step:,}" for _, m in run.complete) or _warn("none is whole")),
    ]
    return join([facts(pairs), _skips(run)])


def _skips(run: Facts) -> Html | None:
    """The first steps that were skipped, and what was wrong with them."""
    if not run.skipped:
        return None
    rows = [
        [f"{s['step']:,}", str(s.get("what", "")), f"{s.get('count', 0):,}", listed(s.get("samples", []), 5)]
        for s in run.skipped[:FEW]
    ]
    return folded(
        plural(len(run.skipped), "skipped step"),
        table(["step", "not finite", "samples", "which"], rows, numbers=(0, 2)),
    )


def _turn(run: Facts) -> Html | str:
    """Whether the held-out loss still fell at the end, or turned upwards long before."""
    weights = averaged(run)
    points = [p for p in run.held_out(weights) if not math.isnan(p[1])] if weights else []
    if not points:
        return "not measured"
    (at, lowest), (_, last) = min(points, key=lambda p: p[1]), points[-1]
    if last > lowest * RISE and lowest > 0:
        return _warn(f"rose from {number(lowest)} at step {at:,.0f} to {number(last)}: it may learn its data by heart")
    return f"{number(last)}, lowest {number(lowest)} at step {at:,.0f} ({weights})"


def _warn(text: str) -> Html:
    return tag("span", text, class_="warn")


def _published(one: Table) -> Html:
    """A table as it was printed, its groups as headings."""
    parts: list[Html] = [paragraph(f"{LABEL}. {one.source}.", quiet=True)]
    grouped = one.columns[0] == "group"
    for group, rows in groupby(one.rows, key=lambda row: row[0] if grouped else ""):
        parts += [tag("h3", group)] if group else []
        skip = 1 if grouped else 0
        numbers = () if one.id == "TAB7" else range(1, len(one.columns) - skip)
        parts.append(table(one.columns[skip:], [row[skip:] for row in rows], numbers))
    return join([*parts, *(paragraph(note, quiet=True) for note in one.notes)])


def _again(run: Facts) -> Html:
    taught = run.recipe.student is not None and run.recipe.student.teacher is not None
    trained = commands.distill(run.recipe, run.path) if taught else commands.train(run.recipe, run.spec, run.path)
    note = None
    if trained is None:
        note = paragraph("It was trained from Python, on data in memory, so no command trains it again.", quiet=True)
    lines = [trained] if trained else []
    lines.append(commands.on(run.path, "sample", "--count", "64", "--seed", "0"))
    lines += [commands.on(run.path, "tune", "--nfe", str(tuned.nfe)) for tuned in run.tuning]
    lines.append(run.quality.command if run.quality else commands.on(run.path, "evaluate"))
    lines += [commands.on(run.path, "evaluate", "--likelihood")] if run.likelihood else []
    lines += [run.bench.command] if run.bench else []
    lines.append(commands.on(run.path, "report"))
    return join([note, command(*lines)])
