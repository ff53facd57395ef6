"""Affine combinations of the estimates under several views of the condition: every classifier-free guidance is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance
from osmotic.guidance.views import Given, View, everything, nothing, seen
from osmotic.levels import Level
from osmotic.schedules import Number


class Lead(NamedTuple):
    """A push of a length from the estimate under one view to that under another.

    Args:
        away: the view that is left.
        towards: the view that is led to.
        scale: the length, one for all or one per sample ``(B,)``.
    """

    away: View
    towards: View
    scale: Number


class Affine(Guidance):
    """``D(base) + sum_i scale_i (D(towards_i) - D(away_i))``, on x0 and eps alike.

    The coefficients sum to 1, so the estimate meets ``x = alpha x0 + sigma eps`` as every single one does, and since
    estimates are affine in the network's output the result is the same in every parameterization. All views share one
    forward call; one whose coefficient is the number 0 is not evaluated. (Coefficients per sample are not looked at: on
    a device that would stall the loop.) A learned variance is the last view's: that of what is led to.

    :class:`~osmotic.guidance.ClassifierFree` is one lead, :func:`composed` several from the same place, and
    :func:`two_scales` a chain.

    Args:
        denoiser: a conditional denoiser trained with dropped conditions.
        base: the view that is started from.
        leads: the pushes; none for the plain estimate under the base.

    Raises:
        TypeError: when called with what is no :class:`~osmotic.condition.Condition` and has to be looked at.
    """

    def __init__(self, denoiser: Denoiser, base: View, leads: Sequence[Lead] = ()) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.around(denoiser)
        self.weights = _weights(base, leads)

    @property
    def plain(self) -> Denoiser:
        return self.denoiser

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        told = self._told(cond)
        if told is None:
            plain: Estimate = self.denoiser(x, t, cond, s)
            return plain
        return mixed(seen(self.denoiser, x, t, [view(told) for view in self.weights], s), list(self.weights.values()))

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        told = self._told(cond)
        if told is None or cond is None:
            plain: Estimate = self.denoiser(x, t, cond, s)
            return plain, plain if told is None else self(x, t, cond, s)
        views = [*self.weights, *(() if everything in self.weights else (everything,))]
        estimates = seen(self.denoiser, x, t, [view(told) for view in views], s)
        guided = mixed(estimates[: len(self.weights)], list(self.weights.values()))
        return estimates[views.index(everything)], guided

    def _told(self, cond: object) -> Condition | None:
        """The condition that is looked at; None where nobody looks, and the denoiser is told as it is."""
        if list(self.weights) == [everything]:
            return None
        if cond is None:
            return Condition() if all(isinstance(view, Given) for view in self.weights) else None
        if not isinstance(cond, Condition):
            raise TypeError(
                f"Guidance needs an osmotic Condition to know what 'nothing' is; got {type(cond).__name__}."
            )
        return cond


def composed(denoiser: Denoiser, conditions: Sequence[Condition], scales: Sequence[Number]) -> Affine:
    """``D(nothing) + sum_i scale_i (D(c_i) - D(nothing))``: several conditions, each with its own scale.

    The conditions are these whatever the sampler is told; one forward of n + 1 times the batch. Liu et al. 2022 (arXiv
    2206.01714), who show that it stands for the product of the conditional densities at each single level alone.

    Args:
        denoiser: as for :class:`Affine`.
        conditions: n of them with the same ports, each for the whole batch or a single one for all its samples.
        scales: one for each, below 0 to lead away from it.

    Raises:
        ValueError: for no conditions, or as many scales as there are not conditions.
    """
    if not conditions or len(conditions) != len(scales):
        raise ValueError(
            f"Every one of several conditions needs its scale; got {len(conditions)} conditions and {len(scales)} "
            "scales."
        )
    base = Given(nothing(conditions[0]))
    return Affine(denoiser, base, [Lead(base, Given(c), w) for c, w in zip(conditions, scales, strict=True)])


def two_scales(denoiser: Denoiser, image: Number, rest: Number, first: View) -> Affine:
    """``D(nothing) + image (D(first) - D(nothing)) + rest (D(everything) - D(first))``: a chain of two guidances.

    InstructPix2Pix's, where ``first`` shows the image that is edited and hides the instruction (Brooks et al. 2022,
    arXiv 2211.09800). One forward of three times the batch; with both scales 1 the plain conditional, with two equal
    ones plain classifier-free guidance, and neither pays for more.

    Args:
        denoiser: as for :class:`Affine`.
        image: the scale of what ``first`` shows.
        rest: the scale of what it hides.
        first: a view such as ``Shown((False, True))``, of two parts the second.
    """
    return Affine(denoiser, nothing, [Lead(nothing, first, image), Lead(first, everything, rest)])


def mixed(estimates: Sequence[Estimate], weights: Sequence[Number]) -> Estimate:
    """``sum_i w_i e_i`` for weights that sum to 1, by extrapolation alone: the mean of ``e_0 + n w_i (e_i - e_0)`` over
    the n others.
    """
    first, *others = estimates
    found: Estimate | None = None
    for k, (estimate, weight) in enumerate(zip(others, weights[1:], strict=True), 1):
        there = first.lerp(estimate, len(others) * weight)
        found = there if found is None else found.lerp(there, 1 / k)
    return first if found is None else found


def _weights(base: View, leads: Sequence[Lead]) -> dict[View, Number]:
    """The coefficient of each view; those that are the number 0 left out."""
    weights: dict[View, Number] = {base: 1.0}
    for away, towards, scale in leads:
        weights[away] = weights.get(away, 0.0) - scale
        weights[towards] = weights.get(towards, 0.0) + scale
    return {view: w for view, w in weights.items() if isinstance(w, Tensor) or w != 0}
