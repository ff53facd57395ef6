"""gDDIM: exponential integrators in which a single point's flow is one exact step, whatever its length."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import once
from osmotic.noise import Generators, normal_like
from osmotic.phase.matrix import Matrix, apply
from osmotic.phase.path import PhasePath, path_of
from osmotic.phase.quadrature import adams, point_flow, root
from osmotic.samplers.base import Sampler, State


class _Seen(NamedTuple):
    """What a step saw: eps at its time."""

    time: float
    eps: Tensor


class GDDIM(Sampler):
    """Deterministic gDDIM: exponential Adams-Bashforth on ``du = F u dt + (1/2) G G^T R^{-T} eps dt``.

    ``u_s = Psi(s, t) u + sum_k C_k eps_k`` over this and the q - 1 previous estimates (Zhang, Tao & Chen 2022, arXiv
    2206.05564, eq. 19); the first steps take as many as there are. With the Flow root and order 1 it is the jump ``A_s
    x0 + R_s eps``, exact for a single point. The first step of order 3 is corrected at its end with one evaluation
    more, because a first-order start would leave an error of second order.

    Args:
        order: the predictor's q, 1 to 3.
        correct: after each step let eps at its end join the interpolation (exponential Adams-Moulton): predict,
            evaluate, correct, and evaluate anew in the next step (algorithm 1). Twice the evaluations and one order
            more, for q up to 2. At s = 0 nothing can be evaluated, and the prediction stands.
    """

    matrix_valued = True
    remembers = True

    def __init__(self, order: int = 1, correct: bool = False) -> None:
        if order not in (1, 2, 3) or order + correct > 3:
            raise ValueError(f"gDDIM's order is 1, 2 or 3, and with its corrector 1 or 2; got {order}.")
        self.kept, self.correct = order, correct
        self.order, self.evaluations = order + correct, 1 + correct

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: tuple[_Seen, ...] | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        path = path_of(denoiser)
        path.scalars(t)
        seen = (_Seen(float(t), denoiser(x, t, cond).eps), *(state or ()))[: self.kept]
        there = _adams(path, x, t, s, seen)
        if float(s) > 0 and (self.correct or (state is None and self.kept == 3)):
            there = _adams(path, x, t, s, (_Seen(float(s), denoiser(there, s, cond).eps), *seen))
        return there, seen


def _adams(path: PhasePath, u: Tensor, t: Tensor, s: Tensor, seen: tuple[_Seen, ...]) -> Tensor:
    nodes = tuple(one.time for one in seen)
    whole, weights = once(t, (path, float(s), nodes), lambda: adams(path, t, s, nodes))
    return apply([(whole, u), *((w, one.eps) for w, one in zip(weights, seen, strict=True))])


class StochasticGDDIM(Sampler):
    """Stochastic gDDIM: the jump with part of the noise made anew, exact in law for a single point.

    ``u_s = A_s x0 + B R_t eps + P^{1/2} z`` with B the propagator of ``F + (1/2)(1 + lambda^2) G G^T Sigma^{-1}`` from
    t to s and ``P = Sigma_s - B Sigma_t B^T``, so that every marginal of a single point is kept (Zhang, Tao & Chen
    2022, arXiv 2206.05564, proposition 6). lambda = 0 is deterministic gDDIM of order 1, lambda = 1 the posterior
    ``q(u_s | u_t, x0)``: ancestral sampling.

    Args:
        strength: lambda, at least 0.
    """

    order = 1
    matrix_valued = True

    def __init__(self, strength: float = 1.0) -> None:
        if not strength >= 0:
            raise ValueError(f"gDDIM's strength lambda is not negative; got {strength}.")
        self.strength = strength
        self.stochastic = strength > 0

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
        kept, fresh = once(t, (self, path, float(s)), lambda: _posterior(path, t, s, self.strength))
        x = estimate.at(a, kept)
        return (x + apply([(fresh, normal_like(x, generator))]) if self.stochastic else x), None


def _posterior(path: PhasePath, t: Tensor, s: Tensor, strength: float) -> tuple[Matrix, Matrix]:
    """``B R_t`` and ``P^{1/2}``."""
    r_t, r_s = (path.matrices(time)[1].tensor for time in (t, s))
    kept = point_flow(path, t, s, strength) @ r_t
    return Matrix.of(kept), Matrix.of(root(r_s @ r_s.mT - kept @ kept.mT))
