"""Defaults found from the data: network, steps and batch for each kind and size (torch-free)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from osmotic.data.spec import Spec
from osmotic.training.recipe import Architecture, Coded, Recipe, explicit

FEW = 5000


class _Size(NamedTuple):
    """What suits pictures up to a side."""

    side: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    steps: int
    batch: int
    rate: float


_PICTURES = (
    _Size(16, (32, 64), 1, (), 2000, 128, 2e-3),
    _Size(40, (64, 128, 256), 2, (2,), 20_000, 128, 6e-4),
    _Size(80, (64, 128, 192, 256), 2, (2, 3), 50_000, 64, 3e-4),
    _Size(10**9, (64, 128, 192, 256, 256), 2, (3, 4), 100_000, 32, 2e-4),
)


def fill(recipe: Recipe, spec: Spec) -> Recipe:
    """The recipe with everything that was left out chosen for the data; what was given stays.

    A field counts as given if it was set when the recipe was made, even to its default.
    """
    architecture, options = _suggest(spec, recipe.architecture, recipe.codec)
    widths = recipe.architecture.widths
    if widths is not None and "attention" in architecture:
        # Other widths, other levels: only the coarsest of three or more attends.
        architecture["attention"] = (len(widths) - 1,) if len(widths) > 2 else ()
    if (spec.captions or spec.embedding) is not None and architecture.get("attention") == ():
        # By which a U-Net reads texts, and knows where things are: convolutions told a vector know all but the place.
        architecture["attention"] = (len(widths or architecture["widths"]) - 1,)
    return recipe.model_copy(
        update={
            "architecture": merged(recipe.architecture, architecture),
            "options": merged(recipe.options, options),
        }
    )


def merged(model: Any, suggested: dict[str, Any]) -> Any:
    """A model of settings with suggestions for the fields that nobody set."""
    given = {name: value for name, value in explicit(model).items() if value is not None or name not in suggested}
    return type(model)(**{**suggested, **given})


def _suggest(spec: Spec, wanted: Architecture, coded: Coded | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Architecture and options for data of this kind and size."""
    positions = spec.shape[1:]
    kind = wanted.network or ("unet" if spec.kind in ("images", "sequences") or len(positions) in (2, 3) else "mlp")
    if kind == "mlp" or not positions:
        return _flat(spec)
    if len(positions) == 1:
        # No level is of a single position halved once more: there is nothing to halve.
        levels = max(1, min(3, positions[0].bit_length()))
        widths = (64, 128, 128)[:levels]
        attention = (2,) if levels == 3 else ()
        architecture: dict[str, Any] = {"network": kind, "widths": widths, "attention": attention}
        return architecture, {"steps": 10_000, "batch_size": 64, "learning_rate": 1e-3}
    size = next(size for size in _PICTURES if max(positions) <= size.side)
    if coded is not None and len(coded.data) == len(spec.shape):
        size = _coarse(max(coded.data[1:]), max(positions))
    architecture = {"network": kind, "widths": size.widths, "blocks": size.blocks, "attention": size.attention}
    # A few thousand pictures are learned by heart: on the digits the held-out loss turns upwards without dropout.
    architecture["dropout"] = 0.1 if spec.count < FEW else 0.0
    return architecture, {"steps": size.steps, "batch_size": size.batch, "learning_rate": size.rate}


def _coarse(side: int, latent: int) -> _Size:
    """What suits latents of pictures of a side: the coarse levels of what suits these, and at least two."""
    size = next(size for size in _PICTURES if side <= size.side)
    finer = max(0, min(round(math.log2(side / latent)), len(size.widths) - 2))
    levels = len(size.widths) - finer
    attention = tuple(sorted({max(0, level - finer) for level in size.attention})) or (levels - 1,)
    return size._replace(widths=size.widths[finer:], attention=attention)


def _flat(spec: Spec) -> tuple[dict[str, Any], dict[str, Any]]:
    """A perceptron as wide as the data ask for; few rows are learned by heart, but for dropout and an early end."""
    entries = math.prod(spec.shape)
    if spec.count < FEW:
        few = {"network": "mlp", "widths": (128,) * 4, "dropout": 0.1}
        return few, {"steps": 2000, "batch_size": 256, "learning_rate": 1e-3}
    width = 128 if entries <= 4 else 256 if entries <= 64 else 512
    steps = 5000 if entries <= 4 else 10_000
    return {"network": "mlp", "widths": (width,) * 4}, {"steps": steps, "batch_size": 256, "learning_rate": 1e-3}
