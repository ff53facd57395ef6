"""RePaint: go back up the levels just come down, and come down again."""

from __future__ import annotations

import itertools
import math

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.noise import Generators, normal_like
from osmotic.samplers.base import Sampler, State, renewed
from osmotic.samplers.jump import DDPM
from osmotic.samplers.nodes import as_level


class RePaint(Sampler):
    """Ancestral sampling in which every stretch of ``jump`` steps is done ``repeats`` times, with noise between.

    After ``jump`` steps from t to s the sample is noised again by ``q(x_t | x_s) = N((alpha_t / alpha_s) x_s, sigma_t^2
    - (alpha_t sigma_s / alpha_s)^2)`` and comes down anew, so that what is painted hears what is known
    (:class:`~osmotic.guidance.Inpaint`) more than once. The stretch that ends at the data is done once. It costs
    ``(repeats - 1) jump`` evaluations for every other whole stretch beside those of the steps: for the paper's 250
    steps, jump 10 and 10 repeats 2410. Lugmayr et al. 2022 (arXiv 2201.09865).

    Args:
        repeats: r, at least 1; 1 is the base sampler.
        jump: j, in steps, at least 1.
        base: what makes the steps, without a memory; DDPM by default.

    Attributes:
        order: 0: what replacement leaves wrong does not fall with the steps alone.
    """

    order = 0
    stochastic = True
    remembers = True

    def __init__(self, repeats: int = 10, jump: int = 10, base: Sampler | None = None) -> None:
        self.base = base or DDPM()
        if repeats < 1 or jump < 1 or self.base.remembers:
            raise ValueError(
                "RePaint needs at least 1 repeat, a jump of at least 1 step and a base without a memory; got "
                f"{repeats}, {jump} and {type(self.base).__name__}."
            )
        self.repeats, self.jump, self.evaluations = repeats, jump, self.base.evaluations

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
        way = [*(state or [as_level(t)]), as_level(s)]
        x, _ = self.base.step(denoiser, x, way[-2], way[-1], cond, None, generator)
        if len(way) <= self.jump or denoiser.schedule.scalars(way[-1])[1] == 0:
            return x, way
        high, low = (denoiser.schedule.scalars(level) for level in (way[0], way[-1]))
        # sigma_t^2 - (alpha_t sigma_s / alpha_s)^2, without the difference
        deviation = high[1] * math.sqrt(renewed(high, low))
        for _ in range(self.repeats - 1):
            x = (x * (high[0] / low[0])).add(normal_like(x, generator), alpha=deviation)
            for above, below in itertools.pairwise(way):
                x, _ = self.base.step(denoiser, x, above, below, cond, None, generator)
        return x, None
