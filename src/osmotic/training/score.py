"""Training a denoiser by score matching: over NCSN's ladder of noise, or sliced."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import like
from osmotic.laws import Ladder, Law, Stratified
from osmotic.objectives.score_matching import score_of, sliced
from osmotic.objectives.weights import Noise as NoiseWeight
from osmotic.schedules import Schedule
from osmotic.times import LogSNR
from osmotic.training.denoise import Denoising, Drop
from osmotic.training.task import Batch, Stream

PROBE = 100
"""The stream of random directions."""

CLEANEST, OVERLAP = 0.02, 0.5
"""The ladder's last level in deviations of the data (NCSN's 0.01 for data in [0, 1]), and how far two neighbours
share their mass."""


class NCSN(Denoising):
    """Denoising score matching with weight sigma^2 at the levels of a geometric ladder, all equally often.

    ``sigma^2 |s(x_t) + eps / sigma|^2 = |eps_hat - eps|^2``: the denoising objective with :class:`Ladder` and the Noise
    weight, on any target. Song & Ermon 2019 (arXiv 1907.05600); the number of levels by 2020 (arXiv 2006.09011).

    Args:
        denoiser: what is trained; on a VE path for NCSN, but any will do.
        shape: of a sample, which decides the number of levels.
        sigma_data: the data's standard deviation.
        drop: how often conditions are hidden.
    """

    def __init__(self, denoiser: Denoiser, shape: Sequence[int], sigma_data: float, drop: Drop | None = None) -> None:
        levels = ladder(denoiser.schedule, math.prod(shape), sigma_data)
        super().__init__(denoiser, Stratified(Ladder(levels)), NoiseWeight(), drop)


class SlicedScore(Denoising):
    """Sliced score matching at every noise level, ``sigma^2 / d (|s|^2 / 2 + v' grad(s) v)`` with Rademacher v.

    It needs no conditional score, only samples of each level; its noise is larger than the denoising loss's, and it
    costs a second derivative. Song et al. 2019 (arXiv 1905.07088); over noise levels, Song & Ermon 2019 (arXiv
    1907.05600). The value may be negative: at the true score it is ``-sigma^2 E|s|^2 / (2 d)``.

    Args:
        denoiser: what is trained.
        law: how often each time is trained.
        drop: how often conditions are hidden.
    """

    def __init__(self, denoiser: Denoiser, law: Law, drop: Drop | None = None) -> None:
        super().__init__(denoiser, law, drop=drop)

    def measure(self, denoiser: Denoiser, batch: Batch, t: Tensor, cond: Condition | None) -> Tensor:
        shape = batch.x0.shape[1:]
        eps = batch.noise.normal(Stream.NOISE, shape)
        probes = torch.where(batch.noise.normal(PROBE, shape) < 0, -1.0, 1.0)
        alpha, sigma = like(batch.x0, *denoiser.schedule.numbers(t))
        loss = sliced(score_of(denoiser, t, cond), alpha * batch.x0 + sigma * eps, probes)
        (weight,) = like(loss, denoiser.schedule(t)[1] ** 2 / math.prod(shape))
        loss = loss * weight
        return loss if torch.is_grad_enabled() else loss.detach()


def ladder(schedule: Schedule, d: int, sigma_data: float) -> Tensor:
    """Times of a geometric ladder from t = 1, so close that neighbours in d dimensions overlap by about a half.

    The ratio g of neighbours solves ``Phi(sqrt(2d) (g - 1) + 3g) - Phi(sqrt(2d) (g - 1) - 3g) = 1/2`` (Song & Ermon
    2020, arXiv 2006.09011, technique 2), but is 2 at most, where few dimensions would allow gaps.
    """
    last = CLEANEST * sigma_data
    noisiest = min(math.exp(-float(schedule.log_snr(1.0)) / 2), 160 * sigma_data)
    count = 1 + math.ceil(math.log(noisiest / last) / math.log(ratio(d)))
    return LogSNR(last, noisiest)(schedule, count)


def ratio(d: int) -> float:
    """Technique 2's ratio of neighbouring levels in d dimensions, in (1, 2]."""
    low, high = 1.0, 2.0

    def overlap(g: float) -> float:
        middle = math.sqrt(2 * d) * (g - 1)
        return (math.erf((middle + 3 * g) / math.sqrt(2)) - math.erf((middle - 3 * g) / math.sqrt(2))) / 2

    for _ in range(60):
        g = (low + high) / 2
        low, high = (g, high) if overlap(g) > OVERLAP else (low, g)
    return high
