"""The best solver and grid for a model under a budget of evaluations, found by trying and stored with its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from osmotic.recipes.search import Candidate, Search
from osmotic.report import tuning as report
from osmotic.training.model import Model, load
from osmotic.training.run import Run
from osmotic.training.sampling import Entry, Tuned, Tuning

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
        tell: called with each line of the report.

    Returns:
        What was stored, and the files: the choice and its plot.

    Raises:
        ValueError: for a budget, a count or a run that cannot be used.
    """
    if nfe < 1 or count < 1 or not minutes > 0:
        raise ValueError(f"Tuning needs nfe >= 1, count >= 1 and minutes > 0; got {nfe}, {count} and {minutes}.")
    say = tell or (lambda line: None)
    run = Run.open(directory)
    model = load(directory, weights)
    say(f"tuning {directory}: {model.weights} at step {model.step:,}, {nfe} evaluations, guidance {guidance:g}")
    with tqdm(desc="tuning", unit="evaluation", delay=1, mininterval=0.5, leave=False) as bar:
        search = Search(model, nfe, guidance, count, seed, minutes, bar)
        found = search.run()
        finalists, default = search.confirm(found)
    tuned = _tuned(model, search, found, finalists, default)
    rows, usual = [_row(c) for c in finalists], _row(default)
    say(
        f"tried {len(found)} combinations of solver and grid; error: the distance to the converged samples of the same "
        f"{count} noises,"
    )
    say(f"in standard deviations of the data; the converged samples themselves are good to {search.reference:.1g}")
    if search.cut:
        say(f"{minutes:g} minutes were over before all was tried; --minutes gives more time, --count fewer noises")
    for line in report.table(rows, usual):
        say(line)
    tuning = Tuning(run)
    title = f"Best of {len(found)} at {nfe} evaluations ({model.weights} at step {model.step:,}, guidance {guidance:g})"
    plot = report.draw(rows, usual, tuning.path(nfe, ".png"), title)
    return tuned, [tuning.store(tuned), plot]


def _tuned(
    model: Model, search: Search, found: list[Candidate], finalists: list[Candidate], default: Candidate
) -> Tuned:
    """What is stored."""
    confirmed = {(c.sampler, c.grid): c for c in [*finalists, default]}
    return Tuned(
        nfe=search.nfe,
        choice=_entry(finalists[0]),
        log_snr=finalists[0].stops.log_snr,
        step=model.step,
        weights=model.weights,
        guidance=search.guidance,
        count=search.count,
        seed=search.seed,
        reference=search.reference,
        default=_entry(default),
        table=tuple(_entry(confirmed.get((c.sampler, c.grid), c)) for c in found),
    )


def _entry(c: Candidate) -> Entry:
    return Entry(
        sampler=c.sampler, grid=c.grid, steps=c.steps, evaluations=c.evaluations, error=c.error, confirmed=c.confirmed
    )


def _row(c: Candidate) -> report.Row:
    assert c.confirmed is not None
    return report.Row(c.sampler, c.grid, c.steps, c.evaluations, c.error, c.confirmed)
