"""Augmentations as values: each is a function of (seed, sample position) alone, whatever the batch and the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .counter import uniform

# A stream for each drawn number, so that several augmentations of one sample are independent.
_HORIZONTAL, _VERTICAL, _TURN, _DOWN, _RIGHT = 101, 102, 103, 104, 105


class Augmentation(Protocol):
    """Images to images of the same shape."""

    def __call__(self, x: Tensor, seed: int, positions: NDArray[np.int64]) -> Tensor:
        """`x` (B, C, H, W); `positions` (B,) global numbers of the samples in the stream of training data."""
        ...


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors left and right with probability 1/2. Wrong for text, digits, and anything with a side."""

    def __call__(self, x: Tensor, seed: int, positions: NDArray[np.int64]) -> Tensor:
        return _where(uniform(seed, _HORIZONTAL, positions) < 0.5, x, x.flip(-1))


@dataclass(frozen=True)
class VerticalFlip:
    """Mirrors top and bottom with probability 1/2. For pictures without an up: microscopy, views from above."""

    def __call__(self, x: Tensor, seed: int, positions: NDArray[np.int64]) -> Tensor:
        return _where(uniform(seed, _VERTICAL, positions) < 0.5, x, x.flip(-2))


@dataclass(frozen=True)
class Turn:
    """Turns by 0, 90, 180 or 270 degrees with equal probability; square pictures only (ValueError otherwise)."""

    def __call__(self, x: Tensor, seed: int, positions: NDArray[np.int64]) -> Tensor:
        if x.shape[-1] != x.shape[-2]:
            raise ValueError(f"pictures of {x.shape[-2]} x {x.shape[-1]} are not square: use flips instead of turns")
        quarters = np.floor(4 * uniform(seed, _TURN, positions))
        turned = x
        for k in (1, 2, 3):
            turned = _where(quarters == k, turned, x.rot90(k, (-2, -1)))
        return turned


@dataclass(frozen=True)
class Shift:
    """Moves by up to `limit` pixels each way, uniformly; edge pixels are repeated into the gap."""

    limit: int

    def __call__(self, x: Tensor, seed: int, positions: NDArray[np.int64]) -> Tensor:
        height, width = x.shape[-2:]
        span = 2 * self.limit + 1
        down = np.floor(span * uniform(seed, _DOWN, positions)).astype(int).tolist()
        right = np.floor(span * uniform(seed, _RIGHT, positions)).astype(int).tolist()
        padded = functional.pad(x, (self.limit,) * 4, mode="replicate")
        moved = [p[:, i : i + height, j : j + width] for p, i, j in zip(padded, down, right, strict=True)]
        return torch.stack(moved)


def _where(chosen: NDArray[np.bool_], x: Tensor, other: Tensor) -> Tensor:
    """Samples of `other` where chosen, of `x` elsewhere."""
    mask = torch.from_numpy(chosen).to(x.device)
    return torch.where(mask.view(-1, *(1,) * (x.ndim - 1)), other, x)
