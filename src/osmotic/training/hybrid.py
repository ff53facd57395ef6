"""Training a denoiser together with the variance of its reverse steps."""

from __future__ import annotations

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.laws import Law, Rounded
from osmotic.objectives import Decoder, hybrid, term
from osmotic.objectives.weights import Weight
from osmotic.training.denoise import Denoising, Drop
from osmotic.training.task import Batch, Stream


class Bound(Denoising):
    """The variational bound itself, ``n L_{t-1} / d``: mean and variance by one likelihood.

    Noisy gradients: Nichol & Dhariwal 2021 (arXiv 2102.09672) train it with importance-sampled times, which is the law
    ``adaptive``. With a uniform law over the levels it is the bound in nats per dimension, but for L_T, which no
    network changes; another law draws levels more or less often, and each counts as often as it is drawn.

    Args:
        denoiser: a model whose estimates have a learned variance.
        law: how often each time is trained; its times are rounded up to the levels.
        levels: the grid, ``(n + 1,)``, decreasing to 0.
        decoder: of the last step.
        drop: how often conditions are hidden.
    """

    def __init__(
        self, denoiser: Denoiser, law: Law, levels: Tensor, decoder: Decoder, drop: Drop | None = None
    ) -> None:
        super().__init__(denoiser, Rounded(law, levels), drop=drop)
        self.grid, self.decoder = levels, decoder

    def measure(self, denoiser: Denoiser, batch: Batch, t: Tensor, cond: Condition | None) -> Tensor:
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        nats = term(denoiser, batch.x0, self.grid, self.index(t), eps, self.decoder, cond)
        return nats * ((len(self.grid) - 1) / batch.x0[0].numel())

    def index(self, t: Tensor) -> Tensor:
        """Which step of the grid begins at each time ``(B,)``: int64 on the CPU."""
        rising = self.grid.flip(0).contiguous()
        # Times come from the law's own copy of the grid; half a step of tolerance makes equality sure.
        return len(self.grid) - 1 - torch.searchsorted(rising, t.detach().cpu().double().contiguous() * (1 - 1e-12))


class Hybrid(Bound):
    """``L_simple + 0.001 L_vlb``: the usual loss for the mean, the bound for the variance alone.

    Nichol & Dhariwal 2021 (arXiv 2102.09672); see :func:`osmotic.objectives.hybrid`.

    Args:
        denoiser: a model whose estimates have a learned variance.
        law: how often each time is trained; its times are rounded up to the levels.
        levels: the grid, ``(n + 1,)``, decreasing to 0.
        decoder: of the last step.
        weight: of each time in the first term; None is 1 in target space.
        drop: how often conditions are hidden.
        scale: of the bound.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        law: Law,
        levels: Tensor,
        decoder: Decoder,
        weight: Weight | None = None,
        drop: Drop | None = None,
        scale: float = 1e-3,
    ) -> None:
        super().__init__(denoiser, law, levels, decoder, drop)
        self.weight, self.scale = weight, scale

    def measure(self, denoiser: Denoiser, batch: Batch, t: Tensor, cond: Condition | None) -> Tensor:
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        return hybrid(denoiser, batch.x0, self.grid, self.index(t), eps, self.decoder, cond, self.weight, self.scale)
