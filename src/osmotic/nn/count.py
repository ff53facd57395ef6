"""What a network costs: its parameters, and the floating-point operations of one evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from osmotic.condition import Condition


def parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def flops(network: nn.Module, shape: Sequence[int], cond: Condition | None = None, aims: bool = False) -> int:
    """Floating-point operations of one evaluation of ``network(x, time, cond)``.

    A multiplication and an addition count as two; convolutions, matrix products and attention are counted,
    the rest is not. Nothing is computed: shapes alone are followed. A training step costs three times as
    much.

    Args:
        shape: of one sample, without the batch.
        cond: conditions to evaluate with; the batch is theirs, and 1 without them.
        aims: whether it is also told the time aimed at.
    """
    batch = 1 if cond is None else len(cond)
    x = torch.empty(batch, *shape, device="meta")
    time = torch.empty(batch, device="meta")
    return called(network, x, time, None if cond is None else cond.to("meta"), *([time] if aims else []))


def called(network: nn.Module, x: Tensor, *more: Tensor | Condition | None) -> int:
    """Floating-point operations of ``network(x, *more)``, computed where x is: on the device ``meta`` not at all."""
    named = [*network.named_parameters(), *network.named_buffers()]
    state = {name: value.detach().to(x.device) for name, value in named}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        functional_call(network, state, (x, *more))
    return counter.get_total_flops()
