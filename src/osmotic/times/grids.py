"""Closed-form grids in time or in discrete levels."""

from __future__ import annotations

import torch
from scipy.special import betaincinv
from torch import Tensor

from osmotic.schedules import Discrete, Schedule
from osmotic.times.base import Grid


def shares(steps: int) -> Tensor:
    """``1 - i/n`` for i = 0 .. n - 1: what is left of the way to the data at each step."""
    return 1 - torch.arange(steps, dtype=torch.float64) / steps


class Uniform(Grid):
    """Evenly spaced in time: ``t_i = start (1 - i/n)``."""

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        return start * shares(steps)


class TimePower(Grid):
    """Evenly spaced in ``t^(1/k)``: ``t_i = start (1 - i/n)^k`` (DEIS's time phases, arXiv 2204.13902).

    Their phases in ``rho^(1/k)`` are :class:`~osmotic.times.Karras`, and in ``log rho`` :class:`~osmotic.times.LogSNR`.

    Args:
        exponent: k, positive; larger is denser near the data.
    """

    def __init__(self, exponent: float) -> None:
        if not exponent > 0:
            raise ValueError(f"TimePower needs a positive exponent; got {exponent}.")
        self.exponent = exponent

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        return start * shares(steps) ** self.exponent


class Quadratic(TimePower):
    """Denser near the data: ``t_i = start (1 - i/n)^2`` (DDIM's quadratic sub-sequence, arXiv 2010.02502)."""

    def __init__(self) -> None:
        super().__init__(2.0)


class Beta(Grid):
    """Quantiles of a beta law: ``t_i = start F^-1(1 - i/n)`` (Lee et al. 2024, arXiv 2407.12173).

    Denser at both ends of time for shapes below 1. On EDM's path, where time is sigma, these are quantiles of sigma.

    Args:
        a: shape towards the data, positive; 0.6 in the paper.
        b: shape towards the noise, positive; 0.6 in the paper.
    """

    def __init__(self, a: float = 0.6, b: float = 0.6) -> None:
        if not (a > 0 and b > 0):
            raise ValueError(f"Beta needs positive shapes; got {a} and {b}.")
        self.a, self.b = a, b

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        return start * torch.from_numpy(betaincinv(self.a, self.b, shares(steps).numpy()))


class Levels(Grid):
    """Evenly chosen levels ``i/T`` of a discrete schedule, the last level included: ``i = round(T start (1 - k/n))``.

    That is the spacing which Lin et al. 2023 (arXiv 2305.08891) call trailing and advise; the other two spacings never
    visit the last level or waste a step.

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
        return torch.round(last * shares(steps)) / levels
