"""The two halves of a convolutional autoencoder in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.nn.blocks import ResidualBlock, convolution, grow, shrink
from osmotic.nn.norm import GroupNorm


class Encoder(nn.Module):
    """Residual blocks on the way down: ``(B, channels, *S)`` to features ``(B, outputs, *P)`` of latent positions.

    Every level after the first halves the sizes, rounding up, so P is ``ceil(S / 2^(levels - 1))``. There is no
    attention, so that larger pictures than those of training are encoded as well. The shape is that of the first stage
    of Rombach et al. 2022 (arXiv 2112.10752).

    Args:
        channels: of x.
        widths: channels of each level, the finest first.
        outputs: channels of the features.
        ndim: number of position axes, 1 to 3.
        blocks: residual blocks of each level.

    Raises:
        ValueError: for arguments that do not fit each other, and for x of another shape.
    """

    def __init__(self, channels: int, widths: Sequence[int], outputs: int, ndim: int = 2, blocks: int = 1) -> None:
        super().__init__()
        _check("An encoder", widths, ndim, blocks, channels, outputs)
        self.channels, self.outputs, self.ndim, self.levels = channels, outputs, ndim, len(widths)
        self.stem = convolution(ndim, channels, widths[0], 3)
        self.shrink = nn.ModuleList(convolution(ndim, a, b, 3, stride=2) for a, b in pairwise(widths))
        self.down = nn.ModuleList(_level(ndim, w, blocks) for w in widths)
        self.norm = GroupNorm(widths[-1])
        self.out = convolution(ndim, widths[-1], outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != self.ndim + 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"This encoder takes (batch, {self.channels}, ...) with {self.ndim} position axes, "
                f"found {tuple(x.shape)}."
            )
        h = self.stem(x)
        for level, stage in enumerate(self.down):
            h = stage(shrink(self.shrink[level - 1], h) if level else h)
        y: Tensor = self.out(F.silu(self.norm(h)))
        return y

    def positions(self, size: Sequence[int]) -> tuple[int, ...]:
        """The sizes P of the latents of samples of sizes S."""
        return halved(size, self.levels - 1)


class Decoder(nn.Module):
    """The way back: latents ``(B, latent, *P)`` to samples ``(B, channels, *S)``, residual blocks on the way up.

    Sizes alone do not say what was halved: 7 comes from 13 and from 14. So the decoder is told S, restores the sizes of
    every level, ``ceil(S / 2^level)``, the coarsest first, and cuts the last position where one is odd.

    Args:
        channels: of the samples.
        widths: channels of each level, the finest first, as the encoder's.
        latent: channels of the latents.
        ndim: number of position axes, 1 to 3.
        blocks: residual blocks of each level.

    Raises:
        ValueError: for arguments that do not fit each other, and for latents of another shape.
    """

    def __init__(self, channels: int, widths: Sequence[int], latent: int, ndim: int = 2, blocks: int = 1) -> None:
        super().__init__()
        _check("A decoder", widths, ndim, blocks, channels, latent)
        self.latent, self.ndim, self.levels = latent, ndim, len(widths)
        self.stem = convolution(ndim, latent, widths[-1], 3)
        # After the nearest neighbours, which alone would leave their squares in the picture.
        self.grow = nn.ModuleList(convolution(ndim, b, a, 3) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_level(ndim, w, blocks) for w in widths)
        self.norm = GroupNorm(widths[0])
        self.out = convolution(ndim, widths[0], channels, 3)

    @property
    def last(self) -> Tensor:
        """The weight of the last layer, whose gradients balance an adversary."""
        weight: Tensor = self.out.get_parameter("weight")
        return weight

    def forward(self, z: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The samples of latents.

        Args:
            z: ``(B, latent, *P)``.
            size: S, with ``ceil(S / 2^(levels - 1)) = P``; None is the largest, ``P 2^(levels - 1)``.
        """
        if z.dim() != self.ndim + 2 or z.shape[1] != self.latent:
            raise ValueError(
                f"This decoder takes (batch, {self.latent}, ...) with {self.ndim} position axes, "
                f"found {tuple(z.shape)}."
            )
        deepest = self.levels - 1
        size = [n << deepest for n in z.shape[2:]] if size is None else size
        if halved(size, deepest) != tuple(z.shape[2:]):
            raise ValueError(
                f"Latents of sizes {tuple(z.shape[2:])} do not come from samples of sizes {tuple(size)}, whose latents "
                f"have {halved(size, deepest)}; give the sizes of what was encoded."
            )
        h = self.stem(z)
        for level in reversed(range(self.levels)):
            if level < deepest:
                h = self.grow[level](grow(h, halved(size, level)))
            h = self.up[level](h)
        x: Tensor = self.out(F.silu(self.norm(h)))
        return x


def halved(size: Sequence[int], times: int) -> tuple[int, ...]:
    """Sizes halved so many times, rounded up each time: ``ceil(S / 2^times)``."""
    return tuple(-(-n // 2**times) for n in size)


def _level(ndim: int, width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(ndim, width, width, None, 0.0) for _ in range(blocks)))


def _check(what: str, widths: Sequence[int], ndim: int, blocks: int, *channels: int) -> None:
    if ndim not in (1, 2, 3):
        raise ValueError(f"{what} has 1, 2 or 3 position axes, not {ndim}; vectors take nn.Dense.")
    if not widths or min(*widths, blocks, *channels) < 1:
        raise ValueError(
            f"{what} needs at least one level, block and channel, found widths {tuple(widths)}, {blocks} blocks and "
            f"channels {channels}."
        )
