"""What a network says of a point in phase space: rows of ``P (x0, 0) + Q eps``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from osmotic.levels import as_time, once
from osmotic.phase.matrix import Matrix
from osmotic.phase.path import PhasePath
from osmotic.schedules import Number


class PhaseTarget(ABC):
    """What a network says of (x0, eps): ``P (x0, 0) + Q eps`` with 2x2 matrices, or the first row of it alone.

    Attributes:
        outputs: 2 if the network gives both rows; 1 if it gives the first, and the second says that the clean velocity
            is 0.
    """

    outputs: int

    @abstractmethod
    def pair(self, path: PhasePath, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(P, Q)`` at times ``(...)``, each ``(..., 2, 2)``."""

    def rows(self, path: PhasePath, t: Number) -> tuple[Matrix, Matrix]:
        """``(P, Q)`` as matrices of floats at a single CPU time, of ``(B,)`` tensors where times differ per sample."""
        t = as_time(t)
        return once(t, (self, path), lambda: _matrices(*self.pair(path, t)))

    def full(self, y: Tensor) -> Tensor:
        """The right-hand side ``(B, 2, *S)`` from what the network gives, ``(B, outputs, *S)``."""
        return y if self.outputs == 2 else torch.cat([y, torch.zeros_like(y)], 1)

    def __repr__(self) -> str:
        return type(self).__name__


def _matrices(p: Tensor, q: Tensor) -> tuple[Matrix, Matrix]:
    return Matrix.of(p), Matrix.of(q)


class Position(PhaseTarget):
    """The clean position x0. Singular at t = 0."""

    outputs = 1

    def pair(self, path: PhasePath, t: Tensor) -> tuple[Tensor, Tensor]:
        one, zero = _constants(t)
        return one, zero


class Noise(PhaseTarget):
    """Both components of eps, for the path's own root: gDDIM's network (Zhang et al. 2022, arXiv 2206.05564)."""

    outputs = 2

    def pair(self, path: PhasePath, t: Tensor) -> tuple[Tensor, Tensor]:
        one, zero = _constants(t)
        return zero, one


class VelocityNoise(PhaseTarget):
    """``-l_vv grad_v log p``: the velocity component of ``L^{-1} R eps``, whatever the path's root R.

    CLD's output (Dockhorn, Vahdat & Kreis 2021, arXiv 2112.07068). It is enough: together with u_t it determines x0,
    and thereby all of eps (for gamma up to 2; beyond, it can be blind to x0 at some time). ``l_vv =
    (Sigma^{-1})_vv^{-1/2}`` is the standard deviation of the velocity that x_t leaves.
    """

    outputs = 1

    def pair(self, path: PhasePath, t: Tensor) -> tuple[Tensor, Tensor]:
        _, r = path(t)
        # The velocity row of R^{-T}, normalised: L^{-1} R is orthogonal, and L^{-T} has the row (0, 1 / l_vv).
        row = torch.stack([-r[..., 0, 1], r[..., 0, 0]], -1)
        row = row / torch.linalg.vector_norm(row, dim=-1, keepdim=True) * torch.linalg.det(r).sign()[..., None]
        one, zero = _constants(t)
        q = torch.stack([row, torch.zeros_like(row)], -2)
        return torch.stack([zero[..., 0, :], one[..., 1, :]], -2), q


class Mixed(PhaseTarget):
    """What another target leaves when the answer for Gaussian data is taken away, at unit variance.

    ``y = (y' - E[y' | u]) / s`` with expectation and deviation s those of data N(0, sigma_data^2): still a linear
    equation in (x0, eps), because E[y' | u] is linear in u. It is CLD's mixed score (Dockhorn, Vahdat & Kreis 2021,
    arXiv 2112.07068, section 3.2) with EDM's unit scale (Karras et al. 2022, arXiv 2206.00364). Close to t = 1 the
    Gaussian answer is the whole of it, and the network need not learn how the root turns with time.

    Args:
        target: what is left to the network.
        sigma_data: the data's standard deviation, positive.
    """

    def __init__(self, target: PhaseTarget, sigma_data: float) -> None:
        if not sigma_data > 0:
            raise ValueError(f"Mixed needs a positive sigma_data; got {sigma_data}.")
        self.target, self.sigma_data, self.outputs = target, sigma_data, target.outputs

    def pair(self, path: PhasePath, t: Tensor) -> tuple[Tensor, Tensor]:
        (a, r), (p, q) = path(t), self.target.pair(path, t)
        variance, first = self.sigma_data**2, a[..., :1]
        total = variance * first @ first.mT + r @ r.mT
        known = variance * p[..., :1] @ first.mT + q @ r.mT
        gauss = torch.linalg.solve(total, known.mT).mT
        # Given u only x0 is free: x0 - E[x0 | u] = n, and eps moves with it by -R^{-1} a n.
        white = torch.linalg.solve(r, first)
        deviation = (variance / (1 + variance * white.square().sum(-2, keepdim=True))).sqrt()
        moved = (p[..., :1] - q @ white)[..., : self.outputs, :] * deviation
        scale = moved.square().mean(-2, keepdim=True).sqrt()
        rows = (p - gauss @ a) / scale, (q - gauss @ r) / scale
        if self.outputs == 2:
            return rows
        left, right = (torch.cat([m[..., :1, :], n[..., 1:, :]], -2) for m, n in zip(rows, (p, q), strict=True))
        return left, right

    def __repr__(self) -> str:
        return f"Mixed({self.target!r}, {self.sigma_data})"


def _constants(t: Tensor) -> tuple[Tensor, Tensor]:
    """The unit and the zero matrix for every time."""
    one = torch.eye(2, dtype=t.dtype, device=t.device).expand(*t.shape, 2, 2)
    return one, torch.zeros_like(one)
