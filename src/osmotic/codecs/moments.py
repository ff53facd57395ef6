"""Means and deviations of latents by channel, of any number of batches, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

STILL = 1e-6
"""A channel whose deviation is so much smaller than the largest is rounding, not information."""


class Sums(NamedTuple):
    """What is known of values so far: how many, their mean, and the sum of squares around it, float64.

    Sums are joined by ``m = m_a + d n_b / n``, ``M = M_a + M_b + d^2 n_a n_b / n`` with ``d = m_b - m_a``, which does
    not lose digits where the mean is large (Chan et al. 1983, The American Statistician 37).
    """

    number: int
    mean: Tensor
    spread: Tensor

    def joined(self, values: Tensor) -> Sums:
        """With ``(..., n)`` more, float64; n may be 0."""
        if not (more := values.shape[-1]):
            return self
        centre, count = values.mean(-1), self.number + more
        step = centre - self.mean.to(centre)
        inner = (values - centre[..., None]).square().sum(-1)
        spread = self.spread.to(centre) + inner + step.square() * (self.number * more / count)
        return Sums(count, self.mean.to(centre) + step * (more / count), spread)

    @property
    def variance(self) -> Tensor:
        """Of the population."""
        return self.spread / self.number


NONE = Sums(0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


@torch.no_grad()
def moments(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation (of the population) over all samples and positions, ``(C,)`` each, float64 on the CPU.

    Args:
        batches: latents ``(B, C, *P)`` each, as an autoencoder makes them.

    Raises:
        ValueError: without latents, for latents that are not finite, and where a channel does not vary.
    """
    found = NONE
    for z in batches:
        found = found.joined(z.detach().movedim(1, 0).flatten(1).to("cpu", torch.float64))
    if found.number == 0:
        raise ValueError("Statistics of latents need latents, and there are none; give batches of training data.")
    mean, deviation = found.mean, found.variance.sqrt()
    if not bool(deviation.isfinite().all()):
        raise ValueError("Some latents are not finite; train the autoencoder again, with a lower learning rate.")
    still = (deviation <= STILL * deviation.max()).nonzero().flatten().tolist()
    if still:
        raise ValueError(
            f"The latent channels {still} do not vary over these data; train with fewer latent channels or a smaller "
            "weight of the KL term."
        )
    return mean, deviation
