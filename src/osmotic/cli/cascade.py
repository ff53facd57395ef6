"""``osmotic sample CASCADE``: the part of the command that draws through all stages (torch-free until it starts)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmotic.cli.flags import UsageError
from osmotic.cli.guiding import Guiding
from osmotic.cli.wanted import Wanted, told

if TYPE_CHECKING:
    from osmotic.cli.sample import Sampling
    from osmotic.training.cascade import Cascade


def draw(run: Path, settings: Sampling, wanted: Wanted, guiding: Guiding, out: Path, words: list[str]) -> int:
    """Load, sample, write, say where.

    Raises:
        UsageError: for flags that a cascade does not have.
    """
    refuse(settings, wanted, guiding)
    from tqdm import tqdm

    from osmotic.cli.sample import fresh
    from osmotic.report.samples import draw as draw_grid
    from osmotic.report.samples import write
    from osmotic.training.cascade import AUGMENTATION, Cascade, load

    cascade = load(run)
    assert isinstance(cascade, Cascade)
    said = _told(cascade, wanted, settings.count)
    with tqdm(total=settings.count, desc="sampling", unit="sample", delay=2, leave=False) as bar:
        x = cascade.sample(
            settings.count,
            said,
            settings.guidance,
            settings.sampler,
            settings.stage_steps or settings.steps,
            settings.seed,
            augmentation=AUGMENTATION if settings.augmentation is None else settings.augmentation,
            batch_size=settings.batch_size,
            progress=bar.update,
        )
    labels, rows = _labels(cascade, said, settings.count)
    spoken = shlex.join(["osmotic", "sample", *words])
    notes = [{"seed": f"{settings.seed}:{i}", "command": spoken} for i in range(settings.count)]
    order = range(settings.count) if labels is None else sorted(range(settings.count), key=lambda i: (labels[i], i))
    with fresh(out) as folder:
        paths = write(x.numpy(), cascade.spec, folder, labels, notes)
        paths.append(draw_grid(cascade.decode(x[list(order)]), cascade.spec, folder / "grid.png", rows))
    for path in paths:
        print(out / path.relative_to(folder))
    return 0


def refuse(settings: Sampling, wanted: Wanted, guiding: Guiding) -> None:
    """Refuse flags that mean something for a single run only.

    Raises:
        UsageError: naming the first.
    """
    plain, unled = type(settings)(), Guiding()
    said = [name for name in ("gamma", "grid", "nfe", "weights", "size") if getattr(settings, name) is not None]
    said += [name for name in ("control", "negative") if getattr(wanted, name) is not None]
    said += [name for name in Guiding.model_fields if getattr(guiding, name) != getattr(unled, name)]
    if said:
        raise UsageError(f"--{said[0].replace('_', '-')} is for a single run, and this is a cascade; leave it out.")
    if settings.stage_steps is not None and settings.steps != plain.steps:
        raise UsageError("--steps is of all stages, and --stage-steps of each; give one of them.")


def _told(cascade: Cascade, wanted: Wanted, count: int) -> dict[str, Any] | None:
    """What is wanted, by name: read against all that some stage knows."""
    specs = [stage.spec for stage in cascade.stages]
    first: dict[str, Any] = {"control": None}
    for name in ("classes", "attributes", "captions"):
        first[name] = next((value for spec in specs if (value := getattr(spec, name))), getattr(specs[0], name))
    return told(specs[0].model_copy(update=first), wanted, count)


def _labels(cascade: Cascade, said: dict[str, Any] | None, count: int) -> tuple[list[int] | None, list[str]]:
    """The class of each sample, and names for the rows of the grid where rows are alike."""
    from osmotic.training.conditions import class_number

    classes = next((stage.spec.classes for stage in cascade.stages if stage.spec.classes), None)
    if classes is None or said is None or "class" not in said:
        return None, []
    labels = [class_number(name, classes) for name in said["class"]]
    chosen = sorted(set(labels))
    even = all(labels.count(c) * len(chosen) == count for c in chosen)
    return labels, [classes[c] for c in chosen] if even and "text" not in said else []
