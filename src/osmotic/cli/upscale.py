"""``osmotic upscale RUN PICTURE`` (torch-free until it starts)."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.cli.sample import fresh, place
from osmotic.cli.wanted import Wanted, told
from osmotic.data.errors import DataError, listed, plural
from osmotic.data.pictures import SUFFIXES
from osmotic.training.recipe import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from osmotic.training.model import Model

SHOWN, SMALL = 8, 256  # pictures that are shown beside each other, and their largest side


class Enlarging(Frozen):
    """How pictures are enlarged."""

    factor: int | None = Field(
        None, ge=2, description="how many times larger each side becomes (default: as trained; or a power of that)"
    )
    out: Path | None = Field(
        None,
        description="directory for the results, or FILE.png for a single picture (default: RUN/samples/upscale-SEED)",
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="believe the pictures' details less, by noise of this level, as 0.1 where they have artefacts; at "
        "0 the results, made small again, are the pictures",
    )
    guidance: float = Field(1.0, description="classifier-free scale towards what is said of the pictures")
    seed: int = Field(0, ge=0, lt=2**63, description="of the noise")
    steps: int | None = Field(None, ge=1, description="steps of the solver (default: as `osmotic sample`)")
    batch_size: int = Field(64, ge=1, description="windows at a time: memory, not results")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")


Flags = flags(Enlarging, "enlarging")
What = flags(Wanted, "what they are", leave=frozenset({"control", "negative"}))


@dataclass
class Upscale:
    """Enlarge pictures with the model in RUN, which `osmotic train --upscale` made; Lanczos interpolation beside it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory of the run"""
    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PICTURE ...")]
    """pictures of any size, or folders of them"""
    enlarging: Flags = field(default_factory=Flags)  # type: ignore[valid-type]
    """how they are enlarged"""
    wanted: What = field(default_factory=What)  # type: ignore[valid-type]
    """what they are, where the model can be told"""


def main(words: list[str]) -> int:
    """Parse, load, enlarge, write, say where."""
    command = parse(Upscale, "upscale", words)
    settings, wanted = build(Enlarging, given(command.enlarging)), build(Wanted, given(command.wanted))
    paths = listed_pictures(command.inputs)
    file = settings.out is not None and settings.out.suffix.lower() == ".png"
    if file and len(paths) > 1:
        raise UsageError(f"{settings.out} is one file, and there are {len(paths)} pictures; give --out a directory.")
    out = place(command.run / "samples" / f"upscale-{settings.seed}", settings.out)
    if file and (other := out.with_name(f"{out.stem}-lanczos.png")).exists():
        raise UsageError(f"{other} is there already, where Lanczos would go; choose another --out.")
    from osmotic.training.run import Run

    Run.open(command.run)  # a wrong directory is refused before torch is imported
    from osmotic.data.given import read_pictures
    from osmotic.recipes.upscale import factor_of, lanczos, passes
    from osmotic.training.model import load

    model = load(command.run, settings.weights)
    own = factor_of(model.spec, command.run)
    factor = own ** passes(model.spec, settings.factor)
    pictures, greyed = read_pictures(paths, model.spec.shape[0])
    if greyed:
        print(f"osmotic: this model is of grey pictures, so {listed(greyed)} will be grey.", file=sys.stderr)
    results = enlarged(model, pictures, settings, wanted)
    usual = [lanczos(picture[None], factor)[0] for picture in pictures]
    if file:
        for path in write(out.parent, [out.stem], results, usual):
            print(path)
        return 0
    with fresh(out) as folder:
        written = write(folder, distinct([path.stem for path in paths]), results, usual)
        written += beside(folder, pictures, usual, results, factor)
    for path in written:
        print(out / path.relative_to(folder))
    return 0


def listed_pictures(inputs: Sequence[Path]) -> list[Path]:
    """The files that are meant, those of a folder by name.

    Raises:
        UsageError: where there is none.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not inside:
            raise DataError(f"{path}: no pictures in this folder: name one that has some ({', '.join(SUFFIXES)})")
        found += inside
    if not found:
        raise UsageError("Nothing to enlarge was named; give pictures, or folders of them, behind the run.")
    return found


def enlarged(model: Model, pictures: list[NDArray[Any]], settings: Enlarging, wanted: Wanted) -> list[NDArray[Any]]:
    """The pictures ``(H, W, C)`` uint8 made larger; those of one size are drawn together."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from osmotic.recipes.upscale import evaluations, upscale

    groups = list(batches(pictures, settings.batch_size, model.spec.shape[1]))
    said = told(model.spec, wanted, len(pictures), turns=False) or {}
    results: dict[int, NDArray[Any]] = {}
    total = len(groups) * evaluations(model, settings.factor, settings.steps)
    with tqdm(
        total=total, desc=f"enlarging {plural(len(pictures), 'picture')}", unit="step", delay=2, leave=False
    ) as bar:
        for numbers in groups:
            low = np.stack([pictures[i] for i in numbers]).astype(np.float32) / 127.5 - 1
            x = upscale(
                model,
                torch.from_numpy(np.moveaxis(low, -1, 1).copy()),
                settings.factor,
                {
                    name: [value[i] for i in numbers] if isinstance(value, list) else value
                    for name, value in said.items()
                },
                settings.guidance,
                steps=settings.steps,
                seed=settings.seed,
                noise=settings.noise,
                numbers=numbers,
                batch_size=settings.batch_size,
                progress=bar.update,
            )
            results |= dict(zip(numbers, model.spec.encoding.decode(x.numpy()), strict=True))
    return [results[i] for i in range(len(pictures))]


def batches(pictures: Sequence[NDArray[Any]], size: int, side: int) -> Iterator[list[int]]:
    """Numbers of pictures of one size, as many at once as need about so many windows of this side."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        shapes.setdefault(picture.shape, []).append(i)
    for shape, numbers in shapes.items():
        each = max(1, shape[0] // side) * max(1, shape[1] // side)
        count = max(1, size // each)
        for start in range(0, len(numbers), count):
            yield numbers[start : start + count]


def distinct(names: list[str]) -> list[str]:
    """Names of results, numbered where two pictures have the same; no file that is written takes another's place."""
    taken, found = {"beside"}, []
    for i, name in enumerate(names):
        first = name if names.count(name) == 1 else f"{name}-{i}"
        tries = itertools.chain([first], (f"{first}-{more}" for more in itertools.count(1)))
        own = next(each for each in tries if not taken & {each, f"{each}-lanczos"})
        taken |= {own, f"{own}-lanczos"}
        found.append(own)
    return found


def write(
    folder: Path, names: Sequence[str], results: Sequence[NDArray[Any]], usual: Sequence[NDArray[Any]]
) -> list[Path]:
    """Every result as NAME.png, and what Lanczos makes of it as NAME-lanczos.png."""
    from PIL import Image

    from osmotic.report.pictures import save

    paths = []
    for name, picture, plain in zip(names, results, usual, strict=True):
        for end, raw in (("", picture), ("-lanczos", plain)):
            grey = raw[..., 0] if raw.shape[-1] == 1 else raw
            paths.append(save(Image.fromarray(grey), folder / f"{name}{end}.png"))
    return paths


def beside(
    folder: Path,
    pictures: Sequence[NDArray[Any]],
    usual: Sequence[NDArray[Any]],
    results: Sequence[NDArray[Any]],
    factor: int,
) -> list[Path]:
    """One picture of the first ones: given, by Lanczos, by the model; none where they are large."""
    import numpy as np

    from osmotic.report.pictures import grid, save

    alike = [i for i in range(len(results)) if results[i].shape == results[0].shape][:SHOWN]
    if max(results[0].shape) > SMALL:
        return []
    given_ones = [pictures[i].repeat(factor, 0).repeat(factor, 1) for i in alike]
    rows = [
        row[j]
        for j in range(len(alike))
        for row in (given_ones, [usual[i] for i in alike], [results[i] for i in alike])
    ]
    return [save(grid(np.stack(rows), 3, heads=("given", "Lanczos", "model")), folder / "beside.png")]
