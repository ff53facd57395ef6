"""Denoisers: what maps a noisy sample and its time to an estimate of the clean sample and the noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from osmotic.clocks import Angle, Clock
from osmotic.estimate import Estimate, Pair, Target, V, inverse, like
from osmotic.levels import Level, as_time, once
from osmotic.schedules import Number, Schedule


class Denoiser(nn.Module, ABC):
    """``denoiser(x, t, cond) -> Estimate`` of ``E[x0 | x_t]`` and ``E[eps | x_t]`` on the path :attr:`schedule`.

    Subclass it, set ``self.schedule`` and write :meth:`forward`; guidance, rescheduling, constraints and latents are
    such subclasses around another denoiser.

    Attributes:
        schedule: the path on which x_t lies.
        target: the space in which its training error is measured (V, which is singular nowhere, unless it has its own).
        start: the noisiest time at which it can be evaluated, in (0, 1].
    """

    schedule: Schedule
    target: Target = V()
    start: float = 1.0

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        """Compute what depends on time alone for a whole grid at once; called by the sampling loop before its steps.

        It only saves time: a denoiser that does nothing here gives the same estimates.

        Args:
            levels: of a grid, each with the schedule's pair in its memo.
            device: of the samples.
        """

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        """Estimate x0 and eps from a noisy sample.

        Args:
            x: noisy samples, ``(B, *S)``.
            t: their time, ``()`` or ``(B,)``, with sigma_t > 0.
            cond: what the denoiser is told besides; opaque to samplers.
            s: None for the posterior mean; a time to aim the estimate there, so that ``estimate.at(*schedule(s))`` is
                the flow map from t to s.

        Raises:
            ValueError: if s is given to a denoiser that has no flow map, or None to one that has no posterior mean.
        """


class NeuralDenoiser(Denoiser):
    """A network made a denoiser by a schedule, a target and a clock.

    ``y = network(c x, clock(t), cond)`` and the estimate solves ``a x0 + b eps = y`` with ``alpha x0 + sigma eps = x``.

    Args:
        network: ``network(x, time, cond) -> y`` with x and y ``(B, *S)`` and time ``(B,)`` float32.
        schedule: the path.
        target: what y is.
        clock: how the network is told the time; finite at all times by default.
        sigma_data: the data's standard deviation; if given, the network sees ``x / sqrt(alpha^2 sigma_data^2 +
            sigma^2)``, which has unit variance at every level (Karras et al. 2022, arXiv 2206.00364); None shows x as
            it is.
        autocast: run the network in this dtype by autocast (its output is cast back); None for full precision.

    Raises:
        ValueError: if the target cannot be decoded at t = 1, where sampling starts.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        target: Target,
        clock: Clock | None = None,
        sigma_data: float | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _refuse_singular(schedule, target)
        self.network, self.schedule, self.target = network, schedule, target
        self.clock = clock or Angle()
        self.sigma_data, self.autocast = sigma_data, autocast

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is not None:
            raise ValueError(
                "This model has no flow map, so it cannot aim at a time s; sample it with a solver such as 'ddim'."
            )
        t = as_time(t)
        x0, eps = once(t, (self, "inverse"), lambda: self._inverse(t))
        return Estimate.of(x, self.output(x, t, cond), x0, eps)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        noisy = [level for level in levels if self.schedule.scalars(level)[1] > 0]
        times = torch.tensor([float(level) for level in noisy], dtype=torch.float64)
        rows = zip(*(row.tolist() for row in self.target(self.schedule, times)), strict=True)
        clocks = self.clock(self.schedule, times).to(device, torch.float32)
        for level, row, clock in zip(noisy, rows, clocks.unbind(), strict=True):
            level.memo[self.target, self.schedule] = row
            level.memo[self, "time"] = clock

    def output(self, x: Tensor, t: Tensor, cond: object = None) -> Tensor:
        """The raw network output y at noisy samples ``(B, *S)``, in x's dtype."""
        time = once(t, (self, "time"), lambda: self.clock(self.schedule, t).to(x.device, torch.float32))
        scale = once(t, (self, "scale"), lambda: self._scale(t))
        (scale,) = like(x, scale)
        seen = x if isinstance(scale, float) and scale == 1 else x * scale
        clock = time.expand(len(x))
        if self.autocast is None:
            y: Tensor = self.network(seen, clock, cond)
            return y
        with torch.autocast(x.device.type, self.autocast):
            y = self.network(seen, clock, cond)
        return y.to(x.dtype)  # lower precision ends at this door

    def _inverse(self, t: Tensor) -> tuple[Pair, Pair]:
        return inverse(self.schedule.numbers(t), self.target.numbers(self.schedule, t))

    def _scale(self, t: Tensor) -> Number:
        if self.sigma_data is None:
            return 1.0
        alpha, sigma = self.schedule.numbers(t)
        return (alpha**2 * self.sigma_data**2 + sigma**2) ** -0.5


def _refuse_singular(schedule: Schedule, target: Target) -> None:
    """Refuse a target whose estimate of x0 at t = 1 would be the network output times more than a million."""
    alpha, sigma = schedule.scalars(1.0)
    a, b = (float(n) for n in target(schedule, 1.0))
    det = alpha * b - sigma * a
    if not (math.isfinite(det) and abs(det) > 1e-6 * sigma * math.hypot(a, b)):
        raise ValueError(
            f"The target {target!r} cannot be decoded at t = 1 on {type(schedule).__name__}, where alpha = {alpha:.3g} "
            f"and sigma = {sigma:.3g}; use V, Karras or, on a smooth path, Velocity."
        )


class Rescheduled(Denoiser):
    """A denoiser read on another path: the same estimate, because x0 and eps do not depend on the path.

    At equal log-SNR two paths differ by a scale only, ``x_base = x hypot(alpha_base, sigma_base) / hypot(alpha,
    sigma)`` (Karras et al. 2022, arXiv 2206.00364, appendix C).

    Args:
        denoiser: any denoiser.
        schedule: the path on which it is to be sampled or measured.

    Attributes:
        start: where the new path reaches the noisiest level that the denoiser knows.
    """

    def __init__(self, denoiser: Denoiser, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, schedule
        last = denoiser.schedule.log_snr(denoiser.start)
        here = schedule.log_snr(1.0)
        # Equal ends must give t = 1 exactly, not up to the rounding of two inversions.
        self.start = 1.0 if here >= last else float(schedule.time(last))

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        inner = []
        for level in levels:
            base, scale = self._base(level)
            base = Level.of(base)
            level.memo[self] = base, scale
            base.memo[self.denoiser.schedule] = self.denoiser.schedule.scalars(base)
            inner.append(base)
        self.denoiser.prepare(inner, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        t = as_time(t)
        base, scale = once(t, self, lambda: self._base(t))
        (factor,) = like(x, scale)
        aim = None if s is None else self._base(as_time(s))[0]
        estimate: Estimate = self.denoiser(x * factor, base, cond, aim)
        return estimate

    def _base(self, t: Tensor) -> tuple[Tensor, Number]:
        """The base's time at equal log-SNR, and the scale from this path to the base's."""
        if t.device.type == "cpu" and float(t.max()) > self.start + 1e-12:
            raise ValueError(
                f"t = {float(t.max()):.6g} is noisier than this denoiser was made for; on "
                f"{type(self.schedule).__name__} start at "
                f"t <= {self.start:.6g} (the attribute .start)."
            )
        base = self.denoiser.schedule.time(self.schedule.log_snr(t))
        alpha, sigma = self.schedule.numbers(t)
        base_alpha, base_sigma = self.denoiser.schedule.numbers(base)
        scale = ((base_alpha**2 + base_sigma**2) / (alpha**2 + sigma**2)) ** 0.5
        return base, scale
