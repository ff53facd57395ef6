"""Estimates in phase space: the 2x2 solve of ordinary paths, once more, in the ring of 2x2 matrices."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from osmotic.estimate import Estimate
from osmotic.phase.matrix import Matrix, apply, as_matrix
from osmotic.schedules import Number

Scale: TypeAlias = Matrix | Number
MatrixPair: TypeAlias = tuple[Scale, Scale]


class PhaseEstimate(Estimate):
    """An estimate of the clean ``(x0, 0)`` and of the noise ``(eps_x, eps_v)``; it reads as :class:`osmotic.Estimate`.

    The clean velocity is 0 because the initial velocity is part of the noise (see :class:`PhasePath`); the data is
    ``estimate.x0[:, 0]``. Inside it keeps two tensors and four matrices, so ``at`` is one combination.

    Args:
        x0: the clean sample, ``(B, 2, *S)``.
        eps: the unit noise, ``(B, 2, *S)``.
    """

    __slots__ = ("_clean", "_noise")

    def __init__(self, x0: Tensor, eps: Tensor) -> None:
        super().__init__(x0, eps)
        self._clean: MatrixPair = (1.0, 0.0)
        self._noise: MatrixPair = (0.0, 1.0)

    @staticmethod
    def mixed(u: Tensor, v: Tensor, x0: MatrixPair, eps: MatrixPair) -> PhaseEstimate:
        """The estimate with ``x0 = x0[0] u + x0[1] v`` and ``eps = eps[0] u + eps[1] v``."""
        self = PhaseEstimate(u, v)
        self._clean, self._noise = x0, eps
        return self

    @property
    def x0(self) -> Tensor:
        return self.at(1.0, 0.0)

    @property
    def eps(self) -> Tensor:
        return self.at(0.0, 1.0)

    def at(self, alpha: Scale, sigma: Scale) -> Tensor:
        """``alpha x0 + sigma eps`` with matrices, or numbers for multiples of the identity, ``(B, 2, *S)``."""
        a, b = as_matrix(alpha), as_matrix(sigma)
        (p, q), (r, s) = self._clean, self._noise
        return apply([(a * p + b * r, self._u), (a * q + b * s, self._v)])

    def lerp(self, other: Estimate, weight: Number) -> PhaseEstimate:
        """``self + weight (other - self)``: guidance."""
        mixed = Estimate(*self).lerp(Estimate(*other), weight)
        return PhaseEstimate(*mixed)

    def _part(self, index: slice) -> PhaseEstimate:
        def entry(n: Number) -> Number:
            return n[index] if isinstance(n, Tensor) and n.ndim else n

        def part(pair: MatrixPair) -> MatrixPair:
            p, q = (as_matrix(m).map(entry) for m in pair)
            return p, q

        return PhaseEstimate.mixed(self._u[index], self._v[index], part(self._clean), part(self._noise))


def solve(u: Tensor, y: Tensor, path: tuple[Matrix, Matrix], rows: tuple[Matrix, Matrix]) -> PhaseEstimate:
    """The estimate with ``A x0 + R eps = u`` and ``P x0 + Q eps = y``.

    ``eps = S (y - P A^{-1} u)`` with ``S = (Q - P A^{-1} R)^{-1}``, and ``x0 = A^{-1} (u - R eps)``.

    Args:
        u: noisy positions and velocities, ``(B, 2, *S)``.
        y: what is known besides, ``(B, 2, *S)``.
        path: ``(A, R)``.
        rows: ``(P, Q)``.
    """
    (a, r), (p, q) = path, rows
    back = a.inverse
    noise = back * r
    s = (q - p * noise).inverse
    eps = -(s * p * back), s
    return PhaseEstimate.mixed(u, y, (back - noise * eps[0], -(noise * s)), eps)
