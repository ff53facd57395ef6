"""Random numbers that are a function of their keys: no global state, no order of drawing."""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Generators: TypeAlias = "torch.Generator | Sequence[torch.Generator] | Source | None"
# (alpha, sigma) at one time.
Pair: TypeAlias = tuple[float, float]


class Source(ABC):
    """Noise of a kind of its own, accepted wherever a generator is (:class:`osmotic.brownian.Brownian` is one)."""

    @abstractmethod
    def normal(self, shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """Standard normal noise ``(B, *S)``, independent of everything drawn before."""

    @abstractmethod
    def increment(self, x: Tensor, t: Pair, s: Pair) -> Tensor:
        """Standard normal noise like x ``(B, *S)`` for the step from the pair at t to the less noisy pair at s."""


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose whole stream is a function of the integer keys.

    Counter-based use: ``generator(seed, step, chunk)`` gives the same numbers whatever was drawn before, so a resumed
    or differently distributed run needs no stored random state. Keys are hashed (BLAKE2b), hence neighbours are
    unrelated.

    Args:
        key: integers in [-2^63, 2^63).
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def generators(seed: int, indices: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator per sample, keyed by (seed, index): sample i of a seed is the same in any batch."""
    return [generator(seed, index, device=device) for index in indices]


def normal(
    shape: Sequence[int],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise from one generator, or from one generator per sample.

    Args:
        shape: ``(B, *S)``.
        generator: None (torch's global one), one for the whole batch, a sequence of B, one per sample, or a source.

    Raises:
        ValueError: if a sequence of generators is not as long as the batch.
        TypeError: for a number in place of a generator.
    """
    if isinstance(generator, Source):
        return generator.normal(shape, device, dtype)
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(tuple(shape), generator=generator, device=device, dtype=dtype)
    if not isinstance(generator, Sequence):
        raise TypeError(
            "Noise is drawn from a torch.Generator, such as osmotic.noise.generator(seed), or one per sample; got "
            f"{generator!r}."
        )
    if len(generator) != shape[0]:
        raise ValueError(
            f"{len(generator)} generators were given for a batch of {shape[0]}; pass one, or one per sample."
        )
    sample = tuple(shape[1:])
    return torch.stack([torch.randn(sample, generator=g, device=device, dtype=dtype) for g in generator])


def normal_like(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise of x's shape, device and dtype."""
    return normal(x.shape, generator, x.device, x.dtype)


def increment(x: Tensor, generator: Generators, t: Pair, s: Pair) -> Tensor:
    """The unit noise xi of a stochastic step from time t to a less noisy time s, like x.

    A :class:`Source` gives the increment of its path between the two levels, so that runs with other step counts see
    the same path; generators draw, as in :func:`normal_like`. Noise that goes up in level (churn, restarts) or stays on
    one (Langevin) is no increment of that path and is drawn by :func:`normal_like` from either.

    Args:
        x: samples ``(B, *S)``, read for shape, device and dtype.
        t: ``(alpha, sigma)`` before the step.
        s: ``(alpha, sigma)`` after it, with sigma > 0.
    """
    return generator.increment(x, t, s) if isinstance(generator, Source) else normal_like(x, generator)
