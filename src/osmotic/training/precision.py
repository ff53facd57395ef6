"""Which arithmetic is fast here."""

from __future__ import annotations

import torch

from osmotic.training.options import Precision


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The dtype to give ``NeuralDenoiser(autocast=...)``: None is float32.

    ``auto`` takes bfloat16 where the hardware multiplies it: CUDA from Ampere on, CPUs with AVX-512 BF16 or AMX.
    """
    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if fast else None
