"""Exponential multistep solvers of the reverse SDE: SDE-DPM-Solver++ and SA-Solver, on the engine of the ODE's."""

from __future__ import annotations

import math

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.noise import Generators, increment
from osmotic.samplers.base import Sampler, State, renewed
from osmotic.samplers.lines import DataLogSNR
from osmotic.samplers.multistep import Adams, Past
from osmotic.samplers.nodes import Seen, as_level


class SDEAdams(Sampler):
    """The reverse SDE of noise level tau, with x0 a polynomial in log-SNR and one fresh noise a step.

    ``x_s = (sigma_s / sigma_t) e^{-tau^2 h} x_t + (1 + tau^2) alpha_s int_0^h e^{(1 + tau^2)(u - h)} x0 du
    + sigma_s sqrt(1 - e^{-2 tau^2 h}) xi``. With tau = 1 one, two and three steps are SDE-DPM-Solver++ 1, 2M and 3M
    (Lu et al. 2022, arXiv 2211.01095); with a corrector that takes the last step again with the same xi it is
    SA-Solver (Xue et al. 2023, arXiv 2309.05019); tau = 0 is the ODE's method. One step is DDPM's posterior at tau = 1.

    Weak order 2 from two steps on: x0's own Brownian part caps it, a third step lowers the constant at small tau only.
    A step to sigma = 0 ends at the estimate, without noise.

    Args:
        steps: the number of estimates used, at least 1.
        tau: noise level, at least 0; 1 is the reverse SDE.
        correct: correct every step (SA-Solver).
        growth: as in :class:`~osmotic.samplers.multistep.Adams`.
    """

    stochastic = True
    remembers = True

    def __init__(self, steps: int = 2, tau: float = 1.0, correct: bool = False, growth: float = 4.0) -> None:
        if not 0 < tau < math.inf:
            raise ValueError(f"SDEAdams needs a finite, positive tau (tau = 0 is Adams on DataLogSNR); got {tau}.")
        self.adams = Adams(DataLogSNR(tau), steps, correct, growth)
        self.tau, self.correct = tau, correct
        self.order = min(steps + correct, 2)

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: tuple[Past, Tensor] | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        schedule, adams = denoiser.schedule, self.adams
        t_pair, s_pair = schedule.scalars(t), schedule.scalars(s)
        seen: tuple[Seen, ...] = (Seen(as_level(t), denoiser(x, t, cond)),)
        if state is not None:
            past, noise = state
            if self.correct and past.seen:
                x = adams.corrected(schedule, past, seen[0]) + noise
            seen += past.seen
        seen = seen[: adams.steps]
        if s_pair[1] == 0:
            return seen[0].estimate.at(*s_pair), None
        if t_pair[0] > 0:
            out, order = adams.advance(schedule, x, as_level(s), seen)
        else:
            # From alpha = 0 nothing of x is kept: its noise is forgotten whatever tau, and new noise takes its place.
            out, order, seen = seen[0].estimate.at(s_pair[0], 0.0), 1, ()
        # 1 - e^{-2 tau^2 h}, from the share that is new at tau = 1.
        fresh = 1 - (1 - renewed(t_pair, s_pair)) ** (self.tau**2)
        noise = increment(x, generator, t_pair, s_pair) * (s_pair[1] * math.sqrt(fresh))
        return out + noise, (Past(x, seen, order), noise)
