"""CFG++: the guided clean sample, renoised with the unconditional noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance, refuse_matrices
from osmotic.guidance.views import Given, everything, nothing, seen
from osmotic.levels import Level
from osmotic.schedules import Number


class CFGPlusPlus(Guidance):
    """x0 of the guided estimate and eps of the unconditional one (Chung et al. 2024, arXiv 2406.08070).

    ``x_s = alpha_s x0_guided + sigma_s eps_unconditional`` is then the step of DDIM, and with noise the one of
    ``DDIM(eta)`` and ``DDPM``. This estimate alone does not meet ``x = alpha x0 + sigma eps``, so samplers that read x
    besides the estimate have no meaning with it, and every sampler that is not marked ``renoises`` is refused.

    A step from t to s equals one of classifier-free guidance at the scale ``scale rho_t / (rho_t - rho_s)``, ``rho =
    sigma / alpha``: the last one, to the data, at ``scale`` itself, and earlier ones the harder the shorter they are.
    It discretises no flow: more steps mean more guidance, without bound. scale = 0 is the unconditional; scale = 1 is
    NOT the conditional. The paper's lambda lies in [0, 1]; tune it for one number of steps, and do not change that.

    Args:
        denoiser: a conditional denoiser trained with dropped conditions, on a path of two numbers.
        scale: of x0 alone, one for all or one per sample ``(B,)``.
        negative: as for :class:`~osmotic.guidance.ClassifierFree`; its eps is then the one that renoises.

    Raises:
        TypeError: when called with a condition that is no :class:`~osmotic.condition.Condition`.
        ValueError: for a path of matrices, and when called with a time s: a flow map has no noise of its own to add.
    """

    def __init__(self, denoiser: Denoiser, scale: Number, negative: Condition | None = None) -> None:
        super().__init__()
        refuse_matrices(denoiser, "CFGPlusPlus")
        self.denoiser, self.scale, self.negative = denoiser, scale, negative
        self.away = nothing if negative is None else Given(negative)
        self.around(denoiser)
        self.consistent = False

    @property
    def plain(self) -> Denoiser:
        return self.denoiser

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        told = self._told(cond, s)
        if told is not None and not isinstance(self.scale, Tensor) and self.scale == 0:
            return seen(self.denoiser, x, t, [self.away(told)], s)[0]
        return self.both(x, t, cond, s)[1]

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        told = self._told(cond, s)
        if told is None:
            plain: Estimate = self.denoiser(x, t, cond, s)
            return plain, plain
        away, plain = seen(self.denoiser, x, t, [self.away(told), everything(told)], s)
        return plain, Estimate(away.lerp(plain, self.scale).x0, away.eps, plain.v)

    def _told(self, cond: object, s: Number | None) -> Condition | None:
        if s is not None:
            raise ValueError(
                "CFGPlusPlus renoises the posterior mean, and a flow map to a time s has none; guide it by "
                "ClassifierFree."
            )
        if cond is not None and not isinstance(cond, Condition):
            raise TypeError(
                f"Guidance needs an osmotic Condition to know what 'nothing' is; got {type(cond).__name__}."
            )
        return cond
