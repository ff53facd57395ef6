"""The last step of a likelihood: the probability of a clean sample under a Gaussian around an estimate of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Decoder(ABC):
    """``decoder(x0, mean, log_variance) -> -log p(x0)``, per sample. A new decoder is one class with one method."""

    @abstractmethod
    def elements(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """``-log p`` of each element in nats, ``(B, *S)``."""

    def __call__(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Nats ``(B,)``; all three arguments are ``(B, *S)``, or broadcast to that."""
        return self.elements(x0, mean, log_variance).flatten(1).sum(1)


class Continuous(Decoder):
    """The Gaussian's own density: for data that are no integers. Its nats may be negative."""

    def elements(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        return ((x0 - mean) ** 2 * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)) / 2


class _Levels(Decoder):
    """Data that take ``levels`` evenly spaced values from -1 to 1.

    Args:
        levels: how many; 256 for bytes scaled by ``x / 127.5 - 1``.
    """

    def __init__(self, levels: int = 256) -> None:
        if levels < 2:
            raise ValueError(f"{type(self).__name__} needs at least two levels; got {levels}.")
        self.levels = levels


class Discretised(_Levels):
    """The Gaussian's mass in the bin of x0, of width ``2 / (levels - 1)``; the first and last bin are open.

    Ho et al. 2020 (arXiv 2006.11239, eq. 13), with the exact normal integral in place of a tanh approximation.
    """

    def elements(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        half, scale = 1 / (self.levels - 1), torch.exp(-log_variance / 2)
        z, width = (x0 - mean) * scale, half * scale
        inside = log_mass(z, width)
        # Bins are told apart by their middles: nothing rounds so far as half a bin.
        low, high = torch.special.log_ndtr(z + width), torch.special.log_ndtr(width - z)
        return -torch.where(x0 < half - 1, low, torch.where(x0 > 1 - half, high, inside))


def log_mass(z: Tensor, half: Tensor) -> Tensor:
    """``log(Phi(z + half) - Phi(z - half))``, without cancellation in either tail."""
    z = -z.abs()  # by symmetry; both ends are then in the tail where log Phi has all its digits
    high, low = torch.special.log_ndtr(z + half), torch.special.log_ndtr(z - half)
    # A bin of less than one rounding error would have no mass at all.
    share: Tensor = -torch.expm1((low - high).clamp(max=-torch.finfo(z.dtype).eps))
    mass: Tensor = high + share.log()
    return mass


class Softmax(_Levels):
    """A softmax over all levels of the Gaussian's density at each: ``p(x) = N(x) / sum_k N(x_k)``.

    Kingma et al. 2021 (arXiv 2107.00630), with ``mean = x_0 / alpha_0`` and ``log_variance = -log_snr_0``.
    """

    def elements(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        values = torch.linspace(-1, 1, self.levels, dtype=x0.dtype, device=x0.device)
        scale = torch.exp(-log_variance) / 2
        every = -((values - mean[..., None]) ** 2) * (scale[..., None] if scale.ndim else scale)
        return (x0 - mean) ** 2 * scale + torch.logsumexp(every, -1)
