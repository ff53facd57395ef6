"""Noise schedules: the pair (alpha, sigma) of the path ``x_t = alpha_t x0 + sigma_t eps`` as a function of time.

Time t runs from 0 (data: alpha = 1, sigma = 0) to 1 (noise). Everything else is derived from the pair alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from osmotic.levels import Level, as_time, once

Number = Tensor | float


class Schedule(ABC):
    """A path from data to noise: ``schedule(t) -> (alpha, sigma)``.

    A new schedule writes :meth:`pair`; a closed-form :meth:`time` is optional (the base class bisects).

    Attributes:
        matrix_valued: whether alpha and sigma are matrices, as on the phase paths, and not numbers.
    """

    matrix_valued: bool = False

    @abstractmethod
    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(alpha_t, sigma_t)`` elementwise, differentiable in t, with sigma = 0 exactly at t = 0."""

    def __call__(self, t: Number) -> tuple[Tensor, Tensor]:
        """``(alpha_t, sigma_t)``: the mean coefficient and the marginal noise standard deviation.

        Args:
            t: times in [0, 1], of any shape; a tensor keeps its dtype, a number is taken in float64.

        Returns:
            Two tensors of t's shape.
        """
        alpha, sigma = self.pair(as_time(t))
        return alpha, sigma

    def numbers(self, t: Number) -> tuple[Number, Number]:
        """The pair as plain floats at a single CPU time, as ``(B,)`` tensors where times differ per sample."""
        if type(t) is Level:  # the sampling loop's own: nothing but a look-up
            pair: tuple[Number, Number] | None = t.memo.get(self)
            if pair is not None:
                return pair
        t = as_time(t)
        return once(t, self, lambda: numbers(*self(t)))

    def pairs(self, times: Tensor) -> list[tuple[float, float]]:
        """The pair at each time ``(n,)`` of a sampling grid, evaluated at once, as plain floats."""
        alpha, sigma = self(times)
        return list(zip(alpha.tolist(), sigma.tolist(), strict=True))

    def scalars(self, t: Number) -> tuple[float, float]:
        """The pair as plain floats, for a step that takes the whole batch at one time.

        Raises:
            ValueError: for times per sample.
        """
        if type(t) is Level and self in t.memo:
            pair: tuple[float, float] = t.memo[self]
            return pair
        alpha, sigma = self.numbers(t)
        if isinstance(alpha, Tensor) or isinstance(sigma, Tensor):
            raise ValueError(
                "This sampler steps a whole batch at one time; for times per sample use Euler, Midpoint or Heun."
            )
        return alpha, sigma

    def rates(self, t: Number) -> tuple[Tensor, Tensor]:
        """``(dalpha/dt, dsigma/dt)``, differentiated, never hand-written. Infinite where the path is (VP's sigma at
        0).
        """
        t = as_time(t)
        with torch.inference_mode(False):
            # Reverse mode: as composable as forward mode, without the seconds its first use costs.
            _, pull = torch.func.vjp(self.pair, t.clone())[:2]
            one, zero = torch.ones_like(t), torch.zeros_like(t)
            (alpha,), (sigma,) = pull((one, zero)), pull((zero, one))
        return alpha, sigma

    def log_snr(self, t: Number) -> Tensor:
        """``log(alpha^2 / sigma^2)``, decreasing from +inf at the data; -inf where alpha = 0."""
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())

    def time(self, log_snr: Number) -> Tensor:
        """The inverse of :meth:`log_snr`, by bisection to the last bit unless the schedule has a closed form.

        Args:
            log_snr: of any shape; values beyond the schedule's ends give the ends, 0 and 1.
        """
        goal = as_time(log_snr)
        low, high = torch.zeros_like(goal), torch.ones_like(goal)
        for _ in range(80):
            middle = (low + high) / 2
            above = self.log_snr(middle) > goal
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        # Past the last level's own noise, bisection converges to 1 from below; the ends themselves are exact.
        high = torch.where(goal <= self.log_snr(torch.ones_like(goal)), torch.ones_like(goal), high)
        found = torch.where(goal == math.inf, torch.zeros_like(goal), high).detach()
        return self._with_derivative(found, goal)

    def _with_derivative(self, t: Tensor, log_snr: Tensor) -> Tensor:
        """The value t with the derivative ``dt / dlog_snr`` of the inverse, which bisection cannot have."""
        (alpha, sigma), (dalpha, dsigma) = self(t), self.rates(t)
        slope = 1 / (2 * (dalpha / alpha - dsigma / sigma)).detach()
        change = torch.where(log_snr.isfinite(), log_snr - log_snr.detach(), torch.zeros_like(t))
        return t + torch.where(slope.isfinite(), slope, torch.zeros_like(t)) * change

    def noisier(self, t: Tensor, offset: float) -> Tensor:
        """The time whose log-SNR is lower than t's by ``offset``."""
        return self.time(self.log_snr(t) - offset)

    def sde(self, t: Number) -> tuple[Tensor, Tensor]:
        """Drift and squared diffusion of the forward SDE ``dx = f x dt + g dw`` with these marginals.

        ``f = alpha'/alpha`` and ``g^2 = 2 sigma (sigma' - f sigma)``, equal to ``-sigma^2 dlog_snr/dt``
        (Song et al. 2021, arXiv 2011.13456; Kingma et al. 2021, arXiv 2107.00630).

        Returns:
            ``(f, g^2)``, each of t's shape.
        """
        (alpha, sigma), (dalpha, dsigma) = self(t), self.rates(t)
        f = dalpha / alpha
        return f, 2 * (sigma * dsigma - f * sigma**2)


def numbers(first: Tensor, second: Tensor) -> tuple[Number, Number]:
    """Plain floats for two single CPU values, the tensors themselves otherwise (a device is never read)."""
    if all(v.ndim == 0 and v.device.type == "cpu" and not v.requires_grad for v in (first, second)):
        return float(first), float(second)
    return first, second
