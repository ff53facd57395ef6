"""Score matching: four losses with one minimum, the score ``grad log q``.

Hyvarinen 2005 (JMLR 6); Vincent 2011 (Neural Computation 23); Song et al. 2019 (arXiv 1905.07088). Averaged over the
data, ``explicit = implicit + E|grad log q|^2 / 2 = denoising + a constant``: they differ by what no score can change.
Those constants appear in the average only, not at a single data point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.divergence import Exact
from osmotic.estimate import Estimate, like
from osmotic.levels import as_time
from osmotic.schedules import Number

# Of a whole batch: ``(B, *S) -> (B,)`` nats, and its gradient in x, ``(B, *S)`` to the same.
LogDensity: TypeAlias = Callable[[Tensor], Tensor]
Score: TypeAlias = Callable[[Tensor], Tensor]


def score_of(denoiser: Denoiser, t: Number, cond: object = None) -> Score:
    """A denoiser's score at one noise level: ``x -> -eps / sigma`` (Tweedie's formula), ``(B, *S)`` to the same.

    Args:
        t: ``()`` or ``(B,)``, with sigma_t > 0.
    """
    t = as_time(t)

    def score(x: Tensor) -> Tensor:
        estimate: Estimate = denoiser(x, t, cond)
        (scale,) = like(x, -1 / denoiser.schedule.numbers(t)[1])
        return estimate.eps * scale

    return score


def half_square(x: Tensor) -> Tensor:
    """``|x|^2 / 2`` per sample, ``(B,)``."""
    half: Tensor = x.square().flatten(1).sum(1) / 2
    return half


def explicit(score: Score, truth: Score, x: Tensor) -> Tensor:
    """``|s(x) - grad log q(x)|^2 / 2``: the Fisher divergence, where the true score is known.

    Args:
        score: the model.
        truth: the true score.
        x: samples of q, ``(B, *S)``.

    Returns:
        ``(B,)``.
    """
    return half_square(score(x) - truth(x))


def implicit(score: Score, x: Tensor) -> Tensor:
    """``|s(x)|^2 / 2 + div s(x)``: Hyvarinen's rule, with the exact divergence (one derivative per dimension).

    Below :func:`explicit` by ``E|grad log q|^2 / 2`` in the mean over x ~ q, whatever the score.

    Args:
        score: the model, which must treat the samples of a batch separately.
        x: samples of q, ``(B, *S)``.

    Returns:
        ``(B,)``, differentiable.
    """
    value, divergence = Exact().fixed(x).of(score, x, differentiable=True)
    with torch.enable_grad():
        return half_square(value) + divergence[:, 0].to(value)


def sliced(score: Score, x: Tensor, probes: Tensor, projected: bool = False) -> Tensor:
    """``|s|^2 / 2 + v' grad(s) v``: :func:`implicit` with the divergence seen along one random direction.

    Unbiased for probes with ``E v v' = I``: Rademacher signs or unit normal numbers. Song et al. 2019 (arXiv
    1905.07088, eq. 8); one derivative whatever the dimension.

    Args:
        score: the model, which must treat the samples of a batch separately.
        x: samples of q, ``(B, *S)``.
        probes: directions v, ``(B, *S)``.
        projected: ``(v' s)^2 / 2`` in place of ``|s|^2 / 2``: the paper's first form, of larger variance.

    Returns:
        ``(B,)``, differentiable.
    """
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        value = score(x)
        along = (value * probes).flatten(1).sum(1)
        (slope,) = torch.autograd.grad(along.sum(), x, create_graph=True, materialize_grads=True)
        curvature: Tensor = (slope * probes).flatten(1).sum(1)
        return (along**2 / 2 if projected else half_square(value)) + curvature


def denoising_score(score: Score, x0: Tensor, alpha: Number, sigma: Number, eps: Tensor) -> Tensor:
    """``|s(x_t) + eps / sigma|^2 / 2`` at ``x_t = alpha x0 + sigma eps``: the conditional score stands for the true
    one.

    Equal to :func:`explicit` for the diffused density up to a constant, in the mean over x0 and eps (Vincent 2011).
    With weight ``sigma^2`` it is half of the summed squared error of eps: L_simple, NCSN's loss.

    Args:
        score: the model at this noise level.
        x0: clean samples, ``(B, *S)``.
        alpha: of the path, ``()`` or ``(B,)``; 1 for NCSN.
        sigma: likewise, positive.
        eps: unit noise, ``(B, *S)``.

    Returns:
        ``(B,)``.
    """
    alpha, sigma = like(x0, alpha, sigma)
    return half_square(score(alpha * x0 + sigma * eps) + eps / sigma)
