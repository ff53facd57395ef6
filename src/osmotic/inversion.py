"""From data to the noise that gives them, back again, and between two data points by way of their noises."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.levels import Level
from osmotic.ode import MOST, integrate
from osmotic.samplers import DDIM, Sampler, prepare, refuse_no_samples, sample
from osmotic.samplers.adaptive import NOISE, AngleFlow, polar, tolerance


class Inversion(ABC):
    """A way from data to noise and its way back; a new one is one class with two methods."""

    @abstractmethod
    def encode(self, denoiser: Denoiser, x: Tensor, cond: object = None) -> Tensor:
        """The noise ``(B, *S)``, at the path's noisy end, of clean samples x."""

    @abstractmethod
    def decode(self, denoiser: Denoiser, z: Tensor, cond: object = None) -> Tensor:
        """The clean samples ``(B, *S)`` of noise z."""


class Adaptive(Inversion):
    """The probability-flow ODE in both directions, each sample with steps of its own: exact to the tolerance.

    Both ways stop at a little noise, where data are read as they are: what one way leaves out the other does too, so
    a round trip returns to x however noisy the model's idea of x is there. Decoding ends there as well, without the
    last denoising of a sampler; to clean fresh noise use :class:`~osmotic.samplers.adaptive.RK45`.

    Args:
        rtol: relative tolerance; 1e-9 for float64 samples, 1e-5 for others by default.
        atol: absolute tolerance in units of ``x / hypot(alpha, sigma)``, likewise.
        noise: the little noise, as sigma / alpha, positive.
        most: evaluations that a sample may need.
    """

    def __init__(
        self, rtol: float | None = None, atol: float | None = None, noise: float = NOISE, most: int = MOST
    ) -> None:
        if not noise > 0:
            raise ValueError(f"Adaptive reads data at a positive noise; got {noise}.")
        self.rtol, self.atol, self.first, self.most = rtol, atol, math.atan(noise), most

    def encode(self, denoiser: Denoiser, x: Tensor, cond: object = None) -> Tensor:
        last, length = (float(v) for v in polar(denoiser))
        return self._follow(denoiser, x * math.cos(self.first), cond, self.first, last) * length

    def decode(self, denoiser: Denoiser, z: Tensor, cond: object = None) -> Tensor:
        last, length = (float(v) for v in polar(denoiser))
        return self._follow(denoiser, z / length, cond, last, self.first) / math.cos(self.first)

    @torch.no_grad()
    def _follow(self, denoiser: Denoiser, u: Tensor, cond: object, start: float, end: float) -> Tensor:
        default = tolerance(u.dtype)
        rtol, atol = (default if v is None else v for v in (self.rtol, self.atol))
        return integrate(AngleFlow(denoiser, cond), u, start, end, rtol, atol, most=self.most).y


class Stepwise(Inversion):
    """A deterministic sampler run backwards on its own grid; with DDIM and no iterations, "DDIM inversion".

    Back from s to t the first guess is the explicit step: the estimate at s, where x is known, read at t (Song et al.
    2021, arXiv 2010.02502, section 4.3; at s = 0, where no denoiser may be asked, the estimate at t). It is not the
    inverse of the sampler's step: a round trip on n steps misses by O(1/n). Each iteration then corrects the guess by
    what the sampler's own step from it misses, ``x_t += (x_s - step(x_t)) hypot_t / hypot_s``, a fixed point (Pan et
    al. 2023, arXiv 2309.04907) that makes it the exact inverse where steps are small enough for it to converge.

    Args:
        times: the grid, ``(n + 1,)``, decreasing to 0, as :mod:`osmotic.times` makes them.
        sampler: deterministic, with no memory of earlier steps.
        iterations: corrections per step, of as many sampler steps each; 0 for none.

    Raises:
        ValueError: for a sampler that is stochastic or has a memory; for negative iterations.
    """

    def __init__(self, times: Tensor, sampler: Sampler | None = None, iterations: int = 0) -> None:
        self.times, self.sampler, self.iterations = times, sampler or DDIM(), iterations
        if self.sampler.stochastic:
            raise ValueError(
                f"{type(self.sampler).__name__} draws noise and cannot be run backwards; use DDIM or an ODE solver."
            )
        if self.sampler.remembers:
            raise ValueError(
                f"{type(self.sampler).__name__} remembers earlier steps and cannot be run backwards; use DDIM, Heun or "
                "Adaptive()."
            )
        if iterations < 0:
            raise ValueError(f"Stepwise needs a number of iterations of at least 0; got {iterations}.")

    @torch.no_grad()
    def encode(self, denoiser: Denoiser, x: Tensor, cond: object = None) -> Tensor:
        levels = prepare(denoiser, self.times, x.device, self.sampler)
        for s, t in itertools.pairwise(reversed(levels)):
            x = self._back(denoiser, x, s, t, cond)
        return x

    def decode(self, denoiser: Denoiser, z: Tensor, cond: object = None) -> Tensor:
        return sample(self.sampler, denoiser, z, self.times, cond)

    def _back(self, denoiser: Denoiser, x: Tensor, s: Level, t: Level, cond: object) -> Tensor:
        pair_t, pair_s = denoiser.schedule.scalars(t), denoiser.schedule.scalars(s)
        grown = math.hypot(*pair_t) / math.hypot(*pair_s)
        estimate: Estimate = denoiser(x, s, cond) if pair_s[1] > 0 else denoiser(x * grown, t, cond)
        noisier = estimate.at(*pair_t)
        for _ in range(self.iterations):
            there, _ = self.sampler.step(denoiser, noisier, t, s, cond)
            noisier = noisier + (x - there) * grown
        return noisier


def encode(denoiser: Denoiser, x: Tensor, cond: object = None, inversion: Inversion | None = None) -> Tensor:
    """The noise ``(B, *S)``, at the denoiser's start, from which x would be sampled; by Adaptive() by default."""
    refuse_no_samples(x, "Clean samples")
    return (inversion or Adaptive()).encode(denoiser, x, cond)


def decode(denoiser: Denoiser, z: Tensor, cond: object = None, inversion: Inversion | None = None) -> Tensor:
    """The clean samples ``(B, *S)`` of noise z: the way back of :func:`encode` with the same inversion."""
    refuse_no_samples(z, "Noises")
    return (inversion or Adaptive()).decode(denoiser, z, cond)


def interpolate(
    denoiser: Denoiser,
    a: Tensor,
    b: Tensor,
    weights: Sequence[float] | Tensor,
    cond: object = None,
    inversion: Inversion | None = None,
) -> Tensor:
    """Samples between two data points: their noises, mixed on the sphere, decoded (arXiv 2010.02502, section 5.3).

    Args:
        denoiser: the model.
        a: clean samples ``(B, *S)``, found again at weight 0.
        b: likewise, found at weight 1.
        weights: n numbers, usually in [0, 1].
        cond: handed to the denoiser on all ways.
        inversion: by which to go and come back; Adaptive() by default.

    Returns:
        ``(n, B, *S)``.
    """
    way = inversion or Adaptive()
    first, second = way.encode(denoiser, a, cond), way.encode(denoiser, b, cond)
    return torch.stack([way.decode(denoiser, slerp(first, second, float(w)), cond) for w in weights])


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """``(sin((1 - w) theta) a + sin(w theta) b) / sin(theta)`` with theta the angle between each pair of samples.

    Between normal noises this keeps their length, which a straight line does not: its middle is too short by sqrt(2)
    (Shoemake 1985, SIGGRAPH). Parallel and opposite samples are mixed on the straight line.

    Args:
        a: ``(B, *S)``, returned at weight 0.
        b: ``(B, *S)``, returned at weight 1.
        weight: one number.
    """
    flat, other = a.flatten(1).double(), b.flatten(1).double()
    p, q = (v / v.norm(dim=1, keepdim=True).clamp(min=1e-300) for v in (flat, other))
    theta = 2 * torch.atan2((p - q).norm(dim=1), (p + q).norm(dim=1))
    sine = theta.sin()
    straight = sine < 1e-6
    sine = torch.where(straight, 1.0, sine)
    first = torch.where(straight, 1 - weight, ((1 - weight) * theta).sin() / sine)
    second = torch.where(straight, weight, (weight * theta).sin() / sine)
    p_scale, q_scale = like(a, first, second)
    return p_scale * a + q_scale * b
