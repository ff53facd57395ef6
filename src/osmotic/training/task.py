"""What is trained: players, and a loss that is a pure function of a batch and its keyed random draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.noise import generator
from osmotic.training.optim import Tuning

CHUNK = 64
"""Noise is drawn for this many neighbouring slots at once, so that a process draws little more than its share."""


class Stream(IntEnum):
    """Kinds of draws in one step; each has its own key. A task's own streams start at 100."""

    TIME = 1
    NOISE = 2
    DROP = 3
    DROPOUT = 4
    PARTS = 5
    LEVEL = 6
    LOW = 7


class Domain(IntEnum):
    """What a draw is for: training never shares a key with measuring."""

    TRAINING = 0
    HELD_OUT = 1


@dataclass(frozen=True)
class Noise:
    """The random draws of one step, keyed by (domain, seed, step): the same for any number of processes and passes.

    The global batch has ``total`` slots; this value stands for the ``count`` slots from ``start`` on.
    """

    seed: int
    step: int
    total: int
    start: int
    count: int
    device: torch.device
    domain: Domain = Domain.TRAINING

    def generator(self, stream: int) -> torch.Generator:
        """A CPU generator for a draw that belongs to the whole global batch; cut the draw with :meth:`own`."""
        return generator(self.domain, self.seed, stream, self.step)

    def own(self, whole: Tensor) -> Tensor:
        """The rows of these slots out of a draw ``(total, ...)``."""
        return whole[self.start : self.start + self.count]

    def uniform(self, stream: int) -> Tensor:
        """One number in [0, 1) a slot, ``(count,)`` float64 on the device."""
        draw = torch.rand(self.total, generator=self.generator(stream), dtype=torch.float64)
        return self.own(draw).to(self.device)

    def normal(self, stream: int, shape: Sequence[int]) -> Tensor:
        """Standard normal noise ``(count, *shape)`` float32 on the device."""
        first, last = self.start // CHUNK, (self.start + self.count - 1) // CHUNK
        rows = torch.cat([self._chunk(stream, chunk, shape) for chunk in range(first, last + 1)])
        offset = self.start - first * CHUNK
        return rows[offset : offset + self.count]

    def _chunk(self, stream: int, chunk: int, shape: Sequence[int]) -> Tensor:
        size = min(CHUNK, self.total - chunk * CHUNK)
        keyed = generator(self.domain, self.seed, stream, self.step, chunk, device=self.device)
        return torch.randn(size, *shape, generator=keyed, device=self.device)


@dataclass(frozen=True)
class Batch:
    """The samples of one pass of one process.

    Args:
        x0: data ``(B, *S)`` on the device.
        cond: their conditions, or None.
        positions: ``(B,)`` how many samples the run had taken before each of these: a counter over the whole run.
        indices: ``(B,)`` which samples of the data set these are.
        step: the optimizer step, from 0.
        noise: every random draw the loss may make.
        order: ``(B,)`` which sample's noise each is trained with, where a coupling chose it; None for its own.
    """

    x0: Tensor
    cond: Condition | None
    positions: np.ndarray
    indices: np.ndarray
    step: int
    noise: Noise
    order: Tensor | None = None

    def eps(self) -> Tensor:
        """The unit noise that each sample is trained with, ``(B, *S)``, by the coupling if there is one."""
        eps = self.noise.normal(Stream.NOISE, self.x0.shape[1:])
        return eps if self.order is None else eps[self.order]

    @property
    def training(self) -> bool:
        """False when the loss is measured on held-out data, where only the weights may have learned."""
        return self.noise.domain == Domain.TRAINING


class Task(ABC):
    """An objective that the loop can train.

    A player is a module with its own optimizer and averages; they are stepped in order. One player is the usual case, a
    generator and its discriminator are two.
    """

    players: Mapping[str, nn.Module]

    @abstractmethod
    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        """The loss of one player, ``(B,)``, before averaging.

        Args:
            player: whose turn it is; only its parameters require gradients now.
            batch: samples and draws; no other randomness but dropout is allowed.
            modules: the players as they must be called (perhaps wrapped for several processes).
        """

    def passed(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> tuple[Tensor, Tensor | None]:
        """The losses of a training pass, and what else :meth:`learn` is told of it; None for nothing.

        Args:
            player, batch, modules: as of :meth:`loss`.

        Returns:
            ``(B,)``, and a tensor of the same shape in every pass, which is summed over the passes and processes of a
            step.
        """
        return self.loss(player, batch, modules), None

    def levels(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """(log-SNR, importance) ``(B,)`` of what :meth:`loss` measures in this batch, None where that means nothing."""
        return None

    def update(self, player: str, noise: Noise, losses: Tensor) -> None:  # noqa: B027
        """Learn outside the gradient, after a good step, from the losses ``(total,)`` of all processes (float64, CPU).

        The same on every process, so nothing needs to be sent.
        """

    def learn(self, player: str, noise: Noise, told: Tensor) -> None:  # noqa: B027
        """Learn outside the gradient, in a good step, before its weights move, so that their averages take it in.

        Args:
            player: whose turn it is.
            noise: the draws of the whole step.
            told: the sum of what :meth:`passed` gave, float64 on the CPU; the same on every process.
        """

    def numbers(self) -> dict[str, float]:
        """What the log tells besides losses, by name; from what is stored, so that a resumed run writes the same."""
        return {}

    def active(self, player: str, step: int) -> bool:
        """Whether it is a player's turn in this step (from 0): adversaries may step more often than what they judge."""
        return True

    def tuning(self, player: str) -> Tuning:
        """How a player's optimizer differs from the run's."""
        return Tuning()

    def state(self) -> dict[str, Tensor]:
        """Small tensors that :meth:`update` and :meth:`learn` change, stored with every checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take back what :meth:`state` gave; names and shapes were checked."""

    def core(self, player: str) -> nn.Module:
        """The part of a player that takes tensors and gives tensors: what is compiled, and what is sharded."""
        return self.players[player]
