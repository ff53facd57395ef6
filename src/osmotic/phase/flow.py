"""Classical solvers of the probability-flow ODE ``du = (F u - (1/2) G G^T score) dt`` in time, for any root."""

from __future__ import annotations

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import as_time
from osmotic.noise import Generators
from osmotic.phase.matrix import Matrix, apply
from osmotic.phase.path import PhasePath, path_of
from osmotic.samplers.base import Sampler, State


class Euler(Sampler):
    """``u_s = u + (s - t)(F u + (1/2) G G^T R^{-T} eps)``; the last step lands by the estimate (Song et al. 2021, arXiv
    2011.13456).
    """

    order = 1
    matrix_valued = True

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
        path = path_of(denoiser)
        estimate = denoiser(x, t, cond)
        if float(s) == 0:
            return estimate.at(*path.scalars(s)), None
        return x + _slope(path, x, t, estimate) * (float(s) - float(t)), None


class Heun(Sampler):
    """Euler, then the mean of the slopes at both ends; the last step lands by the estimate, without a second one."""

    order = 2
    matrix_valued = True
    evaluations = 2

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
        path, h = path_of(denoiser), float(s) - float(t)
        estimate = denoiser(x, t, cond)
        if float(s) == 0:
            return estimate.at(*path.scalars(s)), None
        slope = _slope(path, x, t, estimate)
        there = x + slope * h
        return x + (slope + _slope(path, there, s, denoiser(there, s, cond))) * (h / 2), None


def _slope(path: PhasePath, u: Tensor, t: Tensor, estimate: Estimate) -> Tensor:
    path.scalars(t)
    time = as_time(float(t))
    return apply([(Matrix.of(path.drift(time)), u), (Matrix.of(path.drive(time)), estimate.eps)])
