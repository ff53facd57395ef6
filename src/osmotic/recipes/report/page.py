"""From runs to a file: the sections in their order, and where the page may be written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from osmotic.data.whole import whole
from osmotic.recipes.report import background, compared, cost, curves, facts, headline, measured, samples, scores
from osmotic.recipes.report.facts import Facts
from osmotic.report.page.document import MARK, contents, document, section
from osmotic.report.page.html import Html, join

NAME = "report.html"


def report(run: str | Path, other: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about a run, or about two side by side, and return its path.

    Nothing is measured and torch is not imported: the page shows what is stored, and says which command fills the rest.

    Args:
        run: directory that training made; every state from the first checkpoint on will do.
        other: a second one to hold against it.
        out: the file; ``RUN/report.html`` by default, of two runs ``RUN/report-OTHER.html``. An earlier report is
            replaced.

    Raises:
        RunError: if a directory is no run, or its recipe cannot be read.
        ValueError: if ``out`` is something else than a report.
    """
    runs = [facts.read(directory) for directory in (run, other) if directory is not None]
    name = NAME if other is None else f"report-{Path(other).resolve().name}.html"
    place = Path(out) if out is not None else runs[0].run.directory / name
    _refuse_others(place)
    with whole(place) as part:
        part.write_text(page(runs), encoding="utf-8")
    return place


def page(runs: Sequence[Facts]) -> str:
    """The HTML of one or two runs."""
    sections: dict[str, tuple[str, Html | None]] = {
        "compared": ("Differences", _differences(runs)),
        "samples": ("Samples", samples.samples(runs)),
        "trajectory": ("Trajectory", samples.trajectory(runs)),
        "scores": ("Scores", scores.scores(runs)),
        "neighbours": ("Neighbours", samples.neighbours(runs)),
        "cost": ("Cost", cost.cost(runs)),
        "curves": ("Training", curves.curves(runs)),
        "likelihood": ("Likelihood", measured.likelihood(runs)),
        "tuning": ("Tuning", measured.tuning(runs)),
        "data": ("Data", background.data(runs)),
        "health": ("Health", background.health(runs)),
        "published": ("Context", background.context(runs)),
        "again": ("Reproduce", background.again(runs)),
    }
    shown = {name: both for name, both in sections.items() if both[1] is not None}
    links = contents({name: title for name, (title, _) in shown.items()})
    body = join([headline.header(runs), headline.tiles(runs), links, *(html for _, html in shown.values())])
    return document(" and ".join(run.path for run in runs), body)


def _differences(runs: Sequence[Facts]) -> Html | None:
    return section("compared", "What differs", compared.recipes(runs)) if len(runs) == 2 else None


def _refuse_others(path: Path) -> None:
    """Refuse to write over anything but a report.

    Raises:
        ValueError: saying what is there.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name a file for --out, such as {path / NAME}.")
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")[:4096]:
        raise ValueError(f"{path} is there and is no report of osmotic; choose another --out.")
