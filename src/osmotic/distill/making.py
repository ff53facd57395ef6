"""From a recipe to a stage's student and task."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from osmotic.data.spec import Spec
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.distill import METHODS
from osmotic.distill.base import Method, Setting, Stage, Start
from osmotic.distill.begin import begin
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.training import build
from osmotic.training.options import Options
from osmotic.training.recipe import Distillation, Process, Recipe
from osmotic.training.task import Task


def scratch(objective: str) -> bool:
    """Whether an objective of ``osmotic train`` makes a few-step model without a teacher."""
    return objective in METHODS and not METHODS[objective].teacher


def started(recipe: Recipe, spec: Spec) -> Start:
    """What is known of a run before its first stage."""
    process = recipe.process
    return Start(
        SCHEDULES[process.schedule](),
        process.sigma_data or build.DEFAULT_SIGMA,
        math.prod(spec.shape[1:]),
        bool(spec.parts),
        recipe.distillation,
    )


def stages(method: str, recipe: Recipe, spec: Spec) -> tuple[Stage, ...]:
    """The stages of a method for this recipe.

    Raises:
        ValueError: for numbers that the method does not read, or that do not fit it.
    """
    refuse_unread(method, recipe.distillation)
    return METHODS[method].stages(started(recipe, spec))


def refuse_unread(method: str, numbers: Distillation) -> None:
    """Refuse what was said and would be silently ignored."""
    reads = METHODS[method].reads
    for name in sorted(numbers.model_fields_set):
        if name not in reads and getattr(numbers, name) != Distillation.model_fields[name].default:
            raise ValueError(f"The method {method} takes no --{name.replace('_', '-')}; leave it out.")


def refuse_options(method: Method, options: Options) -> None:
    """Refuse ways of training that a method's losses cannot have."""
    if options.shard:
        raise ValueError("Few-step methods look at copies of the network, which are whole; train without --shard.")
    if options.compile and not method.compiles:
        raise ValueError(
            f"{method.name} takes derivatives of the network that a compiled one does not have, or has with other "
            "dropout; train without --compile."
        )


def refuse_numbers(numbers: Distillation) -> None:
    """Refuse numbers of few-step methods where none is trained."""
    for name in sorted(numbers.model_fields_set):
        if getattr(numbers, name) != Distillation.model_fields[name].default:
            raise ValueError(f"--{name.replace('_', '-')} belongs to few-step methods; leave it out here.")


def refuse_laws(process: Process) -> None:
    """Refuse settings of denoising that few-step objectives have of their own."""
    for name in ("law", "weight", "coupling"):
        if getattr(process, name) != Process.model_fields[name].default:
            raise ValueError(
                f"--objective {process.objective} takes no --{name}: the method has its own; leave it out."
            )


def task(
    stage: Stage,
    recipe: Recipe,
    spec: Spec,
    device: torch.device,
    first: Denoiser | None = None,
    teacher: Denoiser | None = None,
) -> Task:
    """The task of a stage, its student on the device.

    Args:
        recipe: of the stage, with its student.
        first: whose weights the student starts from; None for its own.
        teacher: what it learns from.

    Raises:
        ValueError: if the networks do not fit each other.
    """
    student = build.denoiser(recipe, spec, device).requires_grad_(True)  # of an adapted teacher all weights learn
    teacher = None if teacher is None else teacher.to(device)
    if isinstance(first, NeuralDenoiser):
        begin(student, first.to(device))
    drop = build.dropped(recipe.process, spec)
    if stage.pairs:
        drop = replace(drop, drawn=None)  # a pair was made under its own condition, and belongs to no other
    return stage.task(Setting(student, teacher, started(recipe, spec), recipe.options.steps, drop))
