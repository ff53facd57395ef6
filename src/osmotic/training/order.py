"""Which sample comes when: a pure function of the seed and a counter."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from osmotic.data.counter import bits, permutation

SIZES = 201
"""The key of the seeds that streams of sizes have of their own."""


class Order:
    """An endless stream of shuffled epochs, cut into batches.

    Position p of the stream is slot ``p mod n`` of the permutation of epoch ``p div n``; a batch may span epochs, so
    every batch is full and no sample is left out. Nothing has to be stored to resume.

    Args:
        n: samples in the data set.
        batch_size: samples in a global batch.
        seed: of all permutations.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size = n, batch_size
        self._epoch = lru_cache(maxsize=4)(lambda epoch: permutation(seed, epoch, n))

    def positions(self, step: int, slots: range) -> np.ndarray:
        """The positions of some slots of a step's global batch, int64."""
        return step * self.batch_size + np.arange(slots.start, slots.stop, dtype=np.int64)

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """The samples at positions, int64."""
        epochs, slots = np.divmod(positions, self.n)
        result = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self._epoch(int(epoch))[slots[here]]
        return result


class Buckets:
    """The same for samples of several sizes: the samples of a step have one size.

    Each size has an endless stream of its own samples (an :class:`Order`). In epoch e a size with n_b samples has
    ``floor((e + 1) n_b / batch) - floor(e n_b / batch)`` steps, and the steps of an epoch come in a keyed order. So a
    size has its share of the steps, and after every epoch each sample was seen as often as there were epochs, up to one
    batch of its size. Bucketed batches: Podell et al. 2023 (arXiv 2307.01952).

    Args:
        buckets: the number of the size of each sample, ``(N,)``.
        batch_size: samples in a global batch.
        seed: of all permutations.
    """

    def __init__(self, buckets: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self._members = [np.flatnonzero(buckets == b) for b in np.unique(buckets)]
        self._seed, *seeds = bits((seed, SIZES), np.arange(1 + len(self._members))).tolist()
        self._streams = [Order(len(m), batch_size, own) for m, own in zip(self._members, seeds, strict=True)]
        self._epoch = lru_cache(maxsize=4)(self._steps_of)
        self._place = lru_cache(maxsize=64)(self._find)

    def positions(self, step: int, slots: range) -> NDArray[np.int64]:
        """The positions of some slots of a step's global batch, int64: a number for each, the same for no two."""
        return step * self.batch_size + np.arange(slots.start, slots.stop, dtype=np.int64)

    def indices(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at positions, int64; at those of one step all of one size."""
        steps, slots = np.divmod(positions, self.batch_size)
        result = np.empty_like(positions)
        for step in np.unique(steps):
            here = steps == step
            size, turn = self._place(int(step))
            own = self._streams[size].indices(turn * self.batch_size + slots[here])
            result[here] = self._members[size][own]
        return result

    def _before(self, epoch: int) -> list[int]:
        """How many steps each size had before an epoch."""
        return [epoch * len(members) // self.batch_size for members in self._members]

    def _steps_of(self, epoch: int) -> NDArray[np.int64]:
        """The size of each step of an epoch, in order."""
        counts = np.subtract(self._before(epoch + 1), self._before(epoch))
        sizes = np.repeat(np.arange(len(counts)), counts)
        return sizes[permutation(self._seed, epoch, len(sizes))] if len(sizes) else sizes

    def _find(self, step: int) -> tuple[int, int]:
        """The size of a step, and how many steps of that size came before it."""
        most = (step + 1 + len(self._members)) * self.batch_size  # epochs: each has at least a sample
        epoch = bisect_right(range(most), step, key=lambda e: sum(self._before(e))) - 1
        before = self._before(epoch)
        here = self._epoch(epoch)
        place = step - sum(before)
        size = int(here[place])
        return size, before[size] + int((here[:place] == size).sum())


def ordered(n: int, buckets: NDArray[np.int64] | None, batch_size: int, seed: int) -> Order | Buckets:
    """The order of n samples, by sizes where they have several."""
    several = buckets is not None and len(np.unique(buckets)) > 1
    return Buckets(buckets, batch_size, seed) if buckets is not None and several else Order(n, batch_size, seed)
