"""Training a denoiser: the usual task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import Estimate
from osmotic.laws import Law
from osmotic.objectives import denoising
from osmotic.objectives.weights import Weight
from osmotic.schedules import Number
from osmotic.training.task import Batch, Noise, Stream, Task

PLAYER = "denoiser"


@dataclass(frozen=True)
class Drop:
    """How conditions are told in training: how often they are hidden, so that the model knows what to do without them.

    Args:
        whole: the probability that a sample is told nothing at all, in [0, 1].
        parts: that of each part of its condition, on top and independently; empty for none.
        drawn: what is told of a batch in place of its condition where that is drawn anew in every step, also on
            held-out data; None for the condition itself.
    """

    whole: float = 0.0
    parts: tuple[float, ...] = ()
    drawn: Callable[[Batch], Condition] | None = None


class Denoising(Task):
    """``E_t E_eps w(t) |estimate - truth|^2`` over a law of times, for one player named ``denoiser``.

    Args:
        denoiser: what is trained.
        law: how often each time is trained; an adaptive one learns from the losses of all processes.
        weight: of each time in the loss; None is 1 in target space.
        drop: how often a sample's condition is hidden, for classifier-free guidance.
    """

    def __init__(self, denoiser: Denoiser, law: Law, weight: Weight | None = None, drop: Drop | None = None) -> None:
        self.denoiser, self.law, self.weight, self.drop = denoiser, law, weight, drop or Drop()
        self.players = {PLAYER: denoiser}
        # Held-out losses are compared over the whole run, so their times come from the law as it was before it learned.
        self._first_law = copy.deepcopy(law)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        t, importance = self._own_times(batch)
        loss = self.measure(Called(self.denoiser, modules[player]), batch, t, shown(batch, self.drop))
        return loss * importance.to(loss)

    def measure(self, denoiser: Denoiser, batch: Batch, t: Tensor, cond: Condition | None) -> Tensor:
        """The objective at given times ``(B,)``, before importance weights: what another objective replaces.

        Args:
            denoiser: as it must be called.
            batch: samples and draws.
            t: of each sample, of the law.
            cond: conditions, some perhaps hidden.

        Returns:
            ``(B,)``.
        """
        return denoising(denoiser, batch.x0, t, batch.eps(), cond, self.weight)

    def levels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        t, importance = self._own_times(batch)
        return self.denoiser.schedule.log_snr(t), importance

    def update(self, player: str, noise: Noise, losses: Tensor) -> None:
        t, importance = self._times(noise, self.law)
        self.law.update(self.denoiser.schedule, t, losses / importance)

    def state(self) -> dict[str, Tensor]:
        return {f"law.{name}": tensor for name, tensor in self.law.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.law.load_state_dict({name.removeprefix("law."): tensor for name, tensor in state.items()})

    def core(self, player: str) -> nn.Module:
        # The algebra around the network runs on float64 scalars and gives an Estimate, which is no tensor.
        return core(self.denoiser)

    def _times(self, noise: Noise, law: Law) -> tuple[Tensor, Tensor]:
        """The times of the whole global batch: a law may draw them together (stratified)."""
        t, importance = law.draw(self.denoiser.schedule, noise.total, noise.generator(Stream.TIME))
        return t, importance

    def _own_times(self, batch: Batch) -> tuple[Tensor, Tensor]:
        t, importance = self._times(batch.noise, self.law if batch.training else self._first_law)
        return batch.noise.own(t), batch.noise.own(importance)


def core(module: nn.Module) -> nn.Module:
    """What of a player can be compiled: a denoiser's network, whose arithmetic is all tensors."""
    return module.network if isinstance(module, NeuralDenoiser) else module


def shown(batch: Batch, drop: Drop) -> Condition | None:
    """A batch's conditions, in training some of them hidden, or parts of them."""
    cond, noise = batch.cond if drop.drawn is None else drop.drawn(batch), batch.noise
    if cond is None or not batch.training:
        return cond
    if drop.whole:
        cond = cond.drop(noise.uniform(Stream.DROP) >= drop.whole)
    if any(drop.parts):
        rates = torch.tensor(drop.parts, dtype=torch.float64)
        draws = torch.rand(noise.total, len(rates), generator=noise.generator(Stream.PARTS), dtype=torch.float64)
        cond = cond.drop((noise.own(draws) >= rates).to(noise.device))
    return cond


class Called(Denoiser):
    """A denoiser that is called through its wrapper, so that gradients are exchanged, and described by itself."""

    def __init__(self, denoiser: Denoiser, wrapper: nn.Module) -> None:
        super().__init__()
        self.around(denoiser)
        self._wrapper = [wrapper]  # in a list: this is no parent of the module

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        estimate: Estimate = self._wrapper[0](x, t, cond, s)
        return estimate
