"""How good a run's samples are: drawn, measured beside held-out data, stored with the run and shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from osmotic.data.counter import permutation
from osmotic.data.dataset import Dataset
from osmotic.data.errors import plural
from osmotic.data.spec import Spec
from osmotic.recipes.held_out import parts
from osmotic.recipes.plan import duration
from osmotic.recipes.quality import catalog, shown
from osmotic.recipes.quality.features import Make, Seen, usual
from osmotic.recipes.quality.sets import Array, Context, arrays, looked_at, of_arrays, of_dataset
from osmotic.recipes.scores import Quality, Sampled, Score, keep
from osmotic.recipes.strip import strip
from osmotic.samplers import Sampler
from osmotic.times import Grid
from osmotic.training.chosen import SUGGESTED, Plan
from osmotic.training.model import Model, load
from osmotic.training.run import Run

SECONDS = 8.0
"""How long sampling takes about, where nobody says how many samples."""

FEWEST, USUAL, MOST = 256, 2000, 10_000
"""Samples where nobody says how many: more than the first if there is time for a batch, the second or as many as there
are held-out data if there is time, never more than the third."""

REPEATED = 0.75
"""Share of samples nearer to the training data than held-out data are from which copying is named; 0.5 is right."""

FOLLOWED = 8
"""Samples whose trajectory is drawn."""

HELD = 10_000
"""Held-out data that are looked at, at most."""

ENTRIES = 5e7
"""Entries of the training data that neighbours are looked for in, at most: 400 MB in double precision."""


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn; what is None is as for ``osmotic sample``."""

    count: int | None = None
    guidance: float = 1.0
    sampler: str | Sampler | None = None
    steps: int | None = None
    grid: str | Grid | None = None
    nfe: int | None = None
    seed: int = 0
    batch_size: int = 256


def quality(
    run: str | Path,
    data: Any = None,
    *,
    drawing: Drawing = Drawing(),
    features: Make | None = None,
    weights: str | None = None,
    command: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Quality, list[Path]]:
    """Measure a run's samples beside data held out of its training, and store the scores with the run.

    Everything is measured twice: on the samples, and on training data in their place, which is what a perfect model
    would get with as many samples. Where the data have classes, samples are asked for in the classes' shares.

    Args:
        run: directory that training made; its newest whole checkpoint is used.
        data: what it was trained on, where that is not found again at its own place.
        drawing: of the samples.
        features: makes what distances are measured on; :func:`osmotic.recipes.quality.features.usual` by default.
        weights: as in :func:`osmotic.load`.
        command: that the report names for doing this again.
        tell: called with sentences about what is being done.

    Returns:
        The scores, and the files that were written, the scores first.

    Raises:
        ValueError: for a run without held-out data, other data, or a setting that means nothing, in one sentence.
    """
    begun, say = time.monotonic(), tell or (lambda line: None)
    opened = Run.open(run)
    training, held = parts(run, data)
    model = load(run, weights)
    refuse_few(held, drawing.count)
    known, labels = arrays(training, searched(model.spec), drawing.seed)
    made = (features or usual)(Seen(model.spec, looked_at(known, model.spec), labels, len(held)))
    say(f"features: {made.name}")
    x, asked, sampled = draw(model, training, held, drawing, say)
    say(f"measuring {plural(len(x), 'sample')} beside {plural(min(len(held), HELD), 'held-out sample')}")
    context = Context(
        model.spec,
        of_arrays(x, model.spec, made, asked),
        of_dataset(held, made, HELD, drawing.seed),
        of_arrays(known, model.spec, made, labels),
        made,
        asked is not None,
        drawing.seed,
    )
    scores = list(scored(context))
    found = Quality(
        command=command or f"osmotic evaluate {run}",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 1),
        step=model.step,
        weights=model.weights,
        kind=model.spec.kind,
        shape=model.spec.shape,
        features=made.name,
        samples=len(x),
        held_out=len(context.held),
        training=len(context.training),
        sampled=sampled,
        scores=tuple(scores),
        by_noise=by_noise(opened, model.weights),
        warnings=(*cautions(model, context), *copies(scores)),
        pictures=tuple(
            path.name for path in shown.draw(context, opened.directory, partial(followed, model, drawing, asked))
        ),
    )
    path = keep(opened.directory, "quality", found)
    return found, [path, *(path.parent / name for name in found.pictures)]


def refuse_few(held: Dataset, count: int | None) -> None:
    """Refuse what no score can be found from."""
    if len(held) < 10:
        raise ValueError(
            f"Only {plural(len(held), 'sample')} were held out of training, too few to measure anything; train with a "
            "larger --holdout, or on more data."
        )
    if count is not None and count < 10:
        raise ValueError(f"At least 10 samples are needed for scores; got --count {count}.")


def searched(spec: Spec) -> int:
    """How many training samples neighbours are looked for in, at most."""
    return max(1000, int(ENTRIES / math.prod(spec.shape)))


def draw(
    model: Model, training: Dataset, held: Dataset, drawing: Drawing, say: Callable[[str], None]
) -> tuple[Array, Array | None, Sampled]:
    """Samples ``(N, *S)``, the class asked of each, and how they were drawn."""
    plan = model.plan(drawing.sampler, drawing.steps, drawing.grid, drawing.nfe)
    most = drawing.count or MOST
    labels = shares(training, most, drawing.seed)

    def some(start: int, count: int, tick: Callable[[int], object] = lambda done: None) -> Array:
        cond = None if labels is None else labels[start : start + count]
        x = model.sample(
            count,
            cond,
            drawing.guidance,
            plan.sampler,
            plan.steps,
            drawing.seed,
            grid=plan.grid,
            first=start,
            batch_size=drawing.batch_size,
            progress=tick,
        )
        return x.float().cpu().numpy()

    begun = time.monotonic()
    calls = Calls(model)
    with calls:
        first = some(0, min(drawing.batch_size, most))
    count = drawing.count or usual_count(len(first) / (time.monotonic() - begun), len(held))
    left = max(0, count - len(first))
    say(f"drawing {plural(count, 'sample')}, about {duration(left * (time.monotonic() - begun) / len(first))}")
    with tqdm(total=left, desc="sampling", unit="sample", delay=2, leave=False) as bar:
        rest = [some(len(first), left, bar.update)] if left else []
    x = np.concatenate([first[:count], *rest])
    sampled = Sampled(
        sampler=spoken(plan.sampler, drawing.sampler, plan),
        grid=grid_name(plan, drawing.grid),
        steps=plan.steps,
        evaluations=max(1, calls.count),
        guidance=drawing.guidance,
        conditional=labels is not None,
        seed=drawing.seed,
    )
    return x, None if labels is None else labels[: len(x)], sampled


def followed(model: Model, drawing: Drawing, asked: Array | None, path: Path) -> Path:
    """The first samples from noise on."""
    plan = model.plan(drawing.sampler, drawing.steps, drawing.grid, drawing.nfe)
    return strip(
        model, path, FOLLOWED, None if asked is None else asked[:FOLLOWED], drawing.guidance, plan, drawing.seed
    )


class Calls:
    """Counts the calls of a model's denoiser while it is entered."""

    def __init__(self, model: Model) -> None:
        self.model, self.count = model, 0

    def __enter__(self) -> Calls:
        self.handle = self.model.denoiser.register_forward_hook(self._tick)
        return self

    def __exit__(self, *reason: object) -> None:
        self.handle.remove()

    def _tick(self, *ignored: object) -> None:
        self.count += 1


def usual_count(pace: float, held: int) -> int:
    """Samples that are drawn where nobody says how many, at so many a second."""
    wanted = min(MOST, max(USUAL, held))
    return max(FEWEST, min(wanted, int(pace * SECONDS)))


def shares(training: Dataset, count: int, seed: int) -> Array | None:
    """Classes to ask for, in the shares of the training data: drawn without replacement, over and over."""
    if training.labels is None:
        return None
    rounds = range(-(-count // len(training)))
    drawn = np.concatenate([training.labels[permutation(seed, 3 + i, len(training))] for i in rounds])
    return np.asarray(drawn[:count], np.int64)


def spoken(sampler: Sampler, said: str | Sampler | None, plan: Plan) -> str:
    """The solver's name."""
    from osmotic.training.sampling import SAMPLER

    if isinstance(said, str):
        return said
    if plan.tuned is not None:
        return plan.tuned.choice.sampler
    return SAMPLER if said is None else type(sampler).__name__


def grid_name(plan: Plan, said: str | Grid | None) -> str:
    """The grid's name."""
    if plan.tuned is not None:
        return plan.tuned.choice.grid
    return said if isinstance(said, str) else SUGGESTED if said is None else type(said).__name__


def scored(context: Context) -> Iterator[Score]:
    """Every measure that fits, one after the other, with a bar."""
    fitting = [measure for measure in catalog.MEASURES if measure.fits(context)]
    for measure in tqdm(fitting, "measuring", delay=2, leave=False):
        score = measure.score(context)
        yield score.model_copy(update={"name": context.features.usual_names.get(score.name, score.name)})


def by_noise(run: Run, weights: str) -> tuple[tuple[str, float], ...]:
    """The held-out loss by noise level that training measured last, of these weights."""
    found = [record["held_out"] for record in run.metrics() if "held_out" in record]
    last = found[-1].get("raw" if weights == "model" else weights, {}) if found else {}
    return tuple((name, float(value)) for name, value in last.items() if name.startswith("log_snr"))


def cautions(model: Model, context: Context) -> Iterator[str]:
    """What a reader of the scores should know."""
    steps = model.recipe.options.steps
    if model.step < steps:
        yield (
            f"training stopped at step {model.step:,} of {steps:,}; this is its newest whole checkpoint "
            "(`osmotic train --resume` goes on)"
        )
    fewest = min(len(context.samples), len(context.held))
    if fewest <= context.features.dimensions:
        yield (
            f"{fewest:,} samples on {context.features.dimensions} features leave covariances singular, so the Frechet "
            "distance is mostly bias: look at how far it is from what real data get, or take the kernel distance"
        )
    if context.features.usual_names:
        yield (
            f"published FIDs are of 50,000 samples beside the training data; this one is of {len(context.samples):,} "
            f"beside {len(context.held):,} held-out samples, and compares with others of such counts"
        )
    if len(context.held) < 200:
        yield f"only {len(context.held)} held-out samples: intervals are wide, and small differences mean nothing"


def copies(scores: Sequence[Score]) -> Iterator[str]:
    """A warning where samples lie far nearer to the training data than real data do."""
    for score in scores:
        if score.name == catalog.NEARER and score.low is not None and score.low > REPEATED:
            yield (
                f"{score.value:.0%} of the samples are nearer to training data than half of the held-out data are: the "
                "model repeats what it saw; train it on more data, smaller or shorter"
            )


def lines(found: Quality) -> Sequence[str]:
    """The table that the command prints."""
    rows = [("", "samples", "95 % interval", "real data", "better")]
    for score in found.scores:
        reach = "" if score.low is None or score.high is None else f"{number(score.low)} to {number(score.high)}"
        real = "" if score.real is None else number(score.real)
        better = {"lower": "lower", "higher": "higher", "real": "as real"}[score.better]
        rows.append((score.name, number(score.value), reach, real, better))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    table = [
        "  ".join(cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row))
        for row in rows
    ]
    how = found.sampled
    asked = ", given classes in the data's shares" if how.conditional else ""
    notes = [
        f"{plural(found.samples, 'sample')} by {how.sampler}, {plural(how.steps, 'step')} on the grid {how.grid} "
        f"({plural(how.evaluations, 'evaluation')}), guidance {how.guidance:g}{asked}, seed {how.seed}",
        f"beside {plural(found.held_out, 'held-out sample')}; neighbours among {found.training:,} training samples",
        f"features: {found.features}; weights {found.weights} at step {found.step:,}; {found.seconds:.0f} s in all",
        "real data: training data in place of samples (held-out data where copies are looked for)",
    ]
    return [*table, "", *notes, *(f"note: {warning}" for warning in found.warnings)]


def number(value: float) -> str:
    """Three figures that matter, and no power of ten where a person can do without."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"
