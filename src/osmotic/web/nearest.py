"""Which training samples are nearest to a sample: is the model repeating what it saw?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from osmotic.data.dataset import Subset
from osmotic.recipes.held_out import halves
from osmotic.recipes.quality.sets import as_given

BLOCK = 1024
KEPT = 2**26
"""Numbers of the training data that are kept in memory; larger data are read anew for each question."""
JUDGED = 64


class Neighbour(NamedTuple):
    """A training sample: its file or row, its class, its distance, and itself ``(*S)`` as the network sees it."""

    name: str
    label: int | None
    distance: float
    x: Tensor


class Training:
    """The data that a run was trained on, found again when first asked for.

    Distances are Euclidean, in the network's units (pictures in [-1, 1], other data with unit variance).

    Args:
        run: the run directory.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    @cached_property
    def data(self) -> tuple[Subset, Subset]:
        """The training part and the held-out part, which may be empty.

        Raises:
            ValueError: if they cannot be found again, saying why.
        """
        return halves(self.run)

    def nearest(self, x: Tensor, k: int = 6) -> list[Neighbour]:
        """The k nearest training samples of one sample ``(*S)`` as a user gets it, nearest first.

        Raises:
            ValueError: as :attr:`data`.
        """
        training = self.data[0]
        spec = training.spec
        x = torch.from_numpy(as_given(x[None].cpu().numpy(), spec))[0]
        distances = torch.cat([_distances(block, x) for block in self._blocks()])
        order = distances.argsort(stable=True)[:k].tolist()
        found, _ = training.batch(np.asarray(order, np.int64))
        labels = training.labels
        return [
            Neighbour(training.name(i), None if labels is None else int(labels[i]), float(distances[i]), sample)
            for i, sample in zip(order, found, strict=True)
        ]

    def some(self, n: int) -> Tensor:
        """At most n training samples, evenly over all, to show beside others."""
        training = self.data[0]
        return training.batch(np.linspace(0, len(training) - 1, min(n, len(training))).astype(np.int64))[0]

    @cached_property
    def usual(self) -> float | None:
        """The median distance of held-out real samples, at most :data:`JUDGED`, from their nearest training sample.

        None where nothing was held out.
        """
        held_out = self.data[1]
        count = min(JUDGED, len(held_out))
        if count == 0:
            return None
        some, _ = held_out.batch(np.linspace(0, len(held_out) - 1, count).astype(np.int64))
        best = torch.full((count,), torch.inf, dtype=torch.float64)
        for block in self._blocks():
            best = torch.minimum(best, torch.stack([_distances(block, x).min() for x in some]))
        return float(best.median())

    def _blocks(self) -> Iterator[Tensor]:
        if self._whole is not None:
            yield from torch.split(self._whole, BLOCK)
        else:
            yield from self._read()

    @cached_property
    def _whole(self) -> Tensor | None:
        """All of the data, where they fit."""
        training = self.data[0]
        small = len(training) * int(np.prod(training.spec.shape)) <= KEPT
        return torch.cat(list(self._read())) if small else None

    def _read(self) -> Iterator[Tensor]:
        training = self.data[0]
        for start in range(0, len(training), BLOCK):
            yield training.batch(np.arange(start, min(start + BLOCK, len(training))))[0]


def _distances(block: Tensor, x: Tensor) -> Tensor:
    """From each of ``(B, *S)`` to one ``(*S)``, by the difference, so that copies are at 0 exactly."""
    return (block.double() - x.double()).flatten(1).square().sum(1).sqrt()
