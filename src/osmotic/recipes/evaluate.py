"""How well a run's model explains data that it never saw: the held-out log-likelihood, with error bars."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmotic.data.counter import permutation
from osmotic.data.dataset import Dataset
from osmotic.data.errors import plural
from osmotic.dequantize import Dequantizer, Uniform
from osmotic.divergence import Divergence, Exact, Hutchinson
from osmotic.likelihood import bits_per_dimension
from osmotic.ode import NODES
from osmotic.recipes.dequantisation import Learned
from osmotic.recipes.draws import USUAL_EVALUATIONS, ByBound, ByFlow, Draws, Progress
from osmotic.recipes.error_bars import Mean, mean
from osmotic.recipes.held_out import lattice, log_jacobian, parts, unit
from osmotic.recipes.latent_bound import of_latents, refuse_others
from osmotic.recipes.nats import Report
from osmotic.recipes.plan import duration
from osmotic.samplers.adaptive import AngleFlow
from osmotic.training.lsgm import LSGM
from osmotic.training.model import Model, load, stored
from osmotic.training.run import Run, write_json

SECONDS = 60.0
"""How long a measurement takes about, where nobody says how many samples."""

TOLERANCE = 1e-4
"""Of the solver: on networks a tenth of it triples the cost and moves a mean over samples by less than 0.001 nats a
dimension."""

# Larger samples than this are traced by random probes: exactness costs as many backward passes as entries.
FEW = 32

LEVELS = 128
"""Of the variational bound for each sample and draw, where it is asked for by name."""


def likelihood(
    run: str | Path,
    data: Any = None,
    *,
    count: int | None = None,
    divergence: Divergence | None = None,
    draws: int | None = None,
    noise: float | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    conditional: bool = False,
    weights: str | None = None,
    batch_size: int = 128,
    dequantizer: Dequantizer | Learned | None = None,
    bound: int | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure a run on its held-out data and store the result in ``RUN/evaluation/likelihood.json``.

    Args:
        run: directory that training made; its newest whole checkpoint is used.
        data: what it was trained on, where that is not found again at its own place.
        count: held-out samples, a fixed random part; by default as many as take about a minute on this machine.
        divergence: how it is found; exactly up to 32 entries a sample by default, else by one random probe. Probes are
            drawn for each sample and draw from the seed.
        draws: of dequantising noise and probes for each sample; 2 by default, 1 where nothing is random.
        noise: at which data are read, in the network's units (see :func:`osmotic.likelihood.density`); half the spacing
            of pictures' values, else 0.004 of the data's deviation.
        tolerance: of the solver, relative and absolute.
        seed: of the part and of all draws; sample i is the same whatever the batch size or count.
        conditional: given each sample's class.
        weights: ``"model"`` or ``"ema-HALFLIFE"``; the first average by default.
        batch_size: samples at a time: memory, not results.
        dequantizer: of pictures; Uniform() by default. A Learned() is fitted to the run's training data first and
            compared with uniform noise, which doubles the measurement.
        bound: levels of the variational bound, which is then measured too, on as many draws; None for none.
        tell: called with a sentence about what is going to be done and how long it will take.
        progress: called with the samples finished since (times draws, in parts of one) and their number in all, for
            each thing that is done.

    Raises:
        ValueError: for a run without held-out data, other data, or settings that mean nothing, in one sentence.
    """
    begun, say = time.monotonic(), tell or (lambda line: None)
    _refuse_none(draws=draws, count=count, bound=bound, batch_size=batch_size)
    train, held = parts(run, data)
    if stored(Run.open(run))[0].process.objective == LSGM:
        refuse_others(divergence, noise, dequantizer, bound)
        report = of_latents(run, held, count, draws or 1, seed, conditional, weights, batch_size, progress)
        store(run, report)
        return report
    work = _flow(load(run, weights).of_data(), held, divergence, noise, tolerance, seed, conditional, dequantizer)
    draws = (draws or 2) if work.random else 1
    # A level of the bound needs no gradient, which is about a third of an evaluation of the flow.
    passes = draws * ((2 if isinstance(dequantizer, Learned) else 1) + (bound or 0) / (3 * USUAL_EVALUATIONS))
    chosen, seconds = part(work, count, passes, batch_size)
    told: str | None = None if work.spacing is None else type(work.dequantizer).__name__.lower()
    if isinstance(dequantizer, Learned):
        say(f"fitting the dequantisation to {plural(len(train), 'training sample')}, at most {dequantizer.seconds:g} s")
        fitted = dequantizer.fit(
            work.model, train, work.spacing or 1.0, work.noise, seed, conditional, batch_size, progress
        )
        work, told = replace(work, dequantizer=fitted.dequantizer), str(fitted)
    say(
        f"measuring {len(chosen):,} of {plural(len(held), 'held-out sample')}, {plural(draws, 'draw')} each; "
        f"about {duration(seconds)} on this machine"
    )
    measured = _Measured(chosen, draws, batch_size, progress)
    found, evaluations = measured.by(work)
    report = _report(work, found, evaluations, told, weights)
    if isinstance(dequantizer, Learned):
        report = _compared(report, work, measured, found)
    if bound is not None:
        report = _bounded(report, work, measured, bound)
    report = replace(report, seconds=time.monotonic() - begun)
    store(run, report)
    return report


@dataclass(frozen=True)
class _Measured:
    """The same samples and draws for each thing that is measured."""

    chosen: np.ndarray
    draws: int
    batch_size: int
    progress: Progress | None

    def by(self, way: Draws) -> tuple[Tensor, float]:
        """Nats ``(draws, n)`` in the network's units, and evaluations per sample and draw.

        Raises:
            ValueError: if some of them are infinite or no numbers.
        """
        found, evaluations = way.draw(self.chosen, self.draws, self.batch_size, self.progress)
        wrong = int((~found.isfinite()).any(0).sum())
        if wrong:
            raise ValueError(
                f"{wrong:,} of {plural(len(self.chosen), 'sample')} have no finite likelihood; raise --noise, or look "
                "at the model's samples, for its weights may be damaged."
            )
        return found, evaluations


def _flow(
    model: Model,
    held: Dataset,
    divergence: Divergence | None,
    noise: float | None,
    tolerance: float,
    seed: int,
    conditional: bool,
    dequantizer: Dequantizer | Learned | None,
) -> ByFlow:
    """How the flow measures this model, with what was left out found from it; a dequantisation to be learned is not
    yet in it.

    Raises:
        ValueError: for settings that mean nothing for such a model.
    """
    _refuse_unlearned(model, conditional)
    spacing = lattice(model.spec)
    if dequantizer is not None and spacing is None:
        raise ValueError("Only pictures are dequantised, and these data are none; leave out --dequantisation.")
    known = dequantizer if isinstance(dequantizer, Dequantizer) else Uniform()
    trace = divergence or usual_divergence(math.prod(model.spec.shape))
    noise = usual_noise(model, spacing) if noise is None else noise
    return ByFlow(model, held, seed, conditional, spacing, noise, trace, tolerance, known)


def usual_noise(model: Model, spacing: float | None) -> float:
    """At which data are read: half a spacing of pictures' values, else 0.004 of the data's deviation."""
    return spacing / 2 if spacing else 0.004 * (model.recipe.process.sigma_data or 1.0)


def usual_divergence(entries: int) -> Divergence:
    """Exact where that is cheap."""
    return Exact() if entries <= FEW else Hutchinson(1)


def _report(work: ByFlow, found: Tensor, evaluations: float, told: str | None, weights: str | None) -> Report:
    """What the flow found, nats ``(draws, n)``, with all that decided it; ``told`` is the dequantisation in words."""
    spec = work.model.spec
    settings = {
        "divergence": spoken(work.trace),
        "draws": found.shape[0],
        "noise": work.noise,
        "tolerance": work.tolerance,
        "seed": work.seed,
        "given": "the class" if work.conditional else "nothing",
        "weights": weights or "the first average",
        "step": work.model.step,
    }
    return Report(
        mean(found + log_jacobian(spec)),
        bits(work, found),
        unit(spec, work.spacing),
        found.shape[1],
        len(work.held),
        math.prod(spec.shape),
        evaluations,
        0.0,
        settings if told is None else settings | {"dequantisation": told},
    )


def spoken(trace: Divergence) -> str:
    """A divergence in words."""
    name = type(trace).__name__.lower()
    return f"{name}, {plural(trace.probes, 'probe')}" if isinstance(trace, Hutchinson) else name


def _compared(report: Report, work: ByFlow, measured: _Measured, found: Tensor) -> Report:
    """Beside what was found with a learned dequantisation: uniform noise, on the same samples and draws."""
    plain, _ = measured.by(replace(work, dequantizer=Uniform()))
    return replace(report, uniform=bits(work, plain), saved=bits(work, found - plain, difference=True))


def _bounded(report: Report, work: ByFlow, measured: _Measured, levels: int) -> Report:
    """The variational bound too, and what decided it among the settings."""
    way = ByBound(work.model, work.held, work.seed, work.conditional, work.spacing, work.noise, levels)
    told = f"in continuous time, {plural(levels, 'level')} a draw, begun at the same noise"
    return replace(report, bound=bits(work, measured.by(way)[0]), settings=report.settings | {"bound": told})


def _refuse_none(**numbers: int | None) -> None:
    names = {"draws": "draw", "count": "held-out sample", "bound": "level of the bound", "batch_size": "sample a batch"}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"At least one {names[name]} is needed; got {number}.")


def _refuse_unlearned(model: Model, conditional: bool) -> None:
    if conditional and not model.spec.parts:
        raise ValueError("This model was trained without classes; leave out --conditional.")
    if not conditional and model.spec.parts and model.recipe.process.condition_dropout == 0:
        raise ValueError("This model never saw a sample without its class (--condition-dropout 0); add --conditional.")


def bits(work: ByFlow, found: Tensor, difference: bool = False) -> Mean:
    """The mean in bits per dimension, in the data's own units, of nats ``(draws, n)`` in the network's units.

    A difference of nats has no units; more nats are fewer bits, which are counted as saved.
    """
    spec = work.model.spec
    entries = math.prod(spec.shape)
    if difference:
        return mean(-bits_per_dimension(found, entries))
    return mean(bits_per_dimension(found + log_jacobian(spec), entries))


def part(work: ByFlow, count: int | None, passes: float, batch_size: int) -> tuple[np.ndarray, float]:
    """The held-out samples that are measured, and about how many seconds that takes.

    Args:
        work: what is done with each.
        count: how many; None for as many as take about a minute, in whole batches.
        passes: how often.
        batch_size: samples at a time.
    """
    order = permutation(work.seed, 0, len(work.held))
    first = order[: min(batch_size, count or batch_size)]
    seconds = passes * pace(work, first)
    count = count or len(first) * max(1, int(SECONDS / seconds))
    chosen = order[:count]
    return chosen, seconds * len(chosen) / len(first)


def pace(work: ByFlow, indices: np.ndarray) -> float:
    """About the seconds that a batch takes, judged by a few steps of the solver on it."""
    begun, steps = time.monotonic(), 0
    while steps == 0 or (time.monotonic() - begun < 1 and steps < 3):
        _one_step(work, indices)
        steps += 1
    return (time.monotonic() - begun) / steps * USUAL_EVALUATIONS / (2 * len(NODES))


def _one_step(work: ByFlow, indices: np.ndarray) -> None:
    """As many evaluations as two steps of the solver have, on the way it will go."""
    x = work.held.batch(indices)[0].to(work.model.device)
    flow, trace = AngleFlow(work.model.denoiser), work.trace.fixed(x)
    phi = torch.full((len(x),), 0.5, dtype=torch.float64)
    for _ in range(2 * len(NODES)):
        trace.of(lambda u: flow(phi, u), x)


def store(run: str | Path, report: Report) -> Path:
    """Write a report into its run, in one piece."""
    path = Path(run) / "evaluation" / "likelihood.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, asdict(report))
    return path
