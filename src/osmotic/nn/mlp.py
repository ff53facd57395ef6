"""A residual multilayer perceptron, for tables, points and other small data of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.condition import Condition
from osmotic.nn.blocks import hide, zero
from osmotic.nn.conditioning import Context, Embedding
from osmotic.nn.recompute import Recomputed


class AdaptiveLayerNorm(nn.Module):
    """Layer norm whose scale and shift are read from a vector: ``(1 + scale) norm(x) + shift``.

    Shapes: x ``(B, C)``, vector ``(B, width)``.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.modulate = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.modulate(vector).chunk(2, dim=-1)
        return torch.addcmul(shift, F.layer_norm(x, (self.channels,)), 1 + scale)


class MLPBlock(Recomputed):
    """``x + W2 silu(W1 adaptive_norm(x, vector))``; the identity at initialisation.

    Shapes: x ``(B, channels)`` to ``(B, out)``, vector ``(B, width)``. Where the width changes, a linear
    layer carries x past the block. A block of width None is told nothing: its norm is plain, and it is called with x
    alone.
    """

    def __init__(self, channels: int, out: int, width: int | None, dropout: float) -> None:
        super().__init__()
        self.adapt = nn.LayerNorm(channels) if width is None else AdaptiveLayerNorm(channels, width)
        self.first = nn.Linear(channels, out)
        self.dropout = nn.Dropout(dropout)
        self.second = zero(nn.Linear(out, out))
        self.past = nn.Identity() if channels == out else nn.Linear(channels, out)

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        h = F.silu(self.first(self.adapt(x) if vector is None else self.adapt(x, vector)))
        y: Tensor = self.past(x) + self.second(self.dropout(h))
        return y


class MLP(nn.Module):
    """Residual blocks on x laid flat; time and conditions act through an adaptive norm in each.

    Tokens act by their mean alone, which is part of the vector; the image port is laid flat beside x, entries at padded
    positions are zeroed on the way in and out. The output is exactly zero at initialisation.

    Args:
        shape: of one sample, e.g. ``(2,)`` or ``(channels, length)``.
        widths: of the blocks, one each.
        dropout: probability within blocks.
        embedding: of time and conditions; without ports and of the first width by default.
        out_channels: of the output, that of x by default.

    Raises:
        ValueError: for empty widths or shape, and for x or a condition of another shape.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int] = (256, 256, 256, 256),
        dropout: float = 0.0,
        embedding: Embedding | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not shape or not widths or min(*shape, *widths, 1) < 1:
            raise ValueError(f"An MLP needs a shape and at least one block, found {tuple(shape)}, {tuple(widths)}.")
        self.shape = tuple(shape)
        self.embedding = Embedding(widths[0]) if embedding is None else embedding
        entries = math.prod(self.shape)
        image = self.embedding.image_channels * math.prod(self.shape[1:])
        width = self.embedding.width
        self.stem = nn.Linear(entries + image, widths[0])
        pairs = pairwise([widths[0], *widths])
        self.blocks = nn.ModuleList(MLPBlock(a, b, width, dropout) for a, b in pairs)
        self.adapt = AdaptiveLayerNorm(widths[-1], width)
        self.out_shape = (out_channels or self.shape[0], *self.shape[1:])
        self.out = zero(nn.Linear(widths[-1], math.prod(self.out_shape)))

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None = None, aim: Tensor | None = None) -> Tensor:
        """One evaluation: x ``(B, *shape)``, time ``(B,)`` of order 0..1000, to the shape of x.

        Flow maps also say the time aimed at, ``aim`` ``(B,)``.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"This MLP takes samples of shape {self.shape}, found {tuple(x.shape[1:])}.")
        context: Context = self.embedding(x, time, cond, aim)
        vector = context.vector
        valid = None if context.valid is None else context.valid.unsqueeze(1)
        h = x if context.image is None else torch.cat([x, context.image], dim=1)
        h = self.stem(hide(h, valid).flatten(1))
        for block in self.blocks:
            h = block(h, vector)
        return hide(self.out(F.silu(self.adapt(h, vector))).view(len(x), *self.out_shape), valid)
