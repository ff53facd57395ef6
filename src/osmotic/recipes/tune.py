"""The best solver and grid for a model under a budget of evaluations, found by trying and stored with its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from osmotic.data.errors import plural
from osmotic.recipes.held_out import halves
from osmotic.recipes.search import Candidate, Search, record
from osmotic.recipes.tune_jumps import JumpSearch
from osmotic.recipes.tune_jumps import lines as jump_lines
from osmotic.report import tuning as report
from osmotic.training.model import Model, load
from osmotic.training.run import Run
from osmotic.training.sampling import Tuned, Tuning

MINUTES = 10.0


def tune(
    directory: str | Path,
    nfe: int = 8,
    guidance: float = 1.0,
    count: int = 64,
    seed: int = 0,
    weights: str | None = None,
    *,
    minutes: float = MINUTES,
    data: Any = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Tuned, list[Path]]:
    """Find the solver and grid whose samples are nearest to converged ones, and store them with the run.

    The error is the root mean square distance between what a solver makes of a noise and what a fine trajectory (Heun's
    method in 128 steps) makes of the same noise. All solvers are tried on two grids, the best eight on all grids, the
    best two also on a grid optimized for them (:func:`osmotic.times.optimized`). The best ten are measured again on
    fresh noise, and the one whose worse error is the smallest is taken, so that luck on either noise does not decide.

    Args:
        directory: of the run.
        nfe: the budget: denoiser calls for a batch, at least 1 (under guidance each asks the network twice).
        guidance: the scale to tune for.
        count: noises to tune on, and as many fresh ones; the classes in turn.
        seed: of the noises.
        weights: as in :func:`osmotic.load`.
        minutes: when they are over, combinations that were not tried yet are left out.
        data: for few-step models, which are compared with data: what they were trained on, where it has moved.
        tell: called with each line of the report.

    Returns:
        What was stored, and the files: the choice and its plot.

    Raises:
        ValueError: for a budget, a count or a run that cannot be used.
        Stopped: after Ctrl-C, when the best of what was tried is stored. Before every solver was tried once, or for the
            second Ctrl-C, nothing is stored and KeyboardInterrupt goes on.
    """
    if nfe < 1 or count < 1 or not minutes > 0:
        raise ValueError(f"Tuning needs nfe >= 1, count >= 1 and minutes > 0; got {nfe}, {count} and {minutes}.")
    say = tell or (lambda line: None)
    run = Run.open(directory)
    model = load(directory, weights)
    if guidance != 1 and not model.spec.parts:
        raise ValueError(
            "This model was trained without classes, so there is nothing to guide to; leave --guidance at 1."
        )
    student = model.recipe.student
    if student is not None and student.stops is not None:
        raise ValueError(f"{directory} knows its own {plural(len(student.stops), 'stop')} alone, so nothing is tuned.")
    which, budget = f"{model.weights} at step {model.step:,}", plural(nfe, "evaluation")
    say(f"tuning {directory}: {which}, {budget}, guidance {guidance:g}")
    if student is not None and student.form != "denoiser":
        return _jumps(run, model, nfe, guidance, seed, minutes, data, say)
    with tqdm(desc="tuning", unit="evaluation", delay=1, mininterval=0.5, leave=False) as bar:
        search = Search(model, nfe, guidance, count, seed, minutes, bar)
        found, finalists, default, stopped = searched(search, say)
    tuned = record(search, found, finalists, default)
    for line in report_lines(search, found, finalists, default, minutes):
        say(line)
    tuning, tried = Tuning(run), plural(len(found), "combination")
    title = f"Best of {tried} at {budget} ({which}, guidance {guidance:g})"
    if tuning.path(nfe, ".json").exists():
        say(f"this replaces what was stored for {budget}")
    path = tuning.store(tuned)
    plot = report.draw([_row(c) for c in finalists], _row(default), tuning.path(nfe, ".png"), title)
    if stopped:
        raise Stopped(f"Interrupted; the best of {tried} tried by then is stored in {path}.")
    return tuned, [path, plot]


def _jumps(
    run: Run,
    model: Model,
    nfe: int,
    guidance: float,
    seed: int,
    minutes: float,
    data: Any,
    say: Callable[[str], None],
) -> tuple[Tuned, list[Path]]:
    """The same for a few-step model: the stops whose samples are nearest to its training data."""
    training, _ = halves(run.directory, data)
    with tqdm(desc="tuning", unit="candidate", delay=1, leave=False) as bar:
        search = JumpSearch(model, training, nfe, guidance, seed, minutes, bar)
        finalists, default = search.run()
    found = record(search, search.found, finalists, default)
    rows = [_row(c) for c in finalists]
    for line in jump_lines(search, found, rows, _row(default)):
        say(line)
    tuning = Tuning(run)
    path = tuning.store(found)
    title = f"Best of {plural(len(search.found), 'combination')} in {plural(nfe, 'jump')} ({model.weights})"
    plot = report.draw(rows, _row(default), tuning.path(nfe, ".png"), title, "root of the energy distance to real data")
    return found, [path, plot]


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a search; the message says what is stored. Exit code 130."""


def searched(search: Search, say: Callable[[str], None]) -> tuple[list[Candidate], list[Candidate], Candidate, bool]:
    """What was tried, the finalists, the default, and whether Ctrl-C ended the search after its first round.

    Raises:
        KeyboardInterrupt: at once, before every solver was tried or for the second time.
    """
    try:
        found = search.run()
        return (found, *search.confirm(found), False)
    except KeyboardInterrupt:
        if not search.whole:
            raise
    say("interrupted: the best so far is measured on fresh noise and stored; Ctrl-C again leaves without")
    found = search.ranked()
    return (found, *search.confirm(found), True)


def report_lines(
    search: Search, found: list[Candidate], finalists: list[Candidate], default: Candidate, minutes: float
) -> list[str]:
    """The report for a terminal."""
    lines = [
        f"tried {plural(len(found), 'combination')} of solver and grid; error: the distance to the converged samples "
        f"of the same {plural(search.count, 'noise')},",
        f"in standard deviations of the data; the converged samples themselves are good to {search.reference:.1g}",
    ]
    if search.cut:
        were = "minute was" if minutes == 1 else "minutes were"
        lines.append(f"{minutes:g} {were} over before all was tried; --minutes gives more time, --count fewer noises")
    return lines + report.table([_row(c) for c in finalists], _row(default))


def _row(c: Candidate) -> report.Row:
    assert c.confirmed is not None
    return report.Row(c.sampler, c.grid, c.steps, c.evaluations, c.error, c.confirmed)
