"""The pieces of a U-Net in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.nn.attention import CrossAttention, SelfAttention
from osmotic.nn.conditioning import Context
from osmotic.nn.norm import AdaptiveGroupNorm, GroupNorm, divisor
from osmotic.nn.positions import sincos
from osmotic.nn.recompute import Recomputed

M = TypeVar("M", bound=nn.Module)

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLINGS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class ResidualBlock(Recomputed):
    """``x + conv(silu(adaptive_norm(conv(silu(norm(x))), vector)))``; the identity at initialisation.

    He et al. 2016 (arXiv 1603.05027); Dhariwal & Nichol 2021 (arXiv 2105.05233). Where the number of channels
    changes, a 1x1 convolution carries x past the block. A block of width None is told nothing: its second norm is
    plain, and it is called with x alone.

    Shapes: x ``(B, channels, *S)`` to ``(B, out, *S)``, vector ``(B, width)``, valid ``(B, 1, *S)`` bool or None.
    """

    def __init__(self, ndim: int, channels: int, out: int, width: int | None, dropout: float) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.first = convolution(ndim, channels, out, 3)
        self.adapt = GroupNorm(out) if width is None else AdaptiveGroupNorm(out, width)
        self.dropout = nn.Dropout(dropout)
        self.second = zero(convolution(ndim, out, out, 3))
        self.past = nn.Identity() if channels == out else convolution(ndim, channels, out, 1)

    def forward(self, x: Tensor, vector: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        h = self.first(hide(F.silu(self.norm(x, valid)), valid))
        h = self.adapt(h, valid) if vector is None else self.adapt(h, vector, valid)
        h = self.dropout(F.silu(h))
        y: Tensor = self.past(x) + self.second(hide(h, valid))
        return y


class AttentionBlock(Recomputed):
    """``x + attention(norm(x) + places)`` over all positions, then the same over the tokens where there are any.

    Places are sines and cosines of the coordinates: what a text says of left and right has to be found, and
    convolutions see the rim alone. The identity at initialisation.

    Shapes: x ``(B, C, *S)``, valid ``(B, 1, *S)`` bool or None.
    """

    def __init__(self, channels: int, head_width: int, tokens: int | None) -> None:
        super().__init__()
        heads = divisor(channels, channels // head_width)
        self.self_norm = GroupNorm(channels)
        self.attention = SelfAttention(channels, heads)
        zero(self.attention.write)
        self.cross: CrossAttention | None = None
        if tokens is not None:
            self.cross_norm = GroupNorm(channels)
            self.cross = CrossAttention(channels, heads, tokens)
            zero(self.cross.write)

    def forward(self, x: Tensor, context: Context, valid: Tensor | None = None) -> Tensor:
        flat = None if valid is None else valid.flatten(1)
        places = sincos(tuple(x.shape[2:]), x.shape[1], x.device).to(x.dtype)
        x = x + self.attention(sequence(self.self_norm(x, valid)) + places, flat).mT.reshape(x.shape)
        if self.cross is not None:
            h = self.cross(sequence(self.cross_norm(x, valid)) + places, context.tokens, context.mask)
            x = x + h.mT.reshape(x.shape)
        return x


class Stage(nn.Module):
    """A residual block, and attention after it where the level has any."""

    def __init__(self, block: ResidualBlock, attention: AttentionBlock | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, context: Context, valid: Tensor | None = None) -> Tensor:
        x = self.block(x, context.vector, valid)
        return x if self.attention is None else self.attention(x, context, valid)


def convolution(ndim: int, channels: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
    """A convolution that keeps sizes at stride 1 and gives ``ceil(n / 2)`` at stride 2."""
    return CONVOLUTIONS[ndim](channels, out, kernel, stride=stride, padding=kernel // 2)


def shrink(halve: nn.Module, x: Tensor) -> Tensor:
    """A convolution at stride 2, in single precision where an axis has a single position.

    There torch 2.13's bfloat16 convolution on CPUs gives gradients that are no numbers.
    """
    if min(x.shape[2:]) > 1 or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        halved: Tensor = halve(x)
        return halved
    with torch.autocast("cpu", enabled=False):
        halved = halve(x.float())
    return halved


def grow(x: Tensor, size: Sequence[int]) -> Tensor:
    """Twice the size by nearest neighbours, cut to the size of what it joins (one less where that is odd)."""
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x


def shrink_valid(valid: Tensor) -> Tensor:
    """Halve the mask ``(B, 1, *S)``: a coarse position is real where any of its fine ones is."""
    return POOLINGS[valid.dim() - 2](valid.float(), kernel_size=2, ceil_mode=True).bool()


def hide(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero at padded positions, whatever stands there."""
    return x if valid is None else torch.where(valid, x, 0)


def sequence(x: Tensor) -> Tensor:
    """``(B, C, *S)`` as ``(B, N, C)``."""
    return x.flatten(2).mT


def zero(module: M) -> M:
    """The same module with all its parameters at zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
