"""What an autoencoder is where nothing is said: found from the data (torch-free)."""

from __future__ import annotations

import math
from typing import Any

from osmotic.data.spec import Spec
from osmotic.training.autoencoding import BITS, Autoencoding
from osmotic.training.defaults import FEW, merged
from osmotic.training.recipe import Recipe

LEAST, MORE = 6, 12
"""Numbers of a sample for each of its latent: up to sides of ``SMALL``, and beyond."""

SMALL = 64

HALVINGS = {1: 3, 2: 2, 3: 1}
"""By the number of position axes: patches of 8, 16 and 8 positions become one."""


def fill(recipe: Recipe, spec: Spec) -> Recipe:
    """The recipe with everything that was left out chosen for the data; what was given stays."""
    given = recipe.autoencoder or Autoencoding()
    dense = recipe.architecture.network == "mlp" or spec.kind in ("vectors", "table") or not 2 <= len(spec.shape) <= 4
    found, architecture, options = _dense(spec, given) if dense else _convolutional(spec, given)
    options = merged(recipe.options, options)
    if given.adversarial:
        found["adversarial_start"] = options.steps // 2
    return recipe.model_copy(
        update={
            "autoencoder": merged(given, found),
            "architecture": merged(recipe.architecture, architecture),
            "options": options,
        }
    )


def _convolutional(spec: Spec, given: Autoencoding) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Patches that become one position, and as many channels as compression leaves."""
    channels, sides = spec.shape[0], spec.shape[1:]
    halvings = given.halvings
    if halvings is None:
        deepest = max(0, max(sides).bit_length() - 2)  # two positions are left of the longest side
        halvings = min(HALVINGS[len(sides)] + (max(sides) > SMALL), deepest)
        if given.bottleneck == "vq":
            halvings = _saving(channels, len(sides), math.log2(max(2, given.codes)), deepest)
    inside = channels * 2 ** (halvings * len(sides))
    latent = max(1, inside // (MORE if max(sides) > SMALL else LEAST))
    found = {"halvings": halvings, "latent_channels": min(latent, 4) if given.bottleneck == "vq" else latent}
    # Wide where positions are few: a step of any of these costs about as much.
    widths = {0: (32,), 1: (64,), 2: (128,)}.get(halvings, (128, 192))
    steps = 3000 if spec.count < FEW and max(sides) <= 16 else 5000
    return found, {"widths": widths, "blocks": 1}, {"steps": steps, "batch_size": 16, "learning_rate": 2e-3}


def _saving(channels: int, axes: int, bits: float, deepest: int) -> int:
    """How often sides are halved until a code of so many bits stands for ``LEAST`` times as many."""
    halvings = 0
    while BITS * channels * 2 ** (halvings * axes) < LEAST * bits and halvings < deepest:
        halvings += 1
    return halvings


def _dense(spec: Spec, given: Autoencoding) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A quarter of a sample's numbers; of a codebook, two numbers a code."""
    entries = math.prod(spec.shape)
    latent = 2 if given.bottleneck == "vq" else max(1, entries // 4)
    width = 128 if entries <= 64 else 256
    architecture = {"network": "mlp", "widths": (width,) * 2}
    return {"latent_channels": latent}, architecture, {"steps": 3000, "batch_size": 64, "learning_rate": 2e-3}
