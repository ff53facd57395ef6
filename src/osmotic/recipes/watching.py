"""What is shown while a run is trained."""

from __future__ import annotations

from osmotic.codecs import Codec
from osmotic.data.dataset import Dataset
from osmotic.recipes.preview import preview
from osmotic.recipes.reconstruct import reconstructions
from osmotic.recipes.retrieving import retrieving
from osmotic.training import build
from osmotic.training.autoencoding import AUTOENCODER
from osmotic.training.hooks import Hook
from osmotic.training.recipe import Recipe


def hooks(recipe: Recipe, dataset: Dataset, training: Dataset, held_out: Dataset, codec: Codec | None) -> list[Hook]:
    """Drawn samples, what an autoencoder makes of data, or how well pairs are found; nothing of a classifier.

    Args:
        recipe: complete.
        dataset: the data themselves.
        training: the part that is trained on, as the network sees it.
        held_out: the rest.
        codec: of latents.
    """
    objective = recipe.process.objective
    if objective == build.CLASSIFIER:
        return []
    if objective == build.CONTRASTIVE:
        return [retrieving(recipe, held_out)] if len(held_out) else []
    if objective == AUTOENCODER:
        return [reconstructions(recipe, held_out if len(held_out) else training)]
    return [preview(recipe, dataset, codec)]
