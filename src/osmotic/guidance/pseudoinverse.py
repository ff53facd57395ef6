"""Pseudo-inverse guidance: the score of a measurement with a covariance of one scale."""

from __future__ import annotations

from torch import Tensor

from osmotic.estimate import Estimate
from osmotic.guidance.measured import Measured, refuse_aim
from osmotic.levels import as_time
from osmotic.schedules import Number


class PseudoInverse(Measured):
    """``x0 + (sigma^2 / alpha) (dx0/dx)' A' (v A A' + noise^2 I)^-1 (y - A x0)``: one backward pass.

    The score of ``N(y; A x0, v A A' + noise^2 I)``, v being the variance given x_t of data of one scale. Song et al.
    2023 ("Pseudoinverse-guided diffusion models", ICLR) take this v for unit variance and, in their algorithm, a factor
    of their step besides, which is left out here: this is the score itself. The derivative stands for a covariance once
    and v once more, so the law is biased at any number of steps, for Gaussian data too.
    With noise = 0 what is measured is put right besides (``A x0 = y``).
    """

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        refuse_aim(s)
        t = as_time(t)
        told, pull = self._ask(x, t, cond)
        assert pull is not None
        y, residual = self._residual(told.x0)
        solved = self.operator.solve(residual, self._spread(t), self.noise**2)
        x0 = told.x0 + pull(self.operator.adjoint(solved))
        return self._with_x0(x, t, self.operator.restore(x0, y) if self.noise == 0 else x0, told.v)
