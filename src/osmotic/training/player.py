"""One module in training: how it is called, its optimizer, its averages, and all of that as named tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from osmotic.nn import gradient_checkpointing
from osmotic.training.distributed import World, assign, equalise, local, release, replicate, shard, synchronise, whole
from osmotic.training.ema import Average
from osmotic.training.errors import RunError
from osmotic.training.optim import PLAIN, Tuning, learning_rate, optimizer
from osmotic.training.options import Options

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's two running means, shaped like the parameter


class Player:
    """A module that the loop trains.

    Attributes:
        name: of the player, the first part of the names of its tensors.
        module: as it was given, moved to the device (and sharded, if asked for).
        wrapped: what must be called in a training pass, so that gradients are exchanged.
        averages: one per half-life.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        core: nn.Module,
        world: World,
        options: Options,
        tuning: Tuning = PLAIN,
    ) -> None:
        self.tuning = tuning
        self.name, self.module, self.options = name, module.to(world.device).train(), options
        equalise(module, world)
        if options.shard:
            _refuse_outside(name, module, core)
            shard(core, world)
        if options.gradient_checkpointing:
            gradient_checkpointing(module)
        if options.compile:
            core.compile()
        # Sharding changes the core in place; replication needs a wrapper around it all.
        self.wrapped = module if options.shard else replicate(module, world)
        self._exchanging = core if options.shard else self.wrapped
        self.optimizer = optimizer(module, options, tuning)
        self.weights = [p for p in module.parameters() if p.requires_grad]
        self.averages = [Average(module, halflife, options.ema_ramp) for halflife in options.ema]

    def synchronise(self, last: bool) -> None:
        """Exchange gradients in the coming backward pass only if it is the last of its step."""
        synchronise(self._exchanging, last)

    def norm(self) -> Tensor:
        """The norm of the whole gradient, 0-dimensional, the same on every process."""
        return whole(nn.utils.get_total_norm([p.grad for p in self.weights if p.grad is not None], foreach=True))

    def step(self, step: int, norm: float) -> None:
        """Clip, update the weights with the rate of ``step`` (from 0), and move the averages."""
        limit = self.options.clip
        if 0 < limit < norm:
            torch._foreach_mul_([local(p.grad) for p in self.weights if p.grad is not None], limit / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.tuning.rate * learning_rate(self.options, step)
        self.optimizer.step()
        for average in self.averages:
            average.update(step + 1)

    def release(self) -> None:
        """Training is over; must be called while the processes are still joined."""
        release(self.wrapped)

    def clear(self) -> None:
        """Forget the gradients."""
        self.module.zero_grad(set_to_none=True)

    def model_tensors(self) -> dict[str, Tensor]:
        """Weights and buffers."""
        return self._named(self.module.state_dict())

    def average_tensors(self, index: int) -> dict[str, Tensor]:
        """Weights and buffers of one average."""
        return self._named(self.averages[index].tensors)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimizer's state by parameter name; a parameter that never had a gradient has none."""
        state = self.optimizer.state
        found = {name: state[p] for name, p in self.module.named_parameters() if p in state}
        return self._named({f"{name}.{key}": value for name, entry in found.items() for key, value in entry.items()})

    def expect_optimizer(self, found: Mapping[str, Tensor]) -> None:
        """Make an empty optimizer state for every parameter that has one in ``found``, to be filled."""
        for name, p in self.module.named_parameters():
            if f"{self.name}.{name}.step" in found:
                entry = {key: torch.zeros_like(p.detach()) for key in MOMENTS}
                entry["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                self.optimizer.state[p] = entry

    def _named(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{self.name}.{name}": tensor for name, tensor in tensors.items()}


def _refuse_outside(name: str, module: nn.Module, core: nn.Module) -> None:
    inside = set(core.parameters())
    for key, p in module.named_parameters():
        if p.requires_grad and p not in inside:
            raise RunError(f"The weight {name}.{key} cannot be sharded; train without --shard.")


@contextmanager
def turn(player: Player, players: Sequence[Player]) -> Iterator[dict[str, nn.Module]]:
    """One player's turn: the modules to call, with gradients for this player's weights alone."""
    with held([weight for p in players if p is not player for weight in p.weights]):
        yield {p.name: p.wrapped if p is player else p.module for p in players}


@contextmanager
def held(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Trained weights without gradients for a while."""
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def fill(tensors: Mapping[str, Tensor], found: Mapping[str, Tensor], source: object) -> None:
    """Copy ``found`` into ``tensors``, both by name, only if they agree in everything.

    Raises:
        RunError: naming the first tensor that is missing, unexpected, of another shape or dtype, or not finite.
    """
    for name in tensors:
        if name not in found:
            raise RunError(f"{source} lacks the tensor {name!r}; it belongs to another model.")
    for name, value in found.items():
        if name not in tensors:
            raise RunError(f"{source} has an unexpected tensor {name!r}; it belongs to another model.")
        own = tensors[name]
        if value.shape != own.shape or value.dtype != own.dtype:
            raise RunError(
                f"{source}: the tensor {name!r} is {value.dtype} {tuple(value.shape)}, but the model has "
                f"{own.dtype} {tuple(own.shape)} there; it belongs to another model."
            )
        if not bool(torch.isfinite(value).all()):
            raise RunError(f"{source}: the tensor {name!r} is not finite; use another checkpoint.")
    for name, value in found.items():
        assign(tensors[name], value)
