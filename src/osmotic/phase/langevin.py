"""Critically damped Langevin diffusion: noise enters the velocity alone and reaches the position through it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from osmotic.levels import as_time
from osmotic.phase.path import PhasePath
from osmotic.schedules import Number, Schedule

# Gauss-Legendre on [0, 1]; in the graded variable of turn() so many nodes give 1e-12 on a path with gamma >= 1e-4.
_NODES, _WEIGHTS = ((v + shift) / 2 for v, shift in zip(np.polynomial.legendre.leggauss(64), (1, 0), strict=True))


class Root(ABC):
    """Which root R of the covariance ``Sigma = R R^T`` a path uses: the lower triangular L, turned by some angle."""

    @abstractmethod
    def angle(self, path: CLD, clock: Tensor) -> Tensor:
        """The angle theta of ``R = L [[cos, sin], [-sin, cos]]`` at dimensionless times zeta ``(...)`` of a path."""


class Flow(Root):
    """The root that the probability flow of a single point keeps: ``R' = F R + (1/2) G G^T R^{-T}``.

    With it eps is constant along the flow of a point mass, so that one gDDIM step is exact (Zhang, Tao & Chen 2022,
    arXiv 2206.05564, eq. 14). Written as ``R = L Q`` with Q a rotation the matrix ODE becomes one integral, ``theta' =
    sqrt(det Sigma) / Sigma_xx``. It starts at ``theta = pi/2``, where ``R_0 = diag(0, sqrt(gamma M))``.
    """

    def angle(self, path: CLD, clock: Tensor) -> Tensor:
        knee, reach, series = _series(path.gamma, float(path.clock(torch.ones((), dtype=torch.float64))))
        # The series of turn() in u with zeta = knee sinh^2 u, on [0, reach]; Chebyshev polynomials are cosines.
        inner = torch.acos((2 * torch.asinh((clock / knee).sqrt()) / reach - 1).clamp(-1, 1))
        order = torch.arange(len(series), dtype=clock.dtype, device=clock.device)
        return math.pi / 2 + torch.cos(inner[..., None] * order) @ series.to(clock)


class Cholesky(Root):
    """The lower triangular root L, in which CLD is parameterized (Dockhorn, Vahdat & Kreis 2021, arXiv 2112.07068)."""

    def angle(self, path: CLD, clock: Tensor) -> Tensor:
        return torch.zeros_like(clock)


class CLD(PhasePath):
    """``dx = beta v/M dt``, ``dv = -beta (x + Gamma v/M) dt + sqrt(2 Gamma beta) dw`` with ``Gamma^2 = 4 M``.

    Critically damped, and with N(0, 1) x N(0, M) as its equilibrium (Dockhorn, Vahdat & Kreis 2021, arXiv 2112.07068).
    The initial velocity is N(0, gamma M) and independent of x0; it is marginalised, ``Sigma_0 = diag(0, gamma M)``. No
    numerical epsilon is added: Sigma is singular at t = 0 only, where nobody needs its inverse.

    In units ``v = sqrt(M) w`` and ``zeta = int_0^t beta / sqrt(M)`` the process has no parameters left but gamma:
    ``A = exp(-zeta) [[1 + zeta, zeta], [-zeta, 1 - zeta]]`` and ``Sigma = I - A A^T + gamma a_w a_w^T``, evaluated
    below without cancellation; ``1 - (A A^T)_xx`` is the incomplete gamma function ``P(3, 2 zeta)``.

    Args:
        beta: ``(beta_0, beta_1)``, the rate at t = 0 and t = 1, linear between; positive. The paper's is 4, constant.
        mass: M, positive; the paper's is 1/4.
        gamma: the initial velocity's variance relative to M, positive; the paper's is 0.04.
        root: of Sigma: Flow for gDDIM, Cholesky for CLD's own.
    """

    def __init__(
        self,
        beta: tuple[float, float] = (4.0, 4.0),
        mass: float = 0.25,
        gamma: float = 0.04,
        root: Root | None = None,
    ) -> None:
        if not (min(beta) > 0 and mass > 0 and gamma > 0):
            raise ValueError(f"CLD needs a positive beta, mass and gamma; got beta={beta}, mass={mass}, gamma={gamma}.")
        self.beta, self.mass, self.gamma, self.root = beta, mass, gamma, root or Flow()
        # Sigma_xx = gamma zeta^2 + (4/3) zeta^3 + ...: below 3 gamma / 4 the initial velocity rules.
        self.knee = 0.75 * gamma * math.sqrt(mass) / beta[0]

    @property
    def friction(self) -> float:
        """Gamma, critical: ``2 sqrt(M)``."""
        return 2 * math.sqrt(self.mass)

    @cached_property
    def channel(self) -> Schedule:
        return Channel(self)

    def rate(self, t: Tensor) -> Tensor:
        """beta at times ``(...)``."""
        return self.beta[0] + (self.beta[1] - self.beta[0]) * t

    def clock(self, t: Tensor) -> Tensor:
        """zeta, the dimensionless time ``int_0^t beta / sqrt(M)``."""
        return (self.beta[0] * t + (self.beta[1] - self.beta[0]) * t**2 / 2) / math.sqrt(self.mass)

    def unclock(self, clock: Tensor) -> Tensor:
        """The time at which the clock shows zeta."""
        total, slope = clock * math.sqrt(self.mass), self.beta[1] - self.beta[0]
        return 2 * total / (self.beta[0] + (self.beta[0] ** 2 + 2 * slope * total).sqrt())

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        clock = self.clock(t.double())
        lxx, lvx, lvv = moments(clock, self.gamma, 0.0).cholesky
        theta, root = self.root.angle(self, clock), math.sqrt(self.mass)
        cos, sin = theta.cos(), theta.sin()
        r = _stack(lxx * cos, lxx * sin, root * (lvx * cos - lvv * sin), root * (lvx * sin + lvv * cos))
        return transition(clock, self.mass).to(t.dtype), r.to(t.dtype)

    def drift(self, t: Tensor) -> Tensor:
        one = torch.ones_like(t)
        unit = _stack(0 * one, one / self.mass, -one, -self.friction / self.mass * one)
        return self.rate(t)[..., None, None] * unit

    def diffusion(self, t: Tensor) -> Tensor:
        zero = torch.zeros_like(t)
        return _stack(zero, zero, zero, 2 * self.friction * self.rate(t))

    def covariance(self, t: Number) -> Tensor:
        """Sigma, the covariance of u_t given x0, ``(..., 2, 2)``."""
        m, root = moments(self.clock(as_time(t)), self.gamma, 0.0), math.sqrt(self.mass)
        return _stack(m.xx, root * m.xv, root * m.xv, self.mass * m.vv)


class Channel(Schedule):
    """What a CLD path shows of the position, as an ordinary path: ``(snr / (1 + snr), 1 / (1 + snr))``, square roots.

    Args:
        path: the CLD path.
    """

    def __init__(self, path: CLD) -> None:
        self.path = path

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        ratio = 1 / precision(self.path.clock(t.double()), self.path.gamma)
        return (1 + ratio).rsqrt().to(t.dtype), (ratio / (1 + ratio)).sqrt().to(t.dtype)


class Moments(NamedTuple):
    """The covariance of (x, w) in dimensionless units, with its determinant kept apart, each ``(...)``."""

    xx: Tensor
    xv: Tensor
    vv: Tensor
    det: Tensor

    @property
    def cholesky(self) -> tuple[Tensor, Tensor, Tensor]:
        """``(l_xx, l_vx, l_vv)`` of the lower triangular root; for a point at zeta = 0 ``(0, sqrt(vv), 0)``."""
        lxx, known = self.xx.sqrt(), self.xx > 0
        safe = torch.where(known, self.xx, 1.0)
        lvx = torch.where(known, self.xv / safe.sqrt(), self.vv.sqrt())
        return lxx, lvx, torch.where(known, (self.det / safe).sqrt(), 0.0)


def moments(clock: Tensor, velocity: float, position: Tensor | float) -> Moments:
    """The covariance at zeta from independent initial variances, to full relative accuracy down to zeta -> 0.

    ``det(N + c p p^T + g q q^T) = det N + c p^T adj(N) p + g q^T adj(N) q + c g det[p q]^2`` for the noise's own N,
    with p and q the columns of A, whose determinant is ``exp(-2 zeta)``.

    Args:
        clock: zeta ``(...)``.
        velocity: g, the initial variance of w.
        position: c, the initial variance of x; broadcasts with the clock.
    """
    z, decay = clock, torch.exp(-2 * clock)
    xx = torch.special.gammainc(torch.full_like(z, 3.0), 2 * z)
    xv = 2 * z**2 * decay
    vv = -torch.expm1(-2 * z) + decay * (2 * z - 2 * z**2)
    of_position = (1 + z) ** 2 * vv + 2 * z * (1 + z) * xv + z**2 * xx
    of_velocity = z**2 * vv - 2 * z * (1 - z) * xv + (1 - z) ** 2 * xx
    det = xx * vv - xv**2 + decay * (position * of_position + velocity * of_velocity + position * velocity * decay)
    return Moments(
        xx + decay * (position * (1 + z) ** 2 + velocity * z**2),
        xv + decay * (velocity * z * (1 - z) - position * z * (1 + z)),
        vv + decay * (position * z**2 + velocity * (1 - z) ** 2),
        det,
    )


def precision(clock: Tensor, velocity: float) -> Tensor:
    """``a^T Sigma^{-1} a``, the signal-to-noise ratio at which u shows the position; infinite at zeta = 0."""
    noise = moments(clock, 0.0, 0.0)
    z, decay = clock, torch.exp(-2 * clock)
    seen = (1 + z) ** 2 * noise.vv + 2 * z * (1 + z) * noise.xv + z**2 * noise.xx + velocity * decay
    return decay * seen / moments(clock, velocity, 0.0).det


def turn(clock: Tensor, velocity: float, position: Tensor | float) -> Tensor:
    """``int_0^zeta sqrt(det C) / C_xx``: how far the flow's root of the covariance C has turned from the Cholesky one.

    From ``(L Q)' = F L Q + (1/2) G G^T L^{-T} Q``: ``Q' Q^T = L^{-1} (F L + (1/2) G G^T L^{-T} - L')`` is
    antisymmetric, and its upper entry is ``l_vv / l_xx``. Gauss-Legendre in u with ``zeta = k sinh^2 u``, in which the
    integrand is smooth on the scale 1: it goes as ``zeta^{-1/2}`` at a point mass and bends at the scale k.
    """
    position = torch.as_tensor(position, dtype=clock.dtype, device=clock.device)
    knee = 0.75 * velocity
    scale = torch.where(position > 0, (position / velocity).sqrt().clamp(max=knee), knee)
    nodes, weights = (torch.as_tensor(v, dtype=clock.dtype, device=clock.device) for v in (_NODES, _WEIGHTS))
    reach = torch.asinh((clock / scale).sqrt())[..., None]
    rate = _turning(reach * nodes, scale[..., None], velocity, position[..., None])
    return (rate * weights).sum(-1) * reach[..., 0]


def _turning(u: Tensor, scale: Tensor | float, velocity: float, position: Tensor | float) -> Tensor:
    """``dtheta / du`` at ``zeta = scale sinh^2 u``; at u = 0 any finite number will do."""
    there = moments(scale * torch.sinh(u) ** 2, velocity, position)
    ratio = there.det.sqrt() / torch.where(there.xx > 0, there.xx, 1.0)
    return ratio * scale * torch.sinh(2 * u)


@lru_cache
def _series(velocity: float, last: float) -> tuple[float, float, Tensor]:
    """(knee, reach, Chebyshev coefficients) of :func:`turn` of a single point for zeta up to ``last``."""
    knee = 0.75 * velocity
    reach = math.asinh(math.sqrt(last / knee))

    x = np.polynomial.chebyshev.chebpts1(97)
    rate = _turning(torch.from_numpy((x + 1) * reach / 2), knee, velocity, 0.0).numpy() * reach / 2
    series = np.polynomial.chebyshev.chebint(np.polynomial.chebyshev.chebfit(x, rate, 96), lbnd=-1)
    return knee, reach, torch.from_numpy(series)


def transition(clock: Tensor, mass: float) -> Tensor:
    """The propagator ``exp(int F)`` over a stretch zeta of the clock, ``(..., 2, 2)``; a negative one goes back."""
    decay, root = torch.exp(-clock), math.sqrt(mass)
    return decay[..., None, None] * _stack(1 + clock, clock / root, -clock * root, 1 - clock)


def _stack(xx: Tensor, xv: Tensor, vx: Tensor, vv: Tensor) -> Tensor:
    return torch.stack([torch.stack([xx, xv], -1), torch.stack([vx, vv], -1)], -2)
