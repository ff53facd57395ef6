"""Counter-based randomness: every draw is a pure function of integers, so that resuming needs no saved state.

The generator is the finalizer of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195), applied to a key
made of any integers and to the position within the stream. Torch-free, and independent of library versions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads consecutive integers
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_PERMUTATION = 0x7065726D  # a key of its own: a permutation never shares bits with a uniform stream


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * _FIRST) & _MASK
    state = ((state ^ (state >> 27)) * _SECOND) & _MASK
    return state ^ (state >> 31)


def _mix_array(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
    return state ^ (state >> np.uint64(31))


def bits(key: tuple[int, ...], positions: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for each position of the stream named by `key` (any integers, any number of them).

    Each position is hashed twice with independent halves of the key in between: one round alone would make every
    stream a shifted copy of the same sequence.
    """
    state = _mix(len(key) + _GOLDEN)
    for part in key:
        state = _mix((state + (part & _MASK) * _GOLDEN) & _MASK)
    second = np.array([_mix(state ^ _GOLDEN)], np.uint64)  # arrays wrap around silently, scalars would warn
    counters = np.asarray(positions, np.int64).astype(np.uint64)
    flat = counters.reshape(-1) * np.array([_GOLDEN], np.uint64) + np.array([state], np.uint64)
    return _mix_array(_mix_array(flat) ^ second).reshape(counters.shape)


def uniform(seed: int, stream: int, positions: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each position; a pure function of (seed, stream, position).

    `positions`: integers of any shape; the result has the same shape and 53 random bits per number.
    """
    return (bits((seed, stream), positions) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Random order of 0..n-1, a pure function of (seed, epoch, n); `n` >= 0."""
    keys = bits((seed, epoch, _PERMUTATION), np.arange(n))
    return np.argsort(keys, kind="stable").astype(np.int64)
