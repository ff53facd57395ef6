"""Two passes of a network with the same dropout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Twin:
    """torch's random state at this moment, to be had again: two branches of a loss then see the same dropout masks.

    Consistency losses compare two passes whose outputs differ by little; with masks of their own each pass would add a
    difference of order 1 (Song et al. 2023, arXiv 2303.01469). The CPU's state alone is not enough: dropout on an
    accelerator draws from the accelerator's generator.

    Args:
        device: where the network computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def again(self) -> Iterator[None]:
        """The remembered state inside; what would have come otherwise afterwards."""
        with torch.random.fork_rng([self.device] if self._cuda is not None else []):
            torch.set_rng_state(self._cpu)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda, self.device)
            yield
