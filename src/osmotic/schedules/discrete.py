"""Discrete-time schedules: T levels given by betas, as DDPM has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from osmotic.levels import as_time
from osmotic.schedules.base import Number, Schedule


class Discrete(Schedule):
    """T levels at ``t = i/T, i = 1..T``, with ``alpha_i^2 = prod_{j <= i} (1 - beta_j)``; level 0 is clean data.

    Ho et al. 2020 (arXiv 2006.11239). Between levels alpha^2 is interpolated linearly, so the pair is exact at every
    level, continuous, and finite also where the last level has no signal left.

    Args:
        betas: the T forward variances, each in (0, 1); the last may be 1 (zero terminal signal-to-noise ratio).

    Raises:
        ValueError: if a beta lies outside its range, naming the first.
    """

    def __init__(self, betas: Sequence[float] | np.ndarray | Tensor) -> None:
        betas = np.asarray(betas, dtype=np.float64)
        bad = np.flatnonzero(
            ~((betas > 0) & ((betas < 1) | ((betas == 1) & (np.arange(betas.size) == betas.size - 1))))
        )
        if betas.ndim != 1 or betas.size == 0:
            raise ValueError(f"Discrete needs a one-dimensional, non-empty array of betas; got shape {betas.shape}.")
        if bad.size:
            raise ValueError(f"Every beta must lie in (0, 1); beta {bad[0] + 1} of {betas.size} is {betas[bad[0]]}.")
        with np.errstate(divide="ignore"):
            log_signal = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
        # Signal and noise power are kept apart: 1 - alpha^2 would cancel at the first levels.
        self.signal = torch.from_numpy(np.exp(log_signal))
        self.noise = torch.from_numpy(-np.expm1(log_signal))
        self.betas = torch.from_numpy(betas)

    @property
    def levels(self) -> int:
        """T, the number of noisy levels."""
        return len(self.betas)

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        position = t * self.levels
        # An exact level i/T may round to just beside i; snapping keeps levels exact and levels are what is asked for
        # most.
        nearest = position.detach().round()
        lower = position.detach().floor().clamp(0, self.levels - 1)
        lower = torch.where((position.detach() - nearest).abs() < 1e-9, nearest.clamp(max=self.levels - 1), lower)
        weight = position - lower
        weight = torch.where(weight.detach().abs() < 1e-9, weight - weight.detach(), weight)
        index = lower.long()
        return self._read(self.signal, index, weight).sqrt(), self._read(self.noise, index, weight).sqrt()

    @staticmethod
    def _read(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        table = table.to(weight)
        low, high = table[index], table[index + 1]
        return torch.lerp(low, high, weight)

    def time(self, log_snr: Number) -> Tensor:
        log_snr = as_time(log_snr)
        noise, signal = torch.sigmoid(-log_snr), torch.sigmoid(log_snr)
        noises, signals = self.noise.to(log_snr), self.signal.to(log_snr)
        index = (torch.searchsorted(noises, noise.contiguous(), right=True) - 1).clamp(0, self.levels - 1)
        # Each weight comes from the smaller of the two powers, where the other one has lost its digits.
        by_noise = (noise - noises[index]) / (noises[index + 1] - noises[index])
        by_signal = (signals[index] - signal) / (signals[index] - signals[index + 1])
        weight = torch.where(noise < 0.5, by_noise, by_signal).clamp(0, 1)
        return (index + weight) / self.levels

    @staticmethod
    def linear(levels: int = 1000, first: float = 1e-4, last: float = 0.02) -> Discrete:
        """DDPM's betas, evenly spaced (Ho et al. 2020, arXiv 2006.11239)."""
        return Discrete(np.linspace(first, last, levels))

    @staticmethod
    def scaled_linear(levels: int = 1000, first: float = 0.00085, last: float = 0.012) -> Discrete:
        """Latent diffusion's betas, evenly spaced in their square root (Rombach et al. 2022, arXiv 2112.10752)."""
        return Discrete(np.linspace(math.sqrt(first), math.sqrt(last), levels) ** 2)

    @staticmethod
    def cosine(levels: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Discrete:
        """Improved DDPM's betas (Nichol & Dhariwal 2021, arXiv 2102.09672): ratios of a squared cosine, capped at
        ``largest``.
        """
        phase = (np.arange(levels + 1) / levels + offset) / (1 + offset) * math.pi / 2
        signal = np.cos(phase) ** 2
        return Discrete(np.minimum(1 - signal[1:] / signal[:-1], largest))

    @staticmethod
    def sigmoid(levels: int = 1000, first: float = 1e-4, last: float = 0.02, span: float = 6.0) -> Discrete:
        """Betas along a logistic curve from ``first`` to ``last`` (the molecule schedule of Xu et al. 2022, arXiv
        2203.02923).
        """
        return Discrete(first + (last - first) / (1 + np.exp(-np.linspace(-span, span, levels))))

    def zero_terminal(self) -> Discrete:
        """These levels rescaled so that the last has no signal: ``a <- (a - a_T) a_1 / (a_1 - a_T)`` on ``a = alpha``.

        Lin et al. 2023 (arXiv 2305.08891). The first level keeps its alpha. A target that is singular at alpha = 0
        (eps, score) cannot start there; use v, velocity or Karras.
        """
        alpha = self.signal[1:].sqrt().numpy()
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        signal = np.concatenate([[1.0], alpha**2])
        return Discrete(1 - signal[1:] / signal[:-1])
