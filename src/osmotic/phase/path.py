"""Paths of positions and velocities, ``u_t = A_t u_0 + R_t eps``: schedules whose two numbers are 2x2 matrices."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import Level, as_time, once
from osmotic.phase.matrix import Matrix
from osmotic.schedules import Number, Schedule


class PhasePath(Schedule):
    """The path of a linear SDE ``du = F u dt + G dw`` on ``u = (x, v)``, ``(B, 2, *S)``: position, then velocity.

    ``u_t = A_t (x0, 0) + R_t eps`` with ``A' = F A``, and ``R R^T = Sigma`` the covariance of u_t given x0, initial
    velocity included. What is said of ordinary paths holds with matrices in place of numbers: the jump
    ``A_s x0 + R_s eps``, and, if R solves ``R' = F R + (1/2) G G^T R^{-T}``, the flow ``du = A' x0 dt + R' eps dt``
    (Zhang, Tao & Chen 2022, arXiv 2206.05564).

    A new path writes :meth:`pair`, :meth:`drift`, :meth:`diffusion` and :attr:`channel`.

    Attributes:
        knee: a time scale below which the path behaves as it does at t -> 0, positive; quadratures are graded by it.
    """

    matrix_valued = True
    knee: float = 0.1

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """F at times ``(...)``, as ``(..., 2, 2)``."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """``G G^T`` at times ``(...)``, as ``(..., 2, 2)``."""

    @property
    @abstractmethod
    def channel(self) -> Schedule:
        """The ordinary path on which x0 is seen as well as on this one, at every time.

        ``u_t = a x0 + R eps`` (a the first column of A) tells of x0 exactly what the scalar ``a^T Sigma^{-1} u /
        (a^T Sigma^{-1} a) = x0 + noise`` tells, whose signal-to-noise ratio is ``a^T Sigma^{-1} a``.
        """

    def matrices(self, t: Number) -> tuple[Matrix, Matrix]:
        """``(A, R)`` as matrices of floats at a single CPU time, of ``(B,)`` tensors where times differ per sample."""
        if type(t) is Level and self in t.memo:
            known: tuple[Matrix, Matrix] = t.memo[self]
            return known
        t = as_time(t)
        return once(t, self, lambda: _both(*self(t)))

    # The three readings of the pair that samplers use: the ring of numbers is larger here, the algebra is the same.
    def numbers(self, t: Number) -> tuple[Matrix, Matrix]:  # type: ignore[override]
        return self.matrices(t)

    def scalars(self, t: Number) -> tuple[Matrix, Matrix]:  # type: ignore[override]
        """``(A, R)`` for a step that takes the whole batch at one time.

        Raises:
            ValueError: for times per sample.
        """
        if isinstance(t, Tensor) and t.ndim:
            raise ValueError("This sampler steps a whole batch at one time; for times per sample use DDIM or Midpoint.")
        return self.matrices(t)

    def noisy(self, t: Number) -> Tensor:
        """A time at which a denoiser may be asked.

        Raises:
            ValueError: at t = 0, where the covariance is singular (a device is not read).
        """
        t = as_time(t)
        if t.device.type == "cpu" and not bool((t > 0).all()):
            raise ValueError(
                "A denoiser of positions and velocities cannot be asked at t = 0, where their covariance is singular; "
                "use a sampler of osmotic.phase, which lands there by the estimate."
            )
        return t

    def pairs(self, times: Tensor) -> list[tuple[Matrix, Matrix]]:  # type: ignore[override]
        return [_both(a, r) for a, r in zip(*self(times), strict=True)]

    def rates(self, t: Number) -> tuple[Tensor, Tensor]:
        """``(A', R')``: ``F A`` and, if R is the flow's root, ``F R + (1/2) G G^T R^{-T}``."""
        t = as_time(t)
        (a, r, drive), drift = self.driven(t), self.drift(t)
        return drift @ a, drift @ r + drive

    def drive(self, t: Tensor) -> Tensor:
        """``(1/2) G G^T R^{-T}`` at times ``(...)``, ``(..., 2, 2)``: how eps drives the probability flow."""
        return self.driven(t)[2]

    def driven(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(A, R, (1/2) G G^T R^{-T})`` at times ``(...)``, from one evaluation of the pair."""
        a, r = self(t)
        return a, r, self.diffusion(t) @ torch.linalg.inv(r).mT / 2

    def sde(self, t: Number) -> tuple[Tensor, Tensor]:
        """``(F, G G^T)``, each ``(..., 2, 2)``."""
        t = as_time(t)
        return self.drift(t), self.diffusion(t)

    def log_snr(self, t: Number) -> Tensor:
        """How well u_t shows the position x0: the log-SNR of :attr:`channel`."""
        return self.channel.log_snr(t)

    def time(self, log_snr: Number) -> Tensor:
        """The inverse of :meth:`log_snr`."""
        return self.channel.time(log_snr)


def _both(a: Tensor, r: Tensor) -> tuple[Matrix, Matrix]:
    return Matrix.of(a), Matrix.of(r)


def path_of(denoiser: Denoiser) -> PhasePath:
    """The phase path of a denoiser.

    Raises:
        ValueError: if it lives on an ordinary path.
    """
    if isinstance(denoiser.schedule, PhasePath):
        return denoiser.schedule
    raise ValueError(
        f"This needs positions and velocities, and the denoiser's path is {type(denoiser.schedule).__name__}; "
        "lift the denoiser with osmotic.phase.Lifted(denoiser, osmotic.phase.CLD())."
    )


class Isotropic(PhasePath):
    """An ordinary path taken twice, ``A = alpha I`` and ``R = sigma I``: position and velocity do not meet.

    On it gDDIM is DDIM, and gDDIM of order q is DEIS of order q in time (Zhang & Chen 2022, arXiv 2204.13902).

    Args:
        schedule: the ordinary path.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    @property
    def channel(self) -> Schedule:
        return self.schedule

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return _multiple(alpha), _multiple(sigma)

    def drift(self, t: Tensor) -> Tensor:
        return _multiple(self.schedule.sde(t)[0])

    def diffusion(self, t: Tensor) -> Tensor:
        return _multiple(self.schedule.sde(t)[1])


def _multiple(value: Tensor) -> Tensor:
    """``(...)`` as multiples of the identity, ``(..., 2, 2)``."""
    return value[..., None, None] * torch.eye(2, dtype=value.dtype, device=value.device)
