"""``osmotic tune RUN`` (torch-free until it starts)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from osmotic.cli.flags import build, flags, given, parse
from osmotic.cli.sample import WITHOUT
from osmotic.training.recipe import Frozen


class Budget(Frozen):
    """What to tune for."""

    nfe: int = Field(
        8, ge=1, le=256, description="evaluations of the model for each sample: the time that sampling takes"
    )
    guidance: float = Field(1.0, description="classifier-free scale that you will sample with")
    count: int = Field(64, ge=1, description="noises to tune on, and as many to confirm on; fewer is faster")
    seed: int = Field(0, ge=0, lt=2**63, description="of the noises")
    minutes: float = Field(10.0, gt=0, description="stop trying after so long")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")


Flags = flags(Budget, "tuning")


@dataclass
class Tune:
    """Find the solver and the steps that come nearest to converged samples within a budget, for `osmotic sample`.

    `osmotic sample RUN` then uses what was tuned last, and `osmotic sample RUN --nfe N` what was tuned for N. Naming
    --grid, or another --sampler or --steps, leaves the tuning out; deleting RUN/tuning forgets it.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory that `osmotic train` or `osmotic distill` made"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """what it was trained on, where that has moved; few-step models are tuned against their data"""
    budget: Flags = field(default_factory=Flags)  # type: ignore[valid-type]
    """what to tune for"""


def main(words: list[str]) -> int:
    """Parse, search, say what was found and how to use it."""
    command = parse(Tune, "tune", words)
    settings = build(Budget, given(command.budget))
    from osmotic.training.run import Run

    Run.open(command.run)  # a wrong directory is refused before torch is imported
    from osmotic.recipes.tune import tune

    try:
        tuned, paths = tune(
            command.run,
            settings.nfe,
            settings.guidance,
            settings.count,
            settings.seed,
            settings.weights,
            minutes=settings.minutes,
            data=command.data,
            tell=print,
        )
    except KeyboardInterrupt as stop:
        nothing = "Interrupted before every solver was tried; nothing was stored. A smaller --count takes less time."
        raise KeyboardInterrupt(str(stop) or nothing) from None
    for path in paths:
        print(path)
    print(f"`osmotic sample {command.run}` now uses {tuned.says()}")
    print(f"naming {WITHOUT} leaves the tuning out; deleting {command.run / 'tuning'} forgets it")
    return 0
