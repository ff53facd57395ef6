"""Rescaled guidance: the guided clean sample gets back the contrast of the plain one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance, completed, led, refuse_matrices, refuse_renoised
from osmotic.levels import Level, as_time
from osmotic.schedules import Number


class Rescale(Guidance):
    """``x0 <- x0 (share std(plain x0) / std(x0) + 1 - share)``, then ``eps = (x - alpha x0) / sigma``.

    The standard deviation is each sample's, over all its elements. It is taken of x0, the clean sample: over-exposure
    is a fault of that, its spread means the same at every level, and the result does not depend on what the network
    outputs (Lin et al. 2023, arXiv 2305.08891, for the idea). The usual codes rescale whatever the network outputs,
    which is another method for each target: at high noise every eps has the spread of the noise, and nothing happens.
    The plain estimate is one of the guidance's own forward.

    Args:
        denoiser: a guidance, such as :class:`~osmotic.guidance.ClassifierFree`.
        share: the paper's phi, in [0, 1]; 0 changes nothing.

    Raises:
        TypeError: for a denoiser that leads nothing.
        ValueError: for a share outside [0, 1], on paths of matrices, around CFG++, and when called with samples of one
            element.
    """

    def __init__(self, denoiser: Denoiser, share: float = 0.7) -> None:
        super().__init__()
        refuse_matrices(denoiser, "Rescale")
        refuse_renoised(denoiser, "Rescale")
        if not 0 <= share <= 1:
            raise ValueError(f"Rescale's share lies in [0, 1]; got {share}.")
        self.guided, _ = led(denoiser, "Rescale")
        self.share = share
        self.around(denoiser)

    @property
    def plain(self) -> Denoiser:
        return led(self.guided, "Rescale")[1]

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.guided.prepare(levels, device)

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        t = as_time(t)
        plain, guided = self.guided.both(x, t, cond, s)
        if plain is guided:
            return plain, guided
        x0 = guided.x0
        before, after = _deviation(plain.x0), _deviation(x0)
        ratio = torch.where(after > 0, before / after, 1.0)  # what has no contrast cannot be given any
        factor = self.share * ratio + (1 - self.share)
        return plain, completed(self.schedule, x, t, x0 * factor, guided.v)


def _deviation(x0: Tensor) -> Tensor:
    """The standard deviation of each sample's elements, ``(B, 1, ..., 1)``."""
    if x0[:1].numel() < 2:
        raise ValueError("Rescale compares the spread within samples, and these have one element each; leave it out.")
    deviation = x0.flatten(1).std(1, correction=0)
    return deviation.reshape(-1, *[1] * (x0.ndim - 1))
