"""The stages of a distillation: folders and recipes, what is refused before anything is written, and resuming."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.distill import making
from osmotic.distill.base import Method, Stage
from osmotic.estimate import inverse
from osmotic.guidance import ClassifierFree
from osmotic.recipes.resuming import refuse_options
from osmotic.training.errors import RunError
from osmotic.training.model import Model, stored
from osmotic.training.options import Options
from osmotic.training.recipe import Distillation, Recipe, explicit
from osmotic.training.run import RECIPE, STAGES, Run

TEACHER_STEPS = 2000
"""A method's steps are stated for a teacher of so many (the digits'); longer training asks for longer distillation."""

AVERAGED, WARM = 0.05, 0.1
"""Half-life of the averaged weights and warm-up, as shares of a stage's steps."""

LOUDEST = 20.0
"""By how much an error of a network's output may grow in x0 at pure noise, in deviations of the data: EDM's target has
1, v and velocity about 2, eps 150 on the VP path."""


@dataclass(frozen=True)
class Distilled:
    """A stage that is about to be trained.

    Args:
        stage: which.
        folder: its run.
        recipe: resolved.
    """

    stage: Stage
    folder: Path
    recipe: Recipe


def refuse_teacher(teacher: str | Path, model: Model, method: Method) -> None:
    """Refuse a model that cannot teach a method.

    Raises:
        RunError: saying why, and what to do.
    """
    process, denoiser, made = model.recipe.process, model.denoiser, model.recipe.student
    if not denoiser.diagonal:
        other = "distil an ordinary model" if made is None or made.teacher is None else f"distil {made.teacher}"
        raise RunError(f"{teacher} is a few-step model and has no posterior mean to teach; {other} instead.")
    if made is not None and made.scales is not None:
        raise RunError(f"{teacher} is told its guidance; distil its teacher with --method guided instead.")
    if "largest_guidance" in method.reads and process.condition_dropout == 0:
        raise RunError(
            f"{teacher} never learned guidance (--condition-dropout 0), which {method.name} distils; use --method "
            "progressive."
        )
    if not method.from_noise or not isinstance(denoiser, NeuralDenoiser):
        return
    (_, per_output), _ = inverse(denoiser.schedule.scalars(1.0), denoiser.target.numbers(denoiser.schedule, 1.0))
    if abs(float(per_output)) > LOUDEST * (process.sigma_data or 1.0):
        raise RunError(
            f"{teacher} predicts {process.target}, which says next to nothing of the sample at pure noise, where "
            f"{method.name} has to read it; train a teacher with --target v or karras, or use --method progressive."
        )


def under_guidance(model: Model, scale: float) -> Denoiser:
    """The teacher at a guidance scale.

    Raises:
        ValueError: for guidance that it never learned.
    """
    if scale == 1:
        return model.denoiser
    if not model.spec.parts:
        raise ValueError("This teacher has no classes or texts to lead to; leave out --guidance.")
    if model.recipe.process.condition_dropout == 0:
        raise ValueError("This teacher never learned guidance (--condition-dropout 0); leave out --guidance.")
    return ClassifierFree(model.denoiser, scale)


def planned(
    model: Model,
    fingerprint: str,
    out: Path,
    teacher: Path,
    method: Method,
    options: Options | None,
    numbers: Distillation,
) -> list[Distilled]:
    """The stages with their folders and recipes.

    Raises:
        ValueError: for numbers or options that do not fit the method.
    """
    base = model.recipe.model_copy(
        update={"distillation": numbers, "options": resolved(model.recipe.options, method, options)}
    )
    if not method.dropout:
        base = base.model_copy(update={"architecture": base.architecture.model_copy(update={"dropout": 0.0})})
    making.refuse_options(method, base.options)
    stages = making.stages(method.name, base, model.seen)
    total, start = sum(stage.share for stage in stages), making.started(base, model.seen)
    found, name = [], f"{teacher} ({model.weights}, step {model.step})"
    for stage in stages:
        student = stage.student(start).model_copy(update={"teacher": name, "fingerprint": fingerprint})
        steps = max(1, round(base.options.steps * stage.share / total))
        process: dict[str, Any] = {"objective": "denoising"}
        if not stage.hides:
            process["condition_dropout"] = 0.0  # so that nobody asks the student for what it never learned
        recipe = base.model_copy(
            update={
                "student": student,
                "options": of_stage(base.options, steps, options),
                "process": base.process.model_copy(update=process),
            }
        )
        folder = out / STAGES / stage.name if stage.name else out
        found.append(Distilled(stage, folder, recipe))
        name = str(folder)
    return found


def resolved(teacher: Options, method: Method, asked: Options | None) -> Options:
    """The options of all stages together: what was asked for, else the method's, else the teacher's.

    Raises:
        ValueError: for a seed of its own: the student would be trained on what was held out of its teacher's training.
    """
    if asked is not None and explicit(asked).get("seed", teacher.seed) != teacher.seed:
        raise ValueError(
            f"A student keeps its teacher's seed, {teacher.seed}, which also says which samples are held out; leave "
            "out --seed."
        )
    own = {
        "steps": max(1, round(method.steps * max(1.0, teacher.steps / TEACHER_STEPS))),
        "learning_rate": method.rate * teacher.learning_rate,
        # Two branches that differ by a small step lose their difference in bfloat16's eight bits.
        "precision": "float32",
        "compile": False,
        "shard": False,
    }
    return Options(**{**teacher.model_dump(), **own, **({} if asked is None else explicit(asked))})


def of_stage(options: Options, steps: int, asked: Options | None) -> Options:
    """The options of one stage: averages and warm-up suit its own length, unless they were asked for."""
    given = set() if asked is None else asked.model_fields_set
    found: dict[str, Any] = {"steps": steps}
    if "ema" not in given:
        found["ema"] = (max(10.0, AVERAGED * steps),)
    if "warmup" not in given:
        found["warmup"] = min(100, round(WARM * steps))
    return options.model_copy(update=found)


def resumed(plans: list[Distilled], asked: Options | None) -> list[Distilled]:
    """The same stages with the options that their runs have, changed by what is asked for now.

    Raises:
        RunError: for what cannot change on the way, and for another length of a run of several stages, whose earlier
            ones may be over.
    """
    given = {} if asked is None else explicit(asked)
    last = stored(Run.open(plans[-1].folder))[0].options
    refuse_options(plans[-1].folder, last, given)
    if len(plans) > 1 and given.pop("steps", None) is not None and plans[-1].recipe.options.steps != last.steps:
        raise RunError(
            f"{plans[-1].folder} has {len(plans)} stages, whose steps cannot change on the way; leave out --steps."
        )
    found = []
    for distilled in plans:
        begun = (distilled.folder / RECIPE).exists()
        own = distilled.recipe.options
        kept = stored(Run.open(distilled.folder))[0].options if begun else last
        scale = {} if begun else {"steps": own.steps, "ema": own.ema, "warmup": own.warmup}
        options = Options(**{**kept.model_dump(), **scale, **given})
        found.append(
            Distilled(distilled.stage, distilled.folder, distilled.recipe.model_copy(update={"options": options}))
        )
    return found


def refuse_changes(
    out: str | Path, method: str, numbers: Distillation | None, teacher: str | Path, fingerprint: str
) -> None:
    """Refuse what cannot change when a distillation is resumed.

    Raises:
        RunError: naming it.
    """
    recipe, _ = stored(Run.open(out))
    student = recipe.student
    if student is None or student.method != method:
        was = "no distillation" if student is None else f"--method {student.method}"
        raise RunError(f"{out} is {was}, which cannot become {method} on the way; start a new run.")
    if student.fingerprint != fingerprint:
        raise RunError(
            f"{out} was distilled from another teacher than {teacher} is now; resume with the teacher and weights that "
            "it began with, or start a new run."
        )
    if numbers is not None:
        for name in numbers.model_fields_set:
            if getattr(numbers, name) != getattr(recipe.distillation, name):
                raise RunError(
                    f"{out} was distilled with --{name.replace('_', '-')} {getattr(recipe.distillation, name)}, which "
                    "cannot change on the way; start a new run."
                )
