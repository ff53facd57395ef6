"""What a run directory holds, read back: recipe, data's description, weights, a classifier."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from osmotic.data.columns import Columns
from osmotic.data.spec import Spec
from osmotic.training import build, checkpoint
from osmotic.training.autoencoding import AUTOENCODER
from osmotic.training.classify import NoisyClassifier
from osmotic.training.denoise import PLAYER
from osmotic.training.errors import RunError
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run


def filled(module: nn.Module, run: Run, recipe: Recipe, weights: str | None, player: str = PLAYER) -> tuple[int, str]:
    """Load the newest whole checkpoint into a module; its step and the name of the weights."""
    found = checkpoint.newest(run, lambda text: print(text, file=sys.stderr))
    if found is None:
        raise RunError(f"{run.directory} has no checkpoint yet; train it further with --resume.")
    folder, manifest = found
    name = weights or (checkpoint.average_name(recipe.options.ema[0]) if recipe.options.ema else "model")
    checkpoint.load_weights(folder, name, module, player)
    return manifest.step, name


def stored(run: Run) -> tuple[Recipe, Spec]:
    """The recipe and the data's description that a run holds.

    Raises:
        RunError: naming the entry that this version does not understand.
    """
    try:
        return Recipe.model_validate(run.recipe()), Spec.model_validate(run.data())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{run.directory} was not made by this version of osmotic: {where}: {first['msg']}.") from None


def refuse_other(directory: str | Path, recipe: Recipe) -> None:
    """Refuse a run that holds no denoiser.

    Raises:
        RunError: saying what it is for.
    """
    if recipe.process.objective == build.CLASSIFIER:
        raise RunError(f"{directory} is a classifier, which draws nothing; pass it to `osmotic sample --classifier`.")
    if recipe.process.objective == build.CONTRASTIVE:
        raise RunError(f"{directory} is a dual encoder, which draws nothing; see `python -m osmotic.recipes.unclip`.")
    if recipe.process.objective == AUTOENCODER:
        raise RunError(
            f"{directory} is an autoencoder, which draws nothing; train on its latents with `osmotic train DATA "
            f"--codec {directory}`."
        )


def load_classifier(
    directory: str | Path, spec: Spec, device: torch.device | str | None = None
) -> tuple[NoisyClassifier, Spec]:
    """The classifier of a run of ``--objective classifier`` and its data, for guiding a model of data like ``spec``.

    Raises:
        RunError: if it is none, holds no whole checkpoint, or tells other classes apart than the model's data have.
    """
    run = Run.open(directory)
    recipe, own = stored(run)
    if recipe.process.objective != build.CLASSIFIER:
        raise RunError(f"{directory} is no classifier; train one with `osmotic train DATA --objective classifier`.")
    for name in ("shape", "encoding"):
        if _bare(getattr(own, name)) != _bare(getattr(spec, name)):
            raise RunError(f"{directory} reads other data than this model draws: their {name} differs.")
    classifier = build.classifier(recipe, own, torch.device(device or "cpu"))
    filled(classifier, run, recipe, None)
    return classifier.eval().requires_grad_(False), own


def _bare(value: object) -> object:
    """An encoding without the label, which is no part of a sample."""
    return value.columns if isinstance(value, Columns) else value
