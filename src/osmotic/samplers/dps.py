"""Diffusion posterior sampling: after each step, a step down the norm of what the estimate gets wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.noise import Generators
from osmotic.samplers.base import Sampler, State
from osmotic.samplers.jump import DDPM
from osmotic.schedules import Number


class DPS(Sampler):
    """``x_s <- x_s' - zeta grad_{x_t} |residual(x0(x_t))|``, x_s' being a base sampler's step.

    The norm is each sample's own (the published code takes one over the batch: there samples change each other).
    It is no sampler of a law: zeta is the length of a step per level, so the result depends on how many there are. One
    evaluation and one backward pass a step. Chung et al. 2023 (arXiv 2209.14687, algorithm 1).

    Args:
        residual: what an estimate gets wrong, ``x0 -> y - A(x0)``, ``(B, *S)`` to ``(B, *M)``; A need not be linear.
        zeta: positive; the paper's are 0.3 to 1.
        base: of one evaluation a step; DDPM by default.

    Attributes:
        order: 0, as it says above.
    """

    order = 0

    def __init__(self, residual: Callable[[Tensor], Tensor], zeta: float = 0.5, base: Sampler | None = None) -> None:
        self.base = base or DDPM()
        if not zeta > 0 or self.base.evaluations != 1:
            raise ValueError(
                f"DPS needs a positive zeta and a base of one evaluation a step; got {zeta} and "
                f"{type(self.base).__name__}."
            )
        self.residual, self.zeta = residual, zeta
        self.stochastic, self.remembers = self.base.stochastic, self.base.remembers

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
        with torch.inference_mode(False), torch.enable_grad():
            seen = x.detach().clone().requires_grad_()
            estimate: Estimate = denoiser(seen, t, cond)
            norms = torch.linalg.vector_norm(self.residual(estimate.x0).flatten(1), dim=1)
            (slope,) = torch.autograd.grad(norms.sum(), seen)
        told = _Told(denoiser, Estimate(estimate.x0.detach(), estimate.eps.detach(), estimate.v))
        x, state = self.base.step(told, x, t, s, cond, state, generator)
        return x.add(slope, alpha=-self.zeta), state


class _Told(Denoiser):
    """A denoiser that has been asked already."""

    def __init__(self, denoiser: Denoiser, estimate: Estimate) -> None:
        super().__init__()
        self.estimate = estimate
        self.around(denoiser)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        return self.estimate
