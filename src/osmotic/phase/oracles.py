"""The exact flow of Gaussian data under critically damped Langevin diffusion."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmotic.levels import as_time
from osmotic.oracles import Gaussian as Ordinary
from osmotic.phase.denoisers import Lifted
from osmotic.phase.langevin import CLD, Moments, moments, turn
from osmotic.schedules import Number


class Gaussian(Lifted):
    """The exact denoiser, score and flow map of positions ``N(mean, covariance)`` with CLD's initial velocities.

    Along each principal axis of the data the marginal of (x, v) has a 2x2 covariance C_t. The flow's map is ``u_s =
    m_s + K_s K_t^{-1} (u_t - m_t)`` with K the root of C that solves ``K' = F K + (1/2) G G^T K^{-T}``, found as the
    path's own (:class:`osmotic.phase.Flow`), which is the case C = Sigma of a single point.

    Args:
        path: the CLD path.
        mean: ``(*S)``.
        covariance: of the positions: a variance, one per element ``(*S)``, or full ``(d, d)``.
    """

    denoiser: Ordinary

    def __init__(self, path: CLD, mean: Tensor, covariance: Tensor | float) -> None:
        super().__init__(Ordinary(path.channel, mean, covariance), path)
        self.cld = path

    def flow(self, u: Tensor, t: Number, s: Number) -> Tensor:
        """The probability-flow ODE's solution at time s from u ``(B, 2, *S)`` at the single time t, exactly."""
        data, flat = self.denoiser, u.flatten(2)
        (before, first), (after, last) = (self._root(time, data.variances) for time in (t, s))
        z = self._centred(flat, data.mean, before)
        z = torch.linalg.solve(first, z.movedim(1, -1)[..., None])
        z = (last @ z)[..., 0].movedim(-1, 1)
        if data.axes is not None:
            z = z @ data.axes.T
        moved: Tensor = z + after[:, 0, None] * data.mean
        return moved.reshape(u.shape)

    def _centred(self, flat: Tensor, mean: Tensor, transition: Tensor) -> Tensor:
        """``(B, 2, d)`` deviations from the mean, along the data's axes."""
        z = flat - transition[:, 0, None] * mean
        return z if self.denoiser.axes is None else z @ self.denoiser.axes

    def _root(self, time: Number, variances: Tensor) -> tuple[Tensor, Tensor]:
        """A ``(2, 2)`` and, for every axis, the flow's root K ``(d, 2, 2)``."""
        path, t = self.cld, as_time(time)
        clock = path.clock(t.double())
        spread: Moments = moments(clock, path.gamma, variances.double())
        lxx, lvx, lvv = spread.cholesky
        theta = turn(clock.expand(variances.shape), path.gamma, variances.double())
        cos, sin, unit = theta.cos(), theta.sin(), math.sqrt(path.mass)
        x = torch.stack([lxx * cos, lxx * sin], -1)
        v = torch.stack([lvx * cos - lvv * sin, lvx * sin + lvv * cos], -1) * unit
        return path(t)[0].to(variances), torch.stack([x, v], -2).to(variances)
