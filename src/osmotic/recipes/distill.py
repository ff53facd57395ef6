"""From a teacher to a few-step student: the stages of a method, each a run of its own, resumed where they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from osmotic.condition import Condition
from osmotic.data.dataset import Subset
from osmotic.data.errors import closest
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.distill import METHODS, making, pairs, reflow
from osmotic.distill.pairs import Pairs
from osmotic.recipes import plan
from osmotic.recipes.held_out import whole
from osmotic.recipes.preview import preview
from osmotic.recipes.quality.drawing import chosen
from osmotic.recipes.resuming import begun
from osmotic.recipes.stages import Distilled, planned, refuse_changes, refuse_teacher, resumed, under_guidance
from osmotic.recipes.train import augmentations
from osmotic.training.distributed import World, joined
from osmotic.training.errors import RunError
from osmotic.training.feed import Samples
from osmotic.training.hooks import Hook
from osmotic.training.latents import FOLDER as LATENTS
from osmotic.training.latents import as_latents
from osmotic.training.loop import fit
from osmotic.training.model import Model, load, stored
from osmotic.training.options import Options
from osmotic.training.precision import autocast_dtype
from osmotic.training.recipe import Distillation
from osmotic.training.run import RECIPE, Run
from osmotic.training.task import Task

PAIRS = "pairs"

STRAIGHT, TIMES = 256, 16
"""Pairs and times over which straightness is measured."""

HELD = 0.05
"""Share of the pairs that is held out, for regression on a finite set is learned by heart."""


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
    with joined(device) as world:
        model = load(teacher, weights, world.device)
        refuse_teacher(teacher, model, METHODS[method])
        fingerprint = pairs.fingerprint(model.denoiser)
        if resume:
            refuse_changes(out, method, numbers, teacher, fingerprint)
            numbers = stored(Run.open(out))[0].distillation
        numbers = numbers or Distillation()
        plans = planned(model, fingerprint, Path(out), Path(teacher), METHODS[method], options, numbers)
        if model.spec.sizes and any(each.stage.pairs for each in plans):
            raise RunError(
                f"{teacher} draws several sizes, and --method {method} makes pairs of one; use --method consistency, "
                "which learns from the pictures themselves."
            )
        plans = resumed(plans, options) if resume else plans
        first, taught = model.denoiser, under_guidance(model, numbers.guidance)
        # A teacher rounds no coarser than its student: half of the losses are differences of the two.
        if isinstance(first, NeuralDenoiser):
            first.autocast = autocast_dtype(plans[-1].recipe.options.precision, world.device)
        parts = whole(teacher, data)
        # Whatever can be refused is refused here; only then is anything written.
        task: Task | None = making.task(plans[0].stage, plans[0].recipe, model.seen, world.device, first, taught)
        # All recipes are written at once, the run's own first: a stage that is resumed knows its length.
        for distilled in reversed(plans):
            world.from_main(partial(_open, distilled, model))
        say(f"{method}: {METHODS[method].what}")
        seen = as_latents(model, parts, Path(out) / LATENTS, world, say)
        for number, distilled in enumerate(plans):
            if len(plans) > 1:
                say(f"stage {number + 1} of {len(plans)}: {distilled.stage.name or method}")
            hook = preview(distilled.recipe, parts[0], model.codec)
            _train(distilled, task, first, taught, seen, hook, world, say)
            task = None
            if distilled is not plans[-1]:
                first = taught = load(distilled.folder, device=world.device).denoiser
    return Run.open(out)


def _train(
    distilled: Distilled,
    task: Task | None,
    first: Denoiser,
    teacher: Denoiser,
    parts: tuple[Subset, Subset],
    hook: Hook,
    world: World,
    say: Callable[[str], None],
) -> None:
    """One stage, from where it stands; the parts are as the network sees them."""
    (training, held), (stage, recipe, folder) = parts, (distilled.stage, distilled.recipe, distilled.folder)
    data: Samples = training
    held_out: Samples | None = held if len(held) else None
    run = Run.open(folder)
    complete = run.complete()
    if complete and complete[0][1].step == recipe.options.steps:
        say(f"{folder} is finished already")
        return
    task = task or making.task(stage, recipe, training.spec, world.device, first, teacher)
    if stage.pairs:
        data, held_out = made(distilled, teacher, training, world, say).split(HELD)
        if recipe.student is not None and recipe.student.method == reflow.METHOD.name:
            say(f"the teacher's flow on its own pairs: {straight(teacher, held_out, world.device):.4f} from straight")
    for line in plan.measure(task, data, recipe, training.spec, world.device).lines(recipe):
        say(line)
    changes = () if stage.pairs else augmentations(recipe)
    fit(task, data, run, recipe.options, held_out, [hook], changes, world.device)


@torch.no_grad()
def straight(flow: Denoiser, kept: Pairs, device: torch.device) -> float:
    """How far a flow is from straight on pairs that it made itself: see :func:`osmotic.distill.reflow.straightness`.

    Over held-out pairs and times even on the rectified path; 0 is a straight flow, of which one Euler step is exact.
    """
    some = np.arange(min(STRAIGHT, len(kept)))
    x0, noise = kept.batch(some)[0].to(device).unbind(1)
    known = kept.told(some)
    cond = Condition(**known).to(device) if known else None
    eps, found = pairs.chord(flow.schedule, x0, noise, flow.start), []
    for share in (torch.arange(TIMES, dtype=torch.float64) + 0.5) / TIMES:
        t = flow.schedule.time(2 * torch.log((1 - share) / share)).clamp(max=flow.start)
        found.append(reflow.straightness(flow, x0, eps, t.expand(len(x0)), cond).mean())
    return float(torch.stack(found).mean())


def _open(distilled: Distilled, model: Model) -> Run:
    """The run of a stage, which is resumed where it was begun."""
    return begun(distilled.folder, distilled.recipe, model.spec, (distilled.folder / RECIPE).exists(), model.codec)


def made(distilled: Distilled, teacher: Denoiser, training: Subset, world: World, say: Callable[[str], None]) -> Pairs:
    """The pairs of a stage; those that are missing are made now, by each process its share."""
    recipe, spec = distilled.recipe, training.spec
    count, seed = recipe.distillation.pairs, recipe.options.seed
    known = training.told(chosen(training, count, seed))
    folder = distilled.folder / PAIRS
    name = pairs.fingerprint(teacher, recipe.distillation.guidance)
    say(f"{count:,} pairs of noise and sample in {folder}, made where they are missing")
    world.from_main(lambda: pairs.claim(folder, name, spec.shape, count, seed, known))
    with tqdm(total=count, desc="making pairs", unit="pair", delay=2, leave=False, disable=not world.main) as bar:

        def told(made: int, in_all: int) -> None:
            bar.update(made - bar.n)

        start, part = making.started(recipe, spec), (world.rank, world.size)
        pairs.fill(folder, teacher.to(world.device), spec.shape, start, count, seed, known, part=part, progress=told)
    world.sum(torch.zeros(1, device=world.device))  # nobody reads before everybody has written
    return pairs.read(folder)
