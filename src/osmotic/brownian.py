"""Brownian noise: the same seed gives the same path at any step count, on any device and in any dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.noise import Generators, Pair, Source, generator, generators, normal

# The clock's range, and how finely it is told apart: log q in [-40, 40] in 2^36 parts of 1.2e-9.
_REACH, _DEPTH = 40.0, 36
_NODES: int = 2**_DEPTH
# Tells these keys from those that others make of (seed, index, ...).
_TAG = 0x62726F776E


class Motion:
    """One sample's Brownian motion B(q), ``Var B(q) = q``, in the clock ``q = (alpha / sigma)^2``, as a function.

    The clock is cut into 2^36 parts of equal length in log q. The value at a node follows from the two ends by
    bisection: at the middle m of a stretch of 2 d in log q it is ``B_l + (B_r - B_l) / (1 + e^d) + sqrt(q_m tanh(d /
    2)) z`` (the Brownian bridge), z being a function of (key, node). So any value is found in at most 36 draws from
    nothing, and the values at all nodes are exactly those of one Brownian motion; B(0) = 0. Virtual Brownian tree:
    Gaines & Lyons 1997; Li et al. 2020 (arXiv 2001.01328).

    Args:
        key: integers, as for :func:`osmotic.noise.generator`.
    """

    def __init__(self, *key: int) -> None:
        self.key = key
        self._known: dict[int, Tensor] = {}

    def unit(self, shape: Sequence[int], q_t: float, q_s: float) -> Tensor:
        """``(B(q_s) - B(q_t)) / sqrt(q_s - q_t)`` for q_t < q_s: a standard normal, float64 on the CPU.

        Args:
            shape: of the sample, without the batch; the same in all calls.

        Raises:
            ValueError: if the levels are too close, or too clean, to be told apart.
        """
        first, last = _node(q_t), _node(q_s)
        if first >= last:
            raise ValueError(
                f"Brownian noise cannot tell the levels (alpha / sigma)^2 = {q_t:.6g} and {q_s:.6g} apart: a step must "
                "go down in noise by more than 1e-9 of it, and to no less than sigma / alpha = 2e-9."
            )
        # Steps follow each other: what ends this one begins the next, and a rejected one begins again.
        self._known = {node: self._at(node, tuple(shape)) for node in (first, last)}
        return (self._known[last] - self._known[first]) / math.sqrt(_clock(last) - _clock(first))

    def _at(self, node: int, shape: tuple[int, ...]) -> Tensor:
        if node in self._known:
            return self._known[node]
        low, high = 0, _NODES
        left = torch.zeros(shape, dtype=torch.float64)
        right = self._draw(high, shape) * math.sqrt(_clock(high))
        while low < node < high:
            middle = (low + high) // 2
            d = (high - low) * _REACH / _NODES
            # The lowest node stands for q = 0, infinitely far below in log q.
            weight, share = (1 / (1 + math.exp(d)), math.tanh(d / 2)) if low else (math.exp(-d), -math.expm1(-d))
            z = self._draw(middle, shape)
            value = torch.lerp(left, right, weight).add_(z, alpha=math.sqrt(_clock(middle) * share))
            low, high, left, right = (low, middle, left, value) if node <= middle else (middle, high, value, right)
        return left if node == low else right

    def _draw(self, node: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator(*self.key, node, _TAG), dtype=torch.float64)


class Brownian(Source):
    """Noise that is a path: runs with the same seed and other step counts are driven by the same Brownian motion.

    A step from t to s takes ``xi = (B(q_s) - B(q_t)) / sqrt(q_s - q_t)`` with ``q = (alpha / sigma)^2``, the clock in
    which the reverse SDE's noise is a Brownian motion on every path: the exact step adds ``sigma_s / sqrt(q_s) (B(q_s)
    - B(q_t))``. Samples then converge one by one as steps are added, and the increments of any run are independent
    standard normals. Other noise (the prior, churn, Langevin) comes from one ordinary stream per sample, the same as
    :func:`osmotic.noise.generators` of (seed, index); for a second run with the same such noise make a new value.

    Noise is drawn in float64 on the CPU, at most 37 draws per sample and step; it costs little beside a network and is
    not meant for a million points.

    Args:
        seed: of all samples.
        indices: which samples, one per sample of the batch: sample i of a seed is the same in any batch.

    Attributes:
        motions: one :class:`Motion` per sample.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        self.motions = [Motion(seed, index) for index in indices]
        self._streams = generators(seed, indices)

    @classmethod
    def of(cls, source: Generators, count: int) -> Brownian:
        """The source itself if it is Brownian, otherwise a new one for ``count`` samples, seeded by draws from it."""
        if isinstance(source, Brownian):
            return source
        if isinstance(source, torch.Generator) or source is None:
            seeds = _seeds(source, count)
        else:
            if isinstance(source, Source) or len(source) != count:
                raise ValueError(f"A Brownian path needs one generator, or one for each of {count} samples.")
            seeds = [_seeds(each, 1)[0] for each in source]
        return cls(0, seeds)

    def normal(self, shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
        return normal(shape, self._streams, "cpu", dtype).to(device)

    def increment(self, x: Tensor, t: Pair, s: Pair) -> Tensor:
        if len(self.motions) != len(x):
            raise ValueError(f"Brownian noise for {len(self.motions)} samples was given for a batch of {len(x)}.")
        q_t, q_s = ((alpha / sigma) ** 2 for alpha, sigma in (t, s))
        return torch.stack([motion.unit(x.shape[1:], q_t, q_s) for motion in self.motions]).to(x)


def _node(q: float) -> int:
    """The node nearest to q in log q, in [0, 2^36]."""
    if q <= 0:
        return 0
    return min(max(round((math.log(q) / _REACH + 1) * (_NODES / 2)), 0), _NODES)


def _clock(node: int) -> float:
    """q at a node; the lowest stands for 0, a level without any signal."""
    return math.exp((2 * node / _NODES - 1) * _REACH) if node else 0.0


def _seeds(source: torch.Generator | None, count: int) -> list[int]:
    device = "cpu" if source is None else source.device
    drawn = torch.randint(2**62, (count,), generator=source, device=device)
    return [int(seed) for seed in drawn.tolist()]
