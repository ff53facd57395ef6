"""From names to objects: the one table between a recipe and the library."""

from __future__ import annotations

import torch
from torch import nn

from osmotic.data.spec import Spec
from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import TARGETS
from osmotic.laws import LAWS
from osmotic.nn import MLP, DiT, Embedding, UNet
from osmotic.objectives.weights import WEIGHTS
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.training.denoise import Denoising
from osmotic.training.precision import autocast_dtype
from osmotic.training.recipe import Architecture, Recipe

DEFAULT_SIGMA = 0.5


def network(architecture: Architecture, spec: Spec) -> nn.Module:
    """The network of a filled recipe for data of this description.

    Raises:
        ValueError: if the network does not fit the shape of the data.
    """
    shape, classes = spec.shape, None if spec.classes is None else len(spec.classes)
    if architecture.network == "mlp":
        widths = architecture.widths or (256,) * 4
        return MLP(shape, widths, architecture.dropout, Embedding(widths[0], classes=classes))
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            f"A {architecture.network} needs 1 to 3 position axes, and the data have shape {shape}; use --network mlp."
        )
    if architecture.network == "dit":
        width, patch = architecture.width, (architecture.patch,) * (len(shape) - 1)
        embedding = Embedding(width, classes=classes)
        return DiT(shape[0], patch, width, architecture.depth, min(64, width), architecture.dropout, embedding)
    widths = architecture.widths or (64, 128, 128)
    return UNet(
        shape[0],
        widths,
        ndim=len(shape) - 1,
        blocks=architecture.blocks,
        attention=architecture.attention or (),
        dropout=architecture.dropout,
        embedding=Embedding(4 * widths[0], classes=classes),
    )


def denoiser(recipe: Recipe, spec: Spec, device: torch.device) -> NeuralDenoiser:
    """The untrained denoiser of a filled recipe; weights are a function of the recipe's seed alone."""
    process = recipe.process
    sigma_data = process.sigma_data or DEFAULT_SIGMA
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.options.seed)
        body = network(recipe.architecture, spec)
    return NeuralDenoiser(
        body,
        SCHEDULES[process.schedule](),
        TARGETS[process.target](sigma_data),
        sigma_data=sigma_data,
        autocast=autocast_dtype(recipe.options.precision, device),
    ).to(device)


def task(recipe: Recipe, spec: Spec, device: torch.device) -> Denoising:
    """The training task of a filled recipe."""
    process = recipe.process
    sigma_data = process.sigma_data or DEFAULT_SIGMA
    law, weight = LAWS[process.law](sigma_data), WEIGHTS[process.weight](sigma_data)
    drop = process.condition_dropout if spec.classes else 0.0
    return Denoising(denoiser(recipe, spec, device), law, weight, drop)
