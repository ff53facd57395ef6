"""Training from Python: data in, a run directory out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from osmotic.data.augment import HorizontalFlip
from osmotic.data.dataset import Dataset, open_data, split
from osmotic.recipes import plan
from osmotic.recipes.preview import preview
from osmotic.training import build, defaults
from osmotic.training.distributed import joined
from osmotic.training.errors import RunError
from osmotic.training.loop import fit
from osmotic.training.model import stored
from osmotic.training.recipe import Recipe
from osmotic.training.run import Run

# Enough samples for three digits of the standard deviation.
MEASURED = 4096


def train(
    data: Any,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    device: torch.device | str | None = None,
) -> Run:
    """Train a denoiser on data and return its run; ``osmotic.load(out)`` gives the model.

    Args:
        data: a path, the name of an embedded set, an array or tensor, an (array, labels) pair, or an opened data set.
        out: a new or empty directory; all that is written goes there.
        recipe: how to train; whatever it leaves out is chosen from the data.
        resume: go on with the run in ``out``; options that the recipe sets explicitly are changed, the rest stays.
        tell: called with each line of the plan (network, memory, time), which is then measured before training.
        device: None takes a CUDA device if there is one.

    Raises:
        ValueError: for data, a recipe or a directory that cannot be used, in one sentence.
    """
    dataset = data if isinstance(data, Dataset) else open_data(data)
    with joined(device) as world:
        run, recipe = world.from_main(lambda: begin(dataset, out, recipe or Recipe(), resume))
        training, held_out = split(dataset, recipe.holdout, recipe.options.seed)
        task = build.task(recipe, dataset.spec, world.device)
        if tell is not None and world.main:
            for line in plan.measure(task, training, recipe, world.device).lines(recipe):
                tell(line)
        return fit(
            task,
            training,
            run,
            recipe.options,
            held_out if len(held_out) else None,
            [preview(recipe, dataset)],
            [HorizontalFlip()] if recipe.flip else [],
            device,
        )


def begin(dataset: Dataset, out: str | Path, recipe: Recipe, resume: bool) -> tuple[Run, Recipe]:
    """The run in ``out``, new or resumed, and its complete recipe.

    Raises:
        RunError: if the directory cannot be used, or its run was trained on other data.
    """
    if not resume:
        recipe = resolve(recipe, dataset)
        build.task(recipe, dataset.spec, torch.device("cpu"))  # what does not fit is refused before a directory is made
        return Run.create(out, recipe.model_dump(mode="json"), dataset.spec.model_dump(mode="json")), recipe
    run = Run.open(out)
    before, spec = stored(run)
    if (spec.shape, spec.count, spec.classes) != (dataset.spec.shape, dataset.spec.count, dataset.spec.classes):
        raise RunError(f"{out} was trained on other data, {spec.source}; resume it with those.")
    # Only options that were asked for now are changed; what the weights mean is the run's own.
    given = {name: getattr(recipe.options, name) for name in recipe.options.model_fields_set}
    return run, before.model_copy(update={"options": before.options.model_copy(update=given)})


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with everything that was left out found from the data, the standard deviation included."""
    recipe = defaults.fill(recipe, dataset.spec)
    if recipe.process.sigma_data is not None:
        return recipe
    return recipe.model_copy(update={"process": recipe.process.model_copy(update={"sigma_data": deviation(dataset)})})


def deviation(dataset: Dataset) -> float:
    """The data's standard deviation over all entries, from evenly chosen samples, to three digits."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(MEASURED, len(dataset))).astype(np.int64))
    x, _ = dataset.batch(indices)
    return float(f"{max(float(x.double().std()), 1e-3):.3g}")
