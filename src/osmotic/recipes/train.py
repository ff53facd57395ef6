"""Training from Python: data in, a run directory out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from osmotic.data.augment import Augmentation, HorizontalFlip, Shift, Turn, VerticalFlip
from osmotic.data.controls import MADE
from osmotic.data.dataset import Dataset, open_data, split
from osmotic.data.sizes import alike
from osmotic.data.source import Options as Reading
from osmotic.data.spec import Spec
from osmotic.distill import METHODS, making
from osmotic.recipes import plan
from osmotic.recipes.latent import latent
from osmotic.recipes.reconstruct import finish
from osmotic.recipes.resuming import begun, refuse_change, refuse_options, refuse_other_data
from osmotic.recipes.watching import hooks
from osmotic.training import autoencoder_defaults, build, coding, defaults, lsgm
from osmotic.training.autoencoders import reconstruction, refuse_autoencoding
from osmotic.training.autoencoding import AUTOENCODER, Autoencoding
from osmotic.training.codec import finished, forget
from osmotic.training.coding import Said
from osmotic.training.contrast import WHOLE, contrast
from osmotic.training.distributed import joined
from osmotic.training.errors import RunError
from osmotic.training.latents import FOLDER as LATENTS
from osmotic.training.latents import Latents, cached
from osmotic.training.loop import fit
from osmotic.training.lsgm import EndToEnd, plain
from osmotic.training.model import stored
from osmotic.training.options import Options
from osmotic.training.recipe import Recipe, explicit
from osmotic.training.run import Run
from osmotic.training.task import Task

# Enough samples for three digits of the standard deviation.
MEASURED = 4096


def train(
    data: Any,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    steps: int | None = None,
    codec: Said | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    device: torch.device | str | None = None,
) -> Run:
    """Train a denoiser on data and return its run; ``osmotic.load(out)`` gives the model.

    With the objective ``autoencoder``, ``osmotic.load_codec(out)`` gives the codec that it is for.

    Args:
        data: a path, the name of an embedded set, an array or tensor, an (array, labels) pair, or an opened data set.
        out: a new or empty directory; all that is written goes there.
        recipe: how to train; whatever it leaves out is chosen from the data.
        steps: optimizer steps, a short way to say ``Recipe(options=Options(steps=...))``.
        codec: train on the latents of this codec: the run of an autoencoder, ``"haar"``, ``"dct"``, ``"pca"``,
            ``"whitening"``, or a :class:`~osmotic.codecs.Codec`. They are kept in ``out/latents``, and samples are
            decoded. None trains on the data themselves.
        resume: go on with the run in ``out``; options that the recipe sets explicitly are changed, the rest stays.
        tell: called with each line of the plan (network, memory, time), which is then measured before training.
        device: None takes a CUDA device if there is one.

    Raises:
        ValueError: for data, a recipe or a directory that cannot be used, in one sentence.
    """
    asked = recipe or Recipe()
    if steps is not None:
        asked = asked.model_copy(update={"options": Options(**{**explicit(asked.options), "steps": steps})})
    (Run.open if resume else Run.refuse_used)(out)
    reading = asked.reading or (Run.open(out).recipe().get("reading", {}) if resume else {})
    dataset = data if isinstance(data, Dataset) else open_data(data, **asdict(Reading(**reading)))
    with joined(device) as world:
        latents = latent(dataset, out, asked, codec, resume, world)
        seen, coder = latents or dataset, None if latents is None else latents.codec
        recipe = world.from_main(lambda: continued(dataset, out, asked) if resume else resolve(asked, seen))
        training, held_out = split(seen, recipe.holdout, recipe.options.seed)
        coupling = build.coupling(recipe.process, seen.spec)
        task = tasked(recipe, seen.spec, world.device)
        if recipe.process.objective == build.CONTRASTIVE and world.size > 1:
            raise RunError(WHOLE)
        if tell is not None:
            inner = coding.seen(dataset.spec, recipe.codec)
            recipe = world.from_main(partial(plan.told, task, training, recipe, inner, world.device, tell))
        # Whatever can be refused has been refused; only now is anything written.
        run = world.from_main(lambda: begun(out, recipe, dataset.spec, resume, coder, dataset))
        coder = plain(task) if isinstance(task, EndToEnd) else coder
        if latents is not None:
            kept = cached(latents, run.directory / LATENTS, world, tell or (lambda line: None))
            training, held_out = split(kept, recipe.holdout, recipe.options.seed)
        if recipe.process.objective == AUTOENCODER:
            world.from_main(lambda: forget(run) if further(run, recipe.options) else None)
        if isinstance(task, EndToEnd):
            world.from_main(lambda: lsgm.forget(run) if further(run, recipe.options) else None)
        fit(
            task,
            training,
            run,
            recipe.options,
            held_out if len(held_out) else None,
            hooks(recipe, dataset, training, held_out, coder),
            augmentations(recipe),
            device,
            coupling,
        )
        if recipe.process.objective == AUTOENCODER:
            found = world.from_main(lambda: None if finished(run) else finish(run, training, held_out, world.device))
            if found is not None and tell is not None and world.main:
                for line in found.lines():
                    tell(line)
        if isinstance(task, EndToEnd):
            world.from_main(lambda: lsgm.finish(run))
        return run


def further(run: Run, options: Options) -> bool:
    """Whether there are steps left that a run has no whole checkpoint of."""
    complete = run.complete()
    return not complete or complete[0][1].step < options.steps


def continued(dataset: Dataset, out: str | Path, asked: Recipe) -> Recipe:
    """The recipe of a run that is resumed: its own, with the options that were explicitly asked for now.

    Raises:
        RunError: if the data are others, or something was asked for that cannot change on the way.
    """
    run = Run.open(out)
    before, spec = stored(run)
    if before.student is not None and not making.scratch(before.process.objective):
        teacher = before.student.teacher or "TEACHER"
        raise RunError(
            f"{out} was distilled from {teacher}; go on with `osmotic distill` and --resume, not with `osmotic train`."
        )
    refuse_other_data(out, spec, dataset)
    _refuse_changes(out, before, asked)
    given = explicit(asked.options)
    refuse_options(out, before.options, given)
    return before.model_copy(update={"options": before.options.model_copy(update=given)})


def _refuse_changes(out: str | Path, before: Recipe, asked: Recipe) -> None:
    """Refuse values that differ from those the weights were made with."""
    pairs: list[tuple[BaseModel, BaseModel]] = [
        (before.architecture, asked.architecture),
        (before.process, asked.process),
        (before.distillation, asked.distillation),
    ]
    if asked.autoencoder is not None:
        pairs.append((before.autoencoder or Autoencoding(), asked.autoencoder))
    fixed: list[tuple[BaseModel, BaseModel, str]] = [
        (old, new, name) for old, new in pairs for name in new.model_fields_set
    ]
    fixed += [(before, asked, name) for name in asked.model_fields_set & {"holdout", "flip", "upend", "turn", "shift"}]
    for old, new, name in fixed:
        now = getattr(new, name)
        if now is not None:
            refuse_change(out, name, getattr(old, name), now)


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with everything that was left out found from the data, the standard deviation included.

    Raises:
        ValueError: for an augmentation that means nothing for such data.
    """
    if augmentations(recipe) and dataset.spec.kind != "images":
        raise ValueError(f"Mirrors, turns and shifts are for pictures, not for {dataset.spec.kind}; leave them out.")
    # An image that is given is changed as its picture is; what is made of a picture was made before, and knows its rim.
    if augmentations(recipe) and dataset.spec.control in MADE:
        raise ValueError("Mirrors, turns and shifts would not turn the control image with its picture; leave them out.")
    if recipe.turn and len(set(dataset.spec.shape[1:])) > 1:
        raise ValueError(f"Quarter turns need square pictures, not {dataset.spec.shape[1:]}; leave out --turn.")
    if isinstance(dataset, Latents):
        recipe = recipe.model_copy(update={"codec": dataset.coded})
    if recipe.process.objective == AUTOENCODER:
        if dataset.spec.sizes:
            raise RunError("An autoencoder is trained on pictures of one size; give --size in place of --sizes.")
        return autoencoder_defaults.fill(recipe, dataset.spec)
    if recipe.process.objective == lsgm.LSGM:
        return lsgm.complete(recipe, dataset.spec)
    refuse_autoencoding(recipe)
    recipe = defaults.fill(recipe, dataset.spec)
    if recipe.process.sigma_data is None:
        process = recipe.process.model_copy(update={"sigma_data": deviation(dataset)})
        recipe = recipe.model_copy(update={"process": process})
    if not making.scratch(recipe.process.objective):
        return recipe
    (stage,) = making.stages(recipe.process.objective, recipe, dataset.spec)
    return recipe.model_copy(update={"student": stage.student(making.started(recipe, dataset.spec))})


def tasked(recipe: Recipe, spec: Spec, device: torch.device) -> Task:
    """The task of a filled recipe: denoising, or a few-step method from scratch.

    Raises:
        ValueError: for settings that the objective does not have.
    """
    objective = recipe.process.objective
    if objective == build.CLASSIFIER:
        making.refuse_numbers(recipe.distillation)
        return build.classification(recipe, spec, device)
    if objective == lsgm.LSGM:
        making.refuse_numbers(recipe.distillation)
        return lsgm.end_to_end(recipe, spec, device)
    if objective == AUTOENCODER:
        making.refuse_numbers(recipe.distillation)
        return reconstruction(recipe, spec, device)
    if objective == build.CONTRASTIVE:
        making.refuse_numbers(recipe.distillation)
        return contrast(recipe, spec, device)
    if not making.scratch(objective):
        making.refuse_numbers(recipe.distillation)
        return build.task(recipe, spec, device)
    making.refuse_laws(recipe.process)
    making.refuse_options(METHODS[objective], recipe.options)
    if recipe.distillation.guidance != 1:
        raise ValueError(f"--objective {objective} has no teacher to guide; leave out the guidance.")
    (stage,) = making.stages(objective, recipe, spec)
    return making.task(stage, recipe, spec, device)


def augmentations(recipe: Recipe) -> list[Augmentation]:
    """The changes of training pictures that were asked for."""
    asked: list[tuple[bool, Augmentation]] = [
        (recipe.flip, HorizontalFlip()),
        (recipe.upend, VerticalFlip()),
        (recipe.turn, Turn()),
        (recipe.shift > 0, Shift(max(1, recipe.shift))),
    ]
    return [augmentation for wanted, augmentation in asked if wanted]


def deviation(dataset: Dataset) -> float:
    """The data's standard deviation over all entries, from evenly chosen samples, to three digits."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(MEASURED, len(dataset))).astype(np.int64))
    entries = [dataset.batch(own)[0].double().flatten() for own in alike(indices, dataset.buckets)]
    return float(f"{max(float(torch.cat(entries).std()), 1e-3):.3g}")
