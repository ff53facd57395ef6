"""What stands between an encoder and a decoder: a law of latents, from which one is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

QUIET, LOUD = -30.0, 20.0
"""Bounds of log-variances, as in Rombach et al.'s code: exp of more is no number to train with."""


class Law(Protocol):
    """What an encoder says of a batch."""

    def drawn(self, eps: Tensor | None = None) -> Tensor:
        """What the decoder reads in training, ``(B, C, *P)``."""

    def latent(self, eps: Tensor | None = None) -> Tensor:
        """What a diffusion model of latents learns, ``(B, C, *P)``."""


class Bottleneck(nn.Module, ABC):
    """``law = bottleneck(h)`` of the encoder's features h ``(B, outputs C, *P)``, for latents of C channels.

    A new kind writes a law, these two methods and ``outputs``.

    Attributes:
        outputs: numbers that the encoder gives for each number of a latent.
    """

    outputs: int

    @abstractmethod
    def forward(self, h: Tensor) -> Law:
        """The law of the latents."""

    @abstractmethod
    def snap(self, z: Tensor) -> Tensor:
        """The latent nearest to z ``(B, C, *P)`` of those that the decoder knows."""


class Posterior(NamedTuple):
    """The law ``q(z | x) = N(mean, exp(log_variance))``, both ``(B, C, *P)``."""

    mean: Tensor
    log_variance: Tensor

    def drawn(self, eps: Tensor | None = None) -> Tensor:
        """``z = mean + exp(log_variance / 2) eps``, with unit noise eps ``(B, C, *P)``; None is the mean."""
        return self.mean if eps is None else torch.addcmul(self.mean, torch.exp(self.log_variance / 2), eps)

    def latent(self, eps: Tensor | None = None) -> Tensor:
        """The same: what the decoder reads is what is diffused."""
        return self.drawn(eps)


class Gaussian(Bottleneck):
    """The encoder's features are the mean and the log-variance of a latent, one after the other (KL autoencoders).

    Kingma & Welling 2014 (arXiv 1312.6114). Log-variances are cut to [-30, 20]. h ``(B, 2 C, *P)`` to a
    :class:`Posterior` of ``(B, C, *P)``, in float32 at least.
    """

    outputs = 2

    def forward(self, h: Tensor) -> Posterior:
        if h.shape[1] % 2:
            raise ValueError(
                f"A Gaussian bottleneck reads a mean and a log-variance for each latent channel; {h.shape[1]} channels "
                "cannot be halved, so give the encoder twice as many outputs as latent channels."
            )
        mean, log_variance = h.to(torch.promote_types(h.dtype, torch.float32)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(QUIET, LOUD))

    def snap(self, z: Tensor) -> Tensor:
        return z
