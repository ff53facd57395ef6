"""Noise that makes discrete data continuous, so that a density bounds their probability.

For values on a lattice with bins of width spacing, ``log P(x) >= E_q log p(x + spacing u) + d log spacing - log q(u |
x)`` with u in (-1/2, 1/2): uniform q is the usual choice (Theis et al. 2016, arXiv 1511.01844), a learned q makes the
bound tighter and equality holds where q is the density within the bin (Ho et al. 2019, arXiv 1902.00275).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from osmotic.noise import Generators, normal
from osmotic.objectives.score_matching import LogDensity, Score


class Dequantizer(nn.Module, ABC):
    """``dequantizer(x, generator) -> (u, log_q)``; a new one is one class with one method."""

    @abstractmethod
    def forward(self, x: Tensor, generator: Generators = None) -> tuple[Tensor, Tensor]:
        """Draw the place of each value within its bin.

        Args:
            x: data on the lattice, ``(B, *S)``.
            generator: one, or one per sample.

        Returns:
            u in (-1/2, 1/2), ``(B, *S)``, and ``log q(u | x)``, ``(B,)`` float64 nats.
        """


class Uniform(Dequantizer):
    """u is uniform and ``log q = 0``."""

    def forward(self, x: Tensor, generator: Generators = None) -> tuple[Tensor, Tensor]:
        return (uniform(x, generator) - 0.5).to(x.dtype), x.new_zeros(len(x), dtype=torch.float64)


class Variational(Dequantizer):
    """A learned density in each bin: Kumaraswamy's, with exponents that a network reads from the data.

    ``q(w) = a b w^(a-1) (1 - w^a)^(b-1)`` on ``w = u + 1/2`` in (0, 1), drawn by the inverse of its distribution
    function, ``w = (1 - (1 - v)^(1/b))^(1/a)`` (Kumaraswamy 1980, J. Hydrol. 46:79; Nalisnick & Smyth 2017, arXiv
    1605.06197). It is uniform at a = b = 1, so a network whose last layer starts at zero starts with the uniform bound.

    Args:
        network: ``(B, C, *S) -> (B, 2 C, *S)``: log a, then log b, for every entry.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, generator: Generators = None) -> tuple[Tensor, Tensor]:
        log_a, log_b = self.network(x).double().chunk(2, dim=1)
        log_rest = torch.log1p(-uniform(x, generator))  # log(1 - v), hence log(1 - w^a) is a b-th of it
        inner = log_rest * torch.exp(-log_b)
        log_power = torch.log(-torch.expm1(inner))  # log w^a
        log_w = log_power * torch.exp(-log_a)
        log_q = log_a + log_b + log_power - log_w + log_rest - inner
        return (log_w.exp() - 0.5).to(x.dtype), log_q.flatten(1).sum(1)


class Exponents(nn.Module):
    """A small network for :class:`Variational`: two layers on a sample laid flat, zero at first.

    Args:
        shape: of one sample, channels first.
        width: of the hidden layer.
        scale: what the data are divided by to be of order one.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        d = math.prod(shape)
        self.shape, self.scale = (2 * shape[0], *shape[1:]), scale
        self.first, self.second = nn.Linear(d, width), nn.Linear(width, 2 * d)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.nn.functional.silu(self.first(x.flatten(1) / self.scale))
        y: Tensor = self.second(h)
        return y.reshape(-1, *self.shape)


def uniform(x: Tensor, generator: Generators = None) -> Tensor:
    """Uniform numbers in (0, 1) of x's shape, float64, keyed as all noise is."""
    z = normal(x.shape, generator, x.device, torch.float64)
    # Below 8.2 sigma a normal number is never seen; the limits keep logarithms finite all the same.
    v: Tensor = torch.special.ndtr(z).clamp(1e-16, 1 - 1e-16)
    return v


def dequantized(
    log_prob: LogDensity, dequantizer: Dequantizer, x: Tensor, spacing: float, generator: Generators = None
) -> Tensor:
    """One draw of the bound on ``log P(x)``, ``(B,)`` float64 nats; its mean over draws is a lower bound.

    Args:
        log_prob: the log-density of continuous samples, ``(B, *S) -> (B,)`` nats.
        dequantizer: of the noise.
        x: data on the lattice, ``(B, *S)``.
        spacing: between neighbouring values, in the units of x.
        generator: one, or one per sample.
    """
    u, log_q = dequantizer(x, generator)
    bound: Tensor = log_prob(x + spacing * u).double() + x[0].numel() * math.log(spacing) - log_q
    return bound


def surrogate(
    score: Score, dequantizer: Dequantizer, x: Tensor, spacing: float, generator: Generators = None
) -> Tensor:
    """A loss ``(B,)`` whose gradient in the dequantizer is that of minus :func:`dequantized`; its value means nothing.

    The gradient of a log-density is its score, so learning the dequantizer asks the denoiser once and never
    differentiates a likelihood.

    Args:
        score: the gradient of the log-density, ``(B, *S) -> (B, *S)``; see :func:`osmotic.likelihood.score`.
        dequantizer: what is learned.
        x: data on the lattice, ``(B, *S)``.
        spacing: between neighbouring values, in the units of x.
        generator: one, or one per sample.
    """
    u, log_q = dequantizer(x, generator)
    y = x + spacing * u
    slope = score(y.detach()).detach()
    loss: Tensor = log_q - (slope * y).flatten(1).sum(1)
    return loss
