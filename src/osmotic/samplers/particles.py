"""Sampling given a measurement by weighted particles: the law tends to the exact conditional as they grow."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.noise import Generators, normal
from osmotic.samplers.base import Sampler, State, renewed


@runtime_checkable
class Weighing(Protocol):
    """A denoiser that knows a measurement, and what it would say without."""

    def weigh(self, x: Tensor, t: Tensor, cond: object = None) -> tuple[Estimate, Estimate, Tensor]:
        """Without the measurement, with it, and a guess of ``log p(y | x_t)``, ``(B,)``."""


class Cloud(NamedTuple):
    """The particles of all samples, particle k of sample b in row ``k B + b``.

    Attributes:
        x: ``(K B, *S)``.
        log_weights: ``(K, B)``.
        guess: of ``log p(y | x)`` that the weights hold, ``(K, B)``.
    """

    x: Tensor
    log_weights: Tensor
    guess: Tensor


class Particles(Sampler):
    """DDPM's step toward the measurement by K particles a sample, weighed by what the step should have been.

    A particle moves by ``q = N(m_given, V)`` in place of ``p = N(m, V)`` (V the small variance, m from the estimate
    without the measurement) and gains ``p / q`` times the change of the guess of ``p(y | x_t)``; where the weights of a
    sample's particles are worth fewer than half of them, they are drawn anew in proportion (systematically). At the end
    one is chosen by its weight. Whatever guides and guesses, as K grows this is ancestral sampling given y, and as the
    steps grow too the conditional law; a better guidance needs fewer particles. It costs K evaluations a step.

    Samples stay independent: each has particles of its own, from its own generator. Wu et al. 2023 (arXiv 2306.17775),
    with the covariance of :class:`~osmotic.guidance.Posterior` in the proposal and one scalar in the guess.

    Args:
        count: K, at least 1; 1 is ancestral sampling of the guided denoiser.

    Attributes:
        evaluations: K.

    Raises:
        TypeError: while sampling, for a denoiser that is not :func:`osmotic.guidance.given` a measurement, or one
            around such a one.
    """

    order = 1
    stochastic = True
    remembers = True

    def __init__(self, count: int = 8) -> None:
        if count < 1:
            raise ValueError(f"Particles needs a count of at least 1; got {count}.")
        self.count = self.evaluations = count

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
        if not isinstance(denoiser, Weighing):
            raise TypeError(
                f"Particles needs guidance.given(denoiser, operator, y) itself; got {type(denoiser).__name__}: put "
                "other guidance inside it, or use another sampler."
            )
        count, batch = self.count, len(x)
        pairs = denoiser.schedule.scalars(t), denoiser.schedule.scalars(s)
        cloud: Cloud = state or _spread(x, count)
        plain, given, guess = denoiser.weigh(cloud.x, t, _repeated(cond, count))
        guess = guess.reshape(count, batch)
        weights = cloud.log_weights + guess - cloud.guess
        draw = torch.special.ndtr(normal((batch, 1), generator, x.device, torch.float64))
        alpha, sigma = pairs[1]
        if sigma == 0:
            return given.at(alpha, sigma)[_chosen(weights, draw)], None
        share = renewed(*pairs)
        deviation, kept = sigma * math.sqrt(share), sigma * math.sqrt(1 - share)
        middle = given.at(alpha, kept)
        off = (middle - plain.at(alpha, kept)) / deviation
        rows, weights, guess = _renewed(weights, guess, draw)
        middle, off = middle[rows], off[rows]
        z = normal((batch, count, *x.shape[1:]), generator, x.device, x.dtype).transpose(0, 1).reshape(middle.shape)
        gain = (off * (off / 2 + z)).flatten(1).double().sum(1).reshape(count, batch)
        moved = Cloud(middle.add(z, alpha=deviation), weights - gain, guess)
        return moved.x[_chosen(moved.log_weights, draw)], moved


def _spread(x: Tensor, count: int) -> Cloud:
    """Every sample's particles at its own noise; the steps from pure noise part them."""
    nothing = torch.zeros(count, len(x), dtype=torch.float64, device=x.device)
    return Cloud(x.repeat(count, *[1] * (x.ndim - 1)), nothing, nothing)


def _renewed(weights: Tensor, guess: Tensor, draw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the particles that go on, their log weights and guesses: drawn anew where they are worth under half.

    Systematic resampling: ``(k + u) / K`` through the inverse of the cumulated weights (Kitagawa 1996), u being one
    uniform number per sample, ``(B, 1)``.
    """
    count, batch = weights.shape
    shares = torch.softmax(weights, 0)
    poor = 1 / shares.square().sum(0) < count / 2
    places = torch.arange(count, device=weights.device)[None]
    found = torch.searchsorted(shares.T.cumsum(1), ((places + draw) / count)).clamp(max=count - 1)
    index = torch.where(poor, found.T, places.T)
    weights = torch.where(poor, 0.0, weights - weights.logsumexp(0))
    rows = index * batch + torch.arange(batch, device=weights.device)
    return rows.flatten(), weights, guess.gather(0, index)


def _chosen(weights: Tensor, draw: Tensor) -> Tensor:
    """The row of one particle per sample, by its weight, ``(B,)``."""
    count, batch = weights.shape
    index = torch.searchsorted(torch.softmax(weights, 0).T.cumsum(1), draw)[:, 0].clamp(max=count - 1)
    return index * batch + torch.arange(batch, device=weights.device)


def _repeated(cond: object, count: int) -> object:
    """The condition of every particle, in the order of the rows."""
    if cond is None or count == 1:
        return cond
    if isinstance(cond, Condition):
        return Condition.cat([cond] * count)
    if isinstance(cond, Tensor):
        return torch.cat([cond] * count)
    raise TypeError(f"Particles repeat an osmotic Condition or a tensor of labels; got {type(cond).__name__}.")
