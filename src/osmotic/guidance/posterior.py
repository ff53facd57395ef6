"""The posterior mean given a linear measurement too, by the covariance that the denoiser's own derivative knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.guidance.measured import Measured, refuse_aim
from osmotic.guidance.operators import Operator
from osmotic.levels import as_time
from osmotic.schedules import Number

ITERATIONS = 1
"""Of conjugate gradients where nothing is said: with particles the best use of a pass (docs/inverse.md)."""


class Posterior(Measured):
    """``E[x0 | x_t, y] = x0 + C A' (A C A' + noise^2 I)^-1 (y - A x0)`` with ``C = (sigma^2 / alpha) dx0/dx``.

    C is the covariance of x0 given x_t (Tweedie's second formula), so this is exact for Gaussian data at every level
    (beyond sigma / alpha = 100 the denoiser is asked there), and for all data as sigma falls to 0. A product with C
    costs one backward pass, and the inverse is preconditioned conjugate gradients, exact after as many iterations as y
    has numbers. With noise = 0 the result measures y exactly (``A x0 = y``; known cells are copied). Where p(x0 | x_t)
    is far from a Gaussian the estimate is biased, at any number of steps; :class:`~osmotic.samplers.Particles` weighs
    that away by :meth:`weigh`.

    Finzi et al. 2023 (arXiv 2306.07526), Boys et al. 2023 (arXiv 2310.06721); with conjugate gradients Rozet et al.
    2024 (arXiv 2405.13712).

    Args:
        denoiser: any that knows the posterior mean, guided or not.
        operator: A.
        y: ``(B, *M)``, one per sample, or ``(1, *M)`` for all.
        noise: standard deviation of the measurement's noise, at least 0.
        iterations: of conjugate gradients, each one backward pass; 0 takes C for a multiple of I, without any.
        deviation: of the data, positive; read where C is taken for a multiple of I.

    Raises:
        ValueError: as :class:`~osmotic.guidance.measured.Measured`, and for a negative number of iterations.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Tensor,
        noise: float = 0.0,
        iterations: int = ITERATIONS,
        deviation: float = 1.0,
    ) -> None:
        super().__init__(denoiser, operator, y, noise, deviation)
        if iterations < 0:
            raise ValueError(f"Posterior needs iterations >= 0; got {iterations}.")
        self.iterations = iterations

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        refuse_aim(s)
        return self._both(x, as_time(t), cond)[1]

    def weigh(self, x: Tensor, t: Tensor, cond: object = None) -> tuple[Estimate, Estimate, Tensor]:
        """The estimate without the measurement, that with it, and a guess of ``log p(y | x_t)`` up to a constant of t.

        The guess, ``log N(y; A x0, v A A' + noise^2 I)`` with one v for all x, ``(B,)`` float64, becomes exact as sigma
        falls to 0.
        """
        return self._both(x, as_time(t), cond)

    def _both(self, x: Tensor, t: Tensor, cond: object) -> tuple[Estimate, Estimate, Tensor]:
        told, pull = self._ask(x, t, cond, differentiable=self.iterations > 0)
        x0 = told.x0
        y, residual = self._residual(x0)
        spread = self._spread(t)
        plain = self._plain(residual, spread)
        if pull is None:
            (scale,) = like(x, spread)
            shift = scale * self.operator.adjoint(plain)
        else:
            shift = self._conjugate(pull, residual, plain, spread)
        given = x0 + shift
        if self.noise == 0:
            given = self.operator.restore(given, y)
        log_likelihood = -0.5 * (residual * plain).flatten(1).double().sum(1)
        return told, self._with_x0(x, t, given, told.v), log_likelihood

    def _plain(self, residual: Tensor, spread: Number) -> Tensor:
        return self.operator.solve(residual, spread, self.noise**2)

    def _conjugate(self, pull: Callable[[Tensor], Tensor], rest: Tensor, z: Tensor, spread: Number) -> Tensor:
        """``C A' u`` with ``(A C A' + noise^2 I) u = rest``, z being the preconditioned rest."""
        # Data on a surface make A C A' singular; a C that is larger by rounding keeps such directions bounded.
        (floor,) = like(rest, torch.finfo(rest.dtype).eps ** 0.5 * spread)
        direction, power, shift = z, _dot(rest, z), torch.zeros(())
        for i in range(self.iterations):
            back = self.operator.adjoint(direction)
            moved = pull(back)
            seen = self.operator(moved + floor * back) + self.noise**2 * direction
            curvature = _dot(direction, seen)
            # A learned derivative may have a negative direction, and a solved system none: neither is followed.
            step = torch.where(curvature > 0, power / torch.where(curvature > 0, curvature, 1.0), 0.0)
            shift = step * moved.flatten(1) + (shift if i else 0.0)
            if i + 1 < self.iterations:
                rest = rest - (step * seen.flatten(1)).reshape(rest.shape)
                z = self._plain(rest, spread)
                before, power = power, _dot(rest, z)
                turn = torch.where(before > 0, power / torch.where(before > 0, before, 1.0), 0.0)
                direction = z + (turn * direction.flatten(1)).reshape(z.shape)
        return shift.reshape(moved.shape)


def _dot(u: Tensor, v: Tensor) -> Tensor:
    """``(B, 1)``."""
    return (u * v).flatten(1).sum(1, keepdim=True)


def given(denoiser: Denoiser, operator: Operator, y: Tensor, noise: float = 0.0, deviation: float = 1.0) -> Posterior:
    """The denoiser given ``y = A x0 + noise z``: for pictures, tables and sequences alike, whatever A is.

    With the sampler :class:`~osmotic.samplers.Particles` its law tends to the exact conditional as steps and particles
    grow; with any other it is :class:`Posterior`'s estimate that is sampled. :func:`osmotic.inverse.draw` puts
    both together.

    Args:
        denoiser: any that knows the posterior mean, guided or not.
        operator: A, one of :mod:`osmotic.guidance.operators`.
        y: ``(B, *M)``, one per sample, or ``(1, *M)`` for all; under a Mask's 0 anything, NaN too.
        noise: standard deviation of the measurement's noise, at least 0.
        deviation: of the data, positive.
    """
    return Posterior(denoiser, operator, y, noise, deviation=deviation)
