"""The samples that are measured: how many, of which classes, drawn by one process or many."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from osmotic.condition import Condition
from osmotic.data.counter import permutation
from osmotic.data.dataset import Dataset
from osmotic.data.errors import plural
from osmotic.metrics import Moments, gathered
from osmotic.metrics.features import Features
from osmotic.recipes.plan import duration
from osmotic.recipes.quality.sets import Array, looked_at
from osmotic.recipes.scores import Sampled
from osmotic.recipes.strip import strip
from osmotic.samplers import Sampler
from osmotic.times import Grid
from osmotic.training.distributed import World
from osmotic.training.model import Model

SECONDS = 8.0
"""How long sampling takes about, where nobody says how many samples."""

FEWEST, USUAL, MOST = 256, 2000, 10_000
"""Samples where nobody says how many: more than the first if there is time for a batch, the second or as many as there
are held-out data if there is time, never more than the third."""


KEPT = 2e8
"""Entries of the samples that are kept, at most: 800 MB. Of more samples only the features' moments are, for the
Frechet distance, in memory that does not grow."""

FOLLOWED = 8
"""Samples whose trajectory is drawn."""


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


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Args:
        x: the samples that are kept, ``(N, *S)`` float32.
        labels: the class asked of each, or None.
        asked: all that was asked of the first :data:`FOLLOWED`, or None.
        beyond: moments of the features of those that are not.
        count: of all.
        how: they were drawn.
    """

    x: Array
    labels: Array | None
    asked: Condition | None
    beyond: Moments
    count: int
    how: Sampled


def draw(
    model: Model,
    training: Dataset,
    held: Dataset,
    drawing: Drawing,
    features: Features,
    say: Callable[[str], None],
    world: World,
) -> Drawn:
    """Draw samples, each process its share; of more than memory should hold only features' moments are kept."""
    plan = model.plan(drawing.sampler, drawing.steps, drawing.grid, drawing.nfe)
    most = drawing.count or MOST
    labels, like = shares(training, most, drawing.seed), chosen(training, most, drawing.seed)

    def some(start: int, count: int) -> Tensor:
        cond = told_of(training, like[start : start + count])
        solver, size = (drawing.guidance, plan.sampler, plan.steps, drawing.seed), drawing.batch_size
        return model.sample(count, cond, *solver, grid=plan.grid, first=start, batch_size=size).float().cpu()

    begun, passes = time.monotonic(), Passes(model)
    with passes:
        first = some(0, min(drawing.batch_size, most))
    pace = len(first) / (time.monotonic() - begun)
    count = world.from_main(lambda: drawing.count or usual_count(pace * world.size, len(held)))
    left, kept = max(0, count - len(first)), max(len(first), min(MOST, int(KEPT / math.prod(model.spec.shape))))
    say(f"drawing {plural(count, 'sample')}, about {duration(left / (pace * world.size))}")
    start, end = (len(first) + left * rank // world.size for rank in (world.rank, world.rank + 1))
    parts, beyond = [first[:0]], Moments()
    with tqdm(total=end - start, desc="sampling", unit="sample", delay=2, leave=False, disable=not world.main) as bar:
        for at in range(start, end, drawing.batch_size):
            x = some(at, min(drawing.batch_size, end - at))
            bar.update(len(x))
            parts.append(x[: max(0, kept - at)])
            if len(rest := x[len(parts[-1]) :]):
                beyond.update(features(looked_at(rest.numpy(), model.spec)))
    x = torch.cat([first[:count], world.gathered(torch.cat(parts))])
    first_told = told_of(training, like[:FOLLOWED])
    how = Sampled(
        sampler=plan.solver,
        grid=plan.layout,
        steps=plan.steps,
        evaluations=passes.of(len(first)),
        guidance=drawing.guidance,
        conditional=first_told is not None,
        seed=drawing.seed,
    )
    return Drawn(x.numpy(), None if labels is None else labels[: len(x)], first_told, gathered(beyond), count, how)


def command(run: object, drawing: Drawing, count: int, weights: str | None) -> str:
    """The words that measure the same again, where names say it all."""
    flags: dict[str, object] = {"count": count, "seed": drawing.seed or None, "weights": weights, "nfe": drawing.nfe}
    flags |= {"sampler": drawing.sampler, "steps": drawing.steps, "grid": drawing.grid}
    flags |= {"guidance": None if drawing.guidance == 1 else drawing.guidance}
    given = [(name, value) for name, value in flags.items() if isinstance(value, str | int | float)]
    return shlex.join(["osmotic", "evaluate", str(run), *(str(w) for n, v in given for w in (f"--{n}", v))])


def followed(model: Model, drawing: Drawing, asked: Condition | None, path: Path) -> Path:
    """The first samples from noise on."""
    plan = model.plan(drawing.sampler, drawing.steps, drawing.grid, drawing.nfe)
    return strip(
        model, path, FOLLOWED, None if asked is None else asked[:FOLLOWED], drawing.guidance, plan, drawing.seed
    )


class Passes:
    """Counts how many samples a model's network is asked about while it is entered; a guided one counts twice."""

    def __init__(self, model: Model) -> None:
        self.model, self.count = model, 0

    def __enter__(self) -> Passes:
        self.handle = self.model.denoiser.register_forward_hook(self._tick)
        return self

    def __exit__(self, *reason: object) -> None:
        self.handle.remove()

    def _tick(self, module: object, inputs: tuple[Tensor, ...], output: object) -> None:
        self.count += len(inputs[0])

    def of(self, samples: int) -> int:
        """For each of so many samples, at least 1."""
        return max(1, round(self.count / samples))


def usual_count(pace: float, held: int) -> int:
    """Samples that are drawn where nobody says how many, at so many a second."""
    wanted = min(MOST, max(USUAL, held))
    return max(FEWEST, min(wanted, int(pace * SECONDS)))


def shares(training: Dataset, count: int, seed: int) -> Array | None:
    """Classes to ask for, in the shares of the training data."""
    return None if training.labels is None else np.asarray(training.labels[chosen(training, count, seed)], np.int64)


def wanted(training: Dataset, count: int, seed: int) -> Condition | None:
    """What to ask for, all that is known of training samples; None where nothing is."""
    return told_of(training, chosen(training, count, seed))


def told_of(training: Dataset, indices: Array) -> Condition | None:
    """All that is known of some samples."""
    known = training.told(indices)
    return Condition(**known) if known else None


def chosen(training: Dataset, count: int, seed: int) -> Array:
    """The training samples whose conditions are asked for: drawn without replacement, over and over."""
    rounds = range(-(-count // len(training)))
    return np.concatenate([permutation(seed, 3 + i, len(training)) for i in rounds])[:count]
