"""The numbers of a phase path: 2x2 matrices of scalars, with the arithmetic that samplers do on plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic.estimate import like
from osmotic.schedules import Number


@dataclass(frozen=True, slots=True)
class Matrix:
    """``[[xx, xv], [vx, vv]]``, acting on (position, velocity); ``*`` is the matrix product.

    It stands where ordinary paths have a float: sums, differences and products are those of the ring of 2x2 matrices,
    so ``alpha p + sigma q`` means the same in both. A plain number in a product is that multiple of the identity.

    Attributes:
        xx, xv, vx, vv: floats, or ``(B,)`` float64 tensors where times differ per sample.
    """

    xx: Number
    xv: Number
    vx: Number
    vv: Number

    @staticmethod
    def of(m: Tensor) -> Matrix:
        """The matrix in a tensor: floats from a single CPU one ``(2, 2)``, ``(B,)`` entries from ``(B, 2, 2)``."""
        if m.ndim == 2 and m.device.type == "cpu" and not m.requires_grad:
            (xx, xv), (vx, vv) = m.tolist()
            return Matrix(xx, xv, vx, vv)
        return Matrix(m[..., 0, 0], m[..., 0, 1], m[..., 1, 0], m[..., 1, 1])

    @staticmethod
    def scalar(value: Number) -> Matrix:
        """That multiple of the identity."""
        return Matrix(value, 0.0, 0.0, value)

    @property
    def tensor(self) -> Tensor:
        """A matrix of floats as a float64 CPU tensor, ``(2, 2)``."""
        return torch.tensor(self.entries, dtype=torch.float64).reshape(2, 2)

    @property
    def entries(self) -> tuple[Number, Number, Number, Number]:
        """``(xx, xv, vx, vv)``."""
        return self.xx, self.xv, self.vx, self.vv

    @property
    def T(self) -> Matrix:
        """The transpose."""
        return Matrix(self.xx, self.vx, self.xv, self.vv)

    @property
    def det(self) -> Number:
        """The determinant."""
        return self.xx * self.vv - self.xv * self.vx

    @property
    def inverse(self) -> Matrix:
        """The inverse; a division by zero where there is none."""
        det = self.det
        return Matrix(self.vv / det, -self.xv / det, -self.vx / det, self.xx / det)

    def map(self, change: Callable[[Number], Number]) -> Matrix:
        """Every entry changed."""
        return Matrix(*(change(n) for n in self.entries))

    def __add__(self, other: Matrix) -> Matrix:
        return Matrix(*(m + n for m, n in zip(self.entries, other.entries, strict=True)))

    def __sub__(self, other: Matrix) -> Matrix:
        return Matrix(*(m - n for m, n in zip(self.entries, other.entries, strict=True)))

    def __neg__(self) -> Matrix:
        return self.map(lambda n: -n)

    def __mul__(self, other: Matrix | Number) -> Matrix:
        if not isinstance(other, Matrix):
            return self.map(lambda n: n * other)
        return Matrix(
            self.xx * other.xx + self.xv * other.vx,
            self.xx * other.xv + self.xv * other.vv,
            self.vx * other.xx + self.vv * other.vx,
            self.vx * other.xv + self.vv * other.vv,
        )

    def __rmul__(self, other: Number) -> Matrix:
        return self.map(lambda n: other * n)


def as_matrix(value: Matrix | Number) -> Matrix:
    """A matrix as it is, a plain number as that multiple of the identity."""
    return value if isinstance(value, Matrix) else Matrix.scalar(value)


def apply(terms: Sequence[tuple[Matrix, Tensor]]) -> Tensor:
    """``sum_i M_i u_i`` with each matrix acting on (position, velocity), dimension 1 of ``(B, 2, *S)``.

    Terms whose coefficient is the number 0 cost nothing; no matrix travels to the device.
    """
    halves = [u.unbind(1) for _, u in terms]
    position = _combination(
        [p for (m, _), half in zip(terms, halves, strict=True) for p in ((m.xx, half[0]), (m.xv, half[1]))]
    )
    velocity = _combination(
        [p for (m, _), half in zip(terms, halves, strict=True) for p in ((m.vx, half[0]), (m.vv, half[1]))]
    )
    return torch.stack([position, velocity], 1)


def _combination(terms: Sequence[tuple[Number, Tensor]]) -> Tensor:
    """``sum_i c_i u_i``."""
    total: Tensor | None = None
    for scale, u in terms:
        if not isinstance(scale, Tensor):
            if scale == 0:
                continue
            total = u * scale if total is None else total.add(u, alpha=scale)
            continue
        (wide,) = like(u, scale)
        total = u * wide if total is None else torch.addcmul(total, u, wide)  # type: ignore[arg-type]
    return torch.zeros_like(terms[0][1]) if total is None else total
