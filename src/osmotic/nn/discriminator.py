"""What tells real samples from made ones: vectors, lines, planes and volumes, under a time and a condition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.condition import Condition
from osmotic.nn.blocks import ResidualBlock, convolution, hide, shrink, shrink_valid
from osmotic.nn.conditioning import Context, Embedding
from osmotic.nn.mlp import AdaptiveLayerNorm, MLPBlock
from osmotic.nn.norm import AdaptiveGroupNorm


class Discriminator(nn.Module):
    """One logit a sample ``(B,)``, high where it takes the sample for real, told the time and the condition.

    Vectors go through the blocks of an MLP. Other samples go through a residual block a level, the positions halved
    between levels (rounding up), and the mean over the real positions is read. Norms look at one sample at a time:
    statistics of a batch would let the logit of a sample depend on its neighbours, real or made. Tokens act by their
    mean, as in an MLP. Goodfellow et al. 2014 (arXiv 1406.2661); conditional on a time and a noisier sample beside x:
    Xiao et al. 2022 (arXiv 2112.07804).

    Args:
        channels: of x; twice the data's where two samples are judged together.
        widths: channels of each block or level, the finest first.
        ndim: number of position axes, 0 (vectors) to 3.
        embedding: of time and conditions; without ports and four times the first width by default.
        outputs: logits of each sample: 1 of a discriminator, the number of classes of a classifier.

    Raises:
        ValueError: for arguments that do not fit each other, and for x or a condition of another shape.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (64, 128, 128),
        ndim: int = 2,
        embedding: Embedding | None = None,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        if ndim not in (0, 1, 2, 3):
            raise ValueError(f"A discriminator has 0 (vectors) to 3 position axes, not {ndim}.")
        if channels < 1 or not widths or min(widths) < 1:
            raise ValueError(
                f"A discriminator needs channels and at least one block, found {channels}, widths {tuple(widths)}."
            )
        self.channels, self.ndim = channels, ndim
        self.embedding = Embedding(4 * widths[0]) if embedding is None else embedding
        told, inputs = self.embedding.width, channels + self.embedding.image_channels
        if ndim == 0:
            self.stem: nn.Module = nn.Linear(inputs, widths[0])
            self.blocks = nn.ModuleList(MLPBlock(a, b, told, 0.0) for a, b in pairwise([widths[0], *widths]))
            self.shrink = nn.ModuleList()
            self.norm: nn.Module = AdaptiveLayerNorm(widths[-1], told)
        else:
            self.stem = convolution(ndim, inputs, widths[0], 3)
            self.blocks = nn.ModuleList(ResidualBlock(ndim, w, w, told, 0.0) for w in widths)
            self.shrink = nn.ModuleList(convolution(ndim, a, b, 3, stride=2) for a, b in pairwise(widths))
            self.norm = AdaptiveGroupNorm(widths[-1], told)
        self.out = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None = None) -> Tensor:
        """The logits ``(B,)`` of x ``(B, channels, *positions)`` at time ``(B,)`` of order 0..1000; of several outputs
        ``(B, outputs)``.
        """
        if x.dim() != self.ndim + 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"This discriminator takes (batch, {self.channels}, ...) with {self.ndim} position axes, "
                f"found {tuple(x.shape)}."
            )
        context: Context = self.embedding(x, time, cond)
        vector = context.vector
        h = x if context.image is None else torch.cat([x, context.image], dim=1)
        h = self._vector(h, vector) if self.ndim == 0 else self._grid(h, vector, context.valid)
        logits: Tensor = self.out(h)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def _vector(self, h: Tensor, vector: Tensor) -> Tensor:
        h = self.stem(h)
        for block in self.blocks:
            h = block(h, vector)
        return F.silu(self.norm(h, vector))

    def _grid(self, h: Tensor, vector: Tensor, real: Tensor | None) -> Tensor:
        """The mean over real positions of the features ``(B, C, *S)``."""
        valid = None if real is None else real.unsqueeze(1)
        h = self.stem(hide(h, valid))
        for level, block in enumerate(self.blocks):
            if level:
                h = shrink(self.shrink[level - 1], hide(h, valid))
                valid = None if valid is None else shrink_valid(valid)
            h = block(h, vector, valid)
        h = F.silu(self.norm(h, vector, valid)).flatten(2)
        if valid is None:
            return h.mean(2)
        share = valid.flatten(2).to(h.dtype)
        return (h * share).sum(2) / share.sum(2).clamp(min=1)
