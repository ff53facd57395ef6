"""Editing with a trained model: fill in, restore, draw over, change what a sample is, and go from one to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic import inversion
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.guidance.operators import Mask, Operator
from osmotic.inverse import draw
from osmotic.noise import generators, normal
from osmotic.samplers import sample
from osmotic.training.model import Guide, Model, Told, suggested_grid

STEPS = 50
"""Of methods that weigh particles."""


@dataclass(frozen=True)
class Way:
    """How edited samples are drawn.

    Args:
        each: results for each sample that is given.
        cond: what they should be, as in :meth:`osmotic.training.model.Model.sample`, for all or for each result.
        guidance: the classifier-free scale.
        negative: what to lead away from.
        guide: pieces of guidance around the denoiser.
        steps: of the solver; by default as the model is sampled, or :data:`STEPS` of particles.
        particles: of each result, where a measurement is given; by default the root of the steps.
        seed: of the noise.
        batch_size: results at a time: memory, not results.
    """

    each: int = 1
    cond: Told | None = None
    guidance: float = 1.0
    negative: Told | None = None
    guide: Guide | None = None
    steps: int | None = None
    particles: int | None = None
    seed: int = 0
    batch_size: int = 64


Progress = Callable[[int], object]


def fill(model: Model, x: Tensor, way: Way, progress: Progress | None = None) -> Tensor:
    """Samples ``(N each, *S)`` whose known entries are x's, the others drawn given them.

    One call for pictures with a hole, rows of tables with empty cells and sequences whose end is not known yet: by
    :func:`osmotic.inverse.draw`.

    Args:
        model: with a posterior mean.
        x: ``(N, *S)``, NaN where nothing is known.
        way: how.
        progress: told how many are done.
    """
    known, model = ~x.isnan(), model.of_data()

    def some(denoiser: Denoiser, rows: Tensor, cond: Condition | None, first: int) -> Tensor:
        return _measured(model, denoiser, Mask(known[rows].to(model.device)), x[rows], 0.0, cond, first, way)

    return every(model, len(x), way, some, progress)


def restore(
    model: Model, y: Tensor, operator: Operator, noise: float, way: Way, progress: Progress | None = None
) -> Tensor:
    """Samples ``(N each, *S)`` given ``y = A x + noise z``: super-resolution, deblurring, colourisation.

    Args:
        model: with a posterior mean.
        y: ``(N, *M)``.
        operator: A.
        noise: standard deviation of the measurement's noise in the network's units, at least 0.
        way: how.
        progress: told how many are done.
    """
    model = model.of_data()

    def some(denoiser: Denoiser, rows: Tensor, cond: Condition | None, first: int) -> Tensor:
        return _measured(model, denoiser, operator.to(model.device), y[rows], noise, cond, first, way)

    return every(model, len(y), way, some, progress)


def redraw(model: Model, x: Tensor, strength: float, way: Way, progress: Progress | None = None) -> Tensor:
    """Samples ``(N each, *S)`` that keep what survives noise: x is noised and denoised again (SDEdit).

    ``x_t = alpha x + sigma z`` at ``sigma / alpha = sd tan(strength pi / 2)``: at a strength of 0.5 noise and data are
    equally strong, at 1 nothing of x is left. Meng et al. 2022 (arXiv 2108.01073).

    Args:
        model: with a posterior mean.
        x: ``(N, *S)``.
        strength: in (0, 1].
        way: how.
        progress: told how many are done.
    """
    refuse_gaps(x)
    if not 0 < strength <= 1:
        raise ValueError(f"The strength lies above 0 and at most at 1; got {strength:g}.")
    plan, x = model.plan(steps=way.steps), model.into(x)

    def some(denoiser: Denoiser, rows: Tensor, cond: Condition | None, first: int) -> Tensor:
        keyed = list(generators(way.seed, range(first, first + len(rows)), model.device))
        times = _from(denoiser, plan.grid(denoiser.schedule, plan.steps, denoiser.start), strength, model)
        alpha, sigma = denoiser.schedule.scalars(float(times[0]))
        clean = x[rows].to(model.device)
        noisy = alpha * clean + sigma * normal(clean.shape, keyed, model.device, clean.dtype)
        return sample(plan.sampler, denoiser, noisy, times, cond, keyed)

    return every(model, len(x), way, some, progress)


def swap(model: Model, x: Tensor, before: Told, way: Way, progress: Progress | None = None) -> Tensor:
    """Samples ``(N each, *S)`` of the noises that give x under one condition, drawn under another.

    The probability-flow ODE is followed up to the noise, told what x is, and down again, told what it should become
    (Song et al. 2021, arXiv 2010.02502; Su et al. 2023, arXiv 2203.08382). There is one result, so ``way.each`` is 1.

    Args:
        model: with a posterior mean.
        x: ``(N, *S)``.
        before: what x is.
        way: how; its condition is what x becomes.
        progress: told how many are done.
    """
    refuse_gaps(x)
    total, x = len(x) * way.each, model.into(x)

    def some(denoiser: Denoiser, rows: Tensor, cond: Condition | None, first: int) -> Tensor:
        was = model.condition(before, total, first, len(rows))
        noise = inversion.encode(model.guided(was), x[rows].to(model.device), was)
        return inversion.decode(denoiser, noise, cond)

    return every(model, len(x), way, some, progress)


def between(model: Model, a: Tensor, b: Tensor, count: int, way: Way) -> Tensor:
    """``(count, *S)`` from a to b, both ends included: their noises mixed on the sphere.

    Args:
        model: with a posterior mean.
        a: ``(*S)``.
        b: likewise.
        count: at least 2.
        way: its condition is told on all ways; nothing else of it is used.
    """
    refuse_gaps(torch.stack([a, b]))
    cond = model.condition(way.cond, 1, 0, 1)
    weights = torch.linspace(0, 1, count)
    with torch.no_grad():
        denoiser = model.guided(cond)
        first, last = (model.into(each[None].to(model.device)) for each in (a, b))
        found = model.out(inversion.interpolate(denoiser, first, last, weights, cond)[:, 0])
    return found.cpu()


Some = Callable[[Denoiser, Tensor, Condition | None, int], Tensor]


def every(model: Model, n: int, way: Way, some: Some, progress: Progress | None, twins: int = 1) -> Tensor:
    """Every result of n samples, in batches; result i is the same whatever the batch.

    Args:
        model: the model.
        n: how many samples there are to be edited.
        way: how.
        some: results of the denoiser under guidance, the numbers of the samples, what they should be, and the number of
            the first result.
        progress: told how many are done.
        twins: rows of the denoiser for each result.
    """
    total, done = n * way.each, []
    for start in range(0, total, way.batch_size):
        count = min(way.batch_size, total - start)
        cond, away = (model.condition(said, total, start, count) for said in (way.cond, way.negative))
        away = away if away is None else away[torch.arange(count, device=model.device).repeat_interleave(twins)]
        denoiser = model.guided(cond, way.guidance, negative=away)
        denoiser = denoiser if way.guide is None else way.guide(denoiser)
        with torch.no_grad():
            found = some(denoiser, torch.arange(start, start + count) // way.each, cond, start)
            beside = found.shape[1 : found.ndim - len(model.seen.shape)]  # pairs, where two are drawn as one
            found = model.out(found.flatten(0, len(beside)))
            done.append(found.reshape(count, *beside, *found.shape[1:]).cpu())
        if progress is not None:
            progress(count)
    return torch.cat(done)


def refuse_gaps(x: Tensor) -> None:
    """Refuse samples with entries that are not known.

    Raises:
        ValueError: if there are any.
    """
    if x.isnan().any():
        raise ValueError("The samples have gaps (NaN); fill them first.")


def _measured(
    model: Model,
    denoiser: Denoiser,
    operator: Operator,
    y: Tensor,
    noise: float,
    cond: Condition | None,
    first: int,
    way: Way,
) -> Tensor:
    return draw(
        denoiser,
        operator,
        y.to(model.device),
        noise,
        steps=way.steps or STEPS,
        particles=way.particles,
        deviation=model.recipe.process.sigma_data or 1.0,
        grid=suggested_grid(model.seen, model.recipe),
        cond=cond,
        generator=list(generators(way.seed, range(first, first + len(y)), model.device)),
    )


def _from(denoiser: Denoiser, times: Tensor, strength: float, model: Model) -> Tensor:
    """The part of a grid below the level of this strength, from exactly there on."""
    if strength == 1:
        return times
    sd = model.recipe.process.sigma_data or 1.0
    ratio = sd * torch.tan(torch.tensor(strength * torch.pi / 2, dtype=torch.float64))
    first = float(denoiser.schedule.time(-2 * ratio.log()))
    if first >= denoiser.start:
        return times
    return torch.cat([torch.tensor([first], dtype=torch.float64), times[times < first]])
