"""Where a solver has looked, and how what it saw is joined to a step."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, gather
from osmotic.levels import Level, recall
from osmotic.samplers.base import Sampler
from osmotic.samplers.lines import Flow, Line, NoiseRho, at_log_snr, levels_at
from osmotic.schedules import Schedule

TO_ZERO = NoiseRho()
"""The line of a step to sigma = 0 where a solver's own cannot see it."""
FROM_NOISE = Flow()
"""The line of steps that have alpha = 0 among their nodes, where a solver's own cannot see it."""


class LooksInside(Sampler):
    """A sampler that asks the denoiser at levels between the ends of a step, which are found before the loop."""

    @abstractmethod
    def places(self, schedule: Schedule, t: Level, s: Level) -> list[float]:
        """Where the step from t to s looks between its ends, in whatever variable :meth:`found` takes."""

    def found(self, schedule: Schedule, places: Sequence[float]) -> list[Level]:
        """The levels at places, which are ``log(alpha / sigma)`` unless a sampler has its own."""
        return at_log_snr(schedule, places)

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        return self.find(denoiser.schedule, steps)

    def find(self, schedule: Schedule, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        """The levels inside steps, all at once, kept with their steps."""
        each = [self.places(schedule, *pair) for pair in steps]
        levels = self.found(schedule, [place for places in each for place in places])
        unused = iter(levels)
        for (t, s), places in zip(steps, each, strict=True):
            t.memo[self, schedule] = s, [next(unused) for _ in places]
        return levels

    def inside(self, schedule: Schedule, t: Level, s: Level) -> list[Level]:
        """The levels between t and s: looked up in the loop, found here otherwise."""
        found: list[Level] = recall(t, (self, schedule), s, lambda: self.find(schedule, [(t, s)]))
        return found


class Halfway(LooksInside):
    """A sampler that looks at the middle of a step, in time."""

    def places(self, schedule: Schedule, t: Level, s: Level) -> list[float]:
        return [(t.number + s.number) / 2]

    def found(self, schedule: Schedule, places: Sequence[float]) -> list[Level]:
        return levels_at(schedule, torch.tensor(places, dtype=torch.float64))


class Seen(NamedTuple):
    """A level and what the denoiser said there."""

    level: Level
    estimate: Estimate


def visible(line: Line, schedule: Schedule, levels: Sequence[Level]) -> bool:
    """Whether a line sees all these levels."""
    return all(math.isfinite(line.node(schedule, level)) for level in levels)


def fitting(line: Line, schedule: Schedule, levels: Sequence[Level]) -> Line:
    """The line, or the one that takes its place where it cannot see one of these levels."""
    return next(each for each in (line, TO_ZERO, FROM_NOISE) if visible(each, schedule, levels))


def join(x: Tensor, keep: float, line: Line, rows: list[list[float]], seen: Sequence[Seen]) -> Tensor:
    """``keep x + sum over rows and nodes of w_j row_j``."""
    terms = []
    for j, each in zip(range(len(rows[0])), seen, strict=False):
        a = b = 0.0
        for w, (of_x0, of_eps) in zip(rows, line.rows, strict=True):
            a, b = a + w[j] * of_x0, b + w[j] * of_eps
        terms.append((each.estimate, a, b))
    return gather(x, keep, terms)


def as_level(t: Tensor) -> Level:
    """A time as a level; the loop's own pass unchanged."""
    return t if isinstance(t, Level) else Level.of(t)
