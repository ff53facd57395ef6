"""What denoisers that know a measurement share: the numbers at a level, the residual, derivatives of the estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, combine, like
from osmotic.guidance.base import refuse_matrices, refuse_renoised
from osmotic.guidance.operators import Operator, tiled
from osmotic.levels import Level, once
from osmotic.schedules import Number

Pull = Callable[[Tensor], Tensor]

NOISIEST = 100.0
"""sigma / alpha beyond which the denoiser is asked here: at alpha = 0 its derivative says nothing of the covariance."""


class Measured(Denoiser):
    """A denoiser beside ``y = A x0 + noise z``, z a standard normal; subclasses say what follows for the estimate.

    Args:
        denoiser: any that knows the posterior mean, guided or not.
        operator: A.
        y: ``(B, *M)``, one per sample, or ``(1, *M)`` for all. A batch that is a multiple of B repeats them in turn,
            as guidance around this and :class:`~osmotic.samplers.Particles` do.
        noise: standard deviation of the measurement's noise, at least 0.
        deviation: of the data, positive: what the covariance given x_t is taken for, ``v = deviation^2 sigma^2 /
            (alpha^2 deviation^2 + sigma^2)``, wherever it is not known better.

    Raises:
        ValueError: for a measurement that does not fit or has no floating-point numbers, a negative noise, a denoiser
            without a posterior mean, or a path whose numbers are matrices.
    """

    y: Tensor

    def __init__(
        self, denoiser: Denoiser, operator: Operator, y: Tensor, noise: float = 0.0, deviation: float = 1.0
    ) -> None:
        super().__init__()
        name = type(self).__name__
        refuse_matrices(denoiser, name)
        refuse_renoised(denoiser, name)
        if not denoiser.diagonal:
            raise ValueError(f"{name} needs the posterior mean, which {type(denoiser).__name__} has not.")
        if not (noise >= 0 and deviation > 0):
            raise ValueError(f"{name} needs noise >= 0 and deviation > 0; got {noise} and {deviation}.")
        if not (isinstance(y, Tensor) and y.is_floating_point() and y.ndim > 1):
            raise ValueError(
                f"A measurement is a tensor (B, ...) of floating-point numbers, the samples first; got "
                f"{f'{y.dtype}, {tuple(y.shape)}' if isinstance(y, Tensor) else type(y).__name__}."
            )
        y = operator.measured(y)
        if not bool(y.isfinite().all()):
            raise ValueError("A measurement has finite numbers; what is not known belongs under a Mask's 0.")
        self.denoiser, self.operator, self.noise, self.deviation = denoiser, operator, float(noise), deviation
        self.around(denoiser)
        self.register_buffer("y", y)
        self._last = float(self.schedule.time(-2 * math.log(NOISIEST)))

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        near = [self._near(level) for level in levels]
        for level in near:
            self.schedule.scalars(level)
        self.denoiser.prepare([level for level in near if isinstance(level, Level)], device)

    def _near(self, t: Tensor) -> Tensor:
        """t, or the noisiest level that is asked."""
        if not isinstance(t, Level):
            return t.clamp(max=self._last)
        return t if t.number <= self._last else once(t, (self, NOISIEST), lambda: Level.of(self._last))

    def _ask(self, x: Tensor, t: Tensor, cond: object, differentiable: bool = True) -> tuple[Estimate, Pull | None]:
        """The estimate without the measurement, and the products of ``(sigma^2 / alpha) dx0 / dx`` transposed with
        tensors like x: for the exact denoiser this is the covariance of x0 given x.
        """
        near = self._near(t)
        alpha, sigma = self.schedule.numbers(near)
        moved = x if near is t else x * like(x, sigma / self.schedule.numbers(t)[1])[0]
        if not differentiable:
            estimate: Estimate = self.denoiser(moved, near, cond)
            return (estimate if near is t else self._with_x0(x, t, estimate.x0, estimate.v)), None
        live = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            moved = moved if live else moved.detach().clone().requires_grad_()
            estimate = self.denoiser(moved, near, cond)
            x0 = estimate.x0
        (factor,) = like(x, sigma**2 / alpha)

        def pull(v: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(x0, moved, v, retain_graph=True, create_graph=live)
            return found * factor

        estimate = self._with_x0(x, t, x0 if live else x0.detach(), estimate.v)
        return estimate, pull

    def _with_x0(self, x: Tensor, t: Tensor, x0: Tensor, v: Tensor | None = None) -> Estimate:
        """The estimate with this x0 that meets the path's equation."""
        alpha, sigma = self.schedule.numbers(t)
        return Estimate(x0, combine(x, x0, 1 / sigma, -alpha / sigma), None if v is None else v.detach())

    def _residual(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` for these samples, and ``y - A x0``."""
        seen = self.operator(x0)
        if self.y.shape[1:] != seen.shape[1:]:
            raise ValueError(
                f"A sample of shape {tuple(x0.shape[1:])} has a measurement of shape {tuple(seen.shape[1:])}, and this "
                f"one has {tuple(self.y.shape[1:])}; give one row per sample, or (1, ...) for all."
            )
        y = tiled(self.y, len(x0), "measurements").to(x0)
        return y, y - seen

    def _spread(self, t: Tensor) -> Number:
        """``deviation^2 sigma^2 / (alpha^2 deviation^2 + sigma^2)``: the variance given x_t of data of one scale."""
        alpha, sigma = self.schedule.numbers(t)
        spread: Number = self.deviation**2 * sigma**2 / (alpha**2 * self.deviation**2 + sigma**2)
        return spread


def refuse_aim(s: object) -> None:
    """Refuse to aim at a time: a measured denoiser has no flow map."""
    if s is not None:
        raise ValueError(
            "A denoiser that knows a measurement has no flow map, so it cannot aim at a time s; sample it by a solver."
        )
