"""Samplers of the reverse SDE ``du = (F u - G G^T score) dt + G dw`` in phase space."""

from __future__ import annotations

import math

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import Level, as_time
from osmotic.noise import Generators, normal_like
from osmotic.phase.langevin import CLD, moments, transition
from osmotic.phase.matrix import Matrix, apply
from osmotic.phase.path import path_of
from osmotic.phase.quadrature import root
from osmotic.samplers.base import Sampler, State


class EulerMaruyama(Sampler):
    """``u_s = u - h (F u + G G^T R^{-T} eps) + sqrt(h) G z`` with h = t - s; the last step lands by the estimate.

    For any root of the covariance (Song et al. 2021, arXiv 2011.13456, on the SDE of arXiv 2112.07068).
    """

    order = 1
    matrix_valued = True
    stochastic = True

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
        a, r = path.scalars(s)
        estimate = denoiser(x, t, cond)
        if float(s) == 0:
            return estimate.at(a, r), None
        time, h = as_time(float(t)), float(t) - float(s)
        drift, drive = Matrix.of(path.drift(time)), Matrix.of(path.drive(time))
        noise = Matrix.of(root(path.diffusion(time))) * math.sqrt(h)
        z = normal_like(x, generator)
        keep = Matrix.scalar(1.0) - drift * h
        return apply([(keep, x), (drive * (-2 * h), estimate.eps), (noise, z)]), None


class SSCS(Sampler):
    """The symmetric splitting sampler of CLD: half a step of its exact part, a step of the score, half a step again.

    The reverse SDE is split into a critically damped process run backwards, whose Gaussian propagator is exact, and
    ``dv = 2 Gamma beta (grad_v log p + v / M) dt``, taken by Euler at the middle of the step (Dockhorn, Vahdat & Kreis
    2021, arXiv 2112.07068, algorithm 1). Steps are halved in the clock ``int beta``. The last step lands by the
    estimate. Weak order 1, because of Euler.

    Raises:
        ValueError: while sampling, on a path other than CLD.
    """

    order = 1
    matrix_valued = True
    stochastic = True

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
        if not isinstance(path, CLD):
            raise ValueError(
                f"SSCS splits critically damped Langevin diffusion, and the path is {type(path).__name__}."
            )
        a, r = path.scalars(s)
        if float(s) == 0:
            return denoiser(x, t, cond).at(a, r), None
        first, last = (path.clock(as_time(float(time))) for time in (t, s))
        length = first - last
        keep, spread = _damped(length / 2, path.mass)
        x = apply([(keep, x), (spread, normal_like(x, generator))])
        middle = Level.of(path.unclock((first + last) / 2))
        x = _kick(path, x, denoiser(x, middle, cond).eps, path.matrices(middle)[1], 4 * float(length))
        return apply([(keep, x), (spread, normal_like(x, generator))]), None


def _damped(length: Tensor, mass: float) -> tuple[Matrix, Matrix]:
    """The exact part over a stretch of the dimensionless clock: CLD's own transition with velocities turned round."""
    mirror = Matrix(1.0, 0.0, 0.0, -1.0)
    lxx, lvx, lvv = (float(v) for v in moments(length, 0.0, 0.0).cholesky)
    spread = Matrix(lxx, 0.0, -math.sqrt(mass) * lvx, math.sqrt(mass) * lvv)
    return mirror * Matrix.of(transition(length, mass)) * mirror, spread


def _kick(path: CLD, u: Tensor, eps: Tensor, r: Matrix, length: float) -> Tensor:
    """``v + length (M grad_v log p + v)`` with ``grad log p = -R^{-T} eps``."""
    pick = Matrix(0.0, 0.0, 0.0, 1.0)
    return apply([(Matrix.scalar(1.0) + pick * length, u), (pick * r.inverse.T * (-length * path.mass), eps)])
