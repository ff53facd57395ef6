"""``osmotic bench RUN [RUN ...]`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.training.recipe import Frozen, Sampler
from osmotic.training.run import Run


class Sweep(Frozen):
    """What is swept."""

    sampler: tuple[Sampler, ...] = Field(
        ("flow-2pc", "ddim", "heun", "dpmpp-2m", "ddpm"), description="solvers", min_length=1
    )
    nfe: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (4, 6, 8, 12, 16, 24, 40), description="evaluations of the network for each sample", min_length=1
    )
    guidance: tuple[float, ...] = Field(
        (1.0, 1.25, 1.5, 2.0, 3.0, 5.0), description="classifier-free scales, for the first solver; 1 for all others"
    )
    count: int | None = Field(None, ge=2, description="samples of each setting (default: as many as take minutes)")
    minutes: float = Field(3.0, gt=0, description="about how long it takes in all, where --count is left out")
    seed: int = Field(0, ge=0, lt=2**63, description="of the samples")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")


Flags = flags(Sweep, "sweep")


@dataclass
class Bench:
    """Draw quality against cost for the model in RUN: solvers, evaluations and guidance, with seconds beside.

    Several runs of the same data, a teacher and its students for example, come into one picture.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="")
    ] = ()
    """directories of runs, which `osmotic train` or `osmotic distill` made; the results are stored in the first"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """what the runs were trained on, where it has moved since"""
    sweep: Flags = field(default_factory=Flags)  # type: ignore[valid-type]
    """what is swept"""


def main(words: list[str]) -> int:
    """Parse, sweep, print the table, say where it is stored."""
    command = parse(Bench, "bench", words)
    settings = build(Sweep, given(command.sweep))
    if not command.runs:
        raise UsageError("Name at least one run: osmotic bench RUN [RUN ...].")
    for run in command.runs:
        Run.open(run)  # a wrong directory is refused before torch is imported
    from osmotic.recipes.bench import bench

    spoken = shlex.join(["osmotic", "bench", *words])
    try:
        found, paths = bench(
            command.runs, command.data, **settings.model_dump(), command=spoken, tell=lambda line: print(line)
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "Interrupted; nothing was stored. Fewer --nfe or a smaller --count take less."
        ) from None
    for line in found:
        print(line)
    for path in paths:
        print(path)
    return 0
