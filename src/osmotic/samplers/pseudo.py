"""Pseudo linear multistep solvers: classical weights for equal steps, inside DDIM's transfer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, gather
from osmotic.levels import Level
from osmotic.noise import Generators
from osmotic.samplers.base import State
from osmotic.samplers.nodes import Halfway, as_level
from osmotic.schedules import Schedule

# As many as a four-step method lacks past estimates; one from alpha = 0, where it jumps, is not among them.
RUNGE_KUTTA_STEPS = 3
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


class PNDM(Halfway):
    """PNDM: ``x_s = (alpha_s / alpha_t) x + (sigma_s - (alpha_s / alpha_t) sigma_t) eps'``, eps' from past eps.

    The weights are Adams-Bashforth's for equal steps while the integral is over sigma / alpha, so the order is 2
    whatever their number (Liu et al. 2022, arXiv 2202.09778; measured); with unequal steps use LMS or DEIS, whose
    weights know them.

    Args:
        runge_kutta: start with three pseudo Runge-Kutta steps of four evaluations each (the paper's F-PNDM); otherwise
            with one Heun-like step of two evaluations (PLMS).
    """

    order = 2
    remembers = True

    def __init__(self, runge_kutta: bool = False) -> None:
        self.runge_kutta = runge_kutta

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        return super().ahead(denoiser, steps[:RUNGE_KUTTA_STEPS]) if self.runge_kutta else []

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: tuple[Estimate, ...] | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        schedule = denoiser.schedule
        here: Estimate = denoiser(x, t, cond)
        past = (here, *(state or ()))[:4]
        alpha, sigma = schedule.scalars(s)
        if schedule.scalars(t)[0] == 0 or (sigma == 0 and state is None):
            # Nothing of x is signal yet, or a single step: the jump itself.
            return here.at(alpha, sigma), past
        if sigma > 0 and self.runge_kutta and len(past) <= RUNGE_KUTTA_STEPS:
            return self._runge_kutta(denoiser, x, as_level(t), as_level(s), cond, here), past
        if sigma > 0 and state is None:
            there: Estimate = denoiser(transfer(schedule, x, t, s, (1.0,), past), s, cond)
            return transfer(schedule, x, t, s, (0.5, 0.5), (here, there)), past
        return transfer(schedule, x, t, s, ADAMS_BASHFORTH[len(past) - 1], past), past

    def _runge_kutta(self, denoiser: Denoiser, x: Tensor, t: Level, s: Level, cond: object, here: Estimate) -> Tensor:
        schedule = denoiser.schedule
        (middle,) = self.inside(schedule, t, s)
        second: Estimate = denoiser(transfer(schedule, x, t, middle, (1.0,), (here,)), middle, cond)
        third: Estimate = denoiser(transfer(schedule, x, t, middle, (1.0,), (second,)), middle, cond)
        fourth: Estimate = denoiser(transfer(schedule, x, t, s, (1.0,), (third,)), s, cond)
        return transfer(schedule, x, t, s, (1 / 6, 1 / 3, 1 / 3, 1 / 6), (here, second, third, fourth))


def transfer(
    schedule: Schedule, x: Tensor, t: Tensor, s: Tensor, weights: tuple[float, ...], seen: tuple[Estimate, ...]
) -> Tensor:
    """DDIM's step from t to s with ``eps' = sum_j weights_j eps_j``."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scalars(t), schedule.scalars(s)
    keep = alpha_s / alpha_t
    change = sigma_s - keep * sigma_t
    return gather(x, keep, [(e, 0.0, change * w) for w, e in zip(weights, seen, strict=True)])
