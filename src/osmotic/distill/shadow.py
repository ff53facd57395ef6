"""A slow copy of a student that a loss looks at: the target network of consistency, trajectory and shortcut losses."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from osmotic.denoiser import NeuralDenoiser


class Shadow:
    """``shadow <- decay shadow + (1 - decay) student`` after every step; part of the run's state.

    It has nothing to do with the averages that are sampled from: those have half-lives of many steps.

    Args:
        student: what is followed; the shadow starts as its copy, without gradients.
        decay: in [0, 1); 0 is the student of the step before.
    """

    def __init__(self, student: NeuralDenoiser, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"A shadow's decay lies in [0, 1); got {decay}.")
        self.denoiser, self.decay = copy.deepcopy(student).requires_grad_(False), decay

    @torch.no_grad()
    def update(self, student: NeuralDenoiser, decay: float | None = None) -> None:
        """Move towards the student, with another decay than its own if one is given; buffers are copied."""
        decay = self.decay if decay is None else decay
        own = dict(self.denoiser.named_parameters())
        for name, weight in student.named_parameters():
            own[name].lerp_(weight, 1 - decay)
        for mine, theirs in zip(self.denoiser.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)

    def state(self) -> dict[str, Tensor]:
        """Its tensors, for the checkpoint."""
        return {f"shadow.{name}": tensor for name, tensor in self.denoiser.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        self.denoiser.load_state_dict(
            {name.removeprefix("shadow."): tensor for name, tensor in state.items() if name.startswith("shadow.")}
        )
