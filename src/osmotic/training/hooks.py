"""What else happens during training: previews, extra measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from osmotic.training.distributed import World
from osmotic.training.log import Log
from osmotic.training.player import Player
from osmotic.training.run import Run


@dataclass(frozen=True)
class Moment:
    """A pause between two steps, seen by a hook on every process (:attr:`world`.main says who writes files).

    Attributes:
        step: optimizer steps done.
        modules: the players by name, unwrapped and in evaluation mode.
    """

    step: int
    run: Run
    world: World
    log: Log
    modules: Mapping[str, nn.Module]
    players: Sequence[Player]

    @contextmanager
    def averaged(self, index: int = 0) -> Iterator[None]:
        """The modules have the weights of one average inside (0: the first half-life), their own if none is kept."""
        with ExitStack() as stack:
            for player in self.players:
                if player.averages:
                    stack.enter_context(player.averages[index].applied())
            yield


@dataclass(frozen=True)
class Hook:
    """``call(moment)`` before the first step, then every so many steps and after the last one.

    It may not change what is trained; torch's random state and the training mode are put back afterwards.
    """

    every: int
    call: Callable[[Moment], None]

    def due(self, step: int, steps: int) -> bool:
        """Whether it is called after ``step`` of ``steps`` optimizer steps."""
        return step % self.every == 0 or step == steps


@contextmanager
def paused(players: Sequence[Player], device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients; modes and torch's random state are as before afterwards."""
    modes = [(module, module.training) for player in players for module in player.module.modules()]
    for player in players:
        player.module.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
