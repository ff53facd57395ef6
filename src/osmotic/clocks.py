"""Clocks: the number by which a network is told the time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from osmotic.schedules import Schedule

# Sinusoidal embeddings are made for numbers of this order (DDPM's 1000 steps).
UNITS = 1000.0
SMOOTH = 16.0
"""Units in which an embedding turns by a few radians in all: for networks that are differentiated in time."""


class Clock(ABC):
    """``clock(schedule, t) -> time`` in t's shape, of order 0 to 1000, ready for a sinusoidal embedding."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """What the network reads at time t."""


class Angle(Clock):
    """``units (2 / pi) atan2(sigma, alpha)``: finite from data to noise, and the same on every path at equal log-SNR.

    Args:
        units: the largest time, 1000 for sinusoidal embeddings as DDPM has them. With :data:`SMOOTH` the embedding's
            derivative in time is of order 1, as continuous-time consistency needs it (Lu & Song 2024, arXiv
            2410.11081).
    """

    def __init__(self, units: float = UNITS) -> None:
        self.units = units

    def __repr__(self) -> str:
        return f"Angle({self.units:g})"

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return self.units * 2 / math.pi * torch.atan2(sigma, alpha)


class Time(Clock):
    """``1000 t``: the schedule's own time, as flow-matching networks have it."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return UNITS * t


class LogSigma(Clock):
    """``250 log(sigma / alpha)``: EDM's c_noise = log(sigma) / 4 in these units (arXiv 2206.00364). Infinite at alpha
    = 0.
    """

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return -UNITS / 8 * schedule.log_snr(t)


class Index(Clock):
    """The integer 0 .. T-1 of a network trained in discrete time: ``round(T t) - 1``, the only place that computes it.

    Args:
        levels: T, positive.
    """

    def __init__(self, levels: int) -> None:
        if levels < 1:
            raise ValueError(f"Index needs at least one level; got {levels}.")
        self.levels = levels

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return torch.round(self.levels * t) - 1
