"""Guidance with a scale for each thing that a model is told, by the names that a person knows them by."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from osmotic.data.errors import closest, listed
from osmotic.denoiser import Denoiser
from osmotic.guidance import Affine, Shown, by_parts, nothing
from osmotic.training.recipe import Process

if TYPE_CHECKING:
    from osmotic.training.model import Model

FIRST = "image"
"""Given which all else is said."""


def own_scales(
    model: Model, said: Collection[str], scales: Mapping[str, float], rest: float = 1.0
) -> Callable[[Denoiser], Denoiser]:
    """What ``Model.sample`` takes as its ``guide``: :func:`osmotic.guidance.by_parts`, by name.

    ``model.sample(4, said, guide=own_scales(model, said, {"text": 7.5, "image": 1.5}))``, where ``said`` is what is
    said of the samples by name, leads as InstructPix2Pix does (Brooks et al. 2022, arXiv 2211.09800).

    Args:
        model: with a posterior mean.
        said: the names of what is said of the samples, among ``spec.parts``.
        scales: by name the scale of each that has one of its own.
        rest: that of all others; of no use, and refused, where there are none.

    Raises:
        ValueError: for a name that the model is not told or nothing was said of, no finite scale, and for guidance that
            the model never learned.
    """
    parts = model.spec.parts
    for name, scale in scales.items():
        if name not in parts:
            what = f"it is told {listed(parts, 20)}{closest(name, parts) or '.'}" if parts else "it is told nothing."
            raise ValueError(f"This model is told nothing called {name!r}, which could have a scale; {what}")
        if name not in said:
            raise ValueError(f"Nothing was said of {name!r}, which has a scale; say it, or leave its scale out.")
        if not math.isfinite(scale):
            raise ValueError(f"A guidance scale is a finite number; that of {name!r} is {scale}.")
    if rest != 1 and set(said) <= set(scales):
        raise ValueError(
            f"Everything that was said has a scale of its own, so none is left for the guidance {rest:g}; leave it out."
        )
    student = model.recipe.student
    if student is not None and (student.scales is not None or not model.denoiser.diagonal):
        raise ValueError("This student learned no scales of their own for what it is told; draw from its teacher.")
    told = [name in said for name in parts]
    numbers = {parts.index(name): scale for name, scale in scales.items()}
    first = parts.index(FIRST) if FIRST in parts else None

    def guide(denoiser: Denoiser) -> Affine:
        return by_parts(denoiser, told, numbers, rest, first)

    _refuse_unlearned(guide(model.denoiser), parts, told, model.recipe.process)
    return guide


def _refuse_unlearned(guided: Affine, parts: tuple[str, ...], told: list[bool], process: Process) -> None:
    """Refuse views that hide what was never hidden in training."""
    rates = process.part_dropout or {}
    for view in guided.weights:
        if view is nothing and process.condition_dropout == 0:
            raise ValueError(
                "This model was trained with --condition-dropout 0, so it knows no 'nothing' to lead away from; leave "
                "the scales at 1."
            )
        shown = view.parts if isinstance(view, Shown) else told
        for name, said, seen in zip(parts, told, shown, strict=True):
            if said and not seen and not rates.get(name, process.condition_dropout):
                raise ValueError(
                    f"This model was never trained without its {name} alone (--part-dropout {name} 0), which these "
                    "scales need; leave them out."
                )
