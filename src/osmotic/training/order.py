"""Which sample comes when: a pure function of the seed and a counter."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from osmotic.data.counter import permutation


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
