"""From a teacher to a few-step student: the stages of a method, each a run of its own, resumed where they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from osmotic.condition import Condition
from osmotic.data.dataset import Dataset, Subset
from osmotic.data.errors import closest
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.distill import METHODS, making, pairs, reflow
from osmotic.distill.base import Method, Stage
from osmotic.distill.pairs import Pairs
from osmotic.estimate import inverse
from osmotic.guidance import ClassifierFree
from osmotic.recipes import plan
from osmotic.recipes.beside import STAGES
from osmotic.recipes.held_out import halves
from osmotic.recipes.preview import preview
from osmotic.recipes.quality.drawing import shares
from osmotic.recipes.train import augmentations
from osmotic.training.distributed import World, joined
from osmotic.training.errors import RunError
from osmotic.training.feed import Samples
from osmotic.training.loop import fit
from osmotic.training.model import Model, load, stored
from osmotic.training.options import Options
from osmotic.training.precision import autocast_dtype
from osmotic.training.recipe import Distillation, Recipe, explicit
from osmotic.training.run import Run

PAIRS = "pairs"

TEACHER_STEPS = 2000
"""A method's steps are stated for a teacher of so many (the digits'); longer training asks for longer distillation."""

LOUDEST = 20.0
"""By how much an error of a network's output may grow in x0 at pure noise, in deviations of the data: EDM's target has
1, v and velocity about 2, eps 150 on the VP path."""

STRAIGHT, TIMES = 256, 16
"""Pairs and times over which straightness is measured."""

HELD = 0.05
"""Share of the pairs that is held out, for regression on a finite set is learned by heart."""


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


def distill(
    teacher: str | Path,
    out: str | Path,
    method: str,
    *,
    data: Any = None,
    options: Options | None = None,
    numbers: Distillation | None = None,
    weights: str | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    device: torch.device | str | None = None,
) -> Run:
    """Distil a run into a few-step model and return its run; ``osmotic.load(out)`` gives the student.

    Earlier stages (rounds of progressive distillation, reflows) are runs in ``out/stages``, pairs lie in ``out/pairs``.

    Args:
        teacher: a directory that training made.
        out: a new or empty directory.
        method: a name of ``osmotic.distill.METHODS``.
        data: what the teacher was trained on, where that is not found again at its own place.
        options: how to train; what is not set comes from the teacher's run and the method.
        numbers: of the method.
        weights: of the teacher, as in :func:`osmotic.load`.
        resume: go on with the run in ``out``.
        tell: called with lines about what is done.
        device: None takes a CUDA device if there is one.

    Raises:
        ValueError: for a teacher, a method or settings that cannot be used, in one sentence.
    """
    say = tell or (lambda line: None)
    if method not in METHODS:
        hint = closest(method, list(METHODS)) or "."
        raise ValueError(f"There is no method {method!r}; there are {', '.join(METHODS)}{hint}")
    (Run.open if resume else Run.refuse_used)(out)
    model = load(teacher, weights, device)
    refuse_teacher(teacher, model, METHODS[method])
    if resume:
        _refuse_changes(out, method, numbers)
        numbers = stored(Run.open(out))[0].distillation
    plans = planned(model, Path(out), Path(teacher), METHODS[method], options, numbers or Distillation())
    taught = under_guidance(model, plans[-1].recipe.distillation.guidance)
    training, held = halves(teacher, data)
    with joined(device) as world:
        last = plans[-1]
        if not resume:
            contents = last.recipe.model_dump(mode="json")
            world.from_main(lambda: Run.create(out, contents, model.spec.model_dump(mode="json")))
        first: Denoiser = model.denoiser
        # A teacher rounds no coarser than its student: half of the losses are differences of the two.
        if isinstance(first, NeuralDenoiser):
            first.autocast = autocast_dtype(last.recipe.options.precision, world.device)
        for number, distilled in enumerate(plans):
            if len(plans) > 1:
                say(f"stage {number + 1} of {len(plans)}: {distilled.stage.name or method}")
            _train(distilled, first, taught, training, held, world, say, device)
            if distilled is not last:
                first = taught = load(distilled.folder, device=device).denoiser
    return Run.open(out)


def refuse_teacher(teacher: str | Path, model: Model, method: Method) -> None:
    """Refuse a model that cannot teach.

    Raises:
        RunError: saying why, and what to do.
    """
    if not model.denoiser.diagonal:
        made = model.recipe.student
        what = "a few-step model" if made is None else f"a student of the method {made.method}"
        raise RunError(
            f"{teacher} is {what} and has no posterior mean to teach; distil its teacher"
            f"{'' if made is None or made.teacher is None else f', {made.teacher},'} instead."
        )
    process, denoiser = model.recipe.process, model.denoiser
    if method.from_noise and isinstance(denoiser, NeuralDenoiser):
        (_, per_output), _ = inverse(denoiser.schedule.scalars(1.0), denoiser.target.numbers(denoiser.schedule, 1.0))
        if abs(float(per_output)) > LOUDEST * (process.sigma_data or 1.0):
            raise RunError(
                f"{teacher} predicts {process.target}, which says next to nothing of the sample at pure noise, where "
                f"{method.name} has to read it; train a teacher with --target v or karras, or use --method progressive."
            )
    if model.recipe.student is not None and model.recipe.student.scales is not None:
        raise RunError(f"{teacher} is told its guidance; distil its teacher with --method guided instead.")


def under_guidance(model: Model, scale: float) -> Denoiser:
    """The teacher at a guidance scale.

    Raises:
        ValueError: for guidance that it never learned.
    """
    if scale == 1:
        return model.denoiser
    if model.spec.classes is None:
        raise ValueError("This teacher has no classes to lead to; leave out --guidance.")
    if model.recipe.process.condition_dropout == 0:
        raise ValueError("This teacher never learned guidance (--condition-dropout 0); leave out --guidance.")
    return ClassifierFree(model.denoiser, scale)


def planned(
    model: Model, out: Path, teacher: Path, method: Method, options: Options | None, numbers: Distillation
) -> list[Distilled]:
    """The stages with their folders and recipes.

    Raises:
        ValueError: for numbers that do not fit the method.
    """
    base = model.recipe.model_copy(
        update={"distillation": numbers, "options": resolved(model.recipe.options, method, options)}
    )
    if not method.dropout:
        base = base.model_copy(update={"architecture": base.architecture.model_copy(update={"dropout": 0.0})})
    stages = making.stages(method.name, base, model.spec)
    total, start = sum(stage.share for stage in stages), making.started(base, model.spec)
    found, name = [], f"{teacher} ({model.weights}, step {model.step})"
    for stage in stages:
        student = stage.student(start).model_copy(update={"teacher": name})
        steps = max(1, round(base.options.steps * stage.share / total))
        recipe = base.model_copy(
            update={
                "student": student,
                "options": base.options.model_copy(update={"steps": steps}),
                "process": base.process.model_copy(update={"objective": "denoising"}),
            }
        )
        folder = out / STAGES / stage.name if stage.name else out
        found.append(Distilled(stage, folder, recipe))
        name = str(folder)
    return found


def resolved(teacher: Options, method: Method, asked: Options | None) -> Options:
    """The options of all stages together: what was asked for, else the method's, else the teacher's."""
    scale = max(1.0, teacher.steps / TEACHER_STEPS)
    own = {
        "steps": max(1, round(method.steps * scale)),
        "learning_rate": method.rate * teacher.learning_rate,
        # Two branches that differ by a small step lose their difference in bfloat16's eight bits.
        "precision": "float32",
        "ema": (max(20.0, 0.05 * method.steps * scale),),
        "warmup": min(100, method.steps),
        "shard": False,
    }
    return Options(**{**teacher.model_dump(), **own, **({} if asked is None else explicit(asked))})


def _train(
    distilled: Distilled,
    first: Denoiser,
    teacher: Denoiser,
    training: Subset,
    held: Subset,
    world: World,
    say: Callable[[str], None],
    device: torch.device | str | None,
) -> None:
    """One stage, from where it stands."""
    stage, recipe, folder = distilled.stage, distilled.recipe, distilled.folder
    data: Samples = training
    held_out: Samples | None = held if len(held) else None
    task = making.task(stage, recipe, training.spec, world.device, first, teacher)
    run = world.from_main(lambda: _opened(distilled, training))
    if stage.pairs:
        kept = world.from_main(lambda: made(distilled, teacher, training, world.device, say))
        data, held_out = kept.split(HELD)
        if recipe.student is not None and recipe.student.method == reflow.METHOD.name:
            say(f"the teacher's flow on its own pairs: {straight(teacher, held_out, world.device):.4f} from straight")
    complete = run.complete()
    if complete and complete[0][1].step == recipe.options.steps:
        say(f"{folder} is finished already")
        return
    for line in plan.measure(task, data, recipe, training.spec, world.device).lines(recipe):
        say(line)
    changes = () if stage.pairs else augmentations(recipe)
    fit(task, data, run, recipe.options, held_out, [preview(recipe, training)], changes, device)


@torch.no_grad()
def straight(flow: Denoiser, kept: Pairs, device: torch.device) -> float:
    """How far a flow is from straight on pairs that it made itself: see :func:`osmotic.distill.reflow.straightness`.

    Over held-out pairs and times even on the rectified path; 0 is a straight flow, of which one Euler step is exact.
    """
    x, labels = kept.batch(np.arange(min(STRAIGHT, len(kept))))
    x0, noise = x.to(device).unbind(1)
    cond = None if labels is None else Condition(vector=labels.to(device))
    eps, found = pairs.chord(flow.schedule, x0, noise, flow.start), []
    for share in (torch.arange(TIMES, dtype=torch.float64) + 0.5) / TIMES:
        t = flow.schedule.time(2 * torch.log((1 - share) / share)).clamp(max=flow.start)
        found.append(reflow.straightness(flow, x0, eps, t.expand(len(x0)), cond).mean())
    return float(torch.stack(found).mean())


def _opened(distilled: Distilled, dataset: Dataset) -> Run:
    """The run of a stage, made if it is not there."""
    if (distilled.folder / "recipe.json").exists():
        return Run.open(distilled.folder)
    contents = distilled.recipe.model_dump(mode="json")
    return Run.create(distilled.folder, contents, dataset.spec.model_dump(mode="json"))


def made(
    distilled: Distilled, teacher: Denoiser, training: Subset, device: torch.device, say: Callable[[str], None]
) -> Pairs:
    """The pairs of a stage, those that are missing made now."""
    recipe, spec = distilled.recipe, training.spec
    count, seed = recipe.distillation.pairs, recipe.options.seed
    labels = shares(training, count, seed)
    folder = distilled.folder / PAIRS
    name = pairs.fingerprint(teacher, recipe.distillation.guidance)
    say(f"{count:,} pairs of noise and sample in {folder}, made where they are missing")
    with tqdm(total=count, desc="making pairs", unit="pair", delay=2, leave=False) as bar:

        def told(made: int, in_all: int) -> None:
            bar.update(made - bar.n)

        return pairs.stored(
            folder,
            teacher.to(device),
            name,
            spec.shape,
            making.started(recipe, spec),
            count,
            seed,
            None if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64)),
            progress=told,
        )


def _refuse_changes(out: str | Path, method: str, numbers: Distillation | None) -> None:
    recipe, _ = stored(Run.open(out))
    if recipe.student is None or recipe.student.method != method:
        was = "no distillation" if recipe.student is None else f"--method {recipe.student.method}"
        raise RunError(f"{out} is {was}, which cannot become {method} on the way; start a new run.")
    if numbers is not None:
        for name in numbers.model_fields_set:
            if getattr(numbers, name) != getattr(recipe.distillation, name):
                raise RunError(
                    f"{out} was distilled with --{name.replace('_', '-')} {getattr(recipe.distillation, name)}, which "
                    "cannot change on the way; start a new run."
                )
