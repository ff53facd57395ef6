"""The U-Net, in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.condition import Condition
from osmotic.nn.blocks import (
    AttentionBlock,
    ResidualBlock,
    Stage,
    convolution,
    grow,
    hide,
    shrink,
    shrink_valid,
    zero,
)
from osmotic.nn.conditioning import Context, Embedding
from osmotic.nn.norm import GroupNorm


class UNet(nn.Module):
    """Residual blocks on the way down and up, joined level by level, for ``(B, channels, *S)`` of any sizes.

    Every level halves the sizes (rounding up); on the way up each is restored exactly, so nothing of the data
    is cut or padded. Time and the vector port act through adaptive group norms, tokens through
    cross-attention at the levels that attend, the image port as more input channels; padded positions
    (``cond.valid``) are left out of convolutions, statistics and attention, and are zero in the output. The
    output is exactly zero at initialisation. Ronneberger et al. 2015 (arXiv 1505.04597); Ho et al. 2020
    (arXiv 2006.11239); Dhariwal & Nichol 2021 (arXiv 2105.05233).

    Args:
        channels: of x, and of the output unless it has its own.
        widths: channels of each level, the finest first.
        ndim: number of position axes, 1 to 3.
        blocks: residual blocks of each level, on the way down and again on the way up.
        attention: levels that attend, 0 the finest (cost grows with the square of the positions there).
        head_width: channels of an attention head.
        dropout: probability within residual blocks.
        embedding: of time and conditions; without ports and four times the first width by default.
        out_channels: of the output, that of x by default.

    Raises:
        ValueError: for arguments that do not fit each other, and for x or a condition of another shape.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (64, 128, 256),
        ndim: int = 2,
        blocks: int = 2,
        attention: Collection[int] = (),
        head_width: int = 32,
        dropout: float = 0.0,
        embedding: Embedding | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        _check(widths, ndim, blocks, attention)
        self.channels = channels
        self.widths = tuple(widths)
        self.ndim = ndim
        self.embedding = Embedding(4 * widths[0]) if embedding is None else embedding
        tokens = self.embedding.width if self.embedding.attended else None
        if tokens is not None and not attention:
            raise ValueError("Tokens are read by attention: give this U-Net at least one level in attention.")

        def block(level: int, inputs: int) -> ResidualBlock:
            return ResidualBlock(ndim, inputs, widths[level], self.embedding.width, dropout)

        def stages(level: int, inputs: Sequence[int]) -> nn.ModuleList:
            attend = [AttentionBlock(widths[level], head_width, tokens) if level in attention else None for _ in inputs]
            return nn.ModuleList(Stage(block(level, n), a) for n, a in zip(inputs, attend, strict=True))

        deepest = len(widths) - 1
        below = [*widths[1:], widths[-1]]  # channels that reach each level from the one beneath
        self.stem = convolution(ndim, channels + self.embedding.image_channels, widths[0], 3)
        self.shrink = nn.ModuleList(convolution(ndim, a, b, 3, stride=2) for a, b in pairwise(widths))
        self.down = nn.ModuleList(stages(i, [w] * blocks) for i, w in enumerate(widths))
        self.middle = stages(deepest, widths[-1:])
        self.middle.append(Stage(block(deepest, widths[-1]), None))
        self.up = nn.ModuleList(stages(i, [w + below[i], *[2 * w] * (blocks - 1)]) for i, w in enumerate(widths))
        self.norm = GroupNorm(widths[0])
        self.out = zero(convolution(ndim, widths[0], out_channels or channels, 3))

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
        ``residuals`` to the features that :meth:`encode` gives, one to each.
        """
        self.check(x)
        context: Context = self.embedding(x, time, cond, aim)
        valid = self.valid(context)
        features = self.encode(x, context, valid)
        if residuals is not None:
            if len(residuals) != len(features):
                raise ValueError(
                    f"This U-Net has {len(features)} features to add to, found {len(residuals)} residuals."
                )
            features = [f + r for f, r in zip(features, residuals, strict=True)]
        *skips, h = features
        h = self._ascend(h, skips, context, valid)
        h = F.silu(self.norm(h, valid[0]))
        return hide(self.out(hide(h, valid[0])), valid[0])

    def check(self, x: Tensor) -> None:
        """Refuse samples of another shape.

        Raises:
            ValueError: saying which shape it takes.
        """
        if x.dim() != self.ndim + 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"This U-Net takes (batch, {self.channels}, ...) with {self.ndim} position axes, "
                f"found {tuple(x.shape)}."
            )

    def encode(
        self, x: Tensor, context: Context, valid: Sequence[Tensor | None], hint: Tensor | None = None
    ) -> list[Tensor]:
        """The way down: what is handed across to the way up, the finest first, and last what the middle gives.

        Args:
            x: ``(B, channels, *S)``.
            context: of x.
            valid: of each level, from :meth:`valid`.
            hint: ``(B, widths[0], *S)``, added to the first convolution's output.
        """
        h = x if context.image is None else torch.cat([x, context.image], dim=1)
        h = self.stem(hide(h, valid[0]))
        h, skips = self._descend(h if hint is None else h + hint, context, valid)
        for stage in self.middle:
            h = stage(h, context, valid[-1])
        return [*skips, h]

    def valid(self, context: Context) -> list[Tensor | None]:
        """The real positions ``(B, 1, *S)`` of each level."""
        if context.valid is None:
            return [None] * len(self.down)
        masks = [context.valid.unsqueeze(1)]
        for _ in self.shrink:
            masks.append(shrink_valid(masks[-1]))
        return [*masks]

    def _descend(self, h: Tensor, context: Context, valid: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for level, stages in enumerate(self.down):
            if level:
                h = shrink(self.shrink[level - 1], hide(h, valid[level - 1]))
            for stage in stages.children():
                h = stage(h, context, valid[level])
                skips.append(h)
        return h, skips

    def _ascend(self, h: Tensor, skips: list[Tensor], context: Context, valid: Sequence[Tensor | None]) -> Tensor:
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                h = grow(h, skips[-1].shape[2:])
            for stage in self.up[level].children():
                h = stage(torch.cat([h, skips.pop()], dim=1), context, valid[level])
        return h


def _check(widths: Sequence[int], ndim: int, blocks: int, attention: Collection[int]) -> None:
    if ndim not in (1, 2, 3):
        raise ValueError(f"A U-Net has 1, 2 or 3 position axes, not {ndim}.")
    if not widths or min(widths) < 1 or blocks < 1:
        raise ValueError(
            f"A U-Net needs at least one level and one block, found widths {tuple(widths)}, {blocks} blocks."
        )
    strange = sorted(set(attention) - set(range(len(widths))))
    if strange:
        raise ValueError(f"Levels run from 0 to {len(widths) - 1} here; attention names level {strange[0]}.")
