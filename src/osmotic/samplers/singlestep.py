"""Singlestep exponential solvers: more estimates inside one step, and nothing to remember between steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import gather
from osmotic.levels import Level
from osmotic.noise import Generators
from osmotic.samplers.adams import weights
from osmotic.samplers.base import Sampler, State
from osmotic.samplers.lines import DataLogSNR, Line, NoiseLogSNR
from osmotic.samplers.nodes import LooksInside, Seen, as_level, fitting, join
from osmotic.schedules import Schedule


class Stage(NamedTuple):
    """A point inside the step.

    Args:
        share: where, as a share of the step in the line's variable.
        nodes: which earlier estimates lead there, 0 being that at the start of the step.
    """

    share: float
    nodes: tuple[int, ...]


class Singlestep(LooksInside):
    """A step by estimates at points inside it, each reached from earlier ones with weights exact for their polynomial.

    The shares are measured in the line's variable. A step to sigma = 0 is taken with the same points on
    :class:`~osmotic.samplers.lines.NoiseRho`, one from alpha = 0 on :class:`~osmotic.samplers.lines.Flow`.

    Args:
        line: what is integrated.
        stages: the points inside, none for the first-order step.
        last: the estimates that carry the whole step.
        order: the order this makes.
    """

    def __init__(self, line: Line, stages: Sequence[Stage], last: tuple[int, ...], order: int) -> None:
        self.line, self.stages, self.last, self.order = line, tuple(stages), last, order
        self.evaluations = 1 + len(self.stages)

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
        return self.look(denoiser, x, as_level(t), as_level(s), cond)[0], None

    def places(self, schedule: Schedule, t: Level, s: Level) -> list[float]:
        line = fitting(self.line, schedule, [t, s])
        return [line.between(schedule, t, s, stage.share) for stage in self.stages]

    def look(self, denoiser: Denoiser, x: Tensor, t: Level, s: Level, cond: object) -> tuple[Tensor, tuple[Seen, ...]]:
        """The step, and what was seen on the way."""
        schedule = denoiser.schedule
        seen = [Seen(t, denoiser(x, t, cond))]
        line = fitting(self.line, schedule, [t, s])
        for stage, level in zip(self.stages, self.inside(schedule, t, s), strict=True):
            there = self.combine(schedule, line, x, t, level, [seen[i] for i in stage.nodes])
            seen.append(Seen(level, denoiser(there, level, cond)))
        return self.combine(schedule, line, x, t, s, [seen[i] for i in self.last]), tuple(seen)

    def combine(self, schedule: Schedule, line: Line, x: Tensor, t: Level, s: Level, seen: list[Seen]) -> Tensor:
        """The point at s from x at t and the estimates seen."""
        here = line.node(schedule, t)
        nodes = [line.node(schedule, level) - here for level, _ in seen]
        rows = [weights(nodes, m) for m in line.moments(schedule, t, s, len(seen))]
        return join(x, line.keep(schedule.scalars(t), schedule.scalars(s)), line, rows, seen)


class HalfWeight(Singlestep):
    """The published second-order singlestep solvers, whose second estimate has the weight ``m_0 / (2 share)``.

    DPM-Solver-2 on :class:`NoiseLogSNR` (Lu et al. 2022, arXiv 2206.00927) and DPM-Solver++(2S) on :class:`DataLogSNR`
    (arXiv 2211.01095). Of second order; the exact weight, ``phi_2 / share``, gives RES and a smaller error.

    Args:
        line: what is integrated.
        share: where the second estimate is, in (0, 1).
    """

    def __init__(self, line: Line, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise ValueError(f"The second estimate lies inside the step, at a share in (0, 1); got {share}.")
        super().__init__(line, [Stage(share, (0,))], (0, 1), 2)

    def combine(self, schedule: Schedule, line: Line, x: Tensor, t: Level, s: Level, seen: list[Seen]) -> Tensor:
        if len(seen) < 2 or line is not self.line:
            return super().combine(schedule, line, x, t, s, seen)
        (whole,) = (m[0] for m in line.moments(schedule, t, s, 1))
        second = whole / (2 * self.stages[0].share)
        keep = line.keep(schedule.scalars(t), schedule.scalars(s))
        ((a, b),) = line.rows
        first = whole - second
        terms = [(seen[0].estimate, a * first, b * first), (seen[1].estimate, a * second, b * second)]
        return gather(x, keep, terms)


THIRDS = (Stage(1 / 3, (0,)), Stage(2 / 3, (0, 1)))


def dpm_solver(order: int) -> Singlestep:
    """DPM-Solver-1, 2 or 3 in its singlestep form (Lu et al. 2022, arXiv 2206.00927); 1 is DDIM.

    Raises:
        ValueError: for another order.
    """
    return _of_order(NoiseLogSNR(), order)


def dpm_solver_pp(order: int) -> Singlestep:
    """DPM-Solver++ 1, 2S or 3S (Lu et al. 2022, arXiv 2211.01095); 1 is DDIM.

    Raises:
        ValueError: for another order.
    """
    return _of_order(DataLogSNR(), order)


def _of_order(line: Line, order: int) -> Singlestep:
    if order not in (1, 2, 3):
        raise ValueError(f"Singlestep solvers of this kind have order 1, 2 or 3; got {order}.")
    if order == 2:
        return HalfWeight(line)
    return Singlestep(line, THIRDS[: order - 1], (0, 2) if order == 3 else (0,), order)


def res(share: float = 0.5) -> Singlestep:
    """RES-2S: the second-order solver that satisfies the stiff order conditions (Zhang et al. 2023, arXiv
    2308.02157).
    """
    return Singlestep(DataLogSNR(), [Stage(share, (0,))], (0, 1), 2)


class DPMSolverFast(Sampler):
    """DPM-Solver-fast: third-order steps, and lower ones at the end so that a number of evaluations is spent exactly.

    Lu et al. 2022 (arXiv 2206.00927, section 3.4): with ``K = n // 3 + 1`` steps the orders are 3, ..., 3, 2, 1 where
    n is a multiple of 3, else 3, ..., 3 and the remainder. The step to sigma = 0 takes the same solver on rho.

    Args:
        evaluations: n, at least 1; None is ``n = 3 K - 1`` for whatever K the grid has: third order, and second in the
            step to sigma = 0.

    Attributes:
        steps: K, the steps of the grid that spends n; None without n.
    """

    order = 3
    evaluations = 3
    remembers = True

    def __init__(self, evaluations: int | None = None) -> None:
        if evaluations is not None and evaluations < 1:
            raise ValueError(f"DPMSolverFast needs at least one evaluation; got {evaluations}.")
        self.orders: tuple[int, ...] | None = None
        if evaluations is not None:
            whole, rest = divmod(evaluations, 3)
            self.orders = (3,) * (whole - 1) + (2, 1) if rest == 0 else (3,) * whole + (rest,)
        self.steps = None if self.orders is None else len(self.orders)
        self.solvers = {order: dpm_solver(order) for order in (1, 2, 3)}

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        by_order: dict[int, list[tuple[Level, Level]]] = {}
        for index, (t, s) in enumerate(steps):
            by_order.setdefault(self._order(index, denoiser.schedule, s), []).append((t, s))
        return [level for order, some in by_order.items() for level in self.solvers[order].ahead(denoiser, some)]

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: int | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        index = state or 0
        solver = self.solvers[self._order(index, denoiser.schedule, s)]
        return solver.step(denoiser, x, t, s, cond, None, generator)[0], index + 1

    def _order(self, index: int, schedule: Schedule, s: Tensor) -> int:
        if self.orders is None:
            return 3 if schedule.scalars(s)[1] > 0 else 2
        if index < len(self.orders):
            return self.orders[index]
        raise ValueError(f"DPMSolverFast was planned for {len(self.orders)} steps; give it a grid of as many.")
