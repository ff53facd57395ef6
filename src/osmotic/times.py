"""Where a sampler stops: grids of n + 1 times from a start down to exactly 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from osmotic.schedules import Discrete, Schedule


class Grid(ABC):
    """``grid(schedule, steps, start) -> times``: a new grid is one class with one method."""

    @abstractmethod
    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """The ``steps`` noisy times, decreasing, the first of them being the start."""

    def __call__(self, schedule: Schedule, steps: int, start: float = 1.0) -> Tensor:
        """Sampling times.

        Args:
            schedule: the path.
            steps: how many steps, at least 1.
            start: the noisiest time, in (0, 1].

        Returns:
            ``(steps + 1,)`` float64 CPU tensor, strictly decreasing from ``start`` to exactly 0.

        Raises:
            ValueError: for a count below 1, a start outside (0, 1], or times that do not decrease.
        """
        if steps < 1 or not 0 < start <= 1:
            raise ValueError(f"A grid needs steps >= 1 and 0 < start <= 1; got steps={steps} and start={start}.")
        inner = self.inner(schedule, steps, start).to(torch.float64).cpu()
        # Inversions of the schedule may round the first time; it is the start by definition.
        times = torch.cat([torch.tensor([start], dtype=torch.float64), inner[1:], torch.zeros(1, dtype=torch.float64)])
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{type(self).__name__} gives no decreasing grid of {steps} steps from t = {start}; start "
                "noisier or take fewer steps."
            )
        return times

    def __repr__(self) -> str:
        return type(self).__name__


class Uniform(Grid):
    """Evenly spaced in time: ``t_i = start (1 - i/n)``."""

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        return start * (1 - torch.arange(steps, dtype=torch.float64) / steps)


class Quadratic(Grid):
    """Denser near the data: ``t_i = start (1 - i/n)^2`` (DDIM's quadratic sub-sequence, arXiv 2010.02502)."""

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        return start * (1 - torch.arange(steps, dtype=torch.float64) / steps) ** 2


class _Ratio(Grid):
    """A grid laid out in the noise-to-signal ratio ``rho = sigma / alpha``, then brought back to times.

    Where the path starts with no signal (rho infinite) the first time is the start and the ladder goes on from rho_max.

    Args:
        rho_min: the last noisy level, positive, for data of unit scale; from it the sampler jumps to 0.
        rho_max: the noisiest ratio of the ladder, unless the start is less noisy.
    """

    def __init__(self, rho_min: float = 0.002, rho_max: float = 80.0) -> None:
        if not 0 < rho_min < rho_max:
            raise ValueError(f"A grid in sigma/alpha needs 0 < rho_min < rho_max; got {rho_min} and {rho_max}.")
        self.rho_min, self.rho_max = rho_min, rho_max

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        first = math.exp(-float(schedule.log_snr(start)) / 2)
        beyond = first > self.rho_max * (1 + 1e-9)
        high = min(first, self.rho_max)
        # A start beyond rho_max is a level of its own before the ladder.
        fraction = torch.linspace(0, 1, max(steps - beyond, 1), dtype=torch.float64)
        ladder = schedule.time(-2 * self.log_rho(fraction, high))
        return torch.cat([torch.tensor([start], dtype=torch.float64), ladder])[:steps] if beyond else ladder

    @abstractmethod
    def log_rho(self, fraction: Tensor, high: float) -> Tensor:
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

    def log_rho(self, fraction: Tensor, high: float) -> Tensor:
        power = 1 / self.exponent
        return self.exponent * torch.log(high**power + fraction * (self.rho_min**power - high**power))


class LogSNR(_Ratio):
    """Evenly spaced in log-SNR (Lu et al. 2022, arXiv 2206.00927)."""

    def log_rho(self, fraction: Tensor, high: float) -> Tensor:
        return math.log(high) + fraction * (math.log(self.rho_min) - math.log(high))


class Power(Grid):
    """``rho_i = rho_start (1 - i/n)^exponent``: EDM's spacing carried to exactly 0, without a last level that is
    jumped from.

    Every step shrinks as steps are added, the last one too, so a solver keeps its order down to the data. A start
    beyond rho_max is a level of its own before the ladder.

    Args:
        exponent: at least 1; a method of order p in log-SNR needs more than p / 2.
        rho_max: the noisiest ratio of the ladder, unless the start is less noisy.
    """

    def __init__(self, exponent: float = 7.0, rho_max: float = 80.0) -> None:
        if not (exponent >= 1 and rho_max > 0):
            raise ValueError(f"Power needs an exponent >= 1 and a positive rho_max; got {exponent} and {rho_max}.")
        self.exponent, self.rho_max = exponent, rho_max

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        first = math.exp(-float(schedule.log_snr(start)) / 2)
        beyond = first > self.rho_max * (1 + 1e-9) and steps > 1
        count = steps - beyond
        left = 1 - torch.arange(count, dtype=torch.float64) / count
        ladder = schedule.time(-2 * (math.log(min(first, self.rho_max)) + self.exponent * left.log()))
        return torch.cat([torch.tensor([start], dtype=torch.float64), ladder]) if beyond else ladder


class Span(Grid):
    """Even in ``asinh(rho / fine) - asinh(rho / coarse)``: log-SNR between two levels, and regular beyond them at both
    ends.

    Between ``fine`` and ``coarse`` the steps are even in log-SNR; below ``fine`` they become even in rho, so the last
    one reaches exactly 0 without a jump from an arbitrary last level; above ``coarse`` they become even in 1 / rho, so
    pure noise (alpha = 0) is an ordinary start. Every step shrinks as steps are added.

    Args:
        fine: the ratio rho = sigma / alpha below which nothing is decided any more, positive.
        coarse: the ratio above which nothing is decided yet, larger than fine.
    """

    def __init__(self, fine: float = 0.1, coarse: float = 12.0) -> None:
        if not 0 < fine < coarse:
            raise ValueError(f"Span needs 0 < fine < coarse; got {fine} and {coarse}.")
        self.fine, self.coarse = fine, coarse

    def _position(self, log_rho: Tensor) -> Tensor:
        ratio = log_rho.exp()
        return torch.asinh(ratio / self.fine) - torch.asinh(ratio / self.coarse)

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        log_rho = -schedule.log_snr(start).double() / 2
        # At infinite rho the two asinh differ by the logarithm of the two scales.
        top = self._position(log_rho) if bool(log_rho < 300) else torch.tensor(math.log(self.coarse / self.fine))
        goal = top * (1 - torch.arange(steps, dtype=torch.float64) / steps)
        low, high = torch.full_like(goal, -60.0), torch.full_like(goal, 60.0)
        for _ in range(64):
            middle = (low + high) / 2
            above = self._position(middle) > goal
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return schedule.time(-2 * low)


class Levels(Grid):
    """Evenly chosen levels ``i/T`` of a discrete schedule, the last level included: ``i = round(T start (1 - k/n))``.

    Args:
        levels: T; None reads it from the schedule.
    """

    def __init__(self, levels: int | None = None) -> None:
        self.levels = levels

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        levels = self.levels
        if levels is None:
            if not isinstance(schedule, Discrete):
                raise ValueError(
                    f"Levels() needs a Discrete schedule or its own count, and {type(schedule).__name__} is "
                    "continuous; use Levels(1000)."
                )
            levels = schedule.levels
        last = round(levels * start)
        if steps > last:
            raise ValueError(f"{steps} steps were asked of {last} discrete levels; take at most {last}.")
        return torch.round(last * (1 - torch.arange(steps, dtype=torch.float64) / steps)) / levels


# Grids by name; enter a new grid here and the conformance tests pick it up.
GRIDS: dict[str, Callable[[], Grid]] = {
    "uniform": Uniform,
    "quadratic": Quadratic,
    "karras": Karras,
    "log-snr": LogSNR,
    "power": Power,
    "span": Span,
    "levels": lambda: Levels(1000),
}
