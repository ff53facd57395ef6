"""The diffusion transformer on patches of lines, planes or volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.condition import Condition
from osmotic.nn.attention import CrossAttention, SelfAttention
from osmotic.nn.blocks import hide, zero
from osmotic.nn.conditioning import Context, Embedding
from osmotic.nn.norm import divisor
from osmotic.nn.patches import grid, patchify, unpatchify
from osmotic.nn.positions import sincos
from osmotic.nn.recompute import Recomputed


class DiTBlock(Recomputed):
    """Attention and a perceptron, each scaled, shifted and gated by the vector (adaLN-zero).

    ``x + g1 attention(modulate(x, s1, b1))``, then cross-attention where there are tokens, then
    ``x + g2 W2 gelu(W1 modulate(x, s2, b2))`` with ``modulate(x, s, b) = (1 + s) layer_norm(x) + b``; all six
    are a linear layer of the vector that starts at zero, so the block starts as the identity.
    Peebles & Xie 2023 (arXiv 2212.09748).

    Shapes: x ``(B, N, C)``, valid ``(B, N)`` bool or None.
    """

    def __init__(self, channels: int, heads: int, width: int, tokens: bool, dropout: float) -> None:
        super().__init__()
        self.channels = channels
        self.modulate = zero(nn.Linear(width, 6 * channels))
        self.attention = SelfAttention(channels, heads)
        self.cross: CrossAttention | None = None
        if tokens:
            self.cross_norm = nn.LayerNorm(channels)
            self.cross = CrossAttention(channels, heads, width)
            zero(self.cross.write)
        self.layers = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.GELU(approximate="tanh"),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor, context: Context, valid: Tensor | None = None) -> Tensor:
        s1, b1, g1, s2, b2, g2 = self.modulate(context.vector).unsqueeze(1).chunk(6, dim=-1)
        x = torch.addcmul(x, g1, self.attention(modulate(x, s1, b1), valid))
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), context.tokens, context.mask)
        return torch.addcmul(x, g2, self.layers(modulate(x, s2, b2)))


class DiT(nn.Module):
    """A transformer over patches of ``(B, channels, *S)``, of any sizes.

    Sizes that are no multiple of the patch are padded with zeros and cut back. Positions are fixed sines and
    cosines of the actual grid. Time and the vector port act by adaLN-zero, tokens by cross-attention, the
    image port as more input channels; patches without a real position (``cond.valid``) are not attended to,
    and padded positions are zero in the output. The output is exactly zero at initialisation. Peebles & Xie
    2023 (arXiv 2212.09748).

    Args:
        channels: of x, and of the output unless it has its own.
        patch: size of a patch along each axis; its length is the number of position axes.
        width: of the transformer.
        depth: number of blocks.
        head_width: channels of an attention head.
        dropout: probability within the perceptrons.
        embedding: of time and conditions; without ports and of the same width by default.
        out_channels: of the output, that of x by default.

    Raises:
        ValueError: for arguments that do not fit each other, and for x or a condition of another shape.
    """

    def __init__(
        self,
        channels: int,
        patch: Sequence[int] = (2, 2),
        width: int = 384,
        depth: int = 12,
        head_width: int = 64,
        dropout: float = 0.0,
        embedding: Embedding | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not patch or min(patch) < 1 or width < 2 * len(patch) or depth < 1:
            raise ValueError(
                "A DiT needs a patch of at least one axis, two channels of width for each, and a block, "
                f"found patch {tuple(patch)}, width {width}, depth {depth}."
            )
        self.channels = channels
        self.patch = tuple(patch)
        self.width = width
        self.embedding = Embedding(width) if embedding is None else embedding
        heads = divisor(width, width // head_width)
        vector, tokens = self.embedding.width, self.embedding.attended
        cells = math.prod(self.patch)
        self.stem = nn.Linear((channels + self.embedding.image_channels) * cells, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, vector, tokens, dropout) for _ in range(depth))
        self.modulate = zero(nn.Linear(vector, 2 * width))
        self.out = zero(nn.Linear(width, (out_channels or channels) * cells))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Condition | None = None,
        aim: Tensor | None = None,
        *,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """One evaluation: x ``(B, channels, *S)``, time ``(B,)`` of order 0..1000, to the shape of x.

        Flow maps also say the time aimed at, ``aim`` ``(B,)``; what controls a frozen network (a ControlNet) adds its
        ``residuals`` ``(B, N, width)`` to what the first blocks give, one to each.
        """
        self.check(x)
        context: Context = self.embedding(x, time, cond, aim)
        h, shown = self.embed(x, context)
        added = [] if residuals is None else residuals
        if len(added) > len(self.blocks):
            raise ValueError(f"This DiT has {len(self.blocks)} blocks to add to, found {len(added)} residuals.")
        for index, block in enumerate(self.blocks):
            h = block(h, context, shown)
            if index < len(added):
                h = h + added[index]
        scale, shift = self.modulate(context.vector).unsqueeze(1).chunk(2, dim=-1)
        y = unpatchify(self.out(modulate(h, scale, shift)), self.patch, x.shape[2:])
        return hide(y, None if context.valid is None else context.valid.unsqueeze(1))

    def check(self, x: Tensor) -> None:
        """Refuse samples of another shape.

        Raises:
            ValueError: saying which shape it takes.
        """
        if x.dim() != len(self.patch) + 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"This DiT takes (batch, {self.channels}, ...) with {len(self.patch)} position axes, "
                f"found {tuple(x.shape)}."
            )

    def embed(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """What the first block reads: the patches with their positions ``(B, N, width)``, and which hold a real
        position ``(B, N)``, None for all.
        """
        valid = None if context.valid is None else context.valid.unsqueeze(1)
        h = hide(x if context.image is None else torch.cat([x, context.image], dim=1), valid)
        h = self.stem(patchify(h, self.patch))
        h = h + sincos(grid(x.shape[2:], self.patch), self.width, x.device).to(h.dtype)
        return h, None if valid is None else patchify(valid, self.patch).any(dim=-1)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``(1 + scale) layer_norm(x) + shift``: x ``(B, N, C)``, scale and shift ``(B, 1, C)``."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)
