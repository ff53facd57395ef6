"""Exponential moving averages of weights, several half-lives at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from osmotic.training.distributed import local


class Average:
    """One moving average of a module's weights, ``a <- a + (1 - beta) (w - a)`` with ``beta = 2^(-1 / halflife)``.

    The half-life is ``min(halflife, ramp * step)``, so that the average forgets the initial weights
    (Karras et al. 2022, arXiv 2206.00364, appendix F). Buffers are copied, not averaged.

    Args:
        module: whose weights; the average starts as a copy of them.
        halflife: in optimizer steps, positive.
        ramp: the longest half-life as a share of the steps so far, in (0, 1].
    """

    def __init__(self, module: nn.Module, halflife: float, ramp: float) -> None:
        self.halflife, self.ramp = halflife, ramp
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        current = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        # A tied weight has several names, and every one of them is an average.
        names = {name for name, p in module.named_parameters(remove_duplicate=False) if p.is_floating_point()}
        self._averages = [local(tensor) for name, tensor in self.tensors.items() if name in names]
        self._weights = [local(current[name]) for name in self.tensors if name in names]
        self._copied = [(local(self.tensors[n]), local(current[n])) for n in self.tensors if n not in names]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after ``step`` optimizer steps, ``step >= 1``."""
        beta = 0.5 ** (1 / min(self.halflife, self.ramp * step))
        torch._foreach_lerp_(self._averages, self._weights, 1 - beta)
        for copy, buffer in self._copied:
            copy.copy_(buffer)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights inside, and its own bits again afterwards."""
        pairs = [*zip(self._averages, self._weights, strict=True), *self._copied]
        saved: list[Tensor] = [weight.clone() for _, weight in pairs]
        try:
            for average, weight in pairs:
                weight.copy_(average)
            yield
        finally:
            for own, (_, weight) in zip(saved, pairs, strict=True):
                weight.copy_(own)
