"""Inpainting by replacement: a known part of the sample is kept, the denoiser fills in the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, combine
from osmotic.guidance.base import refuse_matrices, refuse_renoised
from osmotic.levels import Level, as_time
from osmotic.schedules import Number


class Inpaint(Denoiser):
    """Where mask = 1 the reference is KEPT; where mask = 0 the denoiser paints.

    ``x0 <- mask known + (1 - mask) x0`` and ``eps <- (x - alpha x0) / sigma``, so that the estimate still meets the
    path's equation. A sampler whose last step lands on x0 ends at ``known`` where mask = 1, and most do; one that
    integrates up to the data (``rk4``, ``heun-time``, the adaptive ones) ends there within its own error.

    This is not a draw from the conditional law, which :func:`osmotic.inverse.draw` is for. The denoiser sees the known
    part as noisy as the rest, ``alpha known + sigma eps``, so what it paints listens to the known part too little: of
    two standard normals with correlation r the painted one's mean is ``(r / 3) 2F1(1/2, 1; 7/4; r^2) known`` along the
    flow of a variance-preserving path, between a third and the whole of the exact ``r known``. Source: Song et
    al. 2021 (arXiv 2011.13456, appendix I.2) replace x; Wang et al. 2022 (arXiv 2212.00490) the estimate, as here;
    Trippe et al. 2023 (arXiv 2206.04119) on the bias.

    Args:
        denoiser: any, guided or not.
        known: the reference, one ``(*S)`` or one per sample ``(B, *S)``; read only where the mask is not 0.
        mask: of known's shape or one that broadcasts to it, 1 or True to keep, 0 to paint, between them a blend.

    Raises:
        ValueError: for a mask outside [0, 1] or of a shape that does not fit, or a path whose numbers are matrices.
    """

    known: Tensor
    mask: Tensor

    def __init__(self, denoiser: Denoiser, known: Tensor, mask: Tensor) -> None:
        super().__init__()
        refuse_matrices(denoiser, "Inpaint")
        refuse_renoised(denoiser, "Inpaint")
        mask = mask.to(known)
        if not bool(((mask >= 0) & (mask <= 1)).all()):
            raise ValueError("A mask lies in [0, 1], 1 to keep and 0 to paint; this one has other values.")
        try:
            mask.expand_as(known)
        except RuntimeError:
            raise ValueError(
                f"A mask of shape {tuple(mask.shape)} does not fit a reference of shape {tuple(known.shape)}; give it "
                "that shape, or 1 where it is the same along an axis."
            ) from None
        self.denoiser = denoiser
        self.around(denoiser)
        # What is not kept may be anything, NaN too: it must not reach the sample through 0 * NaN.
        self.register_buffer("known", torch.where(mask == 0, 0.0, known))
        self.register_buffer("mask", mask)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        t = as_time(t)
        estimate: Estimate = self.denoiser(x, t, cond, s)
        x0 = torch.lerp(estimate.x0, self.known.to(x), self.mask.to(x))
        alpha, sigma = self.schedule.numbers(t)
        eps = combine(x, x0, 1 / sigma, -alpha / sigma)
        return Estimate(x0, eps, estimate.v)
