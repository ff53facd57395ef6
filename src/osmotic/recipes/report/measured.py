"""What the other commands stored: the likelihood of held-out data, and the solvers tuned for a budget."""

from __future__ import annotations

from collections.abc import Sequence

from osmotic.data.errors import plural
from osmotic.recipes.error_bars import Mean
from osmotic.recipes.nats import Report
from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.parts import beside, missing, trouble
from osmotic.report.page.document import section
from osmotic.report.page.html import Html, folded, join, paragraph, table, tag
from osmotic.report.page.words import duration, interval, number, rounded
from osmotic.training.sampling import Entry, Tuned

NORMAL = 1.96
"""Standard errors to either side of a mean that hold 95 %."""


def likelihood(runs: Sequence[Facts]) -> Html:
    """Bits and nats of held-out data."""
    about = "How well the model explains data that it never saw: fewer bits are better."
    return section("likelihood", "Likelihood", beside(runs, _likelihood), about=about)


def tuning(runs: Sequence[Facts]) -> Html:
    """The best solver for each budget, and what else was tried."""
    about = "The solver and grid whose samples are nearest to converged ones at each budget of evaluations."
    return section("tuning", "Tuned solvers", beside(runs, _tuning), about=about)


def _likelihood(run: Facts) -> Html:
    found = run.likelihood
    if found is None and run.recipe.student is not None and run.recipe.student.form in ("consistency", "chain"):
        return paragraph("A few-step model without a posterior mean has no likelihood.", quiet=True)
    if found is None:
        return trouble(run, "likelihood") or missing(run, "evaluate", "--likelihood")
    rows = [_row("bits per dimension", found.bits)]
    rows += [_row("by uniform noise", found.uniform)] if found.uniform else []
    rows += [_row("saved by the learned noise", found.saved)] if found.saved else []
    rows += [_row("by the variational bound", found.bound)] if found.bound else []
    rows += [_row("nats per sample", found.nats)]
    return join([table(["measure", "mean", "95 % interval"], rows, numbers=(1,)), paragraph(_how(found), quiet=True)])


def _row(name: str, mean: Mean) -> list[Html | str]:
    if mean.standard_error is None:
        return [name, number(mean.mean), "one sample has none"]
    reach = NORMAL * mean.standard_error
    low, high = mean.mean - reach, mean.mean + reach
    return [name, rounded(mean.mean, low, high), interval(low, high)]


def _how(found: Report) -> str:
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.settings.items())
    return (
        f"On {found.count:,} of {plural(found.held_out, 'held-out sample')}, of "
        f"{plural(found.dimensions, 'dimension')}, relative to {found.unit}; {found.evaluations:.0f} evaluations a "
        f"sample, {duration(found.seconds)} in all; {settings}."
    )


def _tuning(run: Facts) -> Html:
    if run.recipe.student is not None and run.recipe.student.stops is not None:
        return paragraph("It knows its own stops alone, so nothing is tuned.", quiet=True)
    if not run.tuning:
        return trouble(run, "tuning") or missing(run, "tune", what="Not tuned yet")
    heads = ["budget", "solver", "steps", "grid", "error", "default", "gain"]
    rows = [_choice(tuned) for tuned in run.tuning]
    about = (
        "Error: root mean square distance to the converged samples of the same noise, in standard deviations of the "
        "data, the larger of that on the noise it was tuned on and on fresh noise."
    )
    stale = [
        tag("p", f"Tuned at step {t.step:,} for {plural(t.nfe, 'evaluation')}; the checkpoint is now of {run.step:,}.",
            class_="warn")
        for t in run.tuning
        if t.step != run.step
    ]  # fmt: skip
    tried = [_tried(tuned) for tuned in run.tuning if tuned.table]
    listed = table(heads, rows, numbers=(0, 2, 4, 5, 6))
    return join([trouble(run, "tuning"), listed, *stale, paragraph(about, quiet=True), *tried])


def _choice(tuned: Tuned) -> list[Html | str]:
    c, error, usual = tuned.choice, _error(tuned.choice), _error(tuned.default)
    gain = f"{usual / error:.2g}\u00d7" if error > 0 else "\u2013"
    return [f"{tuned.nfe:,}", c.sampler, f"{c.steps:,}", c.grid, number(error, 3), number(usual, 3), gain]


def _tried(tuned: Tuned) -> Html:
    """Every combination, best first."""
    ranked = sorted(tuned.table, key=_error)
    rows = [
        [e.sampler, e.grid, f"{e.steps:,}", f"{e.evaluations:,}", number(e.error, 3), number(e.confirmed, 3)]
        for e in ranked
    ]
    heads = ["solver", "grid", "steps", "evaluations", "error", "on fresh noise"]
    what = plural(len(rows), "combination")
    return folded(
        f"All {what} tried for {plural(tuned.nfe, 'evaluation')}, best first", table(heads, rows, numbers=(2, 3, 4, 5))
    )


def _error(entry: Entry) -> float:
    return max(entry.error, entry.confirmed or 0.0)
