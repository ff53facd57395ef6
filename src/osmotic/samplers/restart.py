"""Restart sampling: go back up in noise, all at once, and come down again with a deterministic solver."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import Level
from osmotic.noise import Generators, normal_like
from osmotic.samplers.base import Sampler, State, prepare
from osmotic.samplers.flow import Heun
from osmotic.samplers.lines import rho
from osmotic.schedules import Schedule


@dataclass(frozen=True)
class Interval:
    """A stretch of noise-to-signal ratio ``rho = sigma / alpha`` to be gone through again.

    Args:
        lowest: where a restart begins and ends: at the first level of the main grid that is no noisier.
        highest: how far up the noise takes it.
        steps: of the solver from there down again, at least 1; the paper's N counts points, hence is one more.
        repeats: how often, at least 1.
    """

    lowest: float
    highest: float
    steps: int
    repeats: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.lowest < self.highest < math.inf and self.steps >= 1 and self.repeats >= 1):
            raise ValueError(
                f"A restart needs 0 < lowest < highest, at least 1 step and 1 repeat; got {self.lowest}, "
                f"{self.highest}, {self.steps} and {self.repeats}."
            )


class Restart(Sampler):
    """A deterministic solver that repeats intervals: ``repeats`` times, noise from rho_min up to rho_max, then down.

    ``y += sqrt(rho_max^2 - rho_min^2) noise z`` with ``y = x / alpha``, then the solver along ``rho^(1/7)`` evenly.
    The noise forgets the errors made above; the solver makes few new ones (Xu et al. 2023, arXiv 2306.14878). An
    interval below the last noisy level of the grid is repeated from that level, just before the step to the data. The
    restarts' noise goes up in level, so it is new noise, not an increment of a Brownian path. An interval costs
    ``repeats * steps * solver.evaluations`` evaluations beside those declared.

    Args:
        intervals: what is repeated, in any order; the paper's best for CIFAR-10 is one, ``Interval(0.14, 0.30, 2, 2)``.
        solver: deterministic; Heun by default.
        noise: standard deviation of the added noise, 1 for exact marginals. (The published code's own default is 0,
            which silently makes it a deterministic loop.)

    Attributes:
        order: 0: the solver's only where the steps of the intervals are made to grow with those of the grid.
    """

    stochastic = True

    def __init__(self, intervals: Sequence[Interval], solver: Sampler | None = None, noise: float = 1.0) -> None:
        self.solver = solver or Heun()
        if self.solver.stochastic:
            raise ValueError(
                f"Restart needs a deterministic solver; {type(self.solver).__name__} as given draws noise."
            )
        if not (intervals and noise > 0):
            raise ValueError(
                f"Restart needs at least one interval and positive noise; got {len(intervals)} and {noise}."
            )
        self.intervals = sorted(intervals, key=lambda interval: -interval.lowest)
        self.noise, self.order = noise, 0
        self.evaluations = self.solver.evaluations

    def ahead(self, schedule: Schedule, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        return self.solver.ahead(schedule, steps)

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: State = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        rho_t, rho_s = (rho(denoiser.schedule.scalars(time)) for time in (t, s))
        due = [interval for interval in self.intervals if rho_s <= interval.lowest < rho_t]
        if rho_s == 0 and due:
            x, state, due = self._repeat(due, denoiser, x, t, cond, generator), None, []
        x, state = self.solver.step(denoiser, x, t, s, cond, state)
        # What a multistep solver remembers is of another trajectory after a restart.
        return (self._repeat(due, denoiser, x, s, cond, generator), None) if due else (x, state)

    def _repeat(
        self,
        intervals: Sequence[Interval],
        denoiser: Denoiser,
        x: Tensor,
        s: Tensor,
        cond: object,
        generator: Generators,
    ) -> Tensor:
        schedule = denoiser.schedule
        low, limit = rho(schedule.scalars(s)), rho(schedule.scalars(denoiser.start))
        for interval in intervals:
            high = min(interval.highest, limit)
            if not high > low:
                continue
            levels = prepare(denoiser, _ladder(schedule, high, s, interval.steps), x.device, self.solver)
            alpha_high, alpha_low = schedule.scalars(levels[0])[0], schedule.scalars(s)[0]
            deviation = alpha_high * self.noise * math.sqrt(high**2 - low**2)
            for _ in range(interval.repeats):
                x = (x * (alpha_high / alpha_low)).add(normal_like(x, generator), alpha=deviation)
                state: State = None
                for above, below in itertools.pairwise(levels):
                    x, state = self.solver.step(denoiser, x, above, below, cond, state)
        return x


def _ladder(schedule: Schedule, high: float, s: Tensor, steps: int) -> Tensor:
    """The times ``(steps + 1,)`` from the ratio ``high`` to time s, evenly spaced in ``rho^(1/7)``."""
    first, last = high ** (1 / 7), rho(schedule.scalars(s)) ** (1 / 7)
    ladder = torch.linspace(first, last, steps + 1, dtype=torch.float64)[:-1] ** 7
    return torch.cat([schedule.time(-2 * ladder.log()), s.to(torch.float64).reshape(1)])
