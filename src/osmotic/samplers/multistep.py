"""Linear multistep solvers: what earlier steps saw raises the order without another evaluation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, gather
from osmotic.levels import Level
from osmotic.noise import Generators
from osmotic.samplers.adams import phi, weights
from osmotic.samplers.base import Sampler, State, half_log_snr_step
from osmotic.samplers.lines import DataLogSNR, Flow, Line
from osmotic.samplers.nodes import TO_ZERO, Seen, as_level, fitting, join
from osmotic.samplers.singlestep import THIRDS, Singlestep
from osmotic.schedules import Schedule

MOST = 7
"""The most estimates a step uses; beyond, extrapolation amplifies more than it gains."""


class Past(NamedTuple):
    """What a step hands to the next: where it began, what was seen (newest first), and the nodes it used (0: a
    jump).
    """

    x: Tensor
    seen: tuple[Seen, ...]
    order: int


class Adams(Sampler):
    """The exponential Adams method of any order and spacing on a line, with an optional corrector at no extra
    evaluation.

    ``x_s = keep x_t + sum_j w_j row_j`` over the last k estimates, with the weights exact for polynomials below degree
    k. The corrector takes the last step again with the estimate at its end as one more node, before the next step
    (UniPC: Zhao et al. 2023, arXiv 2302.04867). Without it on all steps it still lifts the start, whose low-order
    steps would spoil a third order; above third order the first step is a third-order singlestep one, two evaluations
    more.

    A step is taken at the highest order k at which plain extrapolation through its nodes does not cancel: weights with
    ``sum |w_j| <= growth^(k-1) sum w_j`` for the integral du. That is a rule on step ratios; no count of steps is
    consulted. Where the line cannot see: steps with alpha = 0 among their nodes are taken on :class:`Flow`, one to
    sigma = 0 on :class:`NoiseRho`, which are regular there.

    Args:
        line: what is integrated.
        steps: k, the number of estimates used, 1 to 7.
        correct: correct every step, which raises the order by one.
        growth: the largest cancellation per order, at least 1.
    """

    remembers = True

    def __init__(self, line: Line, steps: int, correct: bool = False, growth: float = 4.0) -> None:
        if not 1 <= steps <= MOST:
            raise ValueError(f"Adams takes 1 to {MOST} steps; got {steps}.")
        if not growth >= 1:
            raise ValueError(f"Adams' growth is at least 1; got {growth}.")
        self.line, self.steps, self.correct, self.growth = line, steps, correct, growth
        self.order: int = steps + correct
        self.starter = Singlestep(line, THIRDS, (0, 2), 3)

    @property
    def order_from_noise(self) -> float:
        return self.order if isinstance(self.line, Flow) else super().order_from_noise

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        self.line.ahead(denoiser.schedule, steps)
        return self.starter.ahead(denoiser, steps[:1]) if self.order > 3 else []

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: Past | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        schedule = denoiser.schedule
        if self.order > 3 and state is None:
            return self.begin(denoiser, x, as_level(t), as_level(s), cond)
        seen: tuple[Seen, ...] = (Seen(as_level(t), denoiser(x, t, cond)),)
        if state is not None:
            # A start of higher order than its nodes would be spoilt by a correction through as few.
            if (self.correct and state.order <= len(state.seen)) or state.order < self.steps - 1:
                x = self.corrected(schedule, state, seen[0])
            seen += state.seen
        out, order = self.advance(schedule, x, as_level(s), seen[: self.steps])
        return out, Past(x, seen[: self.steps], order)

    def begin(self, denoiser: Denoiser, x: Tensor, t: Level, s: Level, cond: object) -> tuple[Tensor, State]:
        """The first step of a method above third order, by three estimates: a low-order one would cap all that
        follows.
        """
        out, seen = self.starter.look(denoiser, x, t, s, cond)
        return out, Past(x, seen[:1], self.order)

    def advance(self, schedule: Schedule, x: Tensor, s: Level, seen: tuple[Seen, ...]) -> tuple[Tensor, int]:
        """The step to s from what was seen (newest first, at most ``steps``), and how many nodes it used."""
        t = seen[0].level
        line = fitting(self.line, schedule, [s, *(level for level, _ in seen)])
        nodes = [line.node(schedule, level) for level, _ in seen]
        k = self.bearable(nodes, line.node(schedule, s))
        rows = [weights([n - nodes[0] for n in nodes[:k]], m) for m in line.moments(schedule, t, s, k)]
        return join(x, line.keep(schedule.scalars(t), schedule.scalars(s)), line, rows, seen), k

    def bearable(self, nodes: list[float], end: float) -> int:
        """How many nodes may be extrapolated over the step to ``end``: a rule on step ratios alone."""
        h = end - nodes[0]
        for k in range(len(nodes), 1, -1):
            w = weights([n - nodes[0] for n in nodes[:k]], [h ** (m + 1) / math.factorial(m + 1) for m in range(k)])
            if sum(map(abs, w)) <= self.growth ** (k - 1) * abs(h):
                return k
        return 1

    def corrected(self, schedule: Schedule, past: Past, new: Seen) -> Tensor:
        """The last step again, now that its end was seen."""
        before = past.seen[0].level
        seen = (past.seen[0], new, *past.seen[1 : past.order])
        line = fitting(self.line, schedule, [level for level, _ in seen])
        nodes = [line.node(schedule, level) for level, _ in seen]
        moments = line.moments(schedule, before, new.level, len(nodes))
        rows = [weights([n - nodes[0] for n in nodes], m) for m in moments]
        return join(past.x, line.keep(schedule.scalars(before), schedule.scalars(new.level)), line, rows, seen)


class Before(NamedTuple):
    """What the previous step of :class:`DPMSolverPP2M` saw, and its length in half log-SNR."""

    seen: Seen
    h: float


class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M) as published: the deterministic jump with x0 extrapolated in log-SNR (Lu et al. 2022, arXiv
    2211.01095).

    ``x_s = (sigma_s / sigma_t) x + alpha_s (1 - exp(-h)) D`` with ``D = x0 + (x0 - x0_previous) h / (2 h_previous)``:
    of second order like ``Adams(DataLogSNR(), 2)``, with half the error constant on smooth problems. A step more than
    ``longest`` times its predecessor is taken at first order; the jump to sigma = 0 goes by
    :class:`~osmotic.samplers.lines.NoiseRho`.

    Args:
        longest: the largest ratio h / h_previous that is extrapolated over, positive.
    """

    order = 2
    remembers = True

    def __init__(self, longest: float = 3.0) -> None:
        if not longest > 0:
            raise ValueError(f"DPMSolverPP2M's longest ratio is positive; got {longest}.")
        self.longest, self._landing = longest, Adams(TO_ZERO, 2)

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: Before | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        schedule = denoiser.schedule
        t_pair, s_pair = schedule.scalars(t), schedule.scalars(s)
        estimate: Estimate = denoiser(x, t, cond)
        h = half_log_snr_step(t_pair, s_pair)
        past = Before(Seen(as_level(t), estimate), h)
        if s_pair[1] == 0:
            seen = (past.seen,) if state is None else (past.seen, state.seen)
            return self._landing.advance(schedule, x, as_level(s), seen)[0], past
        # alpha_s - alpha_t sigma_s / sigma_t = alpha_s (1 - exp(-h)), also where alpha_t = 0.
        keep = s_pair[1] / t_pair[1]
        total = s_pair[0] - t_pair[0] * keep
        if state is None or not 0 < h <= self.longest * state.h < math.inf:
            return gather(x, keep, ((estimate, total, 0.0),)), past
        extra = total * h / (2 * state.h)
        return gather(x, keep, ((estimate, total + extra, 0.0), (state.seen.estimate, -extra, 0.0))), past


class DPMSolverPP3MPublished(Adams):
    """DPM-Solver++(3M) as the paper's code and its copies have it: of second order in spite of its name.

    The published combination drops a factor of 2 in front of the second divided difference (Lu et al. 2022, arXiv
    2211.01095, multistep form); measured order 2.0. Only for comparison with other software: ``Adams(DataLogSNR(),
    3)`` is the third-order method. It starts with steps of DDIM and 2M; the jump to sigma = 0 is Adams'.
    """

    def __init__(self) -> None:
        super().__init__(DataLogSNR(), 3)
        self.order = 2

    def advance(self, schedule: Schedule, x: Tensor, s: Level, seen: tuple[Seen, ...]) -> tuple[Tensor, int]:
        lambdas = [self.line.node(schedule, level) for level in (s, *(each.level for each in seen))]
        if not all(map(math.isfinite, lambdas)):
            return super().advance(schedule, x, s, seen)[0], self.steps
        h, *lengths = (a - b for a, b in itertools.pairwise(lambdas))
        alpha = schedule.scalars(s)[0]
        w = [[alpha * n for n in _published(h, lengths)]]
        keep = self.line.keep(schedule.scalars(seen[0].level), schedule.scalars(s))
        # Its start is not lifted by a correction, so it counts as of full order.
        return join(x, keep, self.line, w, seen), self.steps


def _published(h: float, lengths: list[float]) -> list[float]:
    """The published weights over the last one, two or three estimates, for a step h after steps of these lengths."""
    c = [h * phi(k, -h) for k in (1, 2, 3)]
    if not lengths:
        return c[:1]
    r0 = lengths[0] / h
    if len(lengths) == 1:
        return [c[0] * (1 + 1 / (2 * r0)), -c[0] / (2 * r0)]
    r1 = lengths[1] / h
    first, second = (1 / r0, -1 / r0, 0.0), (0.0, 1 / r1, -1 / r1)
    d1 = [a + r0 / (r0 + r1) * (a - b) for a, b in zip(first, second, strict=True)]
    d2 = [(a - b) / (r0 + r1) for a, b in zip(first, second, strict=True)]
    return [c[0] * (j == 0) + c[1] * d1[j] + c[2] * d2[j] for j in range(3)]
