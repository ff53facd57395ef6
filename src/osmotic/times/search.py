"""A grid tuned to a model, a solver and a number of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import Level
from osmotic.noise import Generators, normal_like
from osmotic.samplers import DDIM, Heun, Sampler, prepare, prior, sample, trajectory
from osmotic.samplers.base import State, numeric
from osmotic.schedules import Number
from osmotic.times.base import Fixed
from osmotic.times.ratio import LogSNR

RHO_MIN, RHO_MAX = 0.004, 80.0
SUBSTEPS = 4
# Stops are moved by these shares of a gap between the teacher's levels, coarse to fine.
MOVES = (1.0, 0.5, 0.25)


def optimized(
    denoiser: Denoiser,
    steps: int,
    data: Tensor | None = None,
    sampler: Sampler | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    cond: object = None,
    scale: float = 1.0,
    levels: int = 32,
    generator: Generators = None,
    tick: Callable[[], None] | None = None,
) -> Fixed:
    """The grid on which a solver of n steps stays nearest to a fine trajectory of the same denoiser.

    Dynamic programming over the teacher's levels (Pei et al. 2025, "Optimal stepsize for diffusion sampling", arXiv
    2503.21774): the student that reaches level j in k steps with the smallest distance to the teacher there is extended
    from every level that was reached in k - 1 steps, carrying its own error and the solver's memory. Then each stop is
    moved between the teacher's levels while the distance at the data falls. The distance is the mean over samples of
    the root mean square deviation, so a few samples that end elsewhere do not decide.

    It costs about ``8 levels`` evaluations for the teacher, ``steps levels`` for the programming with a solver of one
    evaluation per step (``steps levels^2 / 2`` more for each further one), and ``6 steps^2`` for the moves; and the
    memory of a few times ``levels`` batches.

    Args:
        denoiser: what will be sampled, guidance included.
        steps: n, from 1 to ``levels``.
        data: clean samples ``(B, *S)`` to begin from, with noise added; by default noise alone (``shape`` is needed).
        sampler: the deterministic solver; DDIM by default.
        shape: ``(B, *S)`` of the noise where there are no data; 64 samples and more make it general.
        cond: handed to the denoiser, for the batch.
        scale: the data's standard deviation, positive.
        levels: of the teacher, among which the stops are sought.
        generator: of the noise.
        tick: called after every trial, for a progress bar.

    Returns:
        A grid of n steps that knows its stops by log-SNR: it serves on any path, and ``.log_snr`` is a plain list.

    Raises:
        ValueError: for a stochastic solver, a count that does not fit, or without data and shape.
    """
    numeric(denoiser)
    if data is not None:
        alpha, sigma = denoiser.schedule.scalars(denoiser.start)
        x = alpha * data + sigma * normal_like(data, generator)
    elif shape is not None:
        device = next(denoiser.parameters(), torch.empty(0)).device
        x = prior(denoiser, shape, generator, device)
    else:
        raise ValueError("Without data to begin from, optimized() needs the shape (B, *S) of the noise.")
    return Teacher.of(denoiser, x, cond, scale, levels).grid(sampler or DDIM(), steps, tick)


class Branch(NamedTuple):
    """A student at a level: its distance to the teacher, its point, the solver's memory, the levels it visited."""

    miss: float
    x: Tensor
    state: State
    path: tuple[int, ...]


@dataclass(frozen=True)
class Teacher:
    """Fine trajectories of a denoiser, kept at the levels where a student may stop.

    Args:
        denoiser: what is sampled.
        cond: of the batch.
        times: ``(M + 1,)`` from the start to 0.
        points: the trajectories at these times, each ``(B, *S)``.
    """

    denoiser: Denoiser
    cond: object
    times: Tensor
    points: Sequence[Tensor]

    @staticmethod
    @torch.no_grad()
    def of(
        denoiser: Denoiser,
        x: Tensor,
        cond: object = None,
        scale: float = 1.0,
        levels: int = 32,
        substeps: int = SUBSTEPS,
    ) -> Teacher:
        """Heun's method in ``substeps`` steps, even in log-SNR, between each two of M levels of the same kind.

        Args:
            denoiser: what is sampled.
            x: samples at its start, ``(B, *S)``.
            cond: of the batch.
            scale: the data's standard deviation; the levels lie between 0.004 and 80 times it in sigma / alpha.
            levels: M.
            substeps: in each gap, at least 1.
        """
        schedule, start = numeric(denoiser).schedule, denoiser.start
        times = LogSNR(RHO_MIN * scale, RHO_MAX * scale)(schedule, levels, start)
        log_snr = schedule.log_snr(times)
        fine, kept = [times[:1]], [0]
        for i in range(levels):
            inner = times[i + 1 : i + 2]
            if bool(log_snr[i : i + 2].isfinite().all()):
                shares = torch.arange(1, substeps, dtype=torch.float64) / substeps
                between = schedule.time(log_snr[i] + (log_snr[i + 1] - log_snr[i]) * shares)
                inner = torch.cat([between, inner])
            fine.append(inner)
            kept.append(kept[-1] + len(inner))
        every = trajectory(Heun(), denoiser, x, torch.cat(fine), cond)
        wanted = set(kept)
        return Teacher(denoiser, cond, times, [point for i, point in enumerate(every) if i in wanted])

    def misses(self, x: Tensor, level: int = -1) -> Tensor:
        """The root mean square deviation of each sample from the teacher at a level, ``(B,)``."""
        return (x - self.points[level]).flatten(1).square().mean(1).sqrt()

    def end(self, sampler: Sampler, times: Tensor) -> Tensor:
        """:meth:`misses` at the data of a solver on a grid ``(n + 1,)`` from the same start."""
        return self.misses(sample(sampler, self.denoiser, self.points[0], times, self.cond))

    @torch.no_grad()
    def grid(self, sampler: Sampler, steps: int, tick: Callable[[], None] | None = None) -> Fixed:
        """The optimized grid, as in :func:`optimized`."""
        levels = len(self.times) - 1
        if sampler.stochastic:
            raise ValueError("A grid is tuned by comparing trajectories; take a deterministic solver.")
        if not 1 <= steps <= levels:
            raise ValueError(f"{steps} steps cannot be chosen from {levels} levels; take 1 to {levels} steps.")
        times = self.times[list(self.program(sampler, steps, tick).path)]
        return self.moved(sampler, times, tick)

    def program(self, sampler: Sampler, steps: int, tick: Callable[[], None] | None = None) -> Branch:
        """The student of n steps that ends nearest to the teacher, by dynamic programming over its levels."""
        once = _Once(self.denoiser)
        nodes, last = prepare(once, self.times, self.points[0].device), len(self.times) - 1
        best = {0: Branch(0.0, self.points[0], None, (0,))}
        for k in range(steps):
            left = steps - 1 - k
            reached: dict[int, Branch] = {}
            for i, branch in best.items():
                once.pin(branch.x, nodes[i])
                ends = range(i + 1, last - left + 1) if left else (last,)
                taken = [sampler.step(once, branch.x, nodes[i], nodes[j], self.cond, branch.state) for j in ends]
                # Read together: on a device every reading waits for it.
                misses = torch.stack([self.misses(x, j).mean() for j, (x, _) in zip(ends, taken, strict=True)])
                for j, (x, state), miss in zip(ends, taken, misses.tolist(), strict=True):
                    if j not in reached or miss < reached[j].miss:
                        reached[j] = Branch(miss, x, state, (*branch.path, j))
                if tick is not None:
                    tick()
            best = reached
        return best[last]

    def moved(self, sampler: Sampler, times: Tensor, tick: Callable[[], None] | None = None) -> Fixed:
        """The grid after moving each stop while the end comes nearer to the teacher's."""
        schedule, start = self.denoiser.schedule, float(self.times[0])
        known = schedule.log_snr(self.times[1:-1])
        gap = float((known[-1] - known[0]) / max(len(known) - 1, 1))
        best = Fixed.of(schedule, times)
        least = float(self.end(sampler, times).mean())
        for share in MOVES:
            for i in range(len(best.log_snr)):
                for offset in (share * gap, -share * gap):
                    trial = _shift(best, i, offset, float(schedule.log_snr(start)))
                    miss = math.inf
                    if trial is not None:
                        miss = float(self.end(sampler, trial(schedule, len(times) - 1, start)).mean())
                    if tick is not None:
                        tick()
                    if trial is not None and miss < least:
                        best, least = trial, miss
        return best

    def trials(self, steps: int) -> int:
        """How often :meth:`grid` calls its ``tick``."""
        return 1 + (steps - 1) * (len(self.times) - steps + 2 * len(MOVES))


def _shift(grid: Fixed, i: int, offset: float, first: float) -> Fixed | None:
    """The grid with one stop moved in log-SNR, if it stays between its neighbours."""
    stops = list(grid.log_snr)
    stops[i] += offset
    around = [first, *stops, math.inf]
    return Fixed(stops) if around[i] < stops[i] - 1e-3 and stops[i] + 1e-3 < around[i + 2] else None


class _Once(Denoiser):
    """A denoiser that is asked once at one point, however many steps begin there."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.start = denoiser, denoiser.schedule, denoiser.start
        self.target = denoiser.target
        self._point: tuple[Tensor, Level] | None = None
        self._found: Estimate | None = None

    def pin(self, x: Tensor, t: Level) -> None:
        """The point at which the next estimate is kept."""
        self._point, self._found = (x, t), None

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        here = s is None and self._point is not None and x is self._point[0] and t is self._point[1]
        if here and self._found is not None:
            return self._found
        estimate: Estimate = self.denoiser(x, t, cond, s)
        if here:
            self._found = estimate
        return estimate
