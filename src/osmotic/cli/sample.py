"""``osmotic sample RUN`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import tyro

from osmotic.cli.flags import CONFIG, UsageError
from osmotic.training.recipe import Grid, Sampler

if TYPE_CHECKING:
    from osmotic.training.model import Model


GRIDS = "{" + ",".join(get_args(Grid)) + "}"


@dataclass
class Sample:
    """Draw samples from the model in RUN: PNGs, a grid and an .npz for pictures, a table for tables."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory that `osmotic train` made"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """directory for the samples (default: RUN/samples/seed-SEED)"""
    count: int = 64
    """how many samples"""
    seed: int = 0
    """sample i of a seed is the same whatever the count or batch size"""
    cls: Annotated[tuple[str, ...] | None, tyro.conf.arg(name="class", metavar="NAME ...", help_behavior_hint="")] = (
        None
    )
    """classes to draw, by name or number, in turn (default: all in turn)"""
    guidance: float = 1.0
    """classifier-free scale: 0 ignores the class, 1 is plain, above 1 sharpens"""
    sampler: Sampler = "dpmpp-2m"
    """the solver"""
    steps: int = 10
    """steps of the solver"""
    grid: Annotated[Grid | None, tyro.conf.arg(metavar=GRIDS, help_behavior_hint="(found from the data)")] = None
    """where the solver stops"""
    batch_size: int = 256
    """samples at a time: memory, not results"""
    weights: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """which weights: model, or ema-HALFLIFE (default: the first average)"""


def check(settings: Sample) -> None:
    """Refuse numbers that mean nothing, before anything is loaded."""
    for name, least in (("count", 1), ("steps", 1), ("batch_size", 1)):
        if getattr(settings, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} must be {least} or more; got {getattr(settings, name)}.")


def main(words: list[str]) -> int:
    """Parse, load, sample, write, say where."""
    settings = tyro.cli(Sample, prog="osmotic sample", args=words, config=CONFIG)
    check(settings)
    from osmotic.training.run import Run

    Run.open(settings.run)  # a wrong directory is refused before torch is imported
    from tqdm import tqdm

    from osmotic.report.samples import draw, write
    from osmotic.training.model import load

    model = load(settings.run, settings.weights)
    labels, rows = classes(model, settings)
    with tqdm(total=settings.count, desc="sampling", unit="sample", delay=2, leave=False) as bar:
        x = model.sample(
            settings.count,
            labels,
            settings.guidance,
            settings.sampler,
            settings.steps,
            settings.seed,
            grid=settings.grid,
            batch_size=settings.batch_size,
            progress=bar.update,
        )
    out = settings.out or settings.run / "samples" / f"seed-{settings.seed}"
    command = shlex.join(["osmotic", "sample", *words])
    notes = [{"seed": f"{settings.seed}:{i}", "command": command} for i in range(settings.count)]
    arrays = x.cpu().numpy()
    paths = write(arrays, model.spec, out, labels, notes)
    order = range(settings.count) if labels is None else sorted(range(settings.count), key=lambda i: (labels[i], i))
    paths.append(draw(model.spec.decode(arrays[list(order)]), model.spec, out / "grid.png", rows))
    for path in paths:
        print(path)
    return 0


def classes(model: Model, settings: Sample) -> tuple[list[int] | None, list[str]]:
    """The class of each sample, and names for the rows of the grid where every class has equally many."""
    from osmotic.training.model import class_number

    names = model.spec.classes
    if names is None:
        if settings.cls is not None:
            raise UsageError("This model was trained without classes; leave out --class.")
        return None, []
    chosen = [class_number(c, names) for c in settings.cls or names]
    labels = [chosen[i % len(chosen)] for i in range(settings.count)]
    even = settings.count % len(chosen) == 0 and len(set(chosen)) == len(chosen)
    return labels, [names[c] for c in sorted(chosen)] if even else []
