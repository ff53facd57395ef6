"""What keeps the latents of an autoencoder in bounds: near the standard normal law, or near a codebook."""

from __future__ import annotations

from torch import Tensor

from osmotic.objectives.posterior import kl


def kl_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(mean, exp(log_variance)) || N(0, I)) = sum(mean^2 + exp(l) - 1 - l) / 2`` in nats, ``(B,)``.

    Kingma & Welling 2014 (arXiv 1312.6114, appendix B). Summed over a sample's latent: as the rate of a bound on the
    likelihood it is weighed by 1 against nats; against a mean error, by about 1e-6 (Rombach et al. 2022, arXiv
    2112.10752).

    Args:
        mean: ``(B, *Z)``.
        log_variance: likewise.
    """
    return (mean.square() / 2 + kl(-log_variance)).flatten(1).sum(1)


def commitment(h: Tensor, nearest: Tensor) -> Tensor:
    """``mean |h - sg(nearest)|^2`` ``(B,)``: draws what was encoded to its code, and leaves the codebook alone.

    van den Oord et al. 2017 (arXiv 1711.00937, eq. 3), who weigh it by 0.25.

    Args:
        h: what the encoder gave, ``(B, C, *P)``.
        nearest: the nearest vectors of the codebook, likewise.
    """
    loss: Tensor = (h - nearest.detach()).square().flatten(1).mean(1)
    return loss
