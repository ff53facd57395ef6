"""``osmotic adapt BASE DATA --out RUN`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.cli.reading import Reading
from osmotic.training.options import Options
from osmotic.training.recipe import Adaption
from osmotic.training.run import Run

Training = flags(Options, "training", found=frozenset({"steps", "learning_rate", "batch_size", "ema", "warmup"}))


@dataclass
class Adapt:
    """Fine-tune the model in BASE on DATA of the same shape; the result in RUN is a run like any other.

    lora learns low-rank changes of some weights, a few per cent of all; control learns to follow an image made of each
    picture (--control), beside the model that stays as it is; whole trains all weights further.
    """

    base: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BASE")]
    """directory of a run of `osmotic train`"""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """path, or the name of an embedded set; its classes, if any, are among the base's"""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """directory of the result, new or empty; everything is written there"""
    by: Annotated[Adaption, tyro.conf.arg(help_behavior_hint="(default: lora)")] = "lora"
    """what learns"""
    rank: Annotated[int, tyro.conf.arg(help_behavior_hint="(default: 4)")] = 4
    """of lora's changes"""
    weights: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """which weights of the base: model, or ema-HALFLIFE (default: the first average)"""
    resume: bool = False
    """go on with the run in --out"""
    reading: Reading = field(default_factory=Reading)
    training: Training = field(default_factory=Training)  # type: ignore[valid-type]
    """how to train; what is left out comes from the base and the kind of adaption"""


def main(words: list[str]) -> int:
    """Parse, adapt, say where."""
    settings = parse(Adapt, "adapt", words)
    options: Any = build(Options, given(settings.training))
    if settings.rank < 1:
        raise UsageError(f"--rank is at least 1; got {settings.rank}.")
    if settings.out.resolve() == settings.base.resolve():
        raise UsageError("The result needs a directory of its own; choose another --out.")
    Run.open(settings.base)  # a wrong directory is refused before torch is imported
    (Run.open if settings.resume else Run.refuse_used)(settings.out)
    from osmotic.recipes.adapt import adapt
    from osmotic.training.distributed import is_main

    run = adapt(
        settings.base,
        settings.data,
        settings.out,
        settings.by,
        rank=settings.rank,
        options=options if options.model_fields_set else None,
        reading=given(settings.reading),
        weights=settings.weights,
        resume=settings.resume,
        tell=print if is_main() else None,
    )
    if is_main():
        print(f"done: {run.directory}; draw from it with `{shlex.join(['osmotic', 'sample', str(run.directory)])}`")
    return 0
