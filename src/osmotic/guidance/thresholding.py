"""Thresholding: the estimated clean sample is brought back into the range of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance, completed, refuse_matrices, refuse_renoised
from osmotic.levels import Level, as_time
from osmotic.schedules import Number


@dataclass(frozen=True)
class Clip:
    """Each element into ``[low, high]``: static thresholding.

    Args:
        low: the least value that data have.
        high: the largest.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Clip needs low < high; got {self.low} and {self.high}.")

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.clamp(self.low, self.high)


@dataclass(frozen=True)
class Dynamic:
    """``clip(x0, -q, q) bound / q`` with q the quantile of each sample's ``|x0|``, at least ``bound``.

    Saharia et al. 2022 (arXiv 2205.11487, section 2.3): a sample that saturates is pulled in as a whole, where clipping
    would pile it up at the ends. For data in ``[-bound, bound]``; a sample that lies within is not touched.

    Args:
        quantile: in (0, 1]; the paper's percentile is 99.5.
        bound: the largest absolute value that data have, positive.
    """

    quantile: float = 0.995
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.quantile <= 1 and self.bound > 0):
            raise ValueError(
                f"Dynamic thresholding needs a quantile in (0, 1] and a positive bound; got {self.quantile} and "
                f"{self.bound}."
            )

    def __call__(self, x0: Tensor) -> Tensor:
        sizes = x0.abs().flatten(1).sort(1).values
        place = self.quantile * (sizes.shape[1] - 1)  # between two of them, linearly
        limit = torch.lerp(sizes[:, math.floor(place)], sizes[:, math.ceil(place)], place % 1)
        limit = limit.clamp(min=self.bound).reshape(-1, *[1] * (x0.ndim - 1))
        return torch.minimum(torch.maximum(x0, -limit), limit) * (self.bound / limit)


class Threshold(Guidance):
    """``x0 <- limit(x0)``, then ``eps = (x - alpha x0) / sigma``, so that the estimate still meets the path's equation.

    Strong guidance drives the estimate out of the range of the data, where no denoiser was trained. It is right for
    data that are bounded (pixels); clipping changes the law of what is not.

    Args:
        denoiser: any, guided or not; on data in the range that ``limit`` names.
        limit: :class:`Clip`, :class:`Dynamic`, or any function from x0 ``(B, *S)`` to the same, each sample by itself.

    Raises:
        ValueError: on paths of matrices, and around CFG++.
    """

    def __init__(self, denoiser: Denoiser, limit: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        refuse_matrices(denoiser, "Threshold")
        refuse_renoised(denoiser, "Threshold")
        self.denoiser, self.limit = denoiser, limit
        self.around(denoiser)

    @property
    def plain(self) -> Denoiser | None:
        """The limited estimate without the guidance inside; None where none is inside."""
        inner = self.denoiser.plain if isinstance(self.denoiser, Guidance) else None
        return None if inner is None else Threshold(inner, self.limit)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        return self._limited(self.denoiser(x, t, cond, s), x, t)

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        if not isinstance(self.denoiser, Guidance):
            alone = self(x, t, cond, s)
            return alone, alone
        plain, guided = self.denoiser.both(x, t, cond, s)
        if plain is guided:
            alone = self._limited(plain, x, t)
            return alone, alone
        return self._limited(plain, x, t), self._limited(guided, x, t)

    def _limited(self, estimate: Estimate, x: Tensor, t: Tensor) -> Estimate:
        return completed(self.schedule, x, as_time(t), self.limit(estimate.x0), estimate.v)
