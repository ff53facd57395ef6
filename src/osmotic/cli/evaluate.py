"""``osmotic evaluate RUN`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.cli.sample import GridName
from osmotic.recipes.scores import FOLDER
from osmotic.training.recipe import Frozen, Sampler
from osmotic.training.run import Run
from osmotic.training.sampling import SAMPLER, STEPS

if TYPE_CHECKING:
    from osmotic.divergence import Divergence
    from osmotic.recipes.nats import Report

FeatureName = Literal["random", "learned", "pixels", "inception"]


class Both(Frozen):
    """What every measurement needs."""

    count: int | None = Field(
        None, ge=1, description="samples, or held-out samples for --likelihood (default: as many as take little time)"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of everything random")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")
    batch_size: int | None = Field(
        None, ge=1, description="samples at a time: memory, not results (default: 256, 128 for --likelihood)"
    )


class Samples(Frozen):
    """How samples are drawn and what they are measured on."""

    features: FeatureName | None = Field(
        None,
        description="what distances are measured on: random convolutions, a classifier of these data, principal "
        "components, or the FID Inception network (default: random for pictures, else the values)",
    )
    inception: Path | None = Field(
        None, description="weights of the FID Inception network, a file; without it --features inception fetches it"
    )
    guidance: float = Field(1.0, description="classifier-free scale: 0 ignores the class, 1 is plain, above 1 sharpens")
    nfe: int | None = Field(None, ge=1, description="sample as `osmotic tune` found best for this many evaluations")
    sampler: Sampler | None = Field(None, description=f"the solver (default: as tuned last, else {SAMPLER})")
    steps: int | None = Field(None, ge=1, description=f"steps of the solver (default: as tuned last, else {STEPS})")
    grid: GridName | None = Field(None, description="where the solver stops (default: as tuned last, else 'suggested')")


class Likelihood(Frozen):
    """How the likelihood is measured."""

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
    conditional: bool = Field(False, description="given the class of each sample")


BothFlags = flags(Both, "measuring")
SamplesFlags = flags(Samples, "samples")
LikelihoodFlags = flags(Likelihood, "likelihood")

# Samples are told in parts of one: the first batch alone may take minutes.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total_fmt} samples and draws [{elapsed}, {remaining} left]"


@dataclass
class Evaluate:
    """Measure the model in RUN on the data that were held out of its training: its samples, or its likelihood."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory of a run, which `osmotic train` or `osmotic distill` made"""
    likelihood: bool = False
    """bits per dimension and nats of held-out data, with error bars, instead of samples"""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """what the run was trained on, where it has moved since"""
    both: BothFlags = field(default_factory=BothFlags)  # type: ignore[valid-type]
    """what every measurement needs"""
    samples: SamplesFlags = field(default_factory=SamplesFlags)  # type: ignore[valid-type]
    """how samples are drawn and what they are measured on"""
    how: LikelihoodFlags = field(default_factory=LikelihoodFlags)  # type: ignore[valid-type]
    """how the likelihood is measured, with --likelihood"""


def main(words: list[str]) -> int:
    """Parse, load, measure, print, say where it is stored."""
    command = parse(Evaluate, "evaluate", words)
    refuse_mixed(command)
    both = build(Both, given(command.both))
    samples, likelihood = build(Samples, given(command.samples)), build(Likelihood, given(command.how))
    refuse_unlike(samples, likelihood)
    Run.open(command.run)  # a wrong directory is refused before torch is imported
    try:
        if not command.likelihood:
            return show(*measure_samples(command, both, samples, shlex.join(["osmotic", "evaluate", *words])))
        report = measure(command, both, likelihood)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted; nothing was stored. A smaller --count takes less time.") from None
    return show(report.lines(), [command.run / FOLDER / "likelihood.json"])


def show(lines: Sequence[str], paths: Sequence[Path]) -> int:
    """Print a table, then where things are: once, however many processes there are."""
    from osmotic.training.distributed import is_main

    for line in (*lines, *paths) if is_main() else ():
        print(line)
    return 0


def refuse_mixed(command: Evaluate) -> None:
    """Refuse a flag of the one measurement with the other."""
    wrong, what = (command.samples, "samples") if command.likelihood else (command.how, "the likelihood")
    for name in given(wrong):
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(
            f"{flag} is about {what}, which {'--likelihood does not draw' if command.likelihood else 'is not measured'}"
            f"; {'leave it out' if command.likelihood else 'add --likelihood, or leave it out'}."
        )


def refuse_unlike(samples: Samples, likelihood: Likelihood) -> None:
    """Refuse flags that mean nothing beside each other."""
    if likelihood.divergence == "exact" and likelihood.probes is not None:
        raise UsageError("An exact divergence has no probes; leave out --probes, or take --divergence hutchinson.")
    if samples.inception is not None and samples.features not in (None, "inception"):
        raise UsageError(f"--inception is a file for --features inception, not {samples.features}; leave one out.")
    if samples.inception is not None and not samples.inception.is_file():
        raise UsageError(f"--inception {samples.inception} is no file; name the weights of the FID Inception network.")


def measure_samples(
    command: Evaluate, both: Both, samples: Samples, spoken: str
) -> tuple[Sequence[str], Sequence[Path]]:
    """From names to objects; the table and the files."""
    from osmotic.recipes.quality import Drawing, lines, quality
    from osmotic.recipes.quality.features import NAMED, inception

    settings = samples.model_dump(exclude={"features", "inception"})
    drawing = Drawing(both.count, seed=both.seed, batch_size=both.batch_size or 256, **settings)
    named = NAMED.get(samples.features or "")
    if samples.features == "inception" or samples.inception is not None:
        named = inception(samples.inception, command.run / FOLDER)
    found, paths = quality(
        command.run,
        command.data,
        drawing=drawing,
        features=named,
        weights=both.weights,
        command=spoken,
        tell=lambda line: print(line, file=sys.stderr),
    )
    return lines(found), paths


def measure(command: Evaluate, both: Both, settings: Likelihood) -> Report:
    """The likelihood: from names to objects, with a bar for each thing that is measured."""
    from tqdm import tqdm

    from osmotic.dequantize import Uniform
    from osmotic.recipes.dequantisation import Learned
    from osmotic.recipes.evaluate import LEVELS, likelihood

    with tqdm(desc="evaluating", bar_format=BAR, mininterval=0.5, leave=False) as bar:
        return likelihood(
            command.run,
            command.data,
            **settings.model_dump(exclude={"divergence", "probes", "dequantisation", "bound"}),
            **both.model_dump(exclude={"batch_size"}),
            batch_size=both.batch_size or 128,
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
