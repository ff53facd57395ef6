"""The search for a solver and a grid: what is tried, how it is measured, in which order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import Level
from osmotic.noise import generators
from osmotic.oracles import Gaussian
from osmotic.report.tuning import OPTIMIZED as STOPS
from osmotic.samplers import CATALOG, Sampler, prior, sample
from osmotic.schedules import Number, Schedule
from osmotic.times import GRIDS, Fixed, Grid, Teacher
from osmotic.training.chosen import SUGGESTED, grids
from osmotic.training.model import Model
from osmotic.training.sampling import SAMPLER, Entry, Tuned

# Tuning noise is keyed far away from the samples that a user will draw with the same seed.
FIRST = 2**40
LEVELS, SUBSTEPS = 32, 4
SEMIFINAL, OPTIMIZED, FINAL = 8, 2, 10
# Above so many steps, where to stop matters little and the programming takes long.
MOST_OPTIMIZED = 20
FIRST_ROUND = (SUGGESTED, "cosine-data")

Make = Callable[[], Sampler]


class Counted(Denoiser):
    """A denoiser that counts its calls.

    Args:
        denoiser: any.
        tick: called after each.
    """

    def __init__(self, denoiser: Denoiser, tick: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.denoiser, self.calls, self.tick = denoiser, 0, tick
        self.around(denoiser)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        self.calls += 1
        estimate: Estimate = self.denoiser(x, t, cond, s)
        self.tick()
        return estimate


@dataclass(frozen=True)
class Candidate:
    """A solver on a grid, and what it measured.

    Args:
        sampler: its name.
        grid: the grid's name.
        stops: the grid.
        evaluations: denoiser calls, counted.
        error: the root mean square distance to the converged samples, in deviations of the data.
        confirmed: the same on fresh noise, once measured.
    """

    sampler: str
    grid: str
    stops: Fixed
    evaluations: int
    error: float
    confirmed: float | None = None

    @property
    def steps(self) -> int:
        """Of the solver."""
        return len(self.stops.log_snr) + 1

    def entry(self) -> Entry:
        """As it is stored."""
        return Entry(
            sampler=self.sampler,
            grid=self.grid,
            steps=self.steps,
            evaluations=self.evaluations,
            error=self.error,
            confirmed=self.confirmed,
        )

    @property
    def worse(self) -> float:
        """The larger of its errors."""
        return max(self.error, self.confirmed or 0.0)


class Searched(Protocol):
    """What a search was asked, and how far apart two measurements of the truth are."""

    model: Model
    nfe: int
    guidance: float
    count: int
    seed: int
    reference: float


def record(search: Searched, found: list[Candidate], finalists: list[Candidate], default: Candidate) -> Tuned:
    """What is stored of a search: the best, the default, and everything tried that came to a number."""
    confirmed = {(c.sampler, c.grid): c for c in [*finalists, default]}
    return Tuned(
        nfe=search.nfe,
        choice=finalists[0].entry(),
        log_snr=finalists[0].stops.log_snr,
        step=search.model.step,
        weights=search.model.weights,
        guidance=search.guidance,
        count=search.count,
        seed=search.seed,
        reference=search.reference,
        default=default.entry(),
        table=tuple(confirmed.get((c.sampler, c.grid), c).entry() for c in found if math.isfinite(c.error)),
    )


def tried(model: Model) -> dict[str, Grid]:
    """The closed-form grids that are tried: those made for the model, and three of the catalogue."""
    return grids(model.seen, model.recipe) | {name: GRIDS[name]() for name in ("karras", "uniform", "quadratic")}


def solvers() -> dict[str, Make]:
    """The deterministic solvers of the catalogue that have an order and a fixed number of evaluations per step."""
    made = {name: make() for name, make in CATALOG.items()}
    return {
        name: CATALOG[name]
        for name, sampler in made.items()
        if not sampler.stochastic and math.isfinite(sampler.order) and sampler.evaluations > 0
    }


def steps_within(make: Make, nfe: int, schedule: Schedule, grid: Grid, start: float = 1.0) -> int | None:
    """The most steps that a solver can take on a grid in ``nfe`` denoiser calls, counted; None if not even one."""
    oracle = Gaussian(schedule, torch.zeros(1, dtype=torch.float64), 1.0)
    x = torch.ones(1, 1, dtype=torch.float64)
    for steps in range(nfe, 0, -1):
        counted = Counted(oracle)
        try:
            sample(make(), counted, x, grid(schedule, steps, start))
        except ValueError:  # a solver or a grid that has no such number of steps
            continue
        if counted.calls <= nfe:
            return steps
    return None


class Search:
    """One search, on the noises of one seed.

    Args:
        model: the model.
        nfe: the budget.
        guidance: the scale.
        count: noises.
        seed: of them.
        minutes: after which nothing new is tried.
        bar: told each evaluation: ``bar.update()``, ``bar.total``.

    Attributes:
        reference: how far the converged samples are from those of half as many steps, in deviations of the data.
        cut: whether the time was over before everything was tried.
        whole: whether the first round is over: every solver was tried.
    """

    def __init__(
        self, model: Model, nfe: int, guidance: float, count: int, seed: int, minutes: float, bar: Any
    ) -> None:
        self.model, self.nfe, self.guidance, self.count, self.seed, self.bar = model, nfe, guidance, count, seed, bar
        names = model.spec.classes
        labels = None if names is None else [i % len(names) for i in range(count)]
        self.cond = model.condition(labels, count, 0, count)
        self.denoiser = Counted(model.guided(self.cond, guidance), bar.update)
        self.scale = model.recipe.process.sigma_data or 1.0
        self.grids, self.solvers = tried(model), solvers()
        self.until, self.cut, self.whole = time.monotonic() + 60 * minutes, False, False
        bar.total = self.expected()
        self.teacher, self.reference = self.taught(0), 0.0
        coarse = self.taught(0, SUBSTEPS // 2)
        self.reference = self.rms(self.teacher.misses(coarse.points[-1]))
        self.found: dict[tuple[str, str], Candidate] = {}

    def expected(self) -> int:
        """About how many evaluations there will be."""
        n = self.nfe
        teachers = 5 * SUBSTEPS * LEVELS
        tried = len(FIRST_ROUND) * len(self.solvers) + SEMIFINAL * (len(self.grids) - len(FIRST_ROUND)) + FINAL + 1
        optimizing = (1 + (n - 1) * (LEVELS - n + 1) + 6 * (n - 1) * n) * OPTIMIZED if n <= MOST_OPTIMIZED else 0
        return teachers + tried * n + optimizing

    def taught(self, part: int, substeps: int = SUBSTEPS) -> Teacher:
        """Converged trajectories: part 0 on the tuning noise, part 1 on fresh noise."""
        first = FIRST + part * self.count
        keyed = generators(self.seed, range(first, first + self.count), self.model.device)
        x = prior(self.denoiser, (self.count, *self.model.seen.shape), keyed, self.model.device)
        return Teacher.of(self.denoiser, x, self.cond, self.scale, LEVELS, substeps)

    def rms(self, misses: Tensor) -> float:
        """The root mean square over all samples, in deviations of the data."""
        return float(misses.square().mean().sqrt()) / self.scale

    def run(self) -> list[Candidate]:
        """Everything that was tried, best first."""
        self.attempt(SAMPLER, SUGGESTED)
        if (SAMPLER, SUGGESTED) not in self.found:
            raise ValueError("The model's samples are not finite numbers, so there is nothing to tune; train it again.")
        for grid in FIRST_ROUND:
            for name in self.solvers:
                self.attempt(name, grid)
        self.whole = True
        leaders = self.leaders()[:SEMIFINAL]
        for grid in self.grids:
            for name in leaders:
                self.attempt(name, grid)
        single = [name for name in self.leaders() if self.solvers[name]().evaluations == 1]
        for name in single[:OPTIMIZED]:
            self.optimize(name)
        return self.ranked()

    def ranked(self) -> list[Candidate]:
        """What was tried so far, best first; of equal ones (the same method or the same stops under two names) the one
        that was tried first, so that nothing is called better than the default by rounding alone.
        """
        kept: list[Candidate] = []
        for c in sorted(self.found.values(), key=lambda c: float(f"{c.error:.3e}")):
            twins = (k for k in kept if k.steps == c.steps and (k.grid == c.grid or k.stops.log_snr == c.stops.log_snr))
            if not any(math.isclose(k.error, c.error, rel_tol=1e-4) for k in twins):
                kept.append(c)
        return kept

    def leaders(self) -> list[str]:
        """The solvers by their best errors."""
        return list(dict.fromkeys(c.sampler for c in self.ranked()))

    def late(self) -> bool:
        """Whether the time is over."""
        self.cut = self.cut or time.monotonic() > self.until
        return self.cut

    def attempt(self, name: str, grid: str) -> None:
        """Measure a solver on a closed-form grid, unless that was done or there is no time."""
        if (name, grid) in self.found or (self.found and self.late()):
            return
        schedule, start = self.denoiser.schedule, self.denoiser.start
        steps = steps_within(self.solvers[name], self.nfe, schedule, self.grids[SUGGESTED], start)
        if steps is None:
            return
        try:
            stops = Fixed.of(schedule, self.grids[grid](schedule, steps, start))
        except ValueError:  # a grid that has no such number of steps
            return
        self.enter(name, grid, stops)

    def optimize(self, name: str) -> None:
        """Measure a solver on the grid that is optimized for it."""
        schedule, start = self.denoiser.schedule, self.denoiser.start
        steps = steps_within(self.solvers[name], self.nfe, schedule, self.grids[SUGGESTED], start)
        if steps is not None and 1 < steps <= MOST_OPTIMIZED and not self.late():
            self.enter(name, STOPS, self.teacher.grid(self.solvers[name](), steps))

    def enter(self, name: str, grid: str, stops: Fixed) -> None:
        """Measure and keep what stays within the budget and finite."""
        error, calls = self.measure(self.teacher, name, stops)
        if calls <= self.nfe and math.isfinite(error):
            self.found[name, grid] = Candidate(name, grid, stops, calls, error)

    def measure(self, teacher: Teacher, name: str, stops: Fixed) -> tuple[float, int]:
        """(error, evaluations) of a solver on a grid."""
        before = self.denoiser.calls
        times = stops(self.denoiser.schedule, len(stops.log_snr) + 1, self.denoiser.start)
        error = self.rms(teacher.end(self.solvers[name](), times))
        return error, self.denoiser.calls - before

    def confirm(self, found: list[Candidate]) -> tuple[list[Candidate], Candidate]:
        """The best ten by the worse of their errors on the tuning and on fresh noise, and the ordinary default."""
        fresh = self.taught(1)
        usual = self.found[SAMPLER, SUGGESTED]
        default = replace(usual, confirmed=self.measure(fresh, usual.sampler, usual.stops)[0])
        rest = [c for c in found[:FINAL] if (c.sampler, c.grid) != (SAMPLER, SUGGESTED)]
        finalists = [replace(c, confirmed=self.measure(fresh, c.sampler, c.stops)[0]) for c in rest]
        return sorted([*finalists, default], key=lambda c: c.worse)[:FINAL], default
