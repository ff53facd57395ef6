"""Images as networks read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from .base import Array


def planes(x: Array, device: torch.device | str = "cpu") -> Tensor:
    """``(B, H, W, 1 or 3)`` uint8 as ``(B, 3, H, W)`` float32 in [0, 1]; grey is repeated."""
    # A copy: arrays mapped from a file are read-only, and torch warns of those.
    pixels = torch.from_numpy(np.array(x)).to(device).movedim(-1, 1)
    # One layout in memory for grey and colour: convolutions round differently in others.
    return pixels.expand(-1, 3, -1, -1).contiguous().float() / 255


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions on a GPU with all digits of float32: TF32 would change scores in their third digit."""
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        yield
