"""The running sums of the loop, which a resumed run needs to write the same log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Counters:
    """Skipped steps, and sums since the last line of the log.

    Attributes:
        skipped: steps skipped in all.
        row: steps skipped one after another until now.
        good: good steps since the last line.
        turns: of those, the steps of each player; not all take part in every step.
        losses: sums of the mean losses of those, by player.
        norms: sums of their gradient norms, by player.
    """

    skipped: int = 0
    row: int = 0
    good: int = 0
    turns: dict[str, int] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, players: list[str]) -> Counters:
        """Nothing yet of any player, in their order, as a resumed run has it: some may have no turn for a while."""
        zeros = dict.fromkeys(players, 0.0)
        return cls(turns=dict.fromkeys(players, 0), losses=zeros, norms=dict(zeros))

    def add(self, losses: Mapping[str, float], norms: Mapping[str, float]) -> None:
        """Count a good step."""
        self.row = 0
        self.good += 1
        for name in losses:
            self.turns[name] = self.turns.get(name, 0) + 1
        for sums, values in ((self.losses, losses), (self.norms, norms)):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value

    def skip(self) -> None:
        """Count a skipped step."""
        self.row += 1
        self.skipped += 1

    def means(self) -> tuple[dict[str, float], dict[str, float]]:
        """(losses, norms) averaged over each player's good steps since the last line; NaN if it had none."""

        def mean(sums: Mapping[str, float]) -> dict[str, float]:
            return {name: value / (self.turns.get(name) or float("nan")) for name, value in sums.items()}

        return mean(self.losses), mean(self.norms)

    def clear(self) -> None:
        """Start the next line."""
        self.good = 0
        self.turns = dict.fromkeys(self.turns, 0)
        self.losses = dict.fromkeys(self.losses, 0.0)
        self.norms = dict.fromkeys(self.norms, 0.0)

    def tensors(self, players: list[str]) -> dict[str, Tensor]:
        """Everything as tensors, exactly."""
        sums = [[values.get(name, 0.0) for name in players] for values in (self.losses, self.norms)]
        return {
            "counts": torch.tensor([self.skipped, self.row, self.good], dtype=torch.int64),
            "turns": torch.tensor([self.turns.get(name, 0) for name in players], dtype=torch.int64),
            "sums": torch.tensor(sums, dtype=torch.float64),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], players: list[str]) -> Counters:
        """What :meth:`tensors` was made from."""
        losses, norms = tensors["sums"].tolist()
        skipped, row, good = tensors["counts"].tolist()
        turns = dict(zip(players, tensors["turns"].tolist(), strict=True))
        return cls(
            skipped, row, good, turns, dict(zip(players, losses, strict=True)), dict(zip(players, norms, strict=True))
        )
