"""The trainable halves of controlled networks: a copy of the first layers that sees an image and speaks through zeros.

The image passes two layers, the copy has the network's own weights, and what it gives passes one layer more; the layer
before the copy and the layer after it start at zero, so the residuals do.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from osmotic.nn import DiT, UNet
from osmotic.nn.blocks import convolution, hide, zero
from osmotic.nn.conditioning import Context
from osmotic.nn.patches import patchify


class UNetBranch(nn.Module):
    """A copy of a U-Net's way down and middle, with a 1x1 convolution from each of its features to a residual.

    Args:
        network: the U-Net that is controlled; it is copied, not kept.
        channels: of the image.
    """

    def __init__(self, network: UNet, channels: int) -> None:
        super().__init__()
        encoder = copy.deepcopy(network)
        del encoder.embedding, encoder.up, encoder.norm, encoder.out
        self.encoder = encoder.requires_grad_(True)
        ndim, width = network.ndim, network.widths[0]
        self.see = nn.Sequential(
            convolution(ndim, channels, width, 3), nn.SiLU(), zero(convolution(ndim, width, width, 3))
        )
        levels = zip(network.widths, network.down, strict=True)
        widths = [w for w, stages in levels for _ in stages.children()] + [network.widths[-1]]
        self.say = nn.ModuleList(zero(convolution(ndim, w, w, 1)) for w in widths)

    def forward(self, x: Tensor, image: Tensor, context: Context) -> list[Tensor]:
        """A residual for each feature of :meth:`osmotic.nn.UNet.encode`: x and image ``(B, ., *S)``."""
        valid = self.encoder.valid(context)
        features = self.encoder.encode(x, context, valid, self.see(hide(image, valid[0])))
        return [say(h) for say, h in zip(self.say, features, strict=True)]


class DiTBranch(nn.Module):
    """A copy of a DiT's first half of blocks, with a linear layer from what each gives to a residual.

    As Chen et al. 2024 (arXiv 2401.05252) control a transformer, which has no skips to add to.

    Args:
        network: the DiT that is controlled; it is copied, not kept.
        channels: of the image.
    """

    def __init__(self, network: DiT, channels: int) -> None:
        super().__init__()
        encoder = copy.deepcopy(network)
        del encoder.embedding, encoder.modulate, encoder.out
        encoder.blocks = encoder.blocks[: (len(encoder.blocks) + 1) // 2]
        self.encoder = encoder.requires_grad_(True)
        width = network.width
        cells = channels * network.stem.in_features // network.channels
        self.see = nn.Sequential(nn.Linear(cells, width), nn.SiLU(), zero(nn.Linear(width, width)))
        self.say = nn.ModuleList(zero(nn.Linear(width, width)) for _ in encoder.blocks)

    def forward(self, x: Tensor, image: Tensor, context: Context) -> list[Tensor]:
        """A residual ``(B, N, width)`` for each of the first blocks: x and image ``(B, ., *S)``."""
        h, shown = self.encoder.embed(x, context)
        valid = None if context.valid is None else context.valid.unsqueeze(1)
        h = h + self.see(patchify(hide(image, valid), self.encoder.patch))
        residuals = []
        for block, say in zip(self.encoder.blocks, self.say, strict=True):
            h = block(h, context, shown)
            residuals.append(say(h))
        return residuals
