"""``osmotic distill TEACHER --method M --out RUN`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.training.options import Options
from osmotic.training.recipe import Distillation, Method, Recipe
from osmotic.training.run import Run

Training = flags(Options, "training", found=frozenset({"steps", "learning_rate", "batch_size", "ema", "precision"}))
Numbers = flags(Distillation, "numbers of the methods")


@dataclass
class Distill:
    """Turn the model in TEACHER into a few-step model, and measure the two side by side.

    knowledge, progressive, guided, consistency, ect, scm, ctm, reflow and dmd learn from the teacher; ct, ict,
    meanflow, shortcut and ddgan need none (`osmotic train --objective` trains those, and scm, from scratch).
    """

    teacher: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TEACHER")]
    """directory of a run: of `osmotic train`, or of a student that has a posterior mean"""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """directory of the student, new or empty; everything is written there"""
    method: Annotated[Method | None, tyro.conf.arg(help_behavior_hint="(default: consistency)")] = None
    """how; consistency is among the best at one and two steps on small data"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """what the teacher was trained on, where it has moved since"""
    weights: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """which weights of the teacher: model, or ema-HALFLIFE (default: the first average)"""
    resume: bool = False
    """go on with the run in --out"""
    unmeasured: bool = False
    """do not measure the student beside its teacher at the end"""
    training: Training = field(default_factory=Training)  # type: ignore[valid-type]
    """how to train; what is left out comes from the teacher's run and the method"""
    numbers: Numbers = field(default_factory=Numbers)  # type: ignore[valid-type]
    """what some of the methods can be told"""


def main(words: list[str]) -> int:
    """Parse, distil, measure the student beside its teacher."""
    settings = parse(Distill, "distill", words)
    options: Any = build(Options, given(settings.training))
    numbers = build(Distillation, given(settings.numbers))
    if settings.out.resolve() == settings.teacher.resolve():
        raise UsageError("The student needs a directory of its own; choose another --out.")
    Run.open(settings.teacher)  # a wrong directory is refused before torch is imported
    (Run.open if settings.resume else Run.refuse_used)(settings.out)
    from osmotic.recipes.beside import beside
    from osmotic.recipes.distill import distill
    from osmotic.training.distributed import is_main

    say = print if is_main() else _silent
    run = distill(
        settings.teacher,
        settings.out,
        settings.method or _method(settings.out if settings.resume else None),
        data=settings.data,
        options=options,
        numbers=numbers if numbers.model_fields_set else None,
        weights=settings.weights,
        resume=settings.resume,
        tell=say,
    )
    if is_main() and not settings.unmeasured:
        try:
            lines, paths = beside(settings.teacher, run.directory, settings.data, say, settings.weights)
        except ValueError as error:  # the student is whole all the same
            lines, paths = [f"not measured beside its teacher: {error}"], []
        for line in [*lines, *map(str, paths)]:
            say(line)
    say(f"done: {run.directory}; draw from it with `{shlex.join(['osmotic', 'sample', str(run.directory)])}`")
    return 0


def _method(begun: Path | None) -> Method:
    """What a run that is resumed was begun with, else the default."""
    if begun is not None:
        student = Recipe.model_validate(Run.open(begun).recipe()).student
        if student is not None:
            return student.method
    return "consistency"


def _silent(line: str) -> None:
    pass
