"""Editing by instruction: a model that is told an image draws what it should become."""

from __future__ import annotations

from torch import Tensor

from osmotic.recipes.edit import Progress, Way
from osmotic.training.model import Model


def instructed(model: Model, count: int, way: Way, progress: Progress | None = None) -> Tensor:
    """Samples ``(count, *S)`` drawn from noise, told the image that is edited and what should become of it.

    Brooks et al. 2022 (InstructPix2Pix, arXiv 2211.09800). The model learned from pairs of pictures, the one before
    being the image that it is told; nothing of the image is kept but what the model keeps.

    Args:
        model: that was trained with an image beside each picture.
        count: the results, ``way.each`` for each image.
        way: how; its condition says ``"image"``, for all or for each result, and all else.
        progress: told how many are done.
    """
    return model.sample(
        count,
        way.cond,
        way.guidance,
        steps=way.steps,
        seed=way.seed,
        negative=way.negative,
        guide=way.guide,
        batch_size=way.batch_size,
        progress=progress,
    )
