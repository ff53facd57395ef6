"""Batches as a pure function of the step: which samples, how augmented, with which noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from torch import Tensor

from osmotic.condition import Condition
from osmotic.data.augment import Augmentation
from osmotic.objectives.couplings import Coupling
from osmotic.training.distributed import World
from osmotic.training.options import Options
from osmotic.training.order import ordered
from osmotic.training.task import Batch, Noise, Stream


class Samples(Protocol):
    """What the loop asks of a data set (``osmotic.data.Dataset`` is one)."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]: ...

    def told(self, indices: np.ndarray) -> dict[str, Tensor]: ...

    def name(self, index: int) -> str: ...


def fetch(samples: Samples, indices: np.ndarray, positions: np.ndarray, noise: Noise) -> Batch:
    """The samples at ``indices`` on the noise's device, with what is known of them as the condition."""
    x0, _ = samples.batch(indices)
    known = samples.told(indices)
    cond = Condition(**known).to(noise.device) if known else None
    return Batch(x0.to(noise.device), cond, positions, indices, noise.step, noise)


class Feed:
    """This process's share of every global batch.

    Args:
        samples: the training set.
        augmentations: applied in order.
        options: batch size, passes and seed.
        world: which share, and on which device.
        coupling: chooses which noise each sample of a pass is trained with, beside the training (in the threads that
            prepare batches); None leaves each its own.

    Raises:
        RunError: if the batch has fewer samples than there are processes times passes.
    """

    def __init__(
        self,
        samples: Samples,
        augmentations: Sequence[Augmentation],
        options: Options,
        world: World,
        coupling: Coupling | None = None,
    ) -> None:
        self.coupling = coupling
        self.samples, self.augmentations, self.device = samples, augmentations, world.device
        self.seed, self.batch_size = options.seed, options.batch_size
        buckets = getattr(samples, "buckets", None)  # a data set of one size need not say so
        self.order = ordered(len(samples), buckets, options.batch_size, options.seed)
        self.passes = world.share(options.batch_size, options.accumulate)

    def batches(self, step: int) -> list[Batch]:
        """The passes of a step; may be called from any thread, for any step, in any order."""
        return [self._batch(step, slots) for slots in self.passes]

    def noise(self, step: int, slots: range | None = None) -> Noise:
        """The draws of a step, for some slots or for the whole global batch."""
        slots = slots or range(self.batch_size)
        return Noise(self.seed, step, self.batch_size, slots.start, len(slots), self.device)

    def names(self, step: int, slots: np.ndarray) -> list[str]:
        """The names of the samples in some slots of a step's global batch."""
        positions = self.order.positions(step, range(self.batch_size))[slots]
        return [self.samples.name(int(index)) for index in self.order.indices(positions)]

    def _batch(self, step: int, slots: range) -> Batch:
        positions = self.order.positions(step, slots)
        batch = fetch(self.samples, self.order.indices(positions), positions, self.noise(step, slots))
        x0, cond = batch.x0, batch.cond
        for augment in self.augmentations:
            x0 = augment(x0, self.seed, positions)
            if cond is not None and cond.image is not None:  # whose points lie over the picture's
                cond = replace(cond, image=augment(cond.image, self.seed, positions))
        return replace(batch, x0=x0, cond=cond, order=self._order(x0, batch))

    def _order(self, x0: Tensor, batch: Batch) -> Tensor | None:
        if self.coupling is None:
            return None
        eps = batch.noise.normal(Stream.NOISE, x0.shape[1:])
        return self.coupling(x0, eps, None if batch.cond is None else batch.cond.vector).to(x0.device)
