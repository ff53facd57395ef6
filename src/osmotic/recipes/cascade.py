"""Cascades: a model of small pictures and others that enlarge them, trained one after the other by one recipe."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from osmotic.data.dataset import open_data
from osmotic.data.errors import DataError
from osmotic.data.source import Options as Reading
from osmotic.data.spec import Spec
from osmotic.distill import METHODS
from osmotic.recipes.train import train
from osmotic.training import checkpoint
from osmotic.training.build import OBJECTIVES
from osmotic.training.distributed import World, joined
from osmotic.training.errors import RunError
from osmotic.training.model import stored
from osmotic.training.options import Options
from osmotic.training.recipe import Recipe, explicit
from osmotic.training.run import CASCADE, RECIPE, Run, is_cascade, stage_folders, write_json


def train_cascade(
    data: Any,
    out: str | Path,
    sizes: Sequence[int] | None = None,
    recipe: Recipe | None = None,
    *,
    steps: int | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
    device: torch.device | str | None = None,
) -> Path:
    """Train a cascade on data and return its folder; ``osmotic.load(out)`` gives it.

    Each stage is an ordinary run in a folder called as its size, and ``cascade.json`` names them, relative to itself:
    put a student's folder there in place of its teacher's, and the cascade draws with the student.

    Args:
        data: as for :func:`osmotic.recipes.train.train`, pictures.
        out: a new or empty directory.
        sizes: sides of the pictures of each stage, rising, each a multiple of the one before; the last one is the
            data's (the shorter side). May be left out where a cascade is resumed.
        recipe: of every stage; what it leaves out is found for each one's size.
        steps: optimizer steps of every stage.
        resume: go on with the cascade in ``out``; stages that are finished stay as they are.
        tell: called with each line about what is done.
        device: None takes a CUDA device if there is one.

    Raises:
        ValueError: for sizes, data, a recipe or a directory that cannot be used, in one sentence.
    """
    asked, folder, say = recipe or Recipe(), Path(out), tell or (lambda line: None)
    if steps is not None:
        asked = asked.model_copy(update={"options": Options(**{**explicit(asked.options), "steps": steps})})
    with joined(device) as world:
        sizes = world.from_main(lambda: _resumed(folder, sizes) if resume else _fresh(folder, sizes))
        _train(data, folder, sizes, asked, resume, world, say, tell)
    return folder


def _train(
    data: Any,
    folder: Path,
    sizes: Sequence[int],
    asked: Recipe,
    resume: bool,
    world: World,
    say: Callable[[str], None],
    tell: Callable[[str], None] | None,
) -> None:
    """The stages, each from where it stands."""
    if asked.process.objective not in OBJECTIVES and asked.process.objective not in METHODS:
        raise RunError(f"--objective {asked.process.objective} draws nothing a cascade could enlarge; leave it out.")
    if resume and not asked.reading:
        asked = asked.model_copy(update={"reading": _reading(_named(folder)(sizes[0]))})
    spec = open_data(data, **asdict(Reading(**asked.reading))).spec
    readings = [{**asked.reading, **reading} for reading in stages(spec, sizes)]
    world.from_main(lambda: _write(folder, sizes))
    for number, (size, reading) in enumerate(zip(sizes, readings, strict=True), 1):
        run = _named(folder)(size)
        begun = (run / RECIPE).exists()
        if begun and _finished(run, asked):
            say(f"stage {number} of {len(sizes)}, {size} pixels: finished")
            continue
        say(f"stage {number} of {len(sizes)}, {size} pixels")
        try:
            train(
                data, run, asked.model_copy(update={"reading": reading}), resume=begun, tell=tell, device=world.device
            )
        except ValueError:
            if world.main and not any((_named(folder)(size) / RECIPE).exists() for size in sizes):
                (folder / CASCADE).unlink()  # refused before anything began: nothing is in the way of another try
            raise


def _write(folder: Path, sizes: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CASCADE, {"stages": [path.name for path in map(_named(folder), sizes)]})


def _reading(run: Path) -> dict[str, Any]:
    """How the data of a cascade were read, from a stage that was begun; nothing where none was."""
    if not (run / RECIPE).exists():
        return {}
    reading: dict[str, Any] = Run.open(run).recipe().get("reading", {})
    return {name: value for name, value in reading.items() if name not in ("reduce", "upscale")}


def stages(spec: Spec, sizes: Sequence[int]) -> list[dict[str, int]]:
    """How the data are read for each stage: reduced, and but for the first to be enlarged.

    Raises:
        DataError: for data or sizes that do not fit.
    """
    if spec.kind != "images":
        raise DataError(f"{spec.source}: a cascade is of pictures, and these are {spec.kind}: leave it out")
    height, width = spec.shape[1:]
    side, last = min(height, width), sizes[-1]
    if side % last:
        raise DataError(
            f"{spec.source}: pictures of {width} x {height} pixels, and the last size of the cascade is {last}: end "
            f"with {side}, or bring pictures of a folder to it with --size {last}"
        )
    found = []
    for before, size in itertools.pairwise([None, *sizes]):
        assert size is not None
        reading = {} if side == size else {"reduce": side // size}
        found.append(reading if before is None else {**reading, "upscale": size // before})
    return found


def refuse_sizes(sizes: Sequence[int]) -> None:
    """Refuse what is no cascade.

    Raises:
        DataError: naming the first two sizes that do not fit.
    """
    if len(sizes) < 2 or sizes[0] < 1:
        raise DataError(f"a cascade has two sizes or more, such as 8 16 32; got {' '.join(map(str, sizes))}")
    for small, large in itertools.pairwise(sizes):
        if large <= small or large % small:
            raise DataError(f"each size of a cascade is a multiple of the one before, and {large} is none of {small}")


def _named(folder: Path) -> Callable[[int], Path]:
    return lambda size: folder / str(size)


def _fresh(folder: Path, sizes: Sequence[int] | None) -> Sequence[int]:
    refuse_sizes(sizes or ())
    if is_cascade(folder):
        raise RunError(f"{folder} already holds a cascade; pass --resume to continue it, or choose another --out.")
    Run.refuse_used(folder)
    assert sizes is not None
    return sizes


def _resumed(folder: Path, sizes: Sequence[int] | None) -> Sequence[int]:
    """The sizes of a cascade that was begun."""
    found = stage_folders(folder)
    names = [path.name for path in found]
    if not all(path.parent == folder and path.name.isdigit() for path in found):
        raise RunError(f"{folder} has stages that were not trained with it; resume each with its own command.")
    before = [int(name) for name in names]
    if sizes is not None and list(sizes) != before:
        raise RunError(f"{folder} is a cascade of {' '.join(names)}, which cannot change on the way; start a new one.")
    return before


def _finished(run: Path, asked: Recipe) -> bool:
    """Whether a stage has all the steps that it was begun with, or that are asked for now."""
    found = checkpoint.newest(Run.open(run), lambda text: None)
    wanted = explicit(asked.options).get("steps", stored(Run.open(run))[0].options.steps)
    return found is not None and found[1].step >= wanted
