"""The variational bound in continuous time: the diffusion loss of variational diffusion models.

Kingma et al. 2021 (arXiv 2107.00630). Between a first level, at a time slightly above 0, and the prior at t = 1 the
bound is an integral over log-SNR: whatever path and clock lead from one to the other, its value is the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import like
from osmotic.objectives.bound import Parts, prior
from osmotic.objectives.decoders import Decoder
from osmotic.objectives.denoising import denoising, error, squared
from osmotic.objectives.weights import Likelihood, Noise
from osmotic.schedules import Number, Schedule


def diffusion(denoiser: Denoiser, x0: Tensor, t: Number, eps: Tensor, cond: object = None) -> Tensor:
    """``1/2 gamma'(t) |eps - eps_hat|^2`` with ``gamma = -log_snr``: the integrand of L_inf, ``(B,)`` nats.

    :func:`~osmotic.objectives.denoising` with the Likelihood weight, times the number of dimensions. Its mean over
    uniform t in [first, 1], times ``1 - first``, is the bound's continuous part; over another law, divide by the
    density. ``laws.Stratified`` draws t with low discrepancy.
    """
    return denoising(denoiser, x0, t, eps, cond, Likelihood()) * x0[0].numel()


def transition(denoiser: Denoiser, x0: Tensor, t: Number, s: Number, eps: Tensor, cond: object = None) -> Tensor:
    """``1/2 expm1(gamma_t - gamma_s) |eps - eps_hat|^2``: one of finitely many steps, from t to s > 0, ``(B,)`` nats.

    T times its mean over ``t = first + (1 - first) i/T`` is VDM's L_T, which falls to L_inf like 1/T.
    """
    schedule = denoiser.schedule
    wrong = error(denoiser, x0, t, eps, cond)[1]
    per_dimension = squared(denoiser, wrong, t, Noise())
    (growth,) = like(per_dimension, torch.expm1(schedule.log_snr(s) - schedule.log_snr(t)))
    return growth * per_dimension * (x0[0].numel() / 2)


def reconstruction(schedule: Schedule, x0: Tensor, first: float, eps: Tensor, decoder: Decoder) -> Tensor:
    """``-log p(x0 | x_first)`` for ``x_first = alpha x0 + sigma eps``, ``(B,)`` nats; no network is involved.

    The decoder is a Gaussian around ``x_first / alpha`` of variance ``1 / snr``; VDM's is Softmax over the levels.
    """
    alpha, sigma = schedule.scalars(first)
    log_variance = -schedule.log_snr(first)
    return decoder(x0, x0 + (sigma / alpha) * eps, log_variance.to(x0))


def continuous_bound(
    denoiser: Denoiser,
    x0: Tensor,
    u: Tensor,
    eps: Tensor | Iterable[Tensor],
    first_eps: Tensor,
    decoder: Decoder,
    first: float,
    cond: object = None,
    steps: int | None = None,
) -> Parts:
    """A draw of the whole bound: prior, diffusion and reconstruction, ``(B,)`` nats each.

    Args:
        denoiser: the model.
        x0: clean samples, ``(B, *S)``.
        u: uniform in (0, 1), float64, ``(B,)``, or ``(K, B)`` for the mean of K draws of the diffusion part; ``t =
            first + (1 - first) u``.
        eps: unit noise of the diffusion part, ``(B, *S)``, or K of them; a generator expression keeps one at a time.
        first_eps: unit noise of the first level, ``(B, *S)``.
        decoder: of the reconstruction.
        first: time of the first level, in (0, 1).
        cond: handed to the denoiser.
        steps: None for continuous time; T rounds u up to ``ceil(u T) / T`` and takes L_T.

    Returns:
        The parts; ``steps`` has K rows, whose sum is unbiased for the diffusion part.

    Raises:
        ValueError: for a first time outside (0, 1).
    """
    if not 0 < first < 1:
        raise ValueError(f"The bound in continuous time needs a first time in (0, 1); got {first}.")
    span, draws = 1 - first, u.reshape(-1, len(x0))

    def middle(u: Tensor, eps: Tensor) -> Tensor:
        if steps is None:
            return span * diffusion(denoiser, x0, first + span * u, eps, cond)
        index = torch.ceil(u * steps).clamp(1, steps)
        t, s = first + span * index / steps, first + span * (index - 1) / steps
        return steps * transition(denoiser, x0, t, s, eps, cond)

    noises = [eps] if isinstance(eps, Tensor) else eps
    rows = torch.stack([middle(row, noise) for row, noise in zip(draws, noises, strict=True)])
    last = reconstruction(denoiser.schedule, x0, first, first_eps, decoder)
    return Parts(prior(denoiser.schedule, x0), rows / len(rows), last)
