"""Grids laid out in the ratio of noise to signal, hence the same stops on every path."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from osmotic.schedules import Discrete, Schedule
from osmotic.times.base import Grid
from osmotic.times.grids import shares


class Ladder(Grid):
    """A grid laid out in the noise-to-signal ratio ``rho = sigma / alpha``, then brought back to times.

    A start noisier than the ladder's top, or without any signal, is a level of its own before the ladder. A start less
    noisy than the top cuts the ladder there, and its steps are spread over what is left.

    Args:
        rho_max: the noisiest ratio of the ladder, positive.
    """

    def __init__(self, rho_max: float) -> None:
        self.rho_max = rho_max

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        first = math.exp(-float(schedule.log_snr(start)) / 2)
        beyond = first > self.rho_max * (1 + 1e-9)
        high = min(first, self.rho_max)
        ladder = schedule.time(-2 * self.log_rho(max(steps - beyond, 1), high))
        return torch.cat([torch.tensor([start], dtype=torch.float64), ladder])[:steps] if beyond else ladder

    @abstractmethod
    def log_rho(self, count: int, high: float) -> Tensor:
        """``log rho`` of ``count`` noisy levels, decreasing from ``log(high)``."""


class _Ratio(Ladder):
    """A ladder from rho_max to a last noisy level, from which the sampler jumps to 0.

    Args:
        rho_min: the last noisy level, positive, for data of unit scale.
        rho_max: the noisiest ratio of the ladder, unless the start is less noisy.
    """

    def __init__(self, rho_min: float = 0.002, rho_max: float = 80.0) -> None:
        if not 0 < rho_min < rho_max:
            raise ValueError(f"A grid in sigma/alpha needs 0 < rho_min < rho_max; got {rho_min} and {rho_max}.")
        super().__init__(rho_max)
        self.rho_min = rho_min

    def log_rho(self, count: int, high: float) -> Tensor:
        return self.between(torch.linspace(0, 1, count, dtype=torch.float64), high)

    @abstractmethod
    def between(self, fraction: Tensor, high: float) -> Tensor:
        """``log rho`` at fractions 0 (at ``high``) to 1 (at rho_min)."""


class Karras(_Ratio):
    """EDM's grid: evenly spaced in ``rho^(1/exponent)`` (Karras et al. 2022, arXiv 2206.00364), rho being sigma /
    alpha.

    Args:
        rho_min: the last noisy level.
        rho_max: the noisiest level, unless the start is less noisy.
        exponent: 7 in the paper; larger is denser near the data.
    """

    def __init__(self, rho_min: float = 0.002, rho_max: float = 80.0, exponent: float = 7.0) -> None:
        super().__init__(rho_min, rho_max)
        self.exponent = exponent

    def between(self, fraction: Tensor, high: float) -> Tensor:
        power = 1 / self.exponent
        return self.exponent * torch.log(high**power + fraction * (self.rho_min**power - high**power))


class LogSNR(_Ratio):
    """Evenly spaced in log-SNR (Lu et al. 2022, arXiv 2206.00927); exponential in rho."""

    def between(self, fraction: Tensor, high: float) -> Tensor:
        return math.log(high) + fraction * (math.log(self.rho_min) - math.log(high))


class PolyExponential(_Ratio):
    """``log rho`` along a power of the step: ``log rho_min + (1 - f)^k log(rho_max / rho_min)`` (k-diffusion, 2022).

    Args:
        rho_min: the last noisy level.
        rho_max: the noisiest level, unless the start is less noisy.
        exponent: k, positive; 1 is :class:`LogSNR`, larger is denser near the data.
    """

    def __init__(self, rho_min: float = 0.002, rho_max: float = 80.0, exponent: float = 2.0) -> None:
        super().__init__(rho_min, rho_max)
        if not exponent > 0:
            raise ValueError(f"PolyExponential needs a positive exponent; got {exponent}.")
        self.exponent = exponent

    def between(self, fraction: Tensor, high: float) -> Tensor:
        low = math.log(self.rho_min)
        return low + (1 - fraction) ** self.exponent * (math.log(high) - low)


class Power(Ladder):
    """``rho_i = rho_start (1 - i/n)^exponent``: EDM's spacing carried to exactly 0, without a last level that is
    jumped from.

    Every step shrinks as steps are added, the last one too, so a solver keeps its order down to the data.

    Args:
        exponent: at least 1; a method of order p in log-SNR needs more than p / 2.
        rho_max: the noisiest ratio of the ladder, unless the start is less noisy.
    """

    def __init__(self, exponent: float = 7.0, rho_max: float = 80.0) -> None:
        if not (exponent >= 1 and rho_max > 0):
            raise ValueError(f"Power needs an exponent >= 1 and a positive rho_max; got {exponent} and {rho_max}.")
        super().__init__(rho_max)
        self.exponent = exponent

    def log_rho(self, count: int, high: float) -> Tensor:
        return math.log(high) + self.exponent * shares(count).log()


class Span(Grid):
    """Even in ``asinh(g / fine)`` with ``1 / g = 1 / rho + 1 / coarse``: log-SNR between two levels, regular beyond
    both.

    Between ``fine`` and ``coarse`` the steps are even in log-SNR; below ``fine`` they become even in rho, so the last
    one reaches exactly 0 without a jump from an arbitrary last level; above ``coarse`` they become even in 1 / rho, so
    pure noise (alpha = 0) is an ordinary start. Every step shrinks in proportion as steps are added.

    Args:
        fine: the ratio rho = sigma / alpha below which nothing is decided any more, positive.
        coarse: the ratio above which little is decided yet, larger than fine.
    """

    def __init__(self, fine: float = 0.1, coarse: float = 4.0) -> None:
        if not 0 < fine < coarse:
            raise ValueError(f"Span needs 0 < fine < coarse; got {fine} and {coarse}.")
        self.fine, self.coarse = fine, coarse

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        inverse = torch.exp(schedule.log_snr(start).double() / 2)  # 1 / rho, 0 where there is no signal
        top = torch.asinh(1 / (self.fine * (inverse + 1 / self.coarse)))
        g = self.fine * torch.sinh(top * shares(steps))
        # 1 / rho = 1 / g - 1 / coarse; its logarithm is that of the signal to the noise.
        return schedule.time(2 * torch.log((self.coarse - g).clamp(min=0) / (self.coarse * g)))


def suggested(deviation: float = 1.0, positions: int = 1) -> Span:
    """The grid for data of a known scale: :class:`Span` between the levels where something is decided.

    From noise of about the deviation times the square root of the number of positions (an average over p positions is
    still seen under noise sqrt(p) times larger), but at least 4 deviations, down to a tenth of one.

    Args:
        deviation: the standard deviation of the data, positive.
        positions: over how many places (pixels, samples in time) an object spreads, at least 1.
    """
    return Span(deviation / 10, deviation * max(4.0, 1.1 * math.sqrt(positions)))


class Cosine(Ladder):
    """Evenly spaced in the angle ``atan2(sigma, scale alpha)``: uniform time on the cosine schedule (arXiv 2102.09672).

    For Gaussian data of standard deviation ``scale`` this spacing is the optimum of Align Your Steps' KL bound (Sabour
    et al. 2024, arXiv 2404.14507, theorem 3.1).

    Args:
        scale: the data's standard deviation, positive.
    """

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"Cosine needs a positive scale; got {scale}.")
        super().__init__(math.inf)
        self.scale = scale

    def log_rho(self, count: int, high: float) -> Tensor:
        return torch.log(self.scale * torch.tan(math.atan2(high, self.scale) * shares(count)))


class Table(Ladder):
    """A published ladder of n + 1 ratios, interpolated log-linearly in its index for other step counts.

    The last ratio is replaced by 0, as its authors do, so the last noisy level depends on the number of steps.

    Args:
        rho: falling positive ratios, for data of unit scale.
    """

    def __init__(self, rho: Sequence[float]) -> None:
        super().__init__(rho[0])
        self.logs = np.log(np.asarray(rho, dtype=np.float64))

    def log_rho(self, count: int, high: float) -> Tensor:
        index = np.arange(len(self.logs), dtype=np.float64)
        first = np.interp(-math.log(high), -self.logs, index)  # where the start cuts the table
        if first >= index[-1]:
            raise ValueError(
                f"This table ends at sigma/alpha = {math.exp(self.logs[-1]):.3g}; start noisier than that."
            )
        asked = first + (index[-1] - first) * np.arange(count) / count
        return torch.from_numpy(np.interp(asked, index, self.logs))


# Align Your Steps, table 3 (Sabour et al. 2024, arXiv 2404.14507): sigma of ten steps.
AYS_SD15 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
AYS_DEEPFLOYD = (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006)
AYS_SVD = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


class ImprovedDDPM(Ladder):
    """Improved DDPM's levels as EDM numbers them, evenly: of the cosine schedule (arXiv 2206.00364, table 1).

    ``u_(j-1) = sqrt((u_j^2 + 1) / max(abar_(j-1) / abar_j, 0.001) - 1)`` are the ratios of
    ``schedules.Discrete.cosine()``; the noisiest is number 992 of 1000, with rho near 80.
    """

    noisiest = 992

    def __init__(self) -> None:
        super().__init__(math.exp(_cosine_levels()[self.noisiest - 1]))

    def log_rho(self, count: int, high: float) -> Tensor:
        logs = np.array(_cosine_levels())
        last = int(np.searchsorted(logs, math.log(high) + 1e-9))  # how many levels are not noisier
        if count > last:
            raise ValueError(f"{count} steps were asked of {last} levels; take fewer, or start noisier.")
        # Rounded half up in EDM's own numbering, which counts from the noisiest level.
        index = np.floor((len(logs) - last) + (last - 1) * np.linspace(0, 1, count) + 0.5).astype(int)
        ratios = torch.from_numpy(logs[len(logs) - 1 - index].copy())
        ratios[0] = math.log(high)
        return ratios


@cache
def _cosine_levels() -> tuple[float, ...]:
    """``log rho`` of levels 1 to 1000."""
    schedule = Discrete.cosine()
    times = torch.arange(1, schedule.levels + 1, dtype=torch.float64) / schedule.levels
    return tuple((-schedule.log_snr(times) / 2).tolist())
