"""Gradient checkpointing: blocks that keep what they read, and compute the rest again when its gradient is wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """A repeated part of a network that may forget in training what lies between its input and its output.

    Memory for activations falls from all that a block computes to what it reads, at the price of a second forward pass,
    about a third of a training step (Chen et al. 2016, arXiv 1604.06174). Gradients are the same to the bit: dropout is
    drawn again as it was. Outside training, without gradients, and under the transforms of ``torch.func`` (which allow
    no hooks on what is saved) a block computes as usual.

    Attributes:
        recompute: whether it forgets; see :func:`gradient_checkpointing`.
    """

    recompute: bool = False

    def __call__(self, *args: Any) -> Any:
        if not (self.recompute and self.training and torch.is_grad_enabled()) or _transformed():
            return super().__call__(*args)
        return checkpoint(self._once, self._lent(), *args, use_reentrant=False)

    def _once(self, lent: dict[str, Tensor], *args: Any) -> Any:
        plain = super().__call__
        return functional_call(_Bound(self, plain), lent, args) if lent else plain(*args)

    def _lent(self) -> dict[str, Tensor]:
        """Weights that stand in for the block's own during this call alone (LoRA's sums): a second pass comes later."""
        own: dict[str, Tensor] = {f"block.{name}": p for name, p in self.named_parameters()}
        return {} if all(isinstance(p, nn.Parameter) for p in own.values()) else own


class _Bound(nn.Module):
    """A block and the call that computes it, for ``functional_call``."""

    def __init__(self, block: nn.Module, plain: Any) -> None:
        super().__init__()
        self.block, self.plain = block, plain

    def forward(self, *args: Any) -> Any:
        return self.plain(*args)


def gradient_checkpointing(module: nn.Module, on: bool = True) -> nn.Module:
    """The same module, all blocks of which forget from now on what they can compute again, or no longer do."""
    for part in module.modules():
        if isinstance(part, Recomputed):
            part.recompute = on
    return module


def _transformed() -> bool:
    """Whether this runs under ``torch.func``."""
    return torch._C._are_functorch_transforms_active()
