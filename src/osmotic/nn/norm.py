"""Group norm, plain and adaptive, that can leave padded positions out of its statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5


class GroupNorm(nn.Module):
    """Group norm with a learned scale and shift for each channel (Wu & He 2018, arXiv 1803.08494).

    Shapes: x ``(B, C, *S)``, valid ``(B, 1, *S)`` bool or None.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = groups(channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return group_norm(x, self.groups, self.weight, self.bias, valid)


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose scale and shift are read from a vector: ``(1 + scale) norm(x) + shift``.

    Dhariwal & Nichol 2021 (arXiv 2105.05233), section 3.

    Shapes: x ``(B, C, *S)``, vector ``(B, width)``, valid ``(B, 1, *S)`` bool or None.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.groups = groups(channels)
        self.modulate = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor, vector: Tensor, valid: Tensor | None = None) -> Tensor:
        scale, shift = self.modulate(vector).chunk(2, dim=-1)
        return group_norm(x, self.groups, 1 + scale, shift, valid)


def group_norm(x: Tensor, count: int, weight: Tensor, bias: Tensor, valid: Tensor | None = None) -> Tensor:
    """Normalise groups of channels over the valid positions, then scale and shift.

    ``y = weight (x - mean_g) / sqrt(var_g + 1e-5) + bias`` with weight and bias ``(C,)`` or, one a sample,
    ``(B, C)``.
    """
    if valid is not None:
        return _valid_group_norm(x, count, weight, bias, valid)
    if weight.dim() == 1:
        return F.group_norm(x, count, weight, bias, EPSILON)
    # The samples of a batch are groups like any other, so the kernel takes one scale and shift per sample for
    # free.
    batch, channels = weight.shape
    flat = x.reshape(1, batch * channels, *x.shape[2:])
    return F.group_norm(flat, batch * count, weight.reshape(-1), bias.reshape(-1), EPSILON).view(x.shape)


def _valid_group_norm(x: Tensor, count: int, weight: Tensor, bias: Tensor, valid: Tensor) -> Tensor:
    grouped = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(len(x), count, -1, *x.shape[2:])
    share = valid.unsqueeze(1).to(grouped.dtype)
    dims = tuple(range(2, grouped.dim()))
    number = (share.sum(dims, keepdim=True) * grouped.shape[2]).clamp(min=1)
    centred = grouped - (grouped * share).sum(dims, keepdim=True) / number
    variance = (centred.square() * share).sum(dims, keepdim=True) / number
    normal = (centred * torch.rsqrt(variance + EPSILON)).reshape(x.shape)
    affine = (-1, x.shape[1], *(1,) * (x.dim() - 2))
    return (normal * weight.reshape(affine) + bias.reshape(affine)).to(x.dtype)


def groups(channels: int) -> int:
    """The number of groups: at most 32, of at least 4 channels where there are so many."""
    return divisor(channels, min(32, channels // 4))


def divisor(number: int, at_most: int) -> int:
    """The largest divisor of a number that is not above a bound (1 at the least)."""
    return next(d for d in range(max(1, at_most), 0, -1) if number % d == 0)
