"""Data cut into patches, and put together again."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def grid(size: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """How many patches cover each axis."""
    return tuple(math.ceil(n / p) for n, p in zip(size, patch, strict=True))


def patchify(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Patches in row-major order, each laid flat with the channel first.

    ``(B, C, *S) -> (B, N, C * prod(patch))`` with ``N = prod(ceil(S / patch))``; what sticks out of S is zero.
    """
    cells = grid(x.shape[2:], patch)
    surplus = [g * p - n for g, p, n in zip(cells, patch, x.shape[2:], strict=True)]
    if any(surplus):
        x = F.pad(x, [side for n in reversed(surplus) for side in (0, n)])
    x = x.reshape(*x.shape[:2], *(n for pair in zip(cells, patch, strict=True) for n in pair))
    outer, inner = range(2, x.dim(), 2), range(3, x.dim(), 2)
    return x.permute(0, *outer, 1, *inner).reshape(len(x), math.prod(cells), -1)


def unpatchify(patches: Tensor, patch: Sequence[int], size: Sequence[int]) -> Tensor:
    """The inverse of :func:`patchify`: ``(B, N, C * prod(patch)) -> (B, C, *size)``."""
    cells, ndim = grid(size, patch), len(patch)
    x = patches.reshape(len(patches), *cells, -1, *patch)
    pairs = [axis for i in range(ndim) for axis in (1 + i, 2 + ndim + i)]
    x = x.permute(0, 1 + ndim, *pairs)
    x = x.reshape(*x.shape[:2], *(g * p for g, p in zip(cells, patch, strict=True)))
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x
