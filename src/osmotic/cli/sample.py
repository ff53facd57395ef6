"""``osmotic sample RUN`` (torch-free until it starts)."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import tyro

from osmotic.cli.flags import UsageError, parse
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
    if not 0 <= settings.seed < 2**63:
        raise UsageError(f"--seed must be between 0 and 2^63; got {settings.seed}.")
    if not math.isfinite(settings.guidance):
        raise UsageError(f"--guidance must be a finite number; got {settings.guidance}.")


def main(words: list[str]) -> int:
    """Parse, load, sample, write, say where."""
    settings = parse(Sample, "sample", words)
    check(settings)
    out = place(settings)
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
    command = shlex.join(["osmotic", "sample", *words])
    notes = [{"seed": f"{settings.seed}:{i}", "command": command} for i in range(settings.count)]
    arrays = x.cpu().numpy()
    order = range(settings.count) if labels is None else sorted(range(settings.count), key=lambda i: (labels[i], i))
    with fresh(out) as folder:
        paths = write(arrays, model.spec, folder, labels, notes)
        paths.append(draw(model.spec.decode(arrays[list(order)]), model.spec, folder / "grid.png", rows))
    for path in paths:
        print(out / path.relative_to(folder))
    return 0


def place(settings: Sample) -> Path:
    """Where the samples go; a place of the user's own must be free.

    Raises:
        UsageError: if it is not.
    """
    if settings.out is None:
        return settings.run / "samples" / f"seed-{settings.seed}"
    if settings.out.exists() and not (settings.out.is_dir() and not any(settings.out.iterdir())):
        raise UsageError(f"{settings.out} exists and is not an empty directory; choose another --out.")
    return settings.out


@contextmanager
def fresh(out: Path) -> Iterator[Path]:
    """A folder that takes the place of ``out`` when everything in it is there, so that no two commands' files mix."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
