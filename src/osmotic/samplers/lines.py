"""Lines: the exact integrals along the probability-flow ODE in which a solver puts polynomials.

Along the flow, x0 and eps change slowly. A line says which of them is seen (rows of the estimate), in which variable it
is a polynomial, and what a step from t to s makes of it: ``x_s = keep x_t + sum over rows of int row d(measure)``.
"""

from __future__ import annotations

import cmath
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from osmotic.levels import Level, recall
from osmotic.samplers.adams import phi
from osmotic.samplers.base import half_log_snr_step
from osmotic.schedules import Schedule

Scalars = tuple[float, float]


class Line(ABC):
    """One way to write the flow's solution as a known part and integrals of what the denoiser sees.

    Attributes:
        rows: the coefficients (of x0, of eps) of each quantity that is integrated.
    """

    rows: tuple[Scalars, ...]

    @abstractmethod
    def node(self, schedule: Schedule, t: Level) -> float:
        """The polynomials' variable at a level; infinite where this line cannot see that level."""

    @abstractmethod
    def keep(self, t: Scalars, s: Scalars) -> float:
        """The coefficient of x_t in x_s, from the two levels' (alpha, sigma)."""

    @abstractmethod
    def moments(self, schedule: Schedule, t: Level, s: Level, count: int) -> list[list[float]]:
        """For each row ``int (u - u_t)^m / m! d(measure)`` over the step, m = 0 .. count - 1; m = 0 is the first
        order.
        """

    @abstractmethod
    def between(self, schedule: Schedule, t: Level, s: Level, share: float) -> float:
        """``log(alpha / sigma)`` of the level at a share of the step in this line's variable."""

    def ahead(self, schedule: Schedule, steps: Sequence[tuple[Level, Level]]) -> None:  # noqa: B027
        """Work out for all steps of a grid at once what the moments need of the schedule; nothing here."""


def at_log_snr(schedule: Schedule, halves: Sequence[float]) -> list[Level]:
    """The levels with ``log(alpha / sigma) = half``, the schedule's pair in their memos."""
    return levels_at(schedule, schedule.time(2 * torch.tensor(halves, dtype=torch.float64)))


def levels_at(schedule: Schedule, times: Tensor) -> list[Level]:
    """The levels at times ``(n,)``, the schedule's pair in their memos."""
    levels = Level.grid(times)
    for level, pair in zip(levels, schedule.pairs(times.to(torch.float64)), strict=True):
        level.memo[schedule] = pair
    return levels


def half_log_snr(pair: Scalars) -> float:
    """``log(alpha / sigma)``, infinite at the ends."""
    alpha, sigma = pair
    if sigma == 0 or alpha == 0:
        return math.inf if sigma == 0 else -math.inf
    return math.log(alpha / sigma)


class _InLogSNR(Line):
    """The variable is ``lambda = log(alpha / sigma)``, infinite at both ends of the path."""

    def node(self, schedule: Schedule, t: Level) -> float:
        return half_log_snr(schedule.scalars(t))

    def between(self, schedule: Schedule, t: Level, s: Level, share: float) -> float:
        first, last = (half_log_snr(schedule.scalars(level)) for level in (t, s))
        return first + share * (last - first)


class DataLogSNR(_InLogSNR):
    """``x_s = (sigma_s / sigma_t) x_t + alpha_s int_0^h e^{u - h} x0 du``, u in log(alpha/sigma): DPM-Solver++'s line.

    Lu et al. 2022 (arXiv 2211.01095). Bounded for every h, so it bears long steps.

    Args:
        tau: noise level of the reverse SDE, 0 for the ODE: ``h`` becomes ``(1 + tau^2) h`` in the integral and the kept
            part shrinks by ``e^{-tau^2 h}`` (Xue et al. 2023, arXiv 2309.05019).
    """

    rows = ((1.0, 0.0),)

    def __init__(self, tau: float = 0.0) -> None:
        self.rate = 1 + tau**2

    def keep(self, t: Scalars, s: Scalars) -> float:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s
        ratio = sigma_s * alpha_t / (sigma_t * alpha_s)  # e^{-h}
        return sigma_s / sigma_t * ratio ** (self.rate - 1) if self.rate > 1 else sigma_s / sigma_t

    def node(self, schedule: Schedule, t: Level) -> float:
        return self.rate * super().node(schedule, t)

    def moments(self, schedule: Schedule, t: Level, s: Level, count: int) -> list[list[float]]:
        pairs = schedule.scalars(t), schedule.scalars(s)
        alpha, h = pairs[1][0], self.rate * half_log_snr_step(*pairs)
        if math.isinf(h):
            return [[alpha, *[math.inf] * (count - 1)]]
        return [[alpha * h ** (m + 1) * phi(m + 1, -h) for m in range(count)]]


class NoiseLogSNR(_InLogSNR):
    """``x_s = (alpha_s / alpha_t) x_t - sigma_s int_0^h e^{h - u} eps du``, u in log(alpha/sigma): DPM-Solver's line.

    Lu et al. 2022 (arXiv 2206.00927); also DEIS with polynomials in log(sigma/alpha) (arXiv 2204.13902).
    """

    rows = ((0.0, 1.0),)

    def keep(self, t: Scalars, s: Scalars) -> float:
        return s[0] / t[0]

    def moments(self, schedule: Schedule, t: Level, s: Level, count: int) -> list[list[float]]:
        pairs = schedule.scalars(t), schedule.scalars(s)
        sigma, h = pairs[1][1], half_log_snr_step(*pairs)
        return [[-sigma * h ** (m + 1) * phi(m + 1, h) for m in range(count)]]


class NoiseRho(Line):
    """``x_s = (alpha_s / alpha_t) x_t + alpha_s int eps drho`` with ``rho = sigma / alpha``: the line of LMS and
    DEIS-rho.

    Zhang & Chen 2022 (arXiv 2204.13902). Regular down to sigma = 0, so it carries every solver's last step there.
    """

    rows = ((0.0, 1.0),)

    def node(self, schedule: Schedule, t: Level) -> float:
        return rho(schedule.scalars(t))

    def keep(self, t: Scalars, s: Scalars) -> float:
        return s[0] / t[0]

    def moments(self, schedule: Schedule, t: Level, s: Level, count: int) -> list[list[float]]:
        first, last = schedule.scalars(t), schedule.scalars(s)
        change = rho(last) - rho(first)
        return [[last[0] * change ** (m + 1) / math.factorial(m + 1) for m in range(count)]]

    def between(self, schedule: Schedule, t: Level, s: Level, share: float) -> float:
        first, last = rho(schedule.scalars(t)), rho(schedule.scalars(s))
        return -math.log(first + share * (last - first))


class NoiseTime(NoiseRho):
    """:class:`NoiseRho`'s integral with eps a polynomial in the path's own time: DEIS's tAB (arXiv 2204.13902).

    The moments are a Gauss-Legendre quadrature in sqrt(rho), in which time is smooth also at sigma = 0.
    """

    _x, _w = np.polynomial.legendre.leggauss(24)

    def node(self, schedule: Schedule, t: Level) -> float:
        return t.number if schedule.scalars(t)[0] > 0 else math.inf

    def moments(self, schedule: Schedule, t: Level, s: Level, count: int) -> list[list[float]]:
        if count == 1:
            return super().moments(schedule, t, s, 1)
        alpha = schedule.scalars(s)[0]
        measure, times = recall(t, (self, schedule), s, lambda: self.ahead(schedule, [(t, s)]))
        u = times - t.number
        return [[alpha * float((measure * u**m).sum()) / math.factorial(m) for m in range(count)]]

    def ahead(self, schedule: Schedule, steps: Sequence[tuple[Level, Level]]) -> None:
        """The quadratures: the measure drho and the times at the nodes."""
        steps = [(t, s) for t, s in steps if schedule.scalars(t)[0] > 0]
        ends = np.sqrt([[rho(schedule.scalars(level)) for level in pair] for pair in steps]).reshape(-1, 2, 1)
        high, low = ends[:, 0], ends[:, 1]
        root = (high + low) / 2 - (high - low) / 2 * self._x
        measure = -(high - low) / 2 * self._w * 2 * root
        every = schedule.time(torch.from_numpy(-2 * np.log(root**2))).numpy()
        for (t, s), row, times in zip(steps, measure, every, strict=True):
            t.memo[self, schedule] = s, (row, times)


class Flow(Line):
    """``u_s = u_t + int x0 dcos(phi) + int eps dsin(phi)`` with ``x = hypot(alpha, sigma) u``, ``phi = atan2(sigma,
    alpha)``.

    This is the flow ``dx = x0 dalpha + eps dsigma`` on the normalised path, with x0 and eps both polynomials in the
    angle. It treats signal and noise alike and is regular from alpha = 0 to sigma = 0, so a method on it starts in
    pure noise and lands on the data at its full order. The moments are ``Re`` and ``Im`` of ``i int (phi - phi_t)^m /
    m! e^{i phi}``.
    """

    rows = ((1.0, 0.0), (0.0, 1.0))

    def node(self, schedule: Schedule, t: Level) -> float:
        return angle(schedule.scalars(t))

    def keep(self, t: Scalars, s: Scalars) -> float:
        return math.hypot(*s) / math.hypot(*t)

    def moments(self, schedule: Schedule, t: Level, s: Level, count: int) -> list[list[float]]:
        first, last = schedule.scalars(t), schedule.scalars(s)
        start, scale = angle(first), math.hypot(*last)
        turn = 1j * cmath.exp(1j * start) * scale
        both = [turn * moment for moment in _turned(count, angle(last) - start)]
        return [[z.real for z in both], [z.imag for z in both]]

    def between(self, schedule: Schedule, t: Level, s: Level, share: float) -> float:
        first, last = angle(schedule.scalars(t)), angle(schedule.scalars(s))
        return -math.log(math.tan(first + share * (last - first)))


def _turned(count: int, d: float) -> list[complex]:
    """``int_0^d u^m / m! e^{iu} du`` for m = 0 .. count - 1, by its series in d; |d| is at most pi / 2."""
    found, z = [], 1j * d
    first = 0 if abs(d) > 0.5 else 10  # a short step needs fewer terms
    for m in range(count):
        total = 0j
        for coefficient in SERIES[m][first:]:
            total = total * z + coefficient
        found.append(total * d ** (m + 1))
    return found


# 1 / (m! j! (m + 1 + j)), highest j first: (pi / 2)^24 / 24! is below rounding.
SERIES = [[1 / (math.factorial(m) * math.factorial(j) * (m + 1 + j)) for j in reversed(range(24))] for m in range(8)]


def angle(pair: Scalars) -> float:
    """``atan2(sigma, alpha)``, from 0 at the data to pi / 2 in pure noise."""
    alpha, sigma = pair
    return math.atan2(sigma, alpha)


def rho(pair: Scalars) -> float:
    """``sigma / alpha``, infinite where alpha = 0."""
    alpha, sigma = pair
    return sigma / alpha if alpha > 0 else math.inf
