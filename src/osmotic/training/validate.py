"""The held-out loss with fixed noise, in all and by noise level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from osmotic.data.counter import permutation
from osmotic.data.sizes import alike
from osmotic.training.checkpoint import average_name
from osmotic.training.feed import Samples, fetch
from osmotic.training.hooks import Moment
from osmotic.training.task import CHUNK, Batch, Domain, Noise, Task

BATCHES, MOST = 8, 2048
"""One measurement looks at so many batches' worth of noisy samples, but no more than the second number: it costs
about as much as three training steps, whatever the network and the data."""

EDGES = (-8.0, -4.0, 0.0, 4.0, 8.0)
"""Limits of the bins in log-SNR: five doublings of the signal-to-noise ratio of amplitudes are about 7."""


class HeldOut:
    """Measures a task on the same samples, times and noise each time: two measurements differ by the weights alone.

    Each sample is visited equally often, under as many different draws as it takes; of a
    larger set a fixed random part is taken. Every process does the same work.

    Args:
        samples: the held-out set, at least one.
        seed: of the draws.
        device: where the loss is computed.
        batch_size: of training, which sets how many noisy samples are looked at.
    """

    def __init__(self, samples: Samples, seed: int, device: torch.device, batch_size: int) -> None:
        self.samples, self.seed, self.device = samples, seed, device
        evaluations = min(BATCHES * batch_size, MOST)
        order = permutation(seed, 0, len(samples))[:evaluations]
        self.indices = np.tile(order, -(-evaluations // len(order)))
        groups = alike(self.indices, getattr(samples, "buckets", None))
        self.chunks = [group[start : start + CHUNK] for group in groups for start in range(0, len(group), CHUNK)]

    def measure(self, task: Task, moment: Moment) -> dict[str, dict[str, float]]:
        """Mean loss of the raw and of each averaged weights, by player and, where the task has noise levels, by bin.

        Returns:
            ``{"raw": {"loss": 0.3, "log_snr -4..0": 0.2, ...}, "ema-500": {...}}``, the loss of the first player first.
        """
        result = {"raw": self._losses(task, moment)}
        for index, average in enumerate(moment.players[0].averages):
            with moment.averaged(index):
                result[average_name(average.halflife)] = self._losses(task, moment)
        return result

    def _losses(self, task: Task, moment: Moment) -> dict[str, float]:
        names = list(moment.modules)
        losses: dict[str, list[Tensor]] = {name: [] for name in names}
        levels = []
        quiet = not moment.world.main
        for batch in tqdm(self._batches(), "measuring", len(self.chunks), delay=2, leave=False, disable=quiet):
            for name in names:
                losses[name].append(task.loss(name, batch, moment.modules).double().cpu())
            if (level := task.levels(batch)) is not None:
                levels.append(torch.stack([part.double().cpu() for part in level]))
        whole = {name: torch.cat(parts) for name, parts in losses.items()}
        found = keyed("loss", {name: float(value.mean()) for name, value in whole.items()})
        return found | (_by_level(whole[names[0]], torch.cat(levels, dim=1)) if levels else {})

    def _batches(self) -> Iterator[Batch]:
        start = 0
        for number, indices in enumerate(self.chunks):
            count = len(indices)
            noise = Noise(self.seed, number, count, 0, count, self.device, Domain.HELD_OUT)
            yield fetch(self.samples, indices, np.arange(start, start + count), noise)
            start += count


def keyed(what: str, values: Mapping[str, float]) -> dict[str, float]:
    """Values by player for the log: under ``what`` if there is one player, ``what/player`` if there are more."""
    return {what if len(values) == 1 else f"{what}/{name}": value for name, value in values.items()}


def _by_level(loss: Tensor, levels: Tensor) -> dict[str, float]:
    """Mean loss in each bin of log-SNR that has any: importance weighted losses over importances."""
    log_snr, importance = levels
    index = torch.bucketize(log_snr, torch.tensor(EDGES, dtype=log_snr.dtype))
    ends = ["", *(f"{edge:g}" for edge in EDGES), ""]
    found = {}
    for i in range(len(EDGES) + 1):
        here = index == i
        if bool(here.any()):
            found[f"log_snr {ends[i]}..{ends[i + 1]}"] = float(loss[here].sum() / importance[here].sum())
    return found
