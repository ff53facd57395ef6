"""The variational bound on a grid of levels: ``-log p(x0) <= L_T + sum_t L_{t-1} + L_0``, in nats.

Sohl-Dickstein et al. 2015 (arXiv 1503.03585); Ho et al. 2020 (arXiv 2006.11239, eq. 5); Nichol & Dhariwal 2021 (arXiv
2102.09672). The model is the reverse chain on the grid: ``p(x_T) = N(0, V_T I)``, then Gaussians whose mean is the
posterior's with x0 estimated, and a decoder in the last step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import like
from osmotic.objectives.decoders import Decoder
from osmotic.objectives.denoising import error, gap
from osmotic.objectives.posterior import kl, step
from osmotic.schedules import Number, Schedule


class Parts(NamedTuple):
    """The split of the bound, nats per sample.

    Args:
        prior: L_T, ``(B,)``.
        steps: L_{t-1}, one row per step with s > 0, the noisiest first: ``(n - 1, B)``.
        reconstruction: L_0, ``(B,)``.
    """

    prior: Tensor
    steps: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """The bound, ``(B,)``: at least ``-log p(x0)`` in expectation over the noise."""
        return self.prior + self.steps.sum(0) + self.reconstruction


def prior(schedule: Schedule, x0: Tensor, start: Number = 1.0, variance: float | None = None) -> Tensor:
    """``L_T = KL(q(x_T | x0) || N(0, V_T I))``: what the noisiest level still knows about the data, ``(B,)`` nats.

    Args:
        x0: clean samples, ``(B, *S)``.
        start: the time of the noisiest level.
        variance: V_T; ``alpha^2 + sigma^2`` by default, from which sampling starts: 1 on variance-preserving paths.
    """
    alpha, sigma = schedule.scalars(start)
    own = alpha**2 + sigma**2 if variance is None else variance
    narrow = torch.tensor(own / sigma**2, dtype=torch.float64).log()
    d = x0[0].numel()
    return (alpha**2 / own) * x0.square().flatten(1).sum(1) / 2 + d * float(kl(narrow))


def term(
    denoiser: Denoiser,
    x0: Tensor,
    times: Tensor,
    index: Tensor,
    eps: Tensor,
    decoder: Decoder,
    cond: object = None,
    v: float = 0.0,
) -> Tensor:
    """One step's part of the bound: ``KL(q(x_s | x_t, x0) || p(x_s | x_t))``, or the decoder's nats where s = 0.

    The two means differ by ``alpha_s (1 - r^2) (x0 - x0_hat)``; the model's variance is ``log V = v log V_large + (1 -
    v) log V_small``. With v = 0 a step costs ``(snr_s - snr_t) / 2 |x0 - x0_hat|^2``. ``n term`` at a uniform index is
    unbiased for the sum of all n.

    In the last step V_small = 0, of which there is no logarithm: it is replaced by V_small of the step before (by
    V_large if there is none). A fixed v has that variance there whatever it is elsewhere; a learned one interpolates.

    Args:
        denoiser: the model; if it has learned its variance, that is used in place of v.
        x0: clean samples, ``(B, *S)``.
        times: the grid, ``(n + 1,)``, decreasing to 0.
        index: of each sample's step from ``times[index]`` to ``times[index + 1]``, ``(B,)`` int64 on the CPU.
        eps: unit noise, ``(B, *S)``.
        decoder: of the last step.
        cond: handed to the denoiser.
        v: the fixed choice of variance, in [0, 1].

    Returns:
        Nats ``(B,)``.
    """
    if not 0 <= v <= 1:
        raise ValueError(f"The fraction v of the bound's variance lies in [0, 1]; got {v}.")
    t = times[index]
    estimate, wrong = error(denoiser, x0, t, eps, cond)
    return nats(denoiser.schedule, x0, gap(denoiser, wrong, t), times, index, decoder, estimate.v, v)


def nats(
    schedule: Schedule,
    x0: Tensor,
    gap: Tensor,
    times: Tensor,
    index: Tensor,
    decoder: Decoder,
    learned: Tensor | None = None,
    v: float = 0.0,
) -> Tensor:
    """:func:`term` for ``x0_hat = x0 + gap`` and a learned fraction, both ``(B, *S)``, that are already known."""
    last = index == len(times) - 2
    numbers = step(schedule, times[index], times[index + 1])
    floor = step(schedule, times[-3], times[-2]).small if len(times) > 2 else step(schedule, times[0], 0.0).large
    small = torch.where(last, floor, numbers.small)
    # A fixed choice reads as 0 in the last step.
    fixed = torch.where(last, 0.0, torch.tensor(v, dtype=torch.float64))
    scales = like(x0, small.log(), (numbers.large / small).log(), fixed, numbers.x0 / small.sqrt())
    log_small, log_ratio, fixed, moved = (torch.as_tensor(scale) for scale in scales)
    log_ratio = (fixed if learned is None else learned) * log_ratio
    result = (kl(log_ratio) + (gap * moved) ** 2 * torch.exp(-log_ratio) / 2).flatten(1).sum(1)
    if bool(last.any()):
        decoded = decoder(x0, x0 + gap, log_small + log_ratio)
        result = torch.where(last.to(result.device), decoded, result)
    return result


def bound(
    denoiser: Denoiser,
    x0: Tensor,
    times: Tensor,
    eps: Iterable[Tensor],
    decoder: Decoder,
    cond: object = None,
    v: float = 0.0,
    variance: float | None = None,
) -> Parts:
    """The whole bound, with one draw of noise per step: n evaluations of the denoiser.

    Args:
        denoiser: the model; if it has learned its variance, that is used in place of v.
        x0: clean samples, ``(B, *S)``.
        times: the grid, ``(n + 1,)``, decreasing to 0; ``times.Levels()(schedule, T)`` for DDPM's T levels.
        eps: n draws of unit noise ``(B, *S)``, the noisiest step first; a generator expression keeps one at a time.
        decoder: of the last step: Discretised for pictures, Continuous for real numbers.
        cond: handed to the denoiser.
        v: the fixed choice of variance, in [0, 1]: 0 the posterior's, 1 the forward step's.
        variance: of the prior, as in :func:`prior`.

    Returns:
        Its three parts; divide ``total`` by ``d log 2`` for bits per dimension of the data as they are scaled here.
    """
    steps = range(len(times) - 1)
    terms = [
        term(denoiser, x0, times, torch.full((len(x0),), i), noise, decoder, cond, v)
        for i, noise in zip(steps, eps, strict=True)
    ]
    rows = torch.stack(terms)
    return Parts(prior(denoiser.schedule, x0, times[0], variance), rows[:-1], rows[-1])
