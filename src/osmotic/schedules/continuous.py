"""The published continuous-time schedules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmotic.levels import as_time
from osmotic.schedules.base import Number, Schedule


class Rectified(Schedule):
    """``alpha = 1 - t, sigma = t``: the straight path of rectified flow and flow matching.

    Liu et al. 2022 (arXiv 2209.03003); Lipman et al. 2022 (arXiv 2210.02747), with time turned so that 0 is data.
    """

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t.clone()

    def time(self, log_snr: Number) -> Tensor:
        return torch.sigmoid(-as_time(log_snr) / 2)

    def noisier(self, t: Tensor, offset: float) -> Tensor:
        # The same map as the base class's, finite and differentiable also at the two ends.
        shift = math.exp(offset / 2)
        return shift * t / (1 + (shift - 1) * t)


class Cosine(Schedule):
    """``alpha = cos(pi t / 2), sigma = sin(pi t / 2)``: variance preserving, zero terminal signal.

    The continuous cosine path (Nichol & Dhariwal 2021, arXiv 2102.09672, without its offset); for the discrete
    schedule of that paper see :meth:`osmotic.schedules.Discrete.cosine`.
    """

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # sin of the complement is exactly 0 at t = 1, where cos(pi / 2) is not.
        return torch.sin(math.pi / 2 * (1 - t)), torch.sin(math.pi / 2 * t)

    def time(self, log_snr: Number) -> Tensor:
        return 2 / math.pi * torch.atan(torch.exp(-as_time(log_snr) / 2))

    def noisier(self, t: Tensor, offset: float) -> Tensor:
        # Finite and differentiable at both ends, where log-SNR is infinite.
        alpha, sigma = self.pair(t)
        return 2 / math.pi * torch.atan2(math.exp(offset / 2) * sigma, alpha)


class VP(Schedule):
    """``log alpha = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2, sigma^2 = 1 - alpha^2``: the VP-SDE with linear
    beta.

    Song et al. 2021 (arXiv 2011.13456). The SDE is ``f = -beta/2, g^2 = beta`` with ``beta = beta_min + t (beta_max -
    beta_min)``.

    Args:
        beta_min: beta at t = 0, positive.
        beta_max: beta at t = 1, larger than beta_min.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min < beta_max:
            raise ValueError(f"VP needs 0 < beta_min < beta_max; got {beta_min} and {beta_max}.")
        self.beta_min, self.beta_max = beta_min, beta_max

    def log_alpha(self, t: Tensor) -> Tensor:
        """``-1/2`` of the integral of beta from 0 to t."""
        return -t * (t * (self.beta_max - self.beta_min) / 4 + self.beta_min / 2)

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self.log_alpha(t)
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    def log_snr(self, t: Number) -> Tensor:
        log_alpha = self.log_alpha(as_time(t))
        return 2 * log_alpha - torch.log(-torch.expm1(2 * log_alpha))

    def time(self, log_snr: Number) -> Tensor:
        return self.time_of_log_alpha(-torch.nn.functional.softplus(-as_time(log_snr), threshold=700) / 2)

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The positive root of :meth:`log_alpha`, in the form without cancellation."""
        c = (-2 * log_alpha).clamp(max=1e300)  # finite at alpha = 0, which lies beyond the end
        slope = self.beta_max - self.beta_min
        return (2 * c / (torch.sqrt(self.beta_min**2 + 2 * slope * c) + self.beta_min)).clamp(max=1)


class SubVP(VP):
    """VP's alpha with the smaller ``sigma = 1 - alpha^2``: the sub-VP SDE of Song et al. 2021 (arXiv 2011.13456).

    Its SDE is ``f = -beta/2, g^2 = beta (1 - alpha^4)``. Note that 1 - alpha^2 is the standard deviation, not the
    variance.
    """

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self.log_alpha(t)
        return log_alpha.exp(), -torch.expm1(2 * log_alpha)

    def log_snr(self, t: Number) -> Tensor:
        return Schedule.log_snr(self, t)

    def time(self, log_snr: Number) -> Tensor:
        # sigma / alpha = rho and sigma = 1 - alpha^2 give alpha^2 + rho alpha - 1 = 0; log alpha by asinh has no
        # cancellation.
        rho = torch.exp(-as_time(log_snr) / 2)
        return self.time_of_log_alpha(-torch.asinh(rho / 2))


class VE(Schedule):
    """``alpha = 1, sigma = sigma_max t``: EDM's path, whose own clock is sigma (Karras et al. 2022, arXiv 2206.00364).

    Args:
        sigma_max: the noise at t = 1, positive, in units of the data.
    """

    def __init__(self, sigma_max: float = 80.0) -> None:
        if not sigma_max > 0:
            raise ValueError(f"VE needs a positive sigma_max; got {sigma_max}.")
        self.sigma_max = sigma_max

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_max * t

    def time(self, log_snr: Number) -> Tensor:
        return (torch.exp(-as_time(log_snr) / 2) / self.sigma_max).clamp(max=1)


class GeometricVE(Schedule):
    """``alpha = 1, sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^(2t) - 1)``: the VE-SDE with geometric noise.

    This is the exact marginal of the SDE of Song et al. 2021 (arXiv 2011.13456), whose diffusion is
    ``g^2 = 2 sigma_min^2 (sigma_max/sigma_min)^(2t) log(sigma_max/sigma_min)``; the paper's ``sigma_min
    (sigma_max/sigma_min)^t`` omits the -1 and so starts from noisy data.

    Args:
        sigma_min: the geometric ladder's first value, positive.
        sigma_max: its last value, larger than sigma_min.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"GeometricVE needs 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}.")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.log_ratio = math.log(sigma_max / sigma_min)

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_min * torch.expm1(2 * self.log_ratio * t).sqrt()

    def time(self, log_snr: Number) -> Tensor:
        return (torch.log1p(torch.exp(-as_time(log_snr)) / self.sigma_min**2) / (2 * self.log_ratio)).clamp(max=1)


class Sigmoid(Schedule):
    """``alpha^2`` falls from 1 to 0 along a sigmoid of t, rescaled to the ends: variance preserving, zero terminal
    signal.

    ``alpha^2 = (S(end) - S(start + t (end - start))) / (S(end) - S(start))`` with S the logistic function and both ends
    divided by the temperature (Jabri et al. 2022, arXiv 2212.11972).

    Args:
        start: the sigmoid's argument at the data.
        end: its argument at the noise, larger than start.
        temperature: divides both, positive.
    """

    def __init__(self, start: float = -3.0, end: float = 3.0, temperature: float = 1.0) -> None:
        if not (start < end and temperature > 0):
            raise ValueError(
                f"Sigmoid needs start < end and a positive temperature; got {start}, {end}, {temperature}."
            )
        self.start, self.end = start / temperature, end / temperature

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        span = (self.end - self.start) / 2
        middle = self.start / 2 + span * t
        # S(b) - S(a) = sinh((b-a)/2) / (2 cosh(a/2) cosh(b/2)): exact at both ends, where differences cancel.
        scale = math.sinh(span) * torch.cosh(middle)
        noise = torch.sinh(span * t) * math.cosh(self.end / 2) / scale
        signal = torch.sinh(span * (1 - t)) * math.cosh(self.start / 2) / scale
        return signal.sqrt(), noise.sqrt()

    def time(self, log_snr: Number) -> Tensor:
        log_snr = as_time(log_snr)
        span = (self.end - self.start) / 2
        noise, signal = torch.sigmoid(-log_snr), torch.sigmoid(log_snr)
        # noise : signal = sinh(span t) cosh(end/2) : sinh(span (1-t)) cosh(start/2), solved for tanh(span t).
        top = noise * math.cosh(self.start / 2) * math.sinh(span)
        bottom = signal * math.cosh(self.end / 2) + noise * math.cosh(self.start / 2) * math.cosh(span)
        return (torch.atanh(top / bottom) / span).clamp(max=1)


class Shifted(Schedule):
    """Another schedule with its signal-to-noise ratio divided by ``shift^2``: more noise at every time.

    ``log_snr'(t) = log_snr(t) - 2 log(shift)``; on the rectified path this is exactly ``t' = shift t / (1 + (shift -
    1) t)``. For pictures of k times the side length, shift = k (Hoogeboom et al. 2023, arXiv 2301.11093; Esser et al.
    2024, arXiv 2403.03206).

    Args:
        base: the schedule to shift.
        shift: positive; above 1 more noise, below 1 less.

    Raises:
        ValueError: if the base ends before the shifted schedule does.
    """

    def __init__(self, base: Schedule, shift: float) -> None:
        if not shift > 0:
            raise ValueError(f"Shifted needs a positive shift; got {shift}.")
        self.base, self.offset = base, 2 * math.log(shift)
        last = base.log_snr(1.0) - self.offset
        reached = base.log_snr(base.time(last))
        if not (last == reached or abs(float(last - reached)) < 1e-6):
            name = type(base).__name__
            raise ValueError(
                f"{name} has no level noisier than t = 1, so it cannot be shifted by {shift}; use a shift <= 1."
            )

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.pair(self.base.noisier(t, self.offset))

    def time(self, log_snr: Number) -> Tensor:
        return self.base.time(as_time(log_snr) + self.offset)


class Scaled(Schedule):
    """Another schedule with its noise multiplied: ``alpha, scale * sigma``.

    With the data's standard deviation as the scale, noise and data are equally strong where they are so on the base
    path for data of deviation 1: ``Scaled(Cosine(), sd)`` is TrigFlow's path (Lu & Song 2024, arXiv 2410.11081).

    Args:
        base: the schedule to scale.
        scale: positive.
    """

    def __init__(self, base: Schedule, scale: float) -> None:
        if not scale > 0:
            raise ValueError(f"Scaled needs a positive scale; got {scale}.")
        self.base, self.scale = base, scale

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.base.pair(t)
        return alpha, self.scale * sigma

    def time(self, log_snr: Number) -> Tensor:
        return self.base.time(as_time(log_snr) + 2 * math.log(self.scale))

    def noisier(self, t: Tensor, offset: float) -> Tensor:
        return self.base.noisier(t, offset)
