"""Multistep solvers: what earlier steps saw raises the order without another evaluation."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.noise import Generators
from osmotic.samplers.base import Sampler, State, half_log_snr_step


class _Past(NamedTuple):
    """The previous step: its estimate of x0 and its length in half log-SNR."""

    x0: Tensor
    h: float


class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M): the deterministic jump with x0 extrapolated in log-SNR (Lu et al. 2022, arXiv 2211.01095).

    ``x_s = (sigma_s / sigma_t) x + alpha_s (1 - exp(-h)) D`` with ``D = x0 + (x0 - x0_previous) h / (2 h_previous)``.
    A step more than ``longest`` times its predecessor is taken at first order, where extrapolation would do harm; the
    jump to sigma = 0 (h infinite) is the extreme of that, and no count of steps is consulted.

    Args:
        longest: the largest ratio h / h_previous that is extrapolated over, positive.
    """

    order = 2

    def __init__(self, longest: float = 3.0) -> None:
        if not longest > 0:
            raise ValueError(f"DPMSolverPP2M's longest ratio is positive; got {longest}.")
        self.longest = longest

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: _Past | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        pairs = denoiser.schedule.scalars(t), denoiser.schedule.scalars(s)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = pairs
        h = half_log_snr_step(*pairs)
        x0 = denoiser(x, t, cond).x0
        past = _Past(x0, h)
        ratio = 0.0 if state is None or math.isinf(state.h) else h / state.h
        if state is not None and 0 < ratio <= self.longest:
            x0 = x0.lerp(state.x0, -ratio / 2)
        # sigma_s / sigma_t and alpha_s - alpha_t sigma_s / sigma_t = alpha_s (1 - exp(-h)) hold at both ends of the
        # path.
        keep = sigma_s / sigma_t
        return (x * keep).add(x0, alpha=alpha_s - alpha_t * keep), past
