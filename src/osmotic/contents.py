"""What named tensors hold, to the bit, as bytes that a hash can take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def contents(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, bytes]]:
    """Of each tensor, by name, a title with its dtype and shape, and its bytes in row-major order."""
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        yield f"{name} {value.dtype} {tuple(value.shape)}", value.reshape(-1).view(torch.uint8).numpy().tobytes()
