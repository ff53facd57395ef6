"""The terms of a latent model's variational bound, end to end: reconstruction, entropy and cross-entropy.

Vahdat et al. 2021, LSGM (arXiv 2106.05931): ``-log p(x) <= E[-log p(x | z0)] + KL(q(z0 | x) || p(z0))``, and the KL is
the negative entropy of the encoder plus the cross-entropy to the prior, which score matching gives for any prior that
has a denoiser. All terms are nats per sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import like
from osmotic.objectives.bound import prior
from osmotic.objectives.continuous_bound import diffusion
from osmotic.schedules import Number


class Terms(NamedTuple):
    """The bound's three terms, ``(B,)`` nats each.

    Args:
        reconstruction: ``-log p(x | z0)``, by a :class:`~osmotic.objectives.decoders.Decoder`.
        negative_entropy: ``E[log q(z0 | x)]``.
        cross_entropy: ``E[-log p(z0)]``.
    """

    reconstruction: Tensor
    negative_entropy: Tensor
    cross_entropy: Tensor

    @property
    def kl(self) -> Tensor:
        """``KL(q(z0 | x) || p(z0))``, ``(B,)``."""
        return self.negative_entropy + self.cross_entropy

    @property
    def total(self) -> Tensor:
        """The bound, ``(B,)``: at least ``-log p(x)`` in expectation."""
        return self.reconstruction + self.kl


def negative_entropy(log_variance: Tensor) -> Tensor:
    """``E[log q] = -1/2 sum log(2 pi e v)`` of a normal law with independent entries, ``(B,)`` nats.

    Args:
        log_variance: ``log v`` of each entry, ``(B, *Z)``; an encoder's.
    """
    entropy: Tensor = (log_variance + math.log(2 * math.pi * math.e)).flatten(1).sum(1) / 2
    return -entropy


def cross_entropy(
    denoiser: Denoiser,
    z0: Tensor,
    t: Number,
    importance: Number,
    eps: Tensor,
    first: float,
    cond: object = None,
) -> Tensor:
    """A draw of ``CE(q(z0 | x) || p(z0))`` by denoising score matching, ``(B,)`` nats.

    ``(1 - first) w g^2 / (2 sigma^2) |eps - eps_hat|^2 + KL(q(z_1 | z0) || p(z_1)) + D/2 log(2 pi e sigma_0^2)`` for
    z0 ~ q, with sigma_0 the noise that z0 has at the first time, per unit of signal (LSGM has alpha_0 = 1). The second
    term, which LSGM leaves out, is what is known of z0 at t = 1, where p is N(0, (alpha^2 + sigma^2) I). In expectation
    this is exactly the cross-entropy of the two laws blurred by N(0, sigma_0^2), on any path; it tends to that of the
    laws themselves as ``first`` falls to 0.

    Differentiable in z0 (hence in the encoder) and in the denoiser.

    Args:
        denoiser: of the prior.
        z0: draws of the encoder, ``(B, *Z)``.
        t: times in [first, 1], ``(B,)``.
        importance: w, the density of uniform times over that by which t was drawn: ``laws.NoiseShare(first)`` gives
            both; 1 for ``t = first + (1 - first) u``.
        eps: unit noise, ``(B, *Z)``.
        first: the first time, in (0, 1).
        cond: handed to the denoiser.

    Raises:
        ValueError: for a first time outside (0, 1).
    """
    if not 0 < first < 1:
        raise ValueError(f"The cross-entropy needs a first time in (0, 1); got {first}.")
    schedule = denoiser.schedule
    alpha, sigma = schedule.scalars(first)
    matched = diffusion(denoiser, z0, t, eps, cond)
    (weight,) = like(matched, importance)
    kernel = z0[0].numel() / 2 * math.log(2 * math.pi * math.e * (sigma / alpha) ** 2)
    return (1 - first) * weight * matched + prior(schedule, z0) + kernel
