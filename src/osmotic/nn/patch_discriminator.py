"""What tells real patches from made ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.nn.blocks import convolution, shrink

LEAK = 0.2


class PatchDiscriminator(nn.Module):
    """A logit for each patch, ``(B, channels, *S)`` to ``(B, *P)``, high where it takes the patch for real.

    Convolutions alone, the positions halved at each level (rounding up): without norms a logit depends on its patch and
    on nothing else of the sample or the batch, so textures are judged, and forms are left to the reconstruction. Isola
    et al. 2017 (arXiv 1611.07004); in autoencoders: Esser et al. 2021 (arXiv 2012.09841). Beside it,
    :class:`osmotic.nn.Discriminator` judges whole samples, told times and conditions.

    Args:
        channels: of x.
        widths: channels of each level, the finest first; a patch is ``2^(levels + 2) - 1`` positions wide.
        ndim: number of position axes, 1 to 3.

    Raises:
        ValueError: for arguments that do not fit each other, and for x of another shape.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 64), ndim: int = 2) -> None:
        super().__init__()
        if ndim not in (1, 2, 3):
            raise ValueError(f"A patch discriminator has 1, 2 or 3 position axes, not {ndim}; vectors have no patches.")
        if channels < 1 or not widths or min(widths) < 1:
            raise ValueError(
                f"A patch discriminator needs channels and at least one level, found {channels}, widths "
                f"{tuple(widths)}."
            )
        self.channels, self.ndim = channels, ndim
        self.shrink = nn.ModuleList(convolution(ndim, a, b, 3, stride=2) for a, b in pairwise([channels, *widths]))
        self.mix = convolution(ndim, widths[-1], widths[-1], 3)
        self.out = convolution(ndim, widths[-1], 1, 1)
        with torch.no_grad():
            for layer in (*self.shrink, self.mix):
                # He et al. 2015 (arXiv 1502.01852): signals keep their size without norms.
                nn.init.kaiming_normal_(layer.weight, LEAK)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != self.ndim + 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"This patch discriminator takes (batch, {self.channels}, ...) with {self.ndim} position axes, "
                f"found {tuple(x.shape)}."
            )
        for layer in self.shrink:
            x = F.leaky_relu(shrink(layer, x), LEAK)
        logits: Tensor = self.out(F.leaky_relu(self.mix(x), LEAK))
        return logits.squeeze(1)
