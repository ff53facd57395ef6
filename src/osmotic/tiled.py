"""Samples larger than a denoiser's own: overlapping windows that agree at every evaluation, over noise by place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.views import repeated
from osmotic.levels import Level, as_time
from osmotic.noise import Pair, Source, generator
from osmotic.schedules import Number

Place = tuple[slice, ...]


class Tiled(Denoiser):
    """``x0 = sum_i w_i x0_i / sum_i w_i`` over the windows that hold a cell, and eps likewise, for samples of any size.

    Each window meets the path's equation, so their mean does too, and any sampler, guidance or constraint goes around
    this. The weights fall towards a window's edges over the overlap. Nothing is assumed of what windows make of their
    common cells: they see the same noise there, and the mean is what both go on from. Bar-Tal et al. 2023
    (MultiDiffusion, arXiv 2302.08113).

    The image and the positions of a condition are cut with the sample, all else is told to every window.

    Args:
        denoiser: of windows, guided or not.
        window: the lengths of its position axes.
        stride: between neighbouring windows along each axis, at most the window; where samples are enlarged by a
            factor, its multiple, as lengths are. Windows overlap by the rest.
        batch: windows that are evaluated at once: memory, not results.

    Raises:
        ValueError: for strides that leave gaps; when used, for samples smaller than a window.
    """

    def __init__(self, denoiser: Denoiser, window: Sequence[int], stride: Sequence[int], batch: int = 64) -> None:
        super().__init__()
        self.window, self.stride, self.batch = tuple(window), tuple(stride), batch
        if len(self.window) != len(self.stride) or not all(
            1 <= s <= w for s, w in zip(self.stride, self.window, strict=True)
        ):
            raise ValueError(
                f"Windows of {self.window} cells cover everything at strides of 1 to that many along each axis; got "
                f"{self.stride}."
            )
        self.denoiser = denoiser
        self.around(denoiser)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        t = as_time(t)
        places = self.places(tuple(x.shape[2:]))
        weight = self._weight(x)
        sums: list[Tensor | None] = [None, None, None]
        total = x.new_zeros(x.shape[2:])
        several = max(1, self.batch // len(x))
        for i in range(0, len(places), several):
            some = places[i : i + several]
            for place, part in zip(some, self._estimates(x, t, cond, s, some), strict=True):
                total[place] += weight
                for j, value in enumerate((part.x0, part.eps, part.v)):
                    if value is not None:
                        whole = sums[j]
                        if whole is None:
                            whole = sums[j] = value.new_zeros(*value.shape[:2], *x.shape[2:])
                        whole[inside(place)] += weight * value
        x0, eps, v = (None if whole is None else whole / total for whole in sums)
        assert x0 is not None
        assert eps is not None
        return Estimate(x0, eps, v)

    def places(self, lengths: tuple[int, ...]) -> list[Place]:
        """Where the windows of a sample with these position lengths lie.

        Raises:
            ValueError: for one smaller than a window.
        """
        if len(lengths) != len(self.window) or any(n < w for n, w in zip(lengths, self.window, strict=True)):
            raise ValueError(f"A window of {self.window} cells does not fit a sample of {lengths}; enlarge the sample.")
        axes = [
            [slice(start, start + w) for start in starts(n, w, s)]
            for n, w, s in zip(lengths, self.window, self.stride, strict=True)
        ]
        return list(itertools.product(*axes))

    def _estimates(
        self, x: Tensor, t: Tensor, cond: object, s: Number | None, places: Sequence[Place]
    ) -> Sequence[Estimate]:
        n = len(places)
        windows = torch.cat([x[inside(place)] for place in places])
        times = t.repeat(n) if t.ndim else t
        aim = None if s is None else as_time(s).repeat(n) if as_time(s).ndim else s
        rest: Estimate = self.denoiser(windows, times, cut(cond, places, len(x)), aim)
        found = []
        for _ in range(n - 1):
            first, rest = rest.split(len(x))
            found.append(first)
        return [*found, rest]

    def _weight(self, x: Tensor) -> Tensor:
        """Of each cell of a window: rising over the overlap from every edge, ``(*window)``."""
        weight = x.new_ones(self.window)
        for axis, (w, s) in enumerate(zip(self.window, self.stride, strict=True)):
            cells = torch.arange(w, device=x.device, dtype=x.dtype) + 0.5
            ramp = (torch.minimum(cells, w - cells) / max(w - s, 1)).clamp(max=1.0)
            weight = weight * ramp.reshape(-1, *[1] * (len(self.window) - 1 - axis))
        return weight


def inside(place: Sequence[slice]) -> tuple[Any, ...]:
    """The index of a place in a tensor whose last axes are its positions."""
    return (..., *place)


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an axis: every stride, and the last one at the end."""
    return [*range(0, length - window, stride), length - window]


def cut(cond: object, places: Sequence[Place], size: int) -> Condition | None:
    """The condition of a batch of ``size`` as its windows are told it, those of the first place first.

    Raises:
        TypeError: for one of another kind.
    """
    if cond is None:
        return None
    if not isinstance(cond, Condition):
        raise TypeError(f"Windows are cut out of an osmotic.Condition; got {type(cond).__name__}.")
    whole, parts = repeated(cond, size), []
    for place in places:
        image = None if whole.image is None else whole.image[inside(place)]
        valid = None if whole.valid is None else whole.valid[inside(place)]
        parts.append(replace(whole, image=image, valid=valid))
    return Condition.cat(parts)


class Cells(Source):
    """White noise that is a function of (key, draw, place): the same in a part of a picture as in the whole of it.

    Args:
        keys: for each sample integers of its own, such as ``(seed, number)``.
        side: noise is drawn for so many neighbouring cells along each axis at once.
    """

    def __init__(self, keys: Sequence[tuple[int, ...]], side: int = 64) -> None:
        self.keys, self.side, self._draws = list(keys), side, 0

    def normal(self, shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
        if shape[0] != len(self.keys):
            raise ValueError(
                f"Noise by place has a key for each of {len(self.keys)} samples; {shape[0]} were asked for."
            )
        draw, self._draws = self._draws, self._draws + 1
        channels, *lengths = shape[1:]
        whole = torch.empty(*shape, device=device, dtype=dtype)
        for row, key in zip(whole, self.keys, strict=True):
            for corner in itertools.product(*(range(math.ceil(n / self.side)) for n in lengths)):
                keyed = generator(*key, draw, *corner, device=device)
                block = torch.randn(channels, *[self.side] * len(lengths), generator=keyed, device=device, dtype=dtype)
                place = tuple(slice(c * self.side, (c + 1) * self.side) for c in corner)
                part = row[inside(place)]
                part.copy_(block[inside([slice(n) for n in part.shape[1:]])])
        return whole

    def increment(self, x: Tensor, t: Pair, s: Pair) -> Tensor:
        return self.normal(x.shape, x.device, x.dtype)
