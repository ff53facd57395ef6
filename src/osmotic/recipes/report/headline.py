"""The top of the page: what was trained, on what, for how long, and its three first scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from osmotic.data.errors import plural
from osmotic.recipes.report import compared
from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.parts import LETTERS, beside, marked, missing
from osmotic.recipes.scores import Score
from osmotic.report.page.document import facts
from osmotic.report.page.html import Html, join, tag
from osmotic.report.page.words import duration, interval, number, rounded

ASKED = (
    ("FID", "Frechet distance", "energy distance"),
    ("class agreement", "trained on samples, tested on real", "told from real data"),
    ("nearer than held-out data", "authentic"),
)
"""The scores at the top of the page: of each question the first that was measured."""
ARROWS = {"lower": "\u2193", "higher": "\u2191", "real": "\u2248"}
MEANING = {"lower": "lower is better", "higher": "higher is better", "real": "best at what real data get"}


def header(runs: Sequence[Facts]) -> Html:
    """The title, and what each run is."""
    if len(runs) > 1:
        return tag("header", tag("h1", "Two runs side by side"), beside(runs, _facts))
    title = tag("h1", f"A diffusion model of {runs[0].spec.source}")
    return tag("header", title, tag("p", marked(runs, 0)), _facts(runs[0]))


def tiles(runs: Sequence[Facts]) -> Html:
    """Three scores that answer three questions, large; or which command measures them."""
    measured = [run for run in runs if run.quality is not None]
    if not measured:
        return join([_losses(runs), *(missing(run, "evaluate", what="No scores yet") for run in runs)])
    assert measured[0].quality is not None
    names = told([score.name for score in measured[0].quality.scores])
    return tag("div", *(_tile(runs, name) for name in names), class_="tiles")


def told(names: Sequence[str]) -> list[str]:
    """How near to real data, how right or how hard to tell, how far from copies; the first scores for want of these."""
    chosen = [next((name for name in ask if name in names), None) for ask in ASKED]
    found = [name for name in chosen if name is not None]
    return [*found, *(name for name in names if name not in found)][: len(ASKED)]


def _facts(run: Facts) -> Html:
    """What a person asks first, in pairs."""
    process, options = run.recipe.process, run.recipe.options
    shape = " \u00d7 ".join(map(str, run.spec.shape))
    classes = "" if run.spec.classes is None else f", {plural(len(run.spec.classes), 'class')}"
    data = f"{run.spec.source}: {plural(run.spec.count, 'sample')} of {shape}{classes}"
    held = f"; {run.recipe.holdout:.0%} held out" if run.recipe.holdout else "; none held out"
    pairs: list[tuple[str, Html | str]] = [
        ("data", data + held),
        ("network", network(run)),
        ("process", f"{process.schedule} path, {process.target} target, {process.objective} objective"),
        ("progress", progress(run)),
        ("batch", f"{plural(options.batch_size, 'sample')} a step, learning rate {options.learning_rate:g}"),
        ("trained", _when(run)),
    ]
    return facts(pairs)


def network(run: Facts) -> str:
    """The network and its size."""
    form = run.recipe.architecture
    shape = f"width {form.width}, depth {form.depth}" if form.network == "dit" else ""
    if form.widths and form.network != "dit":
        shape = f"widths {'-'.join(map(str, form.widths))}"
    size = None if run.parameters is None else f"{run.parameters:,} parameters"
    return ", ".join(part for part in (form.network, shape, size) if part)


def progress(run: Facts) -> str:
    """How far it is."""
    if not run.complete:
        return f"no whole checkpoint yet, of {plural(run.recipe.options.steps, 'step')}"
    done = " (finished)" if run.step >= run.recipe.options.steps else ""
    return f"step {run.step:,} of {run.recipe.options.steps:,}{done}"


def _when(run: Facts) -> str:
    took = "" if run.seconds is None else f"{duration(run.seconds)}, "
    ended = "" if run.ended is None else f", last checkpoint {_date(run.ended)}"
    return f"{took}begun {_date(run.began)}{ended} (by the files' dates)"


def _date(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _tile(runs: Sequence[Facts], name: str) -> Html:
    found = [(i, score) for i, run in enumerate(runs) if (score := compared.score(run, name)) is not None]
    arrow = found[0][1].better
    small = "value small" if len(found) > 1 else "value"
    lines = [
        tag("div", f"{name} ", tag("span", ARROWS[arrow], title=MEANING[arrow]), class_="name"),
        *(join([tag("div", _value(runs, i, s), class_=small), _below(s)]) for i, s in found),
    ]
    return tag("div", *lines, class_="tile")


def _value(runs: Sequence[Facts], i: int, score: Score) -> Html:
    mark = tag("span", LETTERS[i], class_=f"tag tone-{i}") if len(runs) > 1 else None
    return join([mark, rounded(score.value, score.low, score.high)])


def _below(score: Score) -> Html:
    """The interval and what real data get, under a value."""
    known = interval(score.low, score.high)
    parts = [f"95 %: {known}" if known else "no interval"]
    parts += [] if score.real is None else [f"real data: {rounded(score.real, score.low, score.high)}"]
    parts.append(plural(score.samples, "sample"))
    return tag("p", "; ".join(parts), class_="quiet")


def _losses(runs: Sequence[Facts]) -> Html:
    """The last held-out loss of the weights that are sampled, where nothing else was measured."""
    shown = []
    for i, run in enumerate(runs):
        weights = run.weights[min(1, len(run.weights) - 1)] if run.weights else None
        points = [p for p in run.held_out(weights) if not math.isnan(p[1])] if weights else []
        if points:
            step, loss = points[-1]
            mark = tag("span", LETTERS[i], class_=f"tag tone-{i}") if len(runs) > 1 else None
            name = tag("div", f"held-out loss \u2193, {weights}, at step {step:,.0f}", class_="name")
            shown.append(tag("div", name, tag("div", mark, number(loss), class_="value"), class_="tile"))
    return tag("div", *shown, class_="tiles") if shown else Html()
