"""Means and deviations of latents by channel, of any number of batches, in one pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

STILL = 1e-6
"""A channel whose deviation is so much smaller than the largest is rounding, not information."""


@torch.no_grad()
def moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation (of the population) over all samples and positions, ``(C,)`` each, float64 on the CPU.

    Moments of batches are joined by ``m = m_a + d n_b / n``, ``M = M_a + M_b + d^2 n_a n_b / n`` with
    ``d = m_b - m_a``, which does not lose digits where the mean is large (Chan et al. 1983, The American Statistician
    37).

    Args:
        batches: latents ``(B, C, *P)`` each, as an autoencoder makes them.

    Raises:
        ValueError: without latents, for latents that are not finite, and where a channel does not vary.
    """
    count, mean, spread = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for z in batches:
        flat = z.detach().movedim(1, 0).flatten(1).to("cpu", torch.float64)
        if not (more := flat.shape[1]):
            continue
        centre = flat.mean(1)
        step, count = centre - mean, count + more
        spread = spread + (flat - centre[:, None]).square().sum(1) + step.square() * ((count - more) * more / count)
        mean = mean + step * (more / count)
    if count == 0:
        raise ValueError("Statistics of latents need latents, and there are none; give batches of training data.")
    deviation = (spread / count).sqrt()
    if not bool(deviation.isfinite().all()):
        raise ValueError("Some latents are not finite; train the autoencoder again, with a lower learning rate.")
    still = (deviation <= STILL * deviation.max()).nonzero().flatten().tolist()
    if still:
        raise ValueError(
            f"The latent channels {still} do not vary over these data; train with fewer latent channels or a smaller "
            "weight of the KL term."
        )
    return mean, deviation
