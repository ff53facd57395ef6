"""Guidance by the gradient of any differentiable energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.guidance.base import Guidance, refuse_matrices
from osmotic.levels import Level, as_time
from osmotic.schedules import Number

Potential = Callable[[Tensor, Tensor], Tensor]


class Energy(Guidance):
    """The score of ``p(x_t) exp(-scale E(x_t, t))``: ``x0 -= scale sigma^2 / alpha grad E``, ``eps += scale sigma grad
    E``.

    E lives on noisy samples: ``exp(-E(x_t, t))`` has to be the mean of ``exp(-E(x0))`` over the posterior of x0 for the
    result to be the tilted data, and an energy of clean samples put here is a heuristic. The gradient is taken of E
    alone, not through the denoiser. Works under ``no_grad`` and ``inference_mode``; where gradients are on, they flow.

    At alpha = 0 the noisy sample is all noise and tells nothing of the data. The path's equation then fixes eps, x0
    would change by ``sigma^2 / 0``, and the gradient of a right energy is 0: there nothing is changed, and E is not
    evaluated. Close to it an energy whose gradient does not fall with alpha moves x0 by ever more.

    Args:
        denoiser: any, guided or not.
        energy: ``energy(x, t) -> (B,)`` in nats from noisy samples ``(B, *S)`` and their times ``(B,)`` in x's dtype;
            each sample by itself.
        scale: one for all or one per sample ``(B,)``; 0 is the plain denoiser.

    Raises:
        ValueError: on paths of matrices, when called with a time s (a flow map is no score), and for an energy that
            does not give a number per sample.
    """

    def __init__(self, denoiser: Denoiser, energy: Potential, scale: Number = 1.0) -> None:
        super().__init__()
        refuse_matrices(denoiser, "Energy")
        self.denoiser, self.energy, self.scale = denoiser, energy, scale
        self.around(denoiser)

    @property
    def plain(self) -> Denoiser:
        return self.denoiser

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        plain: Estimate = self.denoiser(x, t, cond, s)
        return plain, tilted(self, plain, lambda y, time: -self.energy(y, time), self.scale, x, t, s)


def tilted(
    denoiser: Denoiser, plain: Estimate, log_weight: Potential, scale: Number, x: Tensor, t: Tensor, s: Number | None
) -> Estimate:
    """The estimate of ``p(x_t) w(x_t, t)^scale`` from that of p and ``log w -> (B,)``.

    ``x0 += scale sigma^2 / alpha G`` and ``eps -= scale sigma G`` with ``G = grad log w``.
    """
    if s is not None:
        raise ValueError(
            "The gradient of an energy or a classifier leads the posterior mean, and a flow map to a time s is none; "
            "sample with a solver."
        )
    t = as_time(t)
    alpha, sigma = denoiser.schedule.numbers(t)
    if not isinstance(scale, Tensor) and not isinstance(alpha, Tensor):
        if scale == 0 or alpha == 0:
            return plain
        change: Number = scale * sigma**2 / alpha
    else:
        alpha, sigma, scale = (torch.as_tensor(n, dtype=torch.float64, device=x.device) for n in (alpha, sigma, scale))
        change = torch.where(alpha == 0, 0.0, scale * sigma**2 / torch.where(alpha == 0, 1.0, alpha))
    gradient = _gradient(log_weight, x, t)
    of_x0, of_eps = like(x, change, change * (alpha / sigma))
    return Estimate(plain.x0 + of_x0 * gradient, plain.eps - of_eps * gradient, plain.v)


def _gradient(log_weight: Potential, x: Tensor, t: Tensor) -> Tensor:
    """``grad_x log w``, ``(B, *S)``, whether or not gradients are on outside."""

    def total(y: Tensor) -> Tensor:
        size = len(y)
        time = y.new_full((size,), t.number) if isinstance(t, Level) else t.to(y).expand(size)
        found = log_weight(y, time)
        if found.shape != y.shape[:1]:
            raise ValueError(f"An energy gives one number per sample, ({len(y)},); this one gave {tuple(found.shape)}.")
        return found.sum()

    gradient: Tensor = torch.func.grad(total)(x)  # autograd.grad would need a graph, which sampling switches off
    return gradient
