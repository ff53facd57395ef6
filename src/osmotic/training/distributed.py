"""One process or many, by torch.distributed itself: any launcher that sets RANK, WORLD_SIZE and LOCAL_RANK will do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from osmotic.training.errors import RunError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, computing on ``device``."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """True on the one process that writes and prints."""
        return self.rank == 0

    def share(self, total: int, parts: int = 1) -> list[range]:
        """This process's slots of a global batch, cut into ``parts`` passes; sizes differ by at most one.

        Raises:
            RunError: if there are more passes than slots.
        """
        passes = self.size * parts
        if passes > total:
            raise RunError(
                f"A batch of {total} cannot be cut into {self.size} processes times {parts} passes; "
                f"use --batch-size {passes} or more."
            )
        ends = [total * i // passes for i in range(passes + 1)]
        mine = range(self.rank * parts, (self.rank + 1) * parts)
        return [range(ends[i], ends[i + 1]) for i in mine]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows ``(n, ...)`` of all processes one after the other, on every process; n may differ."""
        if self.size == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=self.device))
        most = int(max(counts))
        mine = rows.new_zeros(most, *rows.shape[1:], device=self.device)
        mine[: len(rows)] = rows
        theirs = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(theirs, mine)
        return torch.cat([part[: int(n)] for part, n in zip(theirs, counts, strict=True)]).to(rows.device)

    def from_main(self, work: Callable[[], T]) -> T:
        """What ``work()`` gives on the main process, on every process; its error is raised on every process too."""
        if self.size == 1:
            return work()
        box: list[Any] = [None, None]
        if self.main:
            try:
                box[0] = work()
            except Exception as error:  # none may wait for ever for a process that failed
                box[1] = error
        dist.broadcast_object_list(box, src=0, device=self.device)
        if box[1] is not None:
            raise box[1]
        result: T = box[0]
        return result


@contextmanager
def joined(device: torch.device | str | None = None) -> Iterator[World]:
    """Join the processes that a launcher started, or be alone if there are none.

    Processes that are joined already are used as they are, so this nests.

    Args:
        device: None takes this process's CUDA device if there is one, else the CPU.
    """
    here = _device(device)
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), here)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(0, 1, here)
        return
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), here)
    finally:
        dist.destroy_process_group()


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda":
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def equalise(module: nn.Module, world: World) -> None:
    """Give every process the main one's weights and buffers."""
    if world.size > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)


def replicate(module: nn.Module, world: World) -> nn.Module:
    """The module whose gradients are averaged over all processes (DDP); the module itself if there is one process."""
    return DistributedDataParallel(module) if world.size > 1 else module


def shard(module: nn.Module, world: World, smallest: int = 1 << 20) -> None:
    """Shard a module's parameters over all processes, in place (FSDP2).

    Blocks (elements of a ModuleList) of at least ``smallest`` parameters that they share with nobody are gathered one
    at a time, all the rest together.

    Raises:
        RunError: if there is one process only, started without a launcher.
    """
    if not dist.is_initialized():
        raise RunError("Sharding needs several processes; start with torchrun, or leave out --shard.")
    mesh = init_device_mesh(world.device.type, (world.size,))
    parents = [parent for parent in module.modules() if isinstance(parent, nn.ModuleList)]
    for block in [block for parent in parents[::-1] for block in parent]:  # inner ones first
        called = not isinstance(block, nn.ModuleList | nn.ModuleDict)
        if called and sum(p.numel() for p in block.parameters()) >= smallest and not _shares(block, module):
            fully_shard(block, mesh=mesh)
    # By default the root stays gathered after a forward pass, and would not see weights that an average lends it.
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


def _shares(block: nn.Module, module: nn.Module) -> bool:
    """Whether a weight of the block is used outside of it too."""
    inside = [id(p) for _, p in block.named_parameters(remove_duplicate=False)]
    everywhere = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    return sum(everywhere.count(p) for p in set(inside)) > len(inside)


def synchronise(module: nn.Module, last: bool) -> None:
    """Exchange gradients in the coming backward pass only if it is the last of its step."""
    if isinstance(module, DistributedDataParallel):
        module.require_backward_grad_sync = last
    elif isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)


def release(module: nn.Module) -> None:
    """Let go of the process group while Python still holds it; the wrapper cannot be called afterwards.

    A wrapper that outlived the group would destroy it with Python's global lock held, while the group's own thread
    waits for that lock: the process would hang at its end.
    """
    if isinstance(module, DistributedDataParallel):
        del module.reducer, module.logger


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies in this process; shares memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (every process must call this), any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into a perhaps sharded one of the same shape (every process must call this)."""
    value = value.to(target.device)
    if isinstance(target, DTensor):
        value = distribute_tensor(value, target.device_mesh, target.placements)
    target.copy_(value)


def is_main() -> bool:
    """Whether this process prints and writes, asked before the processes have joined."""
    return int(os.environ.get("RANK", "0")) == 0
