"""What a network costs: its parameters, the operations of one evaluation, and what training keeps of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from osmotic.condition import Condition
from osmotic.nn.recompute import Recomputed


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


class Activations:
    """What a network's forward passes keep for their gradient, its weights left out, from what :func:`watched` saw.

    Attributes:
        storages: bytes by the address of each piece of memory that is kept.
        blocks: the same, by the number of the block (a :class:`Recomputed`) that keeps it; of blocks that recompute
            nothing is seen.
    """

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}
        self.blocks: dict[int, dict[int, int]] = {}

    @property
    def total(self) -> int:
        """Bytes kept in all."""
        return sum(self.storages.values())

    @property
    def largest(self) -> int:
        """Bytes that the greediest block keeps: what recomputing it takes for a moment, beside all that is kept."""
        return max((sum(block.values()) for block in self.blocks.values()), default=0)


@contextmanager
def watched(network: nn.Module) -> Iterator[Activations]:
    """Count what the network's forward passes within keep; nothing else is watched.

    (The algebra of a denoiser around it differentiates schedules, which cannot be done under these hooks.)
    """
    found, inside, watch = Activations(), [-1], ExitStack()
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in own:
            found.storages[place] = storage.nbytes()
            found.blocks.setdefault(inside[-1], {})[place] = storage.nbytes()
        return tensor

    def enter(module: nn.Module, args: object) -> None:
        watch.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))

    handles = [
        network.register_forward_pre_hook(enter),
        network.register_forward_hook(lambda *_: watch.close()),
    ]
    for number, block in enumerate(part for part in network.modules() if isinstance(part, Recomputed)):
        handles.append(block.register_forward_pre_hook(lambda *_, number=number: inside.append(number)))
        handles.append(block.register_forward_hook(lambda *_: inside.__delitem__(-1)))
    try:
        yield found
    finally:
        watch.close()
        found.blocks.pop(-1, None)
        for handle in handles:
            handle.remove()
