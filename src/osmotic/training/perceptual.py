"""What fixed random convolutions see of pictures, differentiably: features for a perceptual error."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.metrics.features.random_conv import kernels

COLOURS = 3


class RandomFeatures(nn.Module):
    """``h_l = |w_l * pool(h_(l-1))|``, the maps of :class:`osmotic.metrics.features.RandomConv`.

    ``(B, 1 or 3, H, W)`` in [-1, 1] to a list of ``(B, 32, H / 2^l, W / 2^l)``, l from 0, halved while there are two
    positions. Grey is repeated into three channels. Nothing here is downloaded, trained or stored.

    Args:
        seed: of the weights, which are the same on every machine.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        for level, kernel in enumerate(kernels(seed)):
            self.register_buffer(f"kernel_{level}", torch.from_numpy(kernel), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        h = x.expand(-1, COLOURS, -1, -1) if x.shape[1] == 1 else x
        found: list[Tensor] = []
        for kernel in self.buffers():
            h = F.avg_pool2d(h, 2, ceil_mode=True) if found else h
            h = F.conv2d(h, kernel.to(h), padding=1).abs()
            found.append(h)
            if min(h.shape[2:]) < 2:
                break
        return found
