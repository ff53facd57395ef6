"""Pictures of a run: samples while it was trained, a trajectory from noise, samples beside their nearest data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from osmotic.recipes.report import parts
from osmotic.recipes.report.facts import Facts
from osmotic.recipes.report.parts import beside, missing
from osmotic.recipes.scores import FOLDER
from osmotic.report.page.document import film, section
from osmotic.report.page.html import Html, join, paragraph, tag
from osmotic.report.page.picture import inline

FRAMES = 8
"""Previews of a run that are shown, the first and the last among them."""
DEMO = "demo"


def samples(runs: Sequence[Facts]) -> Html:
    """The same noise, more and more trained."""
    about = "The same noise at every step, drawn with the averaged weights: what changes is the training alone."
    return section("samples", "Samples over training", beside(runs, _film), about=about)


def trajectory(runs: Sequence[Facts]) -> Html | None:
    """From noise to sample, where a picture of that is stored."""
    if not any(_found(run, "trajectory") for run in runs):
        return None
    about = "One row a sample: from noise on the left to the sample on the right."
    return section(
        "trajectory", "From noise to sample", beside(runs, lambda run: _named(run, "trajectory")), about=about
    )


def neighbours(runs: Sequence[Facts]) -> Html:
    """Samples beside the training data that are nearest to them."""
    about = "Samples that equal their nearest training data were learned by heart; similar ones were not."
    return section("neighbours", "Nearest neighbours", beside(runs, lambda run: _named(run, "neighbour")), about=about)


def _film(run: Facts) -> Html:
    paths = _chosen(run.previews())
    frames, troubles = [], []
    for path in paths:
        step = f"step {int(path.stem.removeprefix('step-')):,}"
        try:
            frames.append((inline(path, f"samples at {step}"), step))
        except ValueError as error:
            troubles.append(tag("p", str(error), class_="missing warn"))
    if not frames and not troubles:
        return paragraph("No preview was drawn yet; training draws one every --preview-every steps.", quiet=True)
    return join([film(frames, "training step") if frames else None, *troubles])


def _chosen(paths: list[Path]) -> list[Path]:
    """Evenly spread ones of those that are named by a step."""
    paths = [path for path in paths if path.stem.removeprefix("step-").isdecimal()]
    if len(paths) <= FRAMES:
        return paths
    return [paths[round(i * (len(paths) - 1) / (FRAMES - 1))] for i in range(FRAMES)]


def _named(run: Facts, word: str) -> Html:
    path = _found(run, word)
    if path is not None:
        return parts.shown(path) or Html()
    if run.quality is not None:
        return paragraph("The evaluation drew no such picture of these data.", quiet=True)
    return missing(run, "evaluate", what="Not drawn yet")


def _found(run: Facts, word: str) -> Path | None:
    """A picture by a word in its name: of the evaluation, else of the demo."""
    kept = run.quality.pictures if run.quality else ()
    named = [f"{FOLDER}/{name}" for name in kept if word in name.lower()]
    return run.picture(*named, *(f"{folder}/{word}{end}.png" for folder in (FOLDER, DEMO) for end in ("", "s")))
