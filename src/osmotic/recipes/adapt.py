"""Fine-tuning a trained model on other data: by LoRA, by a control image, or all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from osmotic.data.controls import Control
from osmotic.data.dataset import Dataset, Under, open_data, split
from osmotic.data.source import Options as Reading
from osmotic.denoiser import NeuralDenoiser
from osmotic.recipes import plan
from osmotic.recipes.preview import preview
from osmotic.recipes.resuming import begun, refuse_options, refuse_other_data
from osmotic.recipes.train import augmentations
from osmotic.training import build
from osmotic.training.distributed import joined
from osmotic.training.errors import RunError
from osmotic.training.loop import fit
from osmotic.training.model import Model, load, stored
from osmotic.training.options import Options
from osmotic.training.recipe import Adapted, Adaption, Recipe, explicit
from osmotic.training.run import Run

STEPS: dict[Adaption, int] = {"lora": 1000, "control": 2000, "whole": 1000}
"""Where nothing is said, but never more than the base had."""
RATES: dict[Adaption, float] = {"lora": 1.0, "control": 1.0, "whole": 0.2}
"""Learning rates, as multiples of the base's: a weight that is good already should not be thrown about."""


def adapt(
    base: str | Path,
    data: Any,
    out: str | Path,
    by: Adaption = "lora",
    *,
    rank: int = 4,
    options: Options | None = None,
    reading: dict[str, Any] | None = None,
    weights: str | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    device: torch.device | str | None = None,
) -> Run:
    """Train what is put beside (or into) a trained model, and return the run of the whole: it is loaded like any other.

    Args:
        base: the run of the model.
        data: as for :func:`osmotic.recipes.train.train`, of the same kind and shape; its classes are among the base's.
        out: a new or empty directory.
        by: ``"lora"`` (low-rank changes), ``"control"`` (a ControlNet that follows an image made of each picture) or
            ``"whole"`` (all weights).
        rank: of LoRA.
        options: how to train; what is left out comes from the base.
        reading: how the data are read; ``{"control": NAME}`` says which image, for ``"control"``.
        weights: of the base, as in :func:`osmotic.load`.
        resume: go on with the run in ``out``.
        tell: called with each line of the plan.
        device: None takes a CUDA device if there is one.

    Raises:
        ValueError: for a base, data or settings that do not go together, in one sentence.
    """
    model = load(base, weights, device="cpu")
    (Run.open if resume else Run.refuse_used)(out)
    if resume and not reading:
        reading = Run.open(out).recipe().get("reading", {})
    own = data if isinstance(data, Dataset) else open_data(data, **asdict(Reading(**(reading or {}))))
    _refuse(base, model, by, own.spec.control)
    dataset = Under(own, model.spec.model_copy(update={"control": own.spec.control or model.spec.control}))
    adapted = Adapted(by=by, base=f"{Path(base).resolve()} ({model.weights}, step {model.step})", rank=rank)
    recipe = resolved(model.recipe, adapted, options, reading or {})
    with joined(device) as world:
        if resume:
            recipe = world.from_main(lambda: _continued(dataset, out, recipe, options))
        training, held_out = split(dataset, recipe.holdout, recipe.options.seed)
        assert isinstance(model.denoiser, NeuralDenoiser)
        task = build.task(recipe, dataset.spec, world.device, model.denoiser.network)
        if tell is not None and world.main:
            tell("measuring what a step costs")
            for line in plan.measure(task, training, recipe, dataset.spec, world.device).lines(recipe):
                tell(line)
        run = world.from_main(lambda: begun(out, recipe, dataset.spec, resume))
        held = held_out if len(held_out) else None
        changes = augmentations(recipe)
        return fit(task, training, run, recipe.options, held, [preview(recipe, dataset)], changes, device)


def resolved(base: Recipe, adapted: Adapted, options: Options | None, reading: dict[str, Any]) -> Recipe:
    """The recipe of an adaption."""
    asked = {} if options is None else explicit(options)
    steps = asked.get("steps", min(STEPS[adapted.by], base.options.steps))
    own = {
        "steps": steps,
        "learning_rate": RATES[adapted.by] * base.options.learning_rate,
        "warmup": min(100, steps // 10),
        "ema": (max(10.0, steps / 20),),
    }
    return base.model_copy(
        update={
            "adapted": adapted,
            "options": Options(**{**base.options.model_dump(), **own, **asked}),
            "reading": reading,
            # A control image would not be turned with its picture.
            **(dict.fromkeys(("flip", "upend", "turn"), False) | {"shift": 0} if adapted.by == "control" else {}),
        }
    )


def _refuse(base: str | Path, model: Model, by: Adaption, control: Control | None) -> None:
    if model.recipe.student is not None:
        raise RunError(f"{base} is a few-step model; adapt its teacher, and distil that.")
    if model.recipe.adapted is not None:
        raise RunError(f"{base} is adapted already; adapt {model.recipe.adapted.base.split(' (')[0]} instead.")
    if (by == "control") != (control is not None):
        raise RunError("--by control and --control NAME go together; give both, or none.")
    if control is not None and model.spec.control is not None:
        raise RunError(f"{base} is told an image already; adapt a model without.")


def _continued(dataset: Dataset, out: str | Path, recipe: Recipe, options: Options | None) -> Recipe:
    before, spec = stored(Run.open(out))
    refuse_other_data(out, spec, dataset.spec)
    if before.adapted != recipe.adapted:
        raise RunError(f"{out} was adapted from another base, or otherwise; start a new run.")
    given = {} if options is None else explicit(options)
    refuse_options(out, before.options, given)
    return before.model_copy(update={"options": before.options.model_copy(update=given)})
