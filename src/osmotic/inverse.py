"""Samples given a measurement in one call: inpainting, imputation, forecasts, super-resolution, deblurring."""

from __future__ import annotations

import math

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.guidance import given
from osmotic.guidance.operators import Operator
from osmotic.noise import Generators
from osmotic.samplers import Particles, prior, sample
from osmotic.times import Grid, suggested


def draw(
    denoiser: Denoiser,
    operator: Operator,
    y: Tensor,
    noise: float = 0.0,
    *,
    steps: int = 100,
    particles: int | None = None,
    deviation: float = 1.0,
    grid: Grid | None = None,
    cond: object = None,
    generator: Generators = None,
) -> Tensor:
    """One sample of ``p(x0 | A x0 + noise z = y)`` per row of y, by :class:`~osmotic.samplers.Particles`.

    With noise = 0 what is known comes out exactly. The law tends to the exact conditional as steps grow, for the
    particles grow with them.

    Args:
        denoiser: any that knows the posterior mean, guided or not.
        operator: A, one of :mod:`osmotic.guidance.operators`.
        y: ``(B, *M)``; repeat a row to draw several samples of it.
        noise: standard deviation of the measurement's noise, at least 0.
        steps: of each particle, at least 1.
        particles: per sample; ``sqrt(steps)`` if None. The cost is their product with the steps.
        deviation: of the data, positive.
        grid: where to stop; :func:`osmotic.times.suggested` for this deviation if None.
        cond: handed to the denoiser, one per sample.
        generator: one, or one per sample (then sample i does not depend on the batch).

    Returns:
        ``(B, *S)``, like y.
    """
    guided = given(denoiser, operator, y, noise, deviation=deviation)
    shape = tuple(operator.adjoint(guided.y).shape)
    x = prior(denoiser, shape, generator, y.device).to(y.dtype)
    times = (grid or suggested(deviation))(denoiser.schedule, steps, denoiser.start)
    count = math.ceil(math.sqrt(steps)) if particles is None else particles
    return sample(Particles(count), guided, x, times, cond, generator)
