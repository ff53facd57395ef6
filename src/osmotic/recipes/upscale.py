"""Super-resolution: pictures of any size enlarged by a model that was trained with ``--upscale``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from osmotic.cascade import linear
from osmotic.condition import Condition
from osmotic.data.controls import Low
from osmotic.data.spec import Spec
from osmotic.guidance.operators import Downsample
from osmotic.noise import normal
from osmotic.samplers import Sampler, prior, trajectory
from osmotic.tiled import Cells, Tiled
from osmotic.training.chosen import Plan
from osmotic.training.enlarging import shown
from osmotic.training.errors import RunError
from osmotic.training.model import Model
from osmotic.training.recipe import Recipe

OVERLAP = 4
"""Neighbouring windows share one in so many of their cells, along each axis, at least."""

SMOOTH, EXACT = 12, 20
"""Rounds of putting the means right, each after cutting to the range: by smooth corrections, then by blocks."""

BLUR = 1  # stream of the noise over a low resolution; the samples' own is 0


def factor_of(spec: Spec, run: object = "This model") -> int:
    """How many times larger a model makes pictures.

    Raises:
        RunError: if it was not trained to.
    """
    if not isinstance(spec.control, Low):
        raise RunError(f"{run} does not enlarge pictures; train one that does with `osmotic train DATA --upscale 4`.")
    return spec.control.factor


def passes(spec: Spec, factor: int | None) -> int:
    """How often a model has to enlarge for a whole factor, its own by default.

    Raises:
        RunError: for a factor that is no power of the model's own.
    """
    own, count = factor_of(spec), 1
    while factor is not None and own**count < factor:
        count += 1
    if factor is not None and own**count != factor:
        raise RunError(f"This model makes pictures {own} times larger, or {own**2}, {own**3}, ...; not {factor} times.")
    return count


def upscale(
    model: Model,
    low: Tensor,
    factor: int | None = None,
    cond: Mapping[str, Any] | None = None,
    guidance: float = 1.0,
    sampler: str | Sampler | None = None,
    steps: int | None = None,
    seed: int = 0,
    *,
    noise: float = 0.0,
    numbers: Sequence[int] | None = None,
    batch_size: int = 64,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Pictures ``(N, C, h, w)`` made larger, whose means over blocks are these pictures where these have no noise.

    Pictures larger than those of the training are drawn in overlapping windows (:class:`~osmotic.tiled.Tiled`), smaller
    ones are continued over their edges. All noise is keyed by (seed, number of the picture, place).

    Args:
        model: that was trained with ``--upscale``.
        low: in the network's scale, -1 to 1.
        factor: the model's own, or a power of it, for which it enlarges repeatedly.
        cond: what else they are, as in :meth:`osmotic.training.model.Model.sample`.
        guidance: the classifier-free scale towards that.
        sampler: likewise.
        steps: likewise.
        seed: of the noise.
        noise: how noisy the model is told that they are, from 0 to 1, noise of that level being put over them: what
            they show of details is believed less, artefacts of a JPEG for one, and their means are not kept.
        numbers: of the pictures, 0, 1, ... by default: the noise of a picture is that of its number.
        batch_size: windows at a time: memory, not results.
        progress: called after every step of the solver with 1; :func:`evaluations` says how often.

    Returns:
        ``(N, C, h factor, w factor)`` float32 on the CPU.

    Raises:
        ValueError: for other channels, a factor that the model does not know, or guidance it cannot have.
    """
    if low.ndim != 4 or low.shape[1] != model.spec.shape[0]:
        raise ValueError(
            f"This model enlarges pictures (N, {model.spec.shape[0]}, H, W); got a batch of shape {tuple(low.shape)}."
        )
    if not 0 <= noise <= 1:
        raise ValueError(f"The noise over a picture is a level from 0 (none) to 1; got {noise}.")
    if guidance != 1 and not cond:
        raise ValueError("Guidance leads towards what is said of the pictures; say a class or a text, or leave it out.")
    x = low.to(model.device, torch.float32)
    once = _Once(model, guidance, model.plan(sampler, steps), noise, batch_size, progress or (lambda done: None))
    for number in range(passes(model.spec, factor)):
        known = model.condition({**(cond or {}), "image": torch.zeros(model.spec.shape)}, len(x), 0, len(x))
        assert known is not None
        x = once(x, known, [(seed, number, i) for i in numbers or range(len(x))])
    return x.cpu()


def evaluations(model: Model, factor: int | None = None, steps: int | None = None) -> int:
    """How many steps of the solver it takes to enlarge a batch of pictures."""
    plan = model.plan(steps=steps)
    times = plan.grid(model.denoiser.schedule, plan.steps, model.denoiser.start)
    return passes(model.spec, factor) * (len(times) - 1)


@dataclass(frozen=True)
class _Once:
    """Enlarging by the model's own factor, settings as for :func:`upscale`."""

    model: Model
    guidance: float
    plan: Plan
    noise: float
    batch_size: int
    progress: Callable[[int], object]

    @torch.no_grad()
    def __call__(self, low: Tensor, known: Condition, keys: list[tuple[int, ...]]) -> Tensor:
        """Pictures ``(B, C, h, w)`` enlarged, told what is known of them, with noise of these keys."""
        factor, window = factor_of(self.model.spec), self.model.spec.shape[1:]
        edged = continued(low, tuple(side // factor for side in window))
        eps = normal(edged.shape, Cells([(*key, BLUR) for key in keys]), edged.device)
        cond = shown(known, edged, factor, self.noise, eps)
        denoiser = Tiled(self.model.guided(cond, self.guidance), window, strides(window, factor), self.batch_size)
        times = self.plan.grid(denoiser.schedule, self.plan.steps, denoiser.start)
        cells = Cells([(*key, 0) for key in keys])
        x = prior(denoiser, (*edged.shape[:2], *(side * factor for side in edged.shape[2:])), cells, low.device)
        for step, point in enumerate(trajectory(self.plan.sampler, denoiser, x, times, cond, cells)):
            x = point
            self.progress(min(step, 1))  # the first point is where it begins
        x = x[..., : low.shape[2] * factor, : low.shape[3] * factor]
        return x.clamp(-1, 1) if self.noise else consistent(x, low, factor)


def strides(window: tuple[int, ...], factor: int) -> list[int]:
    """Between windows: whole blocks, and all of a window but its share of :data:`OVERLAP`."""
    blocks = [side // factor for side in window]
    return [max(1, n - -(-n // OVERLAP)) * factor for n in blocks]


def continued(x: Tensor, least: tuple[int, ...]) -> Tensor:
    """Pictures ``(B, C, H, W)`` with at least so many rows and columns: the last ones are repeated."""
    down, right = (max(0, n - side) for n, side in zip(least, x.shape[2:], strict=True))
    return functional.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def consistent(x: Tensor, low: Tensor, factor: int) -> Tensor:
    """Pictures near to x in [-1, 1] whose means over blocks are ``low``, which lies there too.

    ``x + linear(low - means(x))`` again and again, for a correction that is constant over a block would leave edges
    around it; the little that is left goes by :meth:`~osmotic.guidance.operators.Operator.restore`. Irani & Peleg 1991
    (Improving resolution by image registration), back-projection.

    Args:
        x: ``(B, C, H factor, W factor)``.
        low: ``(B, C, H, W)``.
        factor: side of the blocks.
    """
    means, low = Downsample(factor), low.to(x).clamp(-1, 1)
    for number in range(SMOOTH + EXACT):
        x = x.clamp(-1, 1)
        x = x + linear(low - means(x), factor) if number < SMOOTH else means.restore(x, low)
    return x.clamp(-1, 1)


def lanczos(pictures: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Pictures ``(N, H, W, 1 | 3)`` enlarged by Lanczos interpolation with three lobes: the baseline."""

    def one(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (picture.shape[1] * factor, picture.shape[0] * factor)
        plain = picture[..., 0] if picture.shape[-1] == 1 else picture
        large = np.asarray(Image.fromarray(plain).resize(size, Image.Resampling.LANCZOS))
        return large.reshape(size[1], size[0], picture.shape[-1])

    return np.stack([one(picture) for picture in pictures])


def recipe(factor: int, asked: Recipe | None = None) -> Recipe:
    """A recipe whose models enlarge ``factor`` times, everything else as asked for: for :func:`osmotic.train`."""
    asked = asked or Recipe()
    return asked.model_copy(update={"reading": {**asked.reading, "upscale": factor}})
