"""``osmotic evaluate RUN`` (torch-free until it starts)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.training.recipe import Frozen
from osmotic.training.run import Run

if TYPE_CHECKING:
    from osmotic.divergence import Divergence
    from osmotic.recipes.evaluate import Report


class Likelihood(Frozen):
    """How the likelihood is measured."""

    count: int | None = Field(None, ge=1, description="held-out samples (default: as many as take about a minute)")
    divergence: Literal["exact", "hutchinson"] | None = Field(
        None, description="exactly, or by random probes (default: exact up to 32 entries a sample)"
    )
    probes: int | None = Field(None, ge=1, description="random probes of each draw, for hutchinson (default: 1)")
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
    dequantisation: Literal["uniform", "variational"] | None = Field(
        None,
        description="noise that makes pictures' values continuous; variational is fitted to the training data first, "
        "in at most 30 s, and compared with uniform (default: uniform)",
    )
    bound: bool = Field(False, description="the variational bound too, which needs no dequantisation")
    seed: int = Field(0, ge=0, lt=2**63, description="of the samples chosen and of all draws")
    conditional: bool = Field(False, description="given the class of each sample")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")
    batch_size: int = Field(128, ge=1, description="samples at a time: memory, not results")


Flags = flags(Likelihood, "likelihood")

# Samples are told in parts of one: the first batch alone may take minutes.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total_fmt} samples and draws [{elapsed}, {remaining} left]"


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
    if settings.divergence == "exact" and settings.probes is not None:
        raise UsageError("An exact divergence has no probes; leave out --probes, or take --divergence hutchinson.")
    Run.open(command.run)  # a wrong directory is refused before torch is imported
    try:
        report = measure(command, settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted; nothing was stored. A smaller --count takes less time.") from None
    for line in report.lines():
        print(line)
    print(command.run / "evaluation" / "likelihood.json")
    return 0


def measure(command: Evaluate, settings: Likelihood) -> Report:
    """From names to objects, with a bar for each thing that is measured."""
    from tqdm import tqdm

    from osmotic.dequantize import Uniform
    from osmotic.recipes.dequantisation import Learned
    from osmotic.recipes.evaluate import LEVELS, likelihood

    with tqdm(desc="evaluating", bar_format=BAR, mininterval=0.5, leave=False) as bar:
        return likelihood(
            command.run,
            command.data,
            **settings.model_dump(exclude={"divergence", "probes", "dequantisation", "bound"}),
            divergence=traced(settings),
            dequantizer={None: None, "uniform": Uniform(), "variational": Learned()}[settings.dequantisation],
            bound=LEVELS if settings.bound else None,
            tell=bar.write,
            progress=partial(advance, bar),
        )


def advance(bar: Any, done: float, total: int) -> None:
    """Move a bar that begins anew with each thing that is measured, whether the one before was finished or cut."""
    if total != bar.total or bar.n > total - 0.01:
        bar.reset(total)
    bar.update(min(done, total - bar.n))  # parts of one may add up to a hair more


def traced(settings: Likelihood) -> Divergence | None:
    """The divergence that is asked for; None where nothing is said of it."""
    from osmotic.divergence import Exact, Hutchinson

    if settings.divergence == "exact":
        return Exact()
    asked = settings.divergence is not None or settings.probes is not None
    return Hutchinson(settings.probes or 1) if asked else None
