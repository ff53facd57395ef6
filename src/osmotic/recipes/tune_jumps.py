"""The best stops for a few-step model: those whose samples are nearest to the data, for no trajectory is the truth."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from osmotic.data.dataset import Dataset
from osmotic.data.errors import plural
from osmotic.metrics import energy_distance
from osmotic.recipes.quality.drawing import wanted
from osmotic.recipes.quality.sets import Array, arrays
from osmotic.recipes.search import FIRST, Candidate, tried
from osmotic.report import tuning as report
from osmotic.samplers import CATALOG
from osmotic.times import Cosine, Fixed, Grid
from osmotic.training.model import Model
from osmotic.training.recipe import Student
from osmotic.training.sampling import Tuned

SAMPLES = 2000
"""Of each candidate, and real ones beside them: the energy distance of equal sets then spreads by a thousandth of the
data's deviation."""

FINAL = 8
ANGLES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Grids even in ``atan2(sigma, c sd alpha)`` for these c: with two steps they stop once, at noise of c deviations."""


def solvers(student: Student) -> tuple[str, ...]:
    """What can draw from a student: a consistency function only with fresh noise between its jumps."""
    return ("consistency",) if student.form == "consistency" else ("jump", "consistency")


def candidates(model: Model) -> dict[str, Grid]:
    """Where to stop, by name."""
    sd = model.recipe.process.sigma_data or 1.0
    return tried(model) | {f"angle-{c:g}": Cosine(c * sd) for c in ANGLES}


class JumpSearch:
    """One search for the stops of a few-step model.

    Args:
        model: the student.
        training: samples are compared with these, and confirmed on others of them.
        nfe: jumps.
        guidance: the scale.
        seed: of the noise.
        minutes: after which nothing new is tried.
        bar: told each candidate.
    """

    def __init__(
        self, model: Model, training: Dataset, nfe: int, guidance: float, seed: int, minutes: float, bar: Any
    ) -> None:
        self.model, self.nfe, self.guidance, self.seed, self.bar = model, nfe, guidance, seed, bar
        self.asked = wanted(training, SAMPLES, seed)
        self.real, _ = arrays(training, SAMPLES, seed)
        self.scale, self.count = model.recipe.process.sigma_data or 1.0, SAMPLES
        self.reference = self.distance(self.real[::2], self.real[1::2])
        self.until = time.monotonic() + 60 * minutes
        self.found: list[Candidate] = []

    def run(self) -> tuple[list[Candidate], Candidate]:
        """(the finalists, best first; the default): each judged on two sets of noise by the worse."""
        assert self.model.recipe.student is not None
        grids, names = candidates(self.model), solvers(self.model.recipe.student)
        denoiser = self.model.denoiser
        self.bar.total = len(grids) * len(names) + FINAL
        seen = set()
        for name in names:
            # jumps first: the default is tried before anything else
            for grid in ["jumps", *(g for g in grids if g != "jumps")]:
                try:
                    stops = Fixed.of(denoiser.schedule, grids[grid](denoiser.schedule, self.nfe, denoiser.start))
                except ValueError:  # a grid that has no such number of steps
                    continue
                key = name, tuple(round(stop, 4) for stop in stops.log_snr)
                if key in seen or (self.found and time.monotonic() > self.until):
                    continue
                seen.add(key)
                self.found.append(Candidate(name, grid, stops, self.nfe, self.error(name, stops, 0)))
                self.bar.update()
        ranked = sorted(self.found, key=lambda c: c.error)
        usual = next(c for c in self.found if c.sampler == self.model.recipe.student.sampler and c.grid == "jumps")
        finalists = []
        for c in [*(c for c in ranked[:FINAL] if c is not usual), usual]:
            finalists.append(replace(c, confirmed=self.error(c.sampler, c.stops, 1)))
            self.bar.update()
        default = finalists[-1]
        return sorted(finalists, key=lambda c: c.worse)[:FINAL], default

    def error(self, sampler: str, stops: Fixed, part: int) -> float:
        """The root of the energy distance to real data, in deviations of the data; 0 where it is below its noise."""
        x = self.model.sample(
            SAMPLES,
            self.asked,
            self.guidance,
            CATALOG[sampler](),
            self.nfe,
            self.seed,
            grid=stops,
            first=FIRST + part * SAMPLES,
        )
        return self.distance(x.float().cpu().numpy(), self.real)

    def distance(self, x: Array, y: Array) -> float:
        """The root of the energy distance of two sets, in deviations of the data; infinite for what diverged."""
        if not np.isfinite(x).all():
            return math.inf
        return math.sqrt(max(0.0, energy_distance(x.reshape(len(x), -1), y.reshape(len(y), -1)))) / self.scale


def lines(search: JumpSearch, found: Tuned, rows: list[report.Row], default: report.Row) -> list[str]:
    """The report for a terminal."""
    head = [
        f"tried {plural(len(search.found), 'combination')} of sampler and stops; error: the root of the energy "
        f"distance between {SAMPLES:,} samples and real data,",
        f"in standard deviations of the data; two sets of real data are {found.reference:.2g} apart",
    ]
    return head + report.table(rows, default)
