"""``osmotic evaluate RUN`` (torch-free until it starts)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.training.recipe import Frozen
from osmotic.training.run import Run


class Likelihood(Frozen):
    """How the likelihood is measured."""

    count: int | None = Field(None, ge=1, description="held-out samples (default: as many as take about a minute)")
    divergence: Literal["exact", "hutchinson"] | None = Field(
        None, description="exactly, or by random probes (default: exact up to 32 entries a sample)"
    )
    probes: int = Field(1, ge=1, description="random probes of each draw")
    draws: int | None = Field(
        None,
        ge=1,
        description="draws of dequantising noise and probes a sample (default: 2, or 1 if nothing is random)",
    )
    noise: float | None = Field(
        None,
        gt=0,
        description="noise at which data are read (default: half a level of pictures, else 0.004 deviations)",
    )
    tolerance: float = Field(1e-4, gt=0, description="of the solver")
    seed: int = Field(0, ge=0, lt=2**63, description="of the samples chosen and of all draws")
    conditional: bool = Field(False, description="given the class of each sample")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")
    batch_size: int = Field(128, ge=1, description="samples at a time: memory, not results")


Flags = flags(Likelihood, "likelihood")


@dataclass
class Evaluate:
    """Measure the model in RUN on the data that were held out of its training."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory that `osmotic train` made"""
    likelihood: bool = False
    """bits per dimension and nats of held-out data, with error bars"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """what the run was trained on, where it has moved since"""
    how: Flags = field(default_factory=Flags)  # type: ignore[valid-type]
    """how the likelihood is measured"""


def main(words: list[str]) -> int:
    """Parse, load, measure, print, say where it is stored."""
    command = parse(Evaluate, "evaluate", words)
    settings = build(Likelihood, given(command.how))
    if not command.likelihood:
        raise UsageError("Say what is to be measured: osmotic evaluate RUN --likelihood.")
    Run.open(command.run)  # a wrong directory is refused before torch is imported
    from tqdm import tqdm

    from osmotic.recipes.evaluate import likelihood

    with tqdm(desc="evaluating", unit="sample", delay=2, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        report = likelihood(command.run, command.data, **settings.model_dump(), tell=bar.write, progress=progress)
    for line in report.lines():
        print(line)
    print(command.run / "evaluation" / "likelihood.json")
    return 0
