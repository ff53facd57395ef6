"""How good a run's samples are: drawn, measured beside held-out data, stored with the run and shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from osmotic.data.dataset import Dataset
from osmotic.data.errors import plural
from osmotic.data.spec import Spec
from osmotic.metrics.features import Features
from osmotic.recipes.held_out import parts
from osmotic.recipes.quality import catalog, shown
from osmotic.recipes.quality.drawing import Drawing, Drawn, draw, followed
from osmotic.recipes.quality.drawing import command as spelt
from osmotic.recipes.quality.features import Make, seen, usual
from osmotic.recipes.quality.sets import Array, Context, arrays, of_arrays, of_dataset
from osmotic.recipes.scores import FOLDER, Quality, Score, earlier, keep
from osmotic.training.distributed import joined
from osmotic.training.model import Model, load
from osmotic.training.run import Run

REPEATED = 0.75
"""Share of samples nearer to the training data than held-out data are from which copying is named; 0.5 is right."""

HELD = 10_000
"""Held-out data that are looked at, at most."""

ENTRIES = 5e7
"""Entries of the training data that neighbours are looked for in, at most: 400 MB in double precision."""


def quality(
    run: str | Path,
    data: Any = None,
    *,
    drawing: Drawing | None = None,
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
        drawing: of the samples; as for ``osmotic sample`` by default.
        features: makes what distances are measured on; :func:`osmotic.recipes.quality.features.usual` by default.
        weights: as in :func:`osmotic.load`.
        command: that the report names for doing this again.
        tell: called with sentences about what is being done.

    Returns:
        The scores, and the files that were written, the scores first.

    Raises:
        ValueError: for a run without held-out data, other data, or a setting that means nothing, in one sentence.
    """
    begun, opened, drawing = time.monotonic(), Run.open(run), drawing or Drawing()
    training, held = parts(run, data)
    refuse_few(held, drawing.count)
    before = earlier(opened.directory, "quality", Quality)
    with joined() as world:
        say = tell if tell is not None and world.main else (lambda line: None)
        model = load(run, weights)
        known, labels = arrays(training, searched(model.spec), drawing.seed)
        made = (features or usual)(seen(known, labels, model.spec, len(held)))
        if before is not None:
            say(f"this replaces what was measured of {plural(before.samples, 'sample')} on {before.date[:10]}")
        drawn = draw(model, training, held, drawing, made, say, world)

        def judge() -> Quality:
            say(f"measuring {plural(drawn.count, 'sample')} beside {plural(min(len(held), HELD), 'held-out sample')}")
            context = compared(model.spec, drawn, held, (known, labels), made, drawing.seed)
            pictures = shown.draw(context, opened.directory, partial(followed, model, drawing, drawn.asked))
            again = command or spelt(run, drawing, drawn.count, weights)
            if drawing.count is None and command is not None:
                again = f"{command} --count {drawn.count}"  # how many are drawn in some seconds is not the same twice
            scores = list(scored(context))
            found = Quality(
                command=again,
                date=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - begun, 1),
                step=model.step,
                weights=model.weights,
                kind=model.spec.kind,
                shape=model.spec.shape,
                features=made.name,
                samples=drawn.count,
                held_out=len(context.held),
                training=len(context.training),
                sampled=drawn.how,
                scores=tuple(scores),
                by_noise=by_noise(opened, model.weights),
                warnings=(*cautions(model, context), *copies(scores), *unsearched(len(known), len(training))),
                pictures=tuple(path.name for path in pictures),
            )
            keep(opened.directory, "quality", found)
            return found

        found = world.from_main(judge)
    folder = opened.directory / FOLDER
    return found, [folder / "quality.json", *(folder / name for name in found.pictures)]


def compared(
    spec: Spec, drawn: Drawn, held: Dataset, training: tuple[Array, Array | None], made: Features, seed: int
) -> Context:
    """All that is measured: what was drawn, held-out data and training data, with their features."""
    return Context(
        spec,
        of_arrays(drawn.x, spec, made, drawn.labels),
        of_dataset(held, made, HELD, seed),
        of_arrays(training[0], spec, made, training[1]),
        made,
        drawn.labels is not None,
        seed,
        drawn.beyond,
    )


def refuse_few(held: Dataset, count: int | None) -> None:
    """Refuse what no score can be found from."""
    if len(held) < 10:
        raise ValueError(
            f"Too few samples were held out of training to measure anything ({len(held)}); train with a larger "
            "--holdout, or on more data."
        )
    if count is not None and count < 10:
        raise ValueError(f"At least 10 samples are needed for scores; got --count {count}.")


def searched(spec: Spec) -> int:
    """How many training samples neighbours are looked for in, at most."""
    return max(1000, int(ENTRIES / math.prod(spec.shape)))


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


def unsearched(known: int, training: int) -> Iterator[str]:
    """A warning where copies of some training samples would not be found."""
    if known < training:
        yield f"neighbours were looked for among {known:,} of {training:,} training samples only"
