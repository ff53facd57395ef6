"""Predictor-corrector sampling: any sampler, with Langevin updates at every level before its step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.noise import Generators, normal_like
from osmotic.samplers.base import Sampler, State
from osmotic.samplers.langevin import update
from osmotic.samplers.sde import ReverseDiffusion
from osmotic.schedules import Number


class Rule(ABC):
    """How long a corrector's Langevin step is: a new rule is one class with one method."""

    def __init__(self, r: float = 0.16) -> None:
        if not r > 0:
            raise ValueError(f"A corrector's ratio r is positive; got {r}.")
        self.r = r

    @abstractmethod
    def share(self, eps: Tensor, z: Tensor) -> Number:
        """``step / (2 A sigma^2)`` for the estimated noise eps and the new noise z: a number, or ``(B,)``."""


class NormRatio(Rule):
    """The signal-to-noise rule: ``step = 2 A (r |z| / |score|)^2`` with the norms of each sample by itself.

    Song et al. 2021 (arXiv 2011.13456, algorithms 4 and 5); their code averages both norms over the batch, so that
    there a sample depends on those drawn beside it. Meant for many dimensions: in one or two, |score| near 0 makes huge
    steps; take :class:`LevelRatio` there.

    Args:
        r: positive; the paper's 0.16 for CIFAR-10, 0.17 for CelebA, 0.15 for FFHQ, 0.075 for LSUN.
    """

    def share(self, eps: Tensor, z: Tensor) -> Tensor:
        over, under = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (z, eps))
        return torch.square(self.r * over / under)


class LevelRatio(Rule):
    """The same rule with the norms' usual ratio, sigma: ``step = 2 A (r sigma)^2``, for data of any dimension.

    Args:
        r: positive.
    """

    def share(self, eps: Tensor, z: Tensor) -> float:
        return self.r**2


class PredictorCorrector(Sampler):
    """``updates`` Langevin steps at t, then the predictor's step from t to s (Song et al. 2021, arXiv 2011.13456).

    ``x += step score + sqrt(2 step) z`` with the rule's step, in which ``A = (alpha_t / alpha_s)^2`` is the paper's
    ``1 - beta`` of the step and 1 on variance-exploding paths; at alpha = 0 there is nothing to correct. The end is the
    predictor's, without noise. Corrections keep the exact law up to the bias of Langevin steps, ``V / (1 - step / (2
    V))``, which does not fall with the number of steps.

    Args:
        predictor: a sampler.
        rule: how long the corrections are.
        updates: corrections per level, at least 1.

    Attributes:
        order: 0: the predictor's until the corrections' own bias shows, which does not fall with the number of steps.
    """

    stochastic = True

    def __init__(self, predictor: Sampler | None = None, rule: Rule | None = None, updates: int = 1) -> None:
        if updates < 1:
            raise ValueError(f"PredictorCorrector needs at least 1 correction per level; got {updates}.")
        self.predictor, self.rule = predictor or ReverseDiffusion(), rule or NormRatio()
        self.updates, self.order = updates, 0
        self.evaluations = self.predictor.evaluations + updates

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
        (alpha_t, sigma_t), (alpha_s, _) = (denoiser.schedule.scalars(u) for u in (t, s))
        amount = 2 * (alpha_t / alpha_s) ** 2
        for _ in range(self.updates if amount > 0 else 0):
            eps = denoiser(x, t, cond).eps
            z = normal_like(x, generator)
            x = update(x, eps, sigma_t, amount * self.rule.share(eps, z), z)
        return self.predictor.step(denoiser, x, t, s, cond, state, generator)
