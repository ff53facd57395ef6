"""Runge-Kutta methods on the probability-flow ODE in any variable: rho, log-SNR, the angle, or the path's own time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, gather
from osmotic.levels import Level
from osmotic.noise import Generators
from osmotic.samplers.base import State
from osmotic.samplers.lines import angle, at_log_snr, half_log_snr, levels_at, rho
from osmotic.samplers.nodes import LooksInside, as_level
from osmotic.schedules import Schedule


class Slope(NamedTuple):
    """``y = x / scale`` moves as ``dy / dvariable = a x0 + b eps``."""

    scale: float
    a: float
    b: float


class Picture(ABC):
    """The flow as an ODE in one variable, which is finite at every level that the picture can see."""

    @abstractmethod
    def variable(self, schedule: Schedule, t: Level) -> float:
        """The variable at a level."""

    @abstractmethod
    def place(self, variable: float) -> float:
        """``log(alpha / sigma)`` there, or whatever :meth:`levels` takes."""

    def levels(self, schedule: Schedule, places: Sequence[float]) -> list[Level]:
        """The levels at places."""
        return at_log_snr(schedule, places)

    def ahead(self, schedule: Schedule, levels: Sequence[Level]) -> None:  # noqa: B027
        """Work out at once what :meth:`slope` needs of the schedule at many levels; nothing here."""

    @abstractmethod
    def slope(self, schedule: Schedule, t: Level) -> Slope:
        """How x moves there."""


class InRho(Picture):
    """``y = x / alpha, dy/drho = eps``: EDM's clock on every path; it cannot see alpha = 0."""

    def variable(self, schedule: Schedule, t: Level) -> float:
        return rho(schedule.scalars(t))

    def place(self, variable: float) -> float:
        return -math.log(variable)

    def slope(self, schedule: Schedule, t: Level) -> Slope:
        return Slope(schedule.scalars(t)[0], 0.0, 1.0)


class InLogSNR(Picture):
    """``y = x / alpha, dy/dlambda = -rho eps`` with ``lambda = log(alpha / sigma)``; it sees neither end."""

    def variable(self, schedule: Schedule, t: Level) -> float:
        return half_log_snr(schedule.scalars(t))

    def place(self, variable: float) -> float:
        return variable

    def slope(self, schedule: Schedule, t: Level) -> Slope:
        pair = schedule.scalars(t)
        return Slope(pair[0], 0.0, -rho(pair))


class InAngle(Picture):
    """``u = x / hypot(alpha, sigma), du/dphi = cos(phi) eps - sin(phi) x0``, ``phi = atan2(sigma, alpha)``; sees both
    ends.
    """

    def variable(self, schedule: Schedule, t: Level) -> float:
        return angle(schedule.scalars(t))

    def place(self, variable: float) -> float:
        return -math.log(math.tan(variable))

    def slope(self, schedule: Schedule, t: Level) -> Slope:
        alpha, sigma = schedule.scalars(t)
        scale = math.hypot(alpha, sigma)
        return Slope(scale, -sigma / scale, alpha / scale)


class InTime(Picture):
    """``dx/dt = alpha' x0 + sigma' eps``: the path's own time, the only picture in which the schedule matters."""

    def variable(self, schedule: Schedule, t: Level) -> float:
        return t.number

    def place(self, variable: float) -> float:
        return variable

    def levels(self, schedule: Schedule, places: Sequence[float]) -> list[Level]:
        return levels_at(schedule, torch.tensor(places, dtype=torch.float64))

    def ahead(self, schedule: Schedule, levels: Sequence[Level]) -> None:
        rates = schedule.rates(torch.tensor([level.number for level in levels], dtype=torch.float64))
        for level, *pair in zip(levels, *(rate.tolist() for rate in rates), strict=True):
            level.memo[InTime, schedule] = pair

    def slope(self, schedule: Schedule, t: Level) -> Slope:
        if (InTime, schedule) not in t.memo:
            self.ahead(schedule, [t])
        dalpha, dsigma = t.memo[InTime, schedule]
        if not (math.isfinite(dalpha) and math.isfinite(dsigma)):
            raise ValueError(
                f"{type(schedule).__name__} moves infinitely fast at t = {t.number:.6g}, so it cannot be stepped in "
                "its own time there; use the angle or log-SNR."
            )
        return Slope(1.0, dalpha, dsigma)


class Tableau(NamedTuple):
    """Butcher's coefficients of an explicit method.

    Args:
        order: of the method.
        stages: for each stage after the first, the weights of the earlier slopes; they sum to the stage's share.
        last: the weights of all slopes.
        open: the method of the same local order that does not look at the end of the step, for a step to sigma = 0;
        None
            if this one does not look there.
    """

    order: int
    stages: tuple[tuple[float, ...], ...]
    last: tuple[float, ...]
    open: Tableau | None = None


IN_ANGLE = InAngle()
EULER = Tableau(1, (), (1.0,))
MIDPOINT = Tableau(2, ((0.5,),), (0.0, 1.0))
HEUN = Tableau(2, ((1.0,),), (0.5, 0.5), MIDPOINT)
HEUN_3 = Tableau(3, ((1 / 3,), (0.0, 2 / 3)), (0.25, 0.0, 0.75))
RK4 = Tableau(4, ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), HEUN_3)


class RungeKutta(LooksInside):
    """An explicit Runge-Kutta method in a picture; where that cannot see an end of the step, in the angle.

    Where the method would look at sigma = 0 its open companion takes the step, which keeps the order.

    Args:
        tableau: the method.
        picture: the variable it steps in.
    """

    def __init__(self, tableau: Tableau, picture: Picture) -> None:
        self.tableau, self.picture = tableau, picture
        self.order = tableau.order
        self.evaluations = len(tableau.last)

    @property
    def order_from_noise(self) -> float:
        if isinstance(self.picture, InLogSNR):
            return 0  # explicit steps in log-SNR do not bear the long ones at the ends
        return self.order if isinstance(self.picture, InAngle) else super().order_from_noise

    def places(self, schedule: Schedule, t: Level, s: Level) -> list[float]:
        tableau, picture = self._means(schedule, t, s)
        first, last = (picture.variable(schedule, level) for level in (t, s))
        return [picture.place(first + sum(row) * (last - first)) for row in tableau.stages if sum(row) < 1]

    def found(self, schedule: Schedule, places: Sequence[float]) -> list[Level]:
        return self.picture.levels(schedule, places)

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        levels, schedule = super().ahead(denoiser, steps), denoiser.schedule
        ends = [t for t, _ in steps] + [s for _, s in steps[-1:] if schedule.scalars(s)[1] > 0]
        self.picture.ahead(schedule, [*ends, *levels])
        return levels

    def _means(self, schedule: Schedule, t: Level, s: Level) -> tuple[Tableau, Picture]:
        """The method and the picture of a step, which depend on its ends."""
        landing = schedule.scalars(s)[1] == 0
        tableau = self.tableau.open or self.tableau if landing else self.tableau
        seen = all(math.isfinite(self.picture.variable(schedule, level)) for level in (t, s))
        return tableau, self.picture if seen else IN_ANGLE

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
        schedule, t, s = denoiser.schedule, as_level(t), as_level(s)
        tableau, picture = self._means(schedule, t, s)
        h = picture.variable(schedule, s) - picture.variable(schedule, t)
        first, between = picture.slope(schedule, t), iter(self.inside(schedule, t, s))
        seen: list[tuple[Estimate, Slope]] = [(denoiser(x, t, cond), first)]
        for row in tableau.stages:
            level = next(between) if sum(row) < 1 else s
            slope = picture.slope(schedule, level)
            there = _move(x, slope.scale / first.scale, slope.scale * h, row, seen)
            seen.append((denoiser(there, level, cond), slope))
        scale = _scale(picture, schedule, s)
        return _move(x, scale / first.scale, scale * h, tableau.last, seen), None


def _scale(picture: Picture, schedule: Schedule, s: Level) -> float:
    """The picture's scale at the end of a step, where only a time picture would look at rates."""
    return 1.0 if isinstance(picture, InTime) else picture.slope(schedule, s).scale


def _move(x: Tensor, keep: float, h: float, row: tuple[float, ...], seen: list[tuple[Estimate, Slope]]) -> Tensor:
    """``keep x + h sum_i row_i (a_i x0_i + b_i eps_i)``."""
    return gather(x, keep, [(e, h * w * k.a, h * w * k.b) for w, (e, k) in zip(row, seen, strict=False) if w])
