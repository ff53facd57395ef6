"""Restart sampling: go back up in noise, all at once, and come down again with a deterministic solver."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import Level, once
from osmotic.noise import Generators, normal_like
from osmotic.samplers.base import Sampler, State
from osmotic.samplers.flow import Heun
from osmotic.samplers.lines import levels_at, rho
from osmotic.samplers.nodes import as_level
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

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        found = self.solver.ahead(denoiser, steps)
        for t, s in steps:
            for interval, level in self._due(denoiser.schedule, t, s):
                way = self._way(denoiser, interval, level)
                found += way[:-1] + self.solver.ahead(denoiser, list(itertools.pairwise(way)))
        return found

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
        t, s = as_level(t), as_level(s)
        due = self._due(denoiser.schedule, t, s)
        if due and due[0][1] is t:
            x, state, due = self._repeat(due, denoiser, x, cond, generator), None, []
        x, state = self.solver.step(denoiser, x, t, s, cond, state)
        # What a multistep solver remembers is of another trajectory after a restart.
        return (self._repeat(due, denoiser, x, cond, generator), None) if due else (x, state)

    def _due(self, schedule: Schedule, t: Level, s: Level) -> list[tuple[Interval, Level]]:
        """The intervals that a step from t to s completes, and where they restart: at s, before one to the data at
        t.
        """
        rho_t, rho_s = (rho(schedule.scalars(time)) for time in (t, s))
        at = s if rho_s > 0 else t
        return [(interval, at) for interval in self.intervals if rho_s <= interval.lowest < rho_t]

    def _way(self, denoiser: Denoiser, interval: Interval, s: Level) -> list[Level]:
        """The way down again to s, evenly spaced in ``rho^(1/7)``; none where the interval does not reach above s."""
        schedule = denoiser.schedule

        def find() -> list[Level]:
            low, high = rho(schedule.scalars(s)), min(interval.highest, rho(schedule.scalars(denoiser.start)))
            if not high > low:
                return []
            ladder = torch.linspace(high ** (1 / 7), low ** (1 / 7), interval.steps + 1, dtype=torch.float64)[:-1] ** 7
            return [*levels_at(schedule, schedule.time(-2 * ladder.log())), s]

        return once(s, (interval, schedule, denoiser.start), find)

    def _repeat(
        self,
        due: Sequence[tuple[Interval, Level]],
        denoiser: Denoiser,
        x: Tensor,
        cond: object,
        generator: Generators,
    ) -> Tensor:
        schedule = denoiser.schedule
        for interval, s in due:
            levels = self._way(denoiser, interval, s)
            if not levels:
                continue
            high, low = (rho(schedule.scalars(level)) for level in (levels[0], s))
            alpha_high, alpha_low = schedule.scalars(levels[0])[0], schedule.scalars(s)[0]
            deviation = alpha_high * self.noise * math.sqrt(high**2 - low**2)
            for _ in range(interval.repeats):
                x = (x * (alpha_high / alpha_low)).add(normal_like(x, generator), alpha=deviation)
                state: State = None
                for above, below in itertools.pairwise(levels):
                    x, state = self.solver.step(denoiser, x, above, below, cond, state)
        return x
