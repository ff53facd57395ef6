"""Hybrid score matching: the training objective of a phase path whose initial velocity is marginalised."""

from __future__ import annotations

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import as_time
from osmotic.phase.estimate import PhaseEstimate
from osmotic.phase.matrix import apply
from osmotic.phase.path import path_of
from osmotic.phase.targets import PhaseTarget, VelocityNoise
from osmotic.schedules import Number


def hybrid(
    denoiser: Denoiser,
    x0: Tensor,
    t: Number,
    eps: Tensor,
    cond: object = None,
    target: PhaseTarget | None = None,
) -> Tensor:
    """The squared error of the estimate in a target's space, at ``u_t = A (x0, 0) + R eps``, per sample.

    With VelocityNoise it is CLD's hybrid score matching, ``l_vv^2 |grad_v log p(u_t | x0) - s_v|^2`` averaged over the
    dimensions: score matching in the velocity, denoising in the position, because p(u_t | x0) has the initial velocity
    integrated out (Dockhorn, Vahdat & Kreis 2021, arXiv 2112.07068, eq. 8). With Noise it is gDDIM's ``|eps_hat -
    eps|^2`` (Zhang, Tao & Chen 2022, arXiv 2206.05564).

    Args:
        denoiser: on a phase path.
        x0: data, ``(B, *S)``.
        t: times in (0, 1], ``()`` or ``(B,)``.
        eps: unit noise, ``(B, 2, *S)``.
        cond: handed to the denoiser.
        target: in whose space the error is measured; the denoiser's own output if it has one, else VelocityNoise.

    Returns:
        Losses ``(B,)``, the mean over a sample's outputs.
    """
    path, t = path_of(denoiser), as_time(t)
    target = target or getattr(denoiser, "output", None) or VelocityNoise()
    (a, r), (p, q) = path.matrices(t), target.rows(path, t)
    clean = torch.stack([x0, torch.zeros_like(x0)], 1)
    estimate: PhaseEstimate = denoiser(apply([(a, clean), (r, eps)]), t, cond)
    error = estimate.at(p, q) - apply([(p, clean), (q, eps)])
    loss: Tensor = error[:, : target.outputs].square().flatten(1).mean(1)
    return loss
