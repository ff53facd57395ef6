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
    picture (--control), beside the model that stays as it is; whole trains all weights further; word learns a new word
    (of a model without texts, a new class) for what DATA shows, and nothing else.
    """

    base: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BASE")]
    """directory of a run of `osmotic train`"""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """path, or the name of an embedded set; its classes, if any, are among the base's, or the new one"""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """directory of the result, new or empty; everything is written there"""
    by: Annotated[Adaption | None, tyro.conf.arg(help_behavior_hint="(default: lora)")] = None
    """what learns"""
    rank: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 4)")] = None
    """of lora's changes"""
    word: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """a new word for the subject (a new class, where the base reads no texts): for word, also with lora and whole"""
    like: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """the known word or class that the new one begins as"""
    caption: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """what every sample is called, where DATA has no captions (default: "a WORD")"""
    prior: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """lora, whole: so many samples of the base are half of what is trained on, so that what it knew is not forgotten
    (default: 200 with --word, else 0)"""
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
    if settings.rank is not None and settings.rank < 1:
        raise UsageError(f"--rank is at least 1; got {settings.rank}.")
    if settings.prior is not None and settings.prior < 0:
        raise UsageError(f"--prior is at least 0; got {settings.prior}.")
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
        word=settings.word,
        like=settings.like,
        caption=settings.caption,
        prior_samples=settings.prior,
        options=options if options.model_fields_set else None,
        reading=given(settings.reading),
        weights=settings.weights,
        resume=settings.resume,
        tell=print if is_main() else None,
    )
    if is_main():
        print(f"done: {run.directory}; draw from it with `{shlex.join(['osmotic', 'sample', str(run.directory)])}`")
    return 0
