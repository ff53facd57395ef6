"""Denoisers: what maps a noisy sample and its time to an estimate of the clean sample and the noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, cast

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
        diagonal: whether it knows the posterior mean (s = None), which every sampler but flow-map jumps needs.
        stops: the times, falling, that it alone can be evaluated at, as a few-step student may; None for all.
        latents: how many normal numbers it reads in ``cond.latent``; its estimate is then a draw from q(x0 | x_t).
        consistent: whether its estimates meet ``x = alpha x0 + sigma eps``; only CFG++ renoises with another eps.
    """

    schedule: Schedule
    target: Target = V()
    start: float = 1.0
    diagonal: bool = True
    stops: tuple[float, ...] | None = None
    latents: int = 0
    consistent: bool = True

    def around(self, denoiser: Denoiser) -> None:
        """Take over what describes another denoiser: for wrappers on the same path."""
        self.schedule, self.target, self.start = denoiser.schedule, denoiser.target, denoiser.start
        self.diagonal, self.stops, self.latents = denoiser.diagonal, denoiser.stops, denoiser.latents
        self.consistent = denoiser.consistent

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


class _Reading(NamedTuple):
    """How one time is read: the coefficients of (x, y) in x0 and in eps, the scale of what the network sees, its
    clock.
    """

    x0: Pair
    eps: Pair
    scale: Number
    clock: Tensor


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
        learned_variance: the network gives twice the channels; the second half o is the learned variance's fraction
            ``v = (o + 1) / 2`` between the two fixed choices, in logarithms (Nichol & Dhariwal 2021, arXiv 2102.09672).

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
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        _refuse_singular(schedule, target)
        self.network, self.schedule, self.target = network, schedule, target
        self.clock = clock or Angle()
        self.sigma_data, self.autocast, self.learned_variance = sigma_data, autocast, learned_variance

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is not None:
            raise ValueError(
                "This model has no flow map, so it cannot aim at a time s; sample it with a solver such as 'ddim'."
            )
        reading = t.memo.get(self) if type(t) is Level else None  # in the sampling loop nothing but a look-up
        if reading is None:
            reading = self._reading(t, x.device)
        y = self._call(x, reading, cond)
        if not self.learned_variance:
            return Estimate.of(x, y, reading.x0, reading.eps)
        y, fraction = y.chunk(2, dim=1)
        return Estimate.of(x, y, reading.x0, reading.eps, (fraction + 1) / 2)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        pairs = [self.schedule.scalars(level) for level in levels]
        noisy = [level for level, pair in zip(levels, pairs, strict=True) if pair[1] > 0]
        times = torch.tensor([level.number for level in noisy], dtype=torch.float64)
        alpha, sigma = torch.tensor([pair for pair in pairs if pair[1] > 0], dtype=torch.float64).unbind(1)
        (p, q), (r, s) = (
            [column.tolist() for column in pair]  # type: ignore[union-attr]
            for pair in inverse((alpha, sigma), self.target(self.schedule, times))
        )
        scales = self._scale(alpha, sigma)
        every = scales.tolist() if isinstance(scales, Tensor) else [scales] * len(noisy)
        clocks = self.clock(self.schedule, times).to(device, torch.float32).unsqueeze(1).unbind()
        readings = map(_Reading, zip(p, q, strict=True), zip(r, s, strict=True), every, clocks)
        for level, reading in zip(noisy, readings, strict=True):
            level.memo[self] = reading

    def output(self, x: Tensor, t: Tensor, cond: object = None) -> Tensor:
        """The raw network output at noisy samples ``(B, *S)``, in x's dtype."""
        return self._call(x, self._reading(t, x.device), cond)

    def _call(self, x: Tensor, reading: _Reading, cond: object, *aim: Tensor) -> Tensor:
        scale, clock = reading.scale, reading.clock
        if x.shape[0] != 1:
            clock = clock.expand(x.shape[0])
        seen = x if type(scale) is float and scale == 1 else x * like(x, scale)[0]
        network = cast(nn.Module, self._modules["network"])  # by name it costs a tenth of a solver's step
        if self.autocast is None:
            y: Tensor = network(seen, clock, cond, *aim)
            return y
        with torch.autocast(x.device.type, self.autocast):
            y = network(seen, clock, cond, *aim)
        return y.to(x.dtype)  # lower precision ends at this door

    def _reading(self, t: Tensor, device: torch.device) -> _Reading:
        t = as_time(t)
        return once(t, self, lambda: self._read(t, device))

    def _read(self, t: Tensor, device: torch.device) -> _Reading:
        alpha, sigma = self.schedule.numbers(t)
        x0, eps = inverse((alpha, sigma), self.target.numbers(self.schedule, t))
        clock = self.clock(self.schedule, t).to(device, torch.float32).reshape(-1)
        return _Reading(x0, eps, self._scale(alpha, sigma), clock)

    def _scale(self, alpha: Number, sigma: Number) -> Number:
        if self.sigma_data is None:
            return 1.0
        scale: Number = (alpha**2 * self.sigma_data**2 + sigma**2) ** -0.5
        return scale


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
        self.denoiser, self.schedule, self.diagonal = denoiser, schedule, denoiser.diagonal
        self.latents, self.consistent = denoiser.latents, denoiser.consistent
        last = denoiser.schedule.log_snr(denoiser.start)
        here = schedule.log_snr(1.0)
        # Equal ends must give t = 1 exactly, not up to the rounding of two inversions.
        self.start = 1.0 if here >= last else float(schedule.time(last))
        if denoiser.stops is not None:
            levels = denoiser.schedule.log_snr(torch.tensor(denoiser.stops, dtype=torch.float64))
            self.stops = (self.start, *schedule.time(levels[1:]).tolist())

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        times = torch.tensor([level.number for level in levels], dtype=torch.float64)
        bases, scales = self._base(times)
        inner = Level.grid(bases)
        pairs = self.denoiser.schedule.pairs(bases)
        scale = scales.tolist() if isinstance(scales, Tensor) else [scales] * len(levels)
        for level, base, pair, factor in zip(levels, inner, pairs, scale, strict=True):
            level.memo[self] = base, factor
            base.memo[self.denoiser.schedule] = pair
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
