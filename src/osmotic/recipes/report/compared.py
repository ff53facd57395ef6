"""Two runs against each other: what differs in their recipes, and which differences of scores can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.parts import LETTERS
from osmotic.recipes.scores import Score
from osmotic.report.page.html import Html, paragraph, table, tag

Pair = tuple[Score, Score]


def score(run: Facts, name: str) -> Score | None:
    """A run's score of a name."""
    return None if run.quality is None else next((s for s in run.quality.scores if s.name == name), None)


def recipes(runs: Sequence[Facts]) -> Html:
    """The settings in which two runs differ."""
    first, second = (_flat(run.recipe.model_dump(mode="json")) | {"data": run.spec.source} for run in runs)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if not names:
        return paragraph("Both were trained by the same recipe on the same data.")
    rows = [[name, _plain(first.get(name)), _plain(second.get(name))] for name in names]
    heads = ["setting", *(tag("span", letter, class_=f"tag tone-{i}") for i, letter in enumerate(LETTERS))]
    return table(heads, rows)


def obstacles(runs: Sequence[Facts]) -> list[str]:
    """Why the scores of two runs cannot be held against each other, a sentence each; none if they can."""
    a, b = (run.quality for run in runs)
    if a is None or b is None:
        return []
    found = []
    if a.features != b.features:
        found.append(f"The features differ ({a.features}; {b.features}), so distances have different units.")
    if a.samples != b.samples or a.held_out != b.held_out:
        found.append(
            f"The numbers of samples differ ({a.samples:,} against {a.held_out:,} real ones; {b.samples:,} against "
            f"{b.held_out:,}), on which distances depend."
        )
    first, second = (run.spec.model_dump(exclude={"facts"}) for run in runs)
    if first != second:
        found.append("The runs were trained on different data.")
    if runs[0].recipe.holdout != runs[1].recipe.holdout or (runs[0].recipe.options.seed != runs[1].recipe.options.seed):
        found.append(
            "Other samples were held out of the two trainings, so they were not measured beside the same data."
        )
    return found


def verdict(a: Score, b: Score) -> str | None:
    """ "A" or "B" for the one that is clearly better, None where the intervals overlap or are not known."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    if a.low <= b.high and b.low <= a.high:
        return None
    if a.better != "real":
        return LETTERS[(a.value > b.value) == (a.better == "lower")]
    if a.real is None or b.real is None or abs(a.value - a.real) == abs(b.value - b.real):
        return None
    return LETTERS[abs(a.value - a.real) > abs(b.value - b.real)]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Settings by their own names, groups opened."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "\u2013" if value is None else str(value)
