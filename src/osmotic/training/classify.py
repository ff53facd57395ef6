"""Training a classifier of noisy samples, by which a denoiser that knows no classes is led to one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.clocks import Angle
from osmotic.estimate import like
from osmotic.laws import Law
from osmotic.schedules import Schedule
from osmotic.training.denoise import PLAYER
from osmotic.training.task import Batch, Noise, Stream, Task


class NoisyClassifier(nn.Module):
    """``classifier(x, t) -> logits (B, K)`` of noisy samples on a path: ``network(c x, clock(t))``.

    Args:
        network: ``network(x, time) -> (B, K)``, x ``(B, *S)`` and time ``(B,)`` of order 0..1000.
        schedule: the path.
        sigma_data: the data's standard deviation, so that c makes x of unit variance at every level.
        autocast: run the network in this dtype; None for full precision.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, sigma_data: float, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.sigma_data, self.autocast = network, schedule, sigma_data, autocast
        self.clock = Angle()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The logits of x ``(B, *S)`` at times ``(B,)`` of the path."""
        alpha, sigma = self.schedule.numbers(t)
        (scale,) = like(x, (alpha**2 * self.sigma_data**2 + sigma**2) ** -0.5)
        clock = self.clock(self.schedule, t).to(x.device, torch.float32).reshape(-1).expand(len(x))
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            logits: Tensor = self.network(x * scale, clock)
        return logits.to(x.dtype)

    def on(self, schedule: Schedule) -> Rescaled:
        """The same classifier of samples on another path."""
        return Rescaled(self, schedule)


class Rescaled(nn.Module):
    """A classifier read on another path, at the time of equal log-SNR.

    Args:
        classifier: on its own path.
        schedule: the path of the samples; where it is noisier than the classifier's, the classifier's end is taken.
    """

    def __init__(self, classifier: NoisyClassifier, schedule: Schedule) -> None:
        super().__init__()
        self.classifier, self.schedule = classifier, schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The logits of x ``(B, *S)`` at times ``(B,)`` of the other path."""
        own = self.classifier.schedule
        base = own.time(self.schedule.log_snr(t.double()))
        (alpha, sigma), (own_alpha, own_sigma) = self.schedule(t.double()), own(base)
        (factor,) = like(x, ((own_alpha**2 + own_sigma**2) / (alpha**2 + sigma**2)).sqrt())
        logits: Tensor = self.classifier(x * factor, base)
        return logits


class Classification(Task):
    """``E_t E_eps -log p(c | x_t)``: the cross-entropy over the levels of noise (Dhariwal & Nichol 2021, arXiv
    2105.05233).

    Args:
        classifier: what is trained.
        law: how often each time is trained.
    """

    def __init__(self, classifier: NoisyClassifier, law: Law) -> None:
        self.classifier, self.law = classifier, law
        self.players: Mapping[str, nn.Module] = {PLAYER: classifier}

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        assert batch.cond is not None
        assert batch.cond.vector is not None
        t, importance = self._times(batch.noise)
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        alpha, sigma = like(batch.x0, *self.classifier.schedule.numbers(t))
        logits = modules[player](alpha * batch.x0 + sigma * eps, t)
        told = batch.cond.vector  # the class is the first of several attributes
        labels = told if told.ndim == 1 else told[:, 0].long()
        return F.cross_entropy(logits, labels, reduction="none") * importance.to(logits)

    def levels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        t, importance = self._times(batch.noise)
        return self.classifier.schedule.log_snr(t), importance

    def core(self, player: str) -> nn.Module:
        return self.classifier.network

    def _times(self, noise: Noise) -> tuple[Tensor, Tensor]:
        t, importance = self.law.draw(self.classifier.schedule, noise.total, noise.generator(Stream.TIME))
        return noise.own(t), noise.own(importance)
