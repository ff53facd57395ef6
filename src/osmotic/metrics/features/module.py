"""Features of any torch network that somebody has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .base import Array, Features
from .planes import full_precision


class Module(Features):
    """What a torch module makes of a batch.

    Args:
        network: maps a batch to ``(B, D)`` or ``(B, D, 1, 1)``; in evaluation mode, on the device where it shall run.
        name: of the features, with the network and its weights: it stands beside every score.
        dimensions: D.
        preprocess: a batch of samples to what the network reads, on any device; `planes` makes ``(B, 3, H, W)`` in
            [0, 1] of images.
        batch: samples at once.

    Raises:
        ValueError: the network is in training mode, or its output has another shape.
    """

    def __init__(
        self, network: nn.Module, name: str, dimensions: int, preprocess: Callable[[Array], Tensor], batch: int = 64
    ) -> None:
        if network.training:
            raise ValueError(
                f"The network of {name!r} is in training mode, so features would be noisy: call its eval()."
            )
        self.network = network
        self.name = name
        self.dimensions = dimensions
        self.preprocess = preprocess
        self.batch = batch

    def _check(self, x: Array) -> None:
        """The network itself knows what it can read."""

    def _batch(self, shape: tuple[int, ...]) -> int:
        return self.batch

    def _block(self, x: Array) -> Array:
        weight = next(self.network.parameters(), torch.empty(0))
        with torch.inference_mode(), full_precision():
            found = self.network(self.preprocess(x).to(weight.device))
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        wanted = (len(x), self.dimensions)
        if shape not in (wanted, (*wanted, 1, 1)):
            raise ValueError(
                f"The network of {self.name!r} gave {shape} instead of {wanted}: wrap it so that it gives one vector a "
                "sample."
            )
        return np.asarray(found.flatten(1).cpu().numpy())
