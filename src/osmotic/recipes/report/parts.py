"""What the sections share: a run's mark, two runs side by side, and a line for what was not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from osmotic.recipes.report import commands
from osmotic.recipes.report.facts import Facts
from osmotic.report.page.document import still
from osmotic.report.page.html import Html, escaped, join, tag
from osmotic.report.page.picture import inline

LETTERS = "AB"
CAPTIONS = {
    "beside": "samples beside data that were held out",
    "neighbours": "samples with the training data that are nearest to them",
}
"""Of pictures whose names say too little."""


def marked(runs: Sequence[Facts], i: int) -> Html:
    """The letter of a run in its colour, and its path; the path alone where there is one run."""
    name = tag("code", runs[i].path)
    return name if len(runs) == 1 else join([tag("span", LETTERS[i], class_=f"tag tone-{i}"), name])


def letter(runs: Sequence[Facts], i: int, what: str) -> str:
    """A name for a legend: what it is, and whose where there are two runs."""
    return what if len(runs) == 1 else f"{LETTERS[i]}, {what}"


def beside(runs: Sequence[Facts], show: Callable[[Facts], Html | str | None]) -> Html:
    """What each run shows: one block, or two columns that stand below each other where the page is narrow."""
    if len(runs) == 1:
        return escaped(show(runs[0]))
    columns = [tag("div", tag("h3", marked(runs, i)), show(run)) for i, run in enumerate(runs)]
    return tag("div", *columns, class_="two")


def missing(run: Facts, command: str, *more: str, what: str = "Not measured yet") -> Html:
    """One line that says which command fills a section."""
    return tag("p", f"{what}; this fills it: ", tag("code", commands.on(run.path, command, *more)), class_="missing")


def trouble(run: Facts, section: str) -> Html:
    """What is stored for a section and cannot be read, a line each; nothing where all is well."""
    return join(tag("p", text, class_="missing warn") for text in run.troubles.get(section, []))


def shown(path: Path | None) -> Html | None:
    """A picture with its name below, or a line that says why it cannot be shown; nothing where there is none."""
    if path is None:
        return None
    caption = CAPTIONS.get(path.stem, path.stem.replace("-", " ").replace("_", " "))
    try:
        return still(inline(path, caption), caption)
    except ValueError as error:
        return tag("p", str(error), class_="missing warn")
