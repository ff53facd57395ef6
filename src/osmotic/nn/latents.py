"""Means and deviations of latents, measured once, so that a diffusion model sees zero mean and unit variance."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

STILL = 1e-6
"""A channel whose deviation is so much smaller than the largest is rounding, not information."""


class LatentStatistics(nn.Module):
    """``unit(z) = (z - mean) / std`` and back, channel by channel; the identity before it is measured.

    Rombach et al. 2022 (arXiv 2112.10752, appendix G) divide by one number; here each channel has its own, and its mean
    is taken off. For z ``(B, C, *P)``.

    Args:
        channels: C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Take mean and deviation (of the population) over all samples and positions, in float64, in one pass.

        Moments of batches are joined by ``m = m_a + d n_b / n``, ``M = M_a + M_b + d^2 n_a n_b / n`` with
        ``d = m_b - m_a``, which does not lose digits where the mean is large (Chan et al. 1983, The American
        Statistician 37).

        Args:
            batches: latents ``(B, C, *P)`` each, as the autoencoder makes them, not yet standardised.

        Raises:
            ValueError: without latents, for latents that are not finite, and where a channel does not vary.
        """
        count, mean, spread = 0, *torch.zeros(2, *self.mean.shape, dtype=torch.float64)
        for z in batches:
            self._check(z)
            flat = z.detach().movedim(1, 0).flatten(1).to("cpu", torch.float64)
            if not (more := flat.shape[1]):
                continue
            centre = flat.mean(1)
            step, count = centre - mean, count + more
            spread = spread + (flat - centre[:, None]).square().sum(1) + step.square() * ((count - more) * more / count)
            mean = mean + step * (more / count)
        if count == 0:
            raise ValueError("Statistics of latents need latents, and there are none; give batches of training data.")
        std = (spread / count).sqrt()
        if not bool(std.isfinite().all()):
            raise ValueError("Some latents are not finite; train the autoencoder again, with a lower learning rate.")
        still = (std <= STILL * std.max()).nonzero().flatten().tolist()
        if still:
            raise ValueError(
                f"Latent channels {still} do not vary over these data; train with fewer latent channels or a smaller "
                "weight of the KL term."
            )
        self.mean.copy_(mean)
        self.std.copy_(std)

    def unit(self, z: Tensor) -> Tensor:
        """Latents as a diffusion model sees them, ``(B, C, *P)``."""
        self._check(z)
        return (z - _wide(self.mean, z)) / _wide(self.std, z)

    def back(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`unit`."""
        self._check(z)
        return torch.addcmul(_wide(self.mean, z), z, _wide(self.std, z))

    def _check(self, z: Tensor) -> None:
        if z.dim() < 2 or z.shape[1] != len(self.mean):
            raise ValueError(f"These latents have {len(self.mean)} channels, (B, C, ...); found {tuple(z.shape)}.")


def _wide(numbers: Tensor, z: Tensor) -> Tensor:
    return numbers.to(z).view(-1, *[1] * (z.dim() - 2))
