"""Quality against cost: solvers, evaluations and guidance swept on one model, or on a teacher and its students."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from osmotic import metrics
from osmotic.condition import Condition
from osmotic.data.dataset import Subset
from osmotic.data.errors import plural
from osmotic.recipes.held_out import parts
from osmotic.recipes.quality.catalog import BALLS, DISTANCES, agreed, manifold
from osmotic.recipes.quality.drawing import FEWEST, Passes, shares, wanted
from osmotic.recipes.quality.features import Make, seen, usual
from osmotic.recipes.quality.kinds import ENERGY
from osmotic.recipes.quality.measure import HELD, refuse_few
from osmotic.recipes.quality.measures import Measure, first
from osmotic.recipes.quality.sets import Array, Context, Set, arrays, of_arrays, of_dataset
from osmotic.recipes.scores import FOLDER, Bench, Point, earlier, keep
from osmotic.recipes.search import steps_within
from osmotic.recipes.swept import curves, table
from osmotic.samplers import CATALOG
from osmotic.training.chosen import SUGGESTED, suggested_grid
from osmotic.training.conditions import blank
from osmotic.training.errors import RunError
from osmotic.training.model import Model, load

MOST = 2000
"""Samples of each setting, where nobody says how many, at most."""

GUIDED = 12
"""Evaluations that guidance is swept at: the budget nearest to it."""


@dataclass(frozen=True)
class Setting:
    """One thing to try."""

    run: Path
    model: Model
    sampler: str
    steps: int
    nfe: int
    guidance: float
    grid: str | None = SUGGESTED


def bench(
    runs: Sequence[Path],
    data: Any = None,
    *,
    sampler: Sequence[str],
    nfe: Sequence[int],
    guidance: Sequence[float] = (1.0,),
    count: int | None = None,
    minutes: float = 3.0,
    seed: int = 0,
    weights: str | Sequence[str | None] | None = None,
    features: Make | None = None,
    command: str | None = None,
    home: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[list[str], list[Path]]:
    """Measure every solver at every budget, and the first solver under every guidance scale.

    The score is the Frechet distance for pictures and the energy distance for everything else, beside held-out data;
    diversity stands beside it as coverage and, where there are classes, as the spread within a class, with the share of
    samples that a judge puts in the class asked for. All settings start from the same noise. Results go to
    ``RUN/evaluation/bench.json`` and ``bench.png`` of the first run.

    Args:
        runs: directories that training made on the same data; a teacher first, then its students.
        data: what they were trained on, where that is not found again at its own place.
        sampler: names; a budget is met by the most steps that fit, counted.
        nfe: evaluations for each sample.
        guidance: classifier-free scales, where the data have classes.
        count: samples of each setting; by default as many as fit into the minutes.
        minutes: about how long it takes.
        seed: of the samples.
        weights: as in :func:`osmotic.load`, of all runs or of each.
        features: as in :func:`osmotic.recipes.quality.quality`.
        home: the run in which the results are stored; the first by default.
        command: that the report names for doing this again.
        tell: called with sentences about what is being done.

    Returns:
        The table, and the files.

    Raises:
        ValueError: for runs of different data, a run without held-out data, a solver that no budget allows.
    """
    begun, say = time.monotonic(), tell or (lambda line: None)
    training, held = same_parts(runs, data)
    refuse_few(held, count)
    each = [weights] * len(runs) if weights is None or isinstance(weights, str) else weights
    models = [load(run, which) for run, which in zip(runs, each, strict=True)]
    known, labels = arrays(training, MOST, seed)
    made = (features or usual)(seen(known, labels, models[0].spec, len(held)))
    settings = list(swept(runs, models, sampler, nfe, guidance))
    say_alone(runs, models, say)
    if not settings:
        raise ValueError(
            f"No step of {', '.join(sampler)} fits into {plural(max(nfe), 'evaluation')}; allow more with --nfe."
        )
    again = command or shlex.join(["osmotic", "bench", *map(str, runs)])
    if count is None or command is None:
        count = count or affordable(settings, minutes, seed)
        again = f"{again} --count {count}"
    say_replaced(home or runs[0], say)
    if not models[0].spec.parts and set(guidance) != {1.0}:
        say("guidance is not swept: these data have no classes, texts or attributes to lead to")
    say(
        f"{plural(len(settings), 'setting')} of {plural(count, 'sample')}; each takes "
        f"{sum(setting.nfe for setting in settings):,} evaluations in all"
    )
    real, asked = of_arrays(known, models[0].spec, made, labels), shares(training, count, seed)
    told = wanted(training, count, seed)
    beside = of_dataset(held, made, HELD, seed)
    measure = score_of(models[0])
    points, memo, known_real = [], dict[str, Any](), None
    for setting in tqdm(settings, "sweeping", unit="setting", leave=False):
        x, seconds, passes = drawn(setting, told, count, seed)
        mine = of_arrays(x, models[0].spec, made, asked)
        context = Context(models[0].spec, mine, beside, real, made, asked is not None, seed, memo=memo)
        known_real = measure.of_real(context) if known_real is None else known_real
        points.append(pointed(setting, measure, context, seconds, passes))
    found = Bench(
        command=again,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 1),
        score=measure.name,
        better="lower",
        features=made.name,
        samples=count,
        real=known_real,
        points=tuple(points),
        pictures=("bench.png",),
    )
    path = keep(home or runs[0], "bench", found)
    return table(found), [path, curves(found, (home or runs[0]) / FOLDER / "bench.png")]


def say_replaced(home: Path, say: Callable[[str], None]) -> None:
    """Name the measurement that the new one takes the place of, and the command that has it again."""
    before = earlier(home, "bench", Bench)
    if before is not None:
        settings = plural(len(before.points), "setting")
        say(f"this replaces what `{before.command}` measured on {before.date[:10]}, of {settings}")


def say_alone(runs: Sequence[Path], models: Sequence[Model], say: Callable[[str], None]) -> None:
    """Name the students that solvers and guidance are not swept on."""
    for run, model in zip(runs, models, strict=True):
        if not model.denoiser.diagonal:
            say(f"{run} is drawn by its own sampler alone, without guidance but its own: it has no posterior mean")


def same_parts(runs: Sequence[Path], data: Any) -> tuple[Subset, Subset]:
    """The training and the held-out part that all runs share.

    Raises:
        RunError: if a run has others.
    """
    training, held = parts(runs[0], data)
    for run in runs[1:]:
        other, theirs = parts(run, data)
        if other.indices.tolist() != training.indices.tolist() or theirs.spec.source != held.spec.source:
            raise RunError(f"{run} was trained on other data, or another part of them, than {runs[0]}; bench it alone.")
    return training, held


def score_of(model: Model) -> Measure:
    """The score that curves are drawn of."""
    return DISTANCES[0] if model.spec.kind == "images" else ENERGY


def swept(
    runs: Sequence[Path],
    models: Sequence[Model],
    samplers: Sequence[str],
    nfe: Sequence[int],
    guidance: Sequence[float],
) -> Iterator[Setting]:
    """Every solver at every budget, then the first under every other scale at a middle budget; none twice.

    A few-step student comes first with its own sampler, and stops of its own; solvers only where it has a posterior
    mean.
    """
    seen: set[tuple[Path, str, int | None, float]] = set()
    for run, model in zip(runs, models, strict=True):
        if model.recipe.student is not None:
            for setting in of_student(run, model, nfe, guidance):
                seen.add((run, setting.sampler, setting.steps, setting.guidance))
                yield setting
        if not model.denoiser.diagonal or model.denoiser.stops is not None:
            continue
        middle = min(nfe, key=lambda budget: abs(budget - GUIDED))
        scales = guidance if model.spec.parts and model.recipe.process.condition_dropout > 0 else ()
        wanted = [(name, budget, 1.0) for name in samplers for budget in nfe]
        wanted += [(samplers[0], middle, scale) for scale in scales]
        for name, budget, scale in wanted:
            denoiser = model.denoiser
            grid = suggested_grid(model.seen, model.recipe)
            steps = steps_within(CATALOG[name], budget, denoiser.schedule, grid, denoiser.start)
            key = run, name, steps, scale
            if steps is not None and key not in seen:
                seen.add(key)
                yield Setting(run, model, name, steps, budget, scale)


def of_student(run: Path, model: Model, nfe: Sequence[int], guidance: Sequence[float]) -> Iterator[Setting]:
    """A student at every number of jumps that it has within the budgets, and at one of them under guidance."""
    student, stops = model.recipe.student, model.denoiser.stops
    assert student is not None
    counts = sorted({budget for budget in nfe if stops is None}) or [len(stops or (0,))]
    for steps in counts:
        yield Setting(run, model, student.sampler, steps, steps, 1.0, None)
    if student.scales is not None:
        for scale in guidance:
            if scale != 1 and student.scales[0] <= scale <= student.scales[1]:
                yield Setting(run, model, student.sampler, counts[0], counts[0], scale, None)


def affordable(settings: Sequence[Setting], minutes: float, seed: int) -> int:
    """Samples of each setting that fit into the time, judged by one batch."""
    model, size = settings[0].model, 64
    begun = time.monotonic()
    first = settings[0]
    model.sample(size, blank(model.spec, size), sampler=first.sampler, steps=first.steps, seed=seed, grid=first.grid)
    each = (time.monotonic() - begun) / (first.nfe * size)
    total = sum(setting.nfe * (2 if setting.guidance not in (0, 1) else 1) for setting in settings)
    return max(FEWEST, min(MOST, int(60 * minutes / (each * total))))


def drawn(setting: Setting, told: Condition | None, count: int, seed: int) -> tuple[Array, float, int]:
    """Samples, the seconds that they took, and the evaluations of each."""
    passes, begun = Passes(setting.model), time.monotonic()
    with passes:
        x = setting.model.sample(
            count,
            told,
            setting.guidance,
            setting.sampler,
            setting.steps,
            seed,
            grid=setting.grid,
            batch_size=min(count, 256),
        )
    return x.float().cpu().numpy(), time.monotonic() - begun, passes.of(count)


def pointed(setting: Setting, measure: Measure, context: Context, seconds: float, passes: int) -> Point:
    """The score of one setting."""
    score, mine, held = measure.told(context, None), first(context.samples, BALLS), first(context.held, BALLS)
    agreement = spread = None
    if context.asked:
        agreement = agreed(context.samples, held, context).value
        spread = within(mine) / context.once("within", lambda: within(held))
    return Point(
        run=str(setting.run),
        sampler=setting.sampler,
        grid=setting.grid or "its own",
        steps=setting.steps,
        guidance=setting.guidance,
        evaluations=passes,
        seconds=round(seconds, 3),
        value=score.value,
        low=score.low,
        high=score.high,
        coverage=manifold(mine, held, context).coverage,
        agreement=agreement,
        spread=spread,
    )


def within(some: Set) -> float:
    """The mean distance of two samples of the same class, over classes."""
    return float(np.nanmean(list(metrics.pairwise_diversity(some.features, some.classes).values())))
