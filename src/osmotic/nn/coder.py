"""The two halves of a convolutional autoencoder in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.nn.blocks import ResidualBlock, convolution, zero
from osmotic.nn.norm import GroupNorm
from osmotic.nn.patches import grid, patchify, unpatchify


class Encoder(nn.Module):
    """``(B, channels, *S)`` to features ``(B, outputs, *P)``: a linear map of patches, and what blocks add to it.

    Patches become channels before anything is convolved, so that the blocks are wide where positions are few: at full
    resolution most of the time would go into the first few channels. Every level after the first halves the sizes,
    rounding up, by taking neighbours as channels (Shi et al. 2016, arXiv 1609.05158); so P is ``ceil(S / factor)`` with
    ``factor = patch 2^(levels - 1)``. What blocks give is zero at first: training begins with the principal components
    of patches and never falls behind them (as the shortcuts of Chen et al. 2024, arXiv 2410.10733, who average in place
    of the linear map). There is no attention, so that larger pictures than those of training are encoded as well.

    Args:
        channels: of x.
        widths: channels of each level, the finest first.
        outputs: channels of the features.
        ndim: number of position axes, 1 to 3.
        blocks: residual blocks of each level.
        patch: positions along each axis that the first level takes as one.

    Raises:
        ValueError: for arguments that do not fit each other, and for x of another shape.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], outputs: int, ndim: int = 2, blocks: int = 1, patch: int = 1
    ) -> None:
        super().__init__()
        _check("An encoder", widths, ndim, blocks, channels, outputs, patch)
        self.channels, self.outputs, self.ndim, self.patch = channels, outputs, ndim, patch
        self.factor = patch << (len(widths) - 1)
        self.past = convolution(ndim, channels * self.factor**ndim, outputs, 1)
        self.stem = convolution(ndim, channels * patch**ndim, widths[0], 3)
        self.shrink = nn.ModuleList(convolution(ndim, a * 2**ndim, b, 1) for a, b in pairwise(widths))
        self.down = nn.ModuleList(_level(ndim, w, blocks) for w in widths)
        self.norm = GroupNorm(widths[-1])
        self.out = zero(convolution(ndim, widths[-1], outputs, 3))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != self.ndim + 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"This encoder takes (batch, {self.channels}, ...) with {self.ndim} position axes, "
                f"found {tuple(x.shape)}."
            )
        h = self.stem(fold(x, self.patch))
        for level, stage in enumerate(self.down):
            h = stage(self.shrink[level - 1](fold(h, 2)) if level else h)
        y: Tensor = self.past(fold(x, self.factor)) + self.out(F.silu(self.norm(h)))
        return y

    def positions(self, size: Sequence[int]) -> tuple[int, ...]:
        """The sizes P of the latents of samples of sizes S."""
        return reduced(size, self.factor)


class Decoder(nn.Module):
    """The way back: latents ``(B, latent, *P)`` to samples ``(B, channels, *S)``, a linear map and what blocks add.

    Sizes alone do not say what was halved: 7 comes from 13 and from 14. So the decoder is told S, restores the sizes of
    every level, the coarsest first, and cuts the last positions where a patch sticks out.

    Args:
        channels: of the samples.
        widths: channels of each level, the finest first, as the encoder's.
        latent: channels of the latents.
        ndim: number of position axes, 1 to 3.
        blocks: residual blocks of each level.
        patch: positions along each axis that the first level makes of one.

    Raises:
        ValueError: for arguments that do not fit each other, and for latents of another shape.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], latent: int, ndim: int = 2, blocks: int = 1, patch: int = 1
    ) -> None:
        super().__init__()
        _check("A decoder", widths, ndim, blocks, channels, latent, patch)
        self.latent, self.ndim, self.patch = latent, ndim, patch
        self.factor = patch << (len(widths) - 1)
        self.past = convolution(ndim, latent, channels * self.factor**ndim, 1)
        self.stem = convolution(ndim, latent, widths[-1], 3)
        self.grow = nn.ModuleList(convolution(ndim, b, a * 2**ndim, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_level(ndim, w, blocks) for w in widths)
        self.norm = GroupNorm(widths[0])
        self.out = zero(convolution(ndim, widths[0], channels * patch**ndim, 3))

    @property
    def last(self) -> Tensor:
        """The weight of the last layer, whose gradients balance an adversary."""
        weight: Tensor = self.out.get_parameter("weight")
        return weight

    def forward(self, z: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The samples of latents.

        Args:
            z: ``(B, latent, *P)``.
            size: S, with ``ceil(S / factor) = P``; None is the largest, ``P factor``.
        """
        if z.dim() != self.ndim + 2 or z.shape[1] != self.latent:
            raise ValueError(
                f"This decoder takes (batch, {self.latent}, ...) with {self.ndim} position axes, "
                f"found {tuple(z.shape)}."
            )
        size = [n * self.factor for n in z.shape[2:]] if size is None else size
        if reduced(size, self.factor) != tuple(z.shape[2:]):
            raise ValueError(
                f"Latents of sizes {tuple(z.shape[2:])} do not come from samples of sizes {tuple(size)}, whose latents "
                f"have {reduced(size, self.factor)}; give the sizes of what was encoded."
            )
        h = self.stem(z)
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                h = unfold(self.grow[level](h), 2, reduced(size, self.patch << level))
            h = self.up[level](h)
        x = unfold(self.past(z), self.factor, size) + unfold(self.out(F.silu(self.norm(h))), self.patch, size)
        return x


def reduced(size: Sequence[int], factor: int) -> tuple[int, ...]:
    """How many patches of a side cover sizes: ``ceil(S / factor)``."""
    return grid(size, (factor,) * len(size))


def fold(x: Tensor, factor: int) -> Tensor:
    """Patches as channels, ``(B, C, *S)`` to ``(B, C factor^n, *ceil(S / factor))``; what sticks out of S is zero."""
    if factor == 1:
        return x
    patch = (factor,) * (x.dim() - 2)
    return patchify(x, patch).mT.reshape(len(x), -1, *grid(x.shape[2:], patch))


def unfold(h: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """The inverse of :func:`fold`, cut to sizes S."""
    return h if factor == 1 else unpatchify(h.flatten(2).mT, (factor,) * len(size), size)


def _level(ndim: int, width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(ndim, width, width, None, 0.0) for _ in range(blocks)))


def _check(what: str, widths: Sequence[int], ndim: int, blocks: int, *positive: int) -> None:
    if ndim not in (1, 2, 3):
        raise ValueError(f"{what} has 1, 2 or 3 position axes, not {ndim}; vectors take nn.Dense.")
    if not widths or min(*widths, blocks, *positive) < 1:
        raise ValueError(
            f"{what} needs at least one level, block, channel and position a patch, found widths {tuple(widths)}, "
            f"{blocks} blocks, and {positive}."
        )
