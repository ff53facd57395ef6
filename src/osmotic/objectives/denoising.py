"""The denoising objective."""

from __future__ import annotations

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.levels import as_time
from osmotic.objectives.weights import Unit, Weight
from osmotic.schedules import Number


def denoising(
    denoiser: Denoiser,
    x0: Tensor,
    t: Number,
    eps: Tensor,
    cond: object = None,
    weight: Weight | None = None,
) -> Tensor:
    """The weighted squared error of the estimate in target space, per sample.

    ``w(t) mean((a (x0_hat - x0) + b (eps_hat - eps))^2)`` at ``x_t = alpha x0 + sigma eps``, with (a, b) the row of the
    denoiser's target: for a network this is its output error. With unit weight it is L_simple for the eps target (Ho et
    al. 2020, arXiv 2006.11239), EDM's loss for Karras (arXiv 2206.00364) and conditional flow matching for Velocity
    (arXiv 2210.02747).

    Args:
        denoiser: what is trained.
        x0: clean samples, ``(B, *S)``.
        t: times in (0, 1], ``()`` or ``(B,)``.
        eps: unit noise, ``(B, *S)``.
        cond: handed to the denoiser.
        weight: of each time; Unit by default.

    Returns:
        Losses ``(B,)``, the mean over a sample's dimensions.
    """
    return squared(denoiser, error(denoiser, x0, t, eps, cond)[1], t, weight)


def error(denoiser: Denoiser, x0: Tensor, t: Number, eps: Tensor, cond: object = None) -> tuple[Estimate, Tensor]:
    """The estimate at ``x_t = alpha x0 + sigma eps``, and its error in target space ``(B, *S)``."""
    schedule, target = denoiser.schedule, denoiser.target
    t = as_time(t)
    alpha, sigma = like(x0, *schedule.numbers(t))
    a, b = target.numbers(schedule, t)
    estimate: Estimate = denoiser(x0 * alpha + eps * sigma, t, cond)
    wide_a, wide_b = like(x0, a, b)
    return estimate, estimate.at(a, b) - (x0 * wide_a + eps * wide_b)


def squared(denoiser: Denoiser, error: Tensor, t: Number, weight: Weight | None = None) -> Tensor:
    """The weighted mean square ``(B,)`` of an error in target space."""
    loss: Tensor = error.square().flatten(1).mean(1)
    if weight is None or isinstance(weight, Unit):
        return loss
    return loss * weight(denoiser.schedule, denoiser.target, t).to(loss)


def gap(denoiser: Denoiser, error: Tensor, t: Number) -> Tensor:
    """``x0_hat - x0`` from the error in target space, ``-sigma / (alpha b - sigma a)`` times it.

    The difference of the two would lose its digits where the sample is mostly noise.
    """
    t = as_time(t)
    alpha, sigma = denoiser.schedule.numbers(t)
    a, b = denoiser.target.numbers(denoiser.schedule, t)
    (scale,) = like(error, -sigma / (alpha * b - sigma * a))
    return error * scale
