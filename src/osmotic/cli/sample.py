"""``osmotic sample RUN`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro
from pydantic import Field

from osmotic.cli.cascade import draw as draw_cascade
from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.cli.guiding import Guiding, guide
from osmotic.cli.wanted import Wanted, away, told
from osmotic.data.errors import plural
from osmotic.training.errors import RunError
from osmotic.training.recipe import Frozen, Grid, Sampler
from osmotic.training.run import is_cascade
from osmotic.training.sampling import SAMPLER, STEPS, Tuned

if TYPE_CHECKING:
    from osmotic.data.spec import Spec
    from osmotic.samplers import Gamma
    from osmotic.training.chosen import Plan
    from osmotic.training.model import Model

# The catalogue's, and those made for a model (training/chosen.py): both sides know the same names.
GridName = Literal[
    Grid,
    "suggested",
    "jumps",
    "cosine-data",
    "cosine-low",
    "cosine-high",
    "log-snr-short",
    "log-snr-long",
    "karras-data",
    "power-data",
    "span-data",
]
WITHOUT = "--grid, or another --sampler or --steps,"
SLOW = "heun, ddpm-large, predictor-corrector, reverse-diffusion and rk4-log-snr want 20 or more"


class Sampling(Frozen):
    """How samples are drawn."""

    out: Path | None = Field(None, description="directory for the samples (default: RUN/samples/seed-SEED)")
    count: int = Field(64, ge=1, description="how many samples")
    seed: int = Field(0, ge=0, lt=2**63, description="sample i of a seed is the same whatever the count or batch size")
    size: str | None = Field(
        None, description="width x height of the pictures, as in 320x192 (default: the size that most of the data have)"
    )
    guidance: float = Field(
        1.0, description="classifier-free scale: 0 ignores what is wanted, 1 is plain, above 1 sharpens"
    )
    nfe: int | None = Field(None, ge=1, description="sample as `osmotic tune` found best for this many evaluations")
    sampler: Sampler | None = Field(None, description=f"the solver (default: as tuned last, else {SAMPLER})")
    steps: int | None = Field(
        None, ge=1, description=f"steps of the solver (default: as tuned last, else {STEPS}); {SLOW}"
    )
    gamma: float | None = Field(
        None,
        ge=0,
        le=1,
        description="flow maps: how much of each jump's noise is fresh, 0 none (jump) to 1 all (consistency)",
    )
    grid: GridName | None = Field(
        None, description="where the solver stops (default: as tuned last, else 'suggested', found from the data)"
    )
    stage_steps: tuple[int, ...] | None = Field(None, description="cascades: steps of each stage, in place of --steps")
    augmentation: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="cascades: noise over what a stage enlarges, 0 none to 0.5, the most in training (default: 0.1)",
    )
    batch_size: int = Field(256, ge=1, description="samples at a time: memory, not results")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")


Flags = flags(Sampling, "sampling")
What = flags(Wanted, "what is wanted")
How = flags(Guiding, "guidance")


@dataclass
class Sample:
    """Draw samples from the model in RUN: PNGs, a grid and an .npz for pictures, a table for tables."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory of a run, which `osmotic train` or `osmotic distill` made"""
    wanted: What = field(default_factory=What)  # type: ignore[valid-type]
    """what the samples should be"""
    guiding: How = field(default_factory=How)  # type: ignore[valid-type]
    """how samples are led, besides --guidance"""
    sampling: Flags = field(default_factory=Flags)  # type: ignore[valid-type]
    """how samples are drawn"""


def main(words: list[str]) -> int:
    """Parse, load, sample, write, say where."""
    command = parse(Sample, "sample", words)
    settings, wanted = build(Sampling, given(command.sampling)), build(Wanted, given(command.wanted))
    guiding = build(Guiding, given(command.guiding))
    out = place(command.run / "samples" / f"seed-{settings.seed}", settings.out)
    if is_cascade(command.run):
        return draw_cascade(command.run, settings, wanted, guiding, out, words)
    refuse_of_cascades(settings)
    from osmotic.training.run import Run

    Run.open(command.run)  # a wrong directory is refused before torch is imported
    import torch
    from tqdm import tqdm

    from osmotic.condition import Condition
    from osmotic.report.samples import draw, write
    from osmotic.training.model import load

    model = sized(load(command.run, settings.weights), settings.size)
    spec, lent = classed(model.spec, guiding)
    cond, labels, rows = asked(spec, wanted, settings.count)
    around, scale = guide(model, guiding, settings.guidance, model.condition(away(spec, wanted), 1, 0, 1), cond)
    plan = planned(model, settings, guiding)
    if plan.tuned is not None:
        print(spoken_choice(model, plan.tuned, settings.guidance), file=sys.stderr)
    with tqdm(total=settings.count, desc="sampling", unit="sample", delay=2, leave=False) as bar:
        x = model.sample(
            settings.count,
            Condition(vector=torch.tensor(labels)) if lent else cond,
            scale,
            plan.sampler,
            plan.steps,
            settings.seed,
            grid=plan.grid,
            negative=None if guiding.plus_plus else away(spec, wanted),
            guide=around,
            batch_size=settings.batch_size,
            progress=bar.update,
        )
    spoken = shlex.join(["osmotic", "sample", *words])
    notes = [{"seed": f"{settings.seed}:{i}", "command": spoken} for i in range(settings.count)]
    arrays = x.cpu().numpy()
    order = range(settings.count) if labels is None else sorted(range(settings.count), key=lambda i: (labels[i], i))
    with fresh(out) as folder:
        paths = write(
            arrays, model.spec, folder, None if lent else labels, notes, attributes(model.spec, cond, settings.count)
        )
        paths.append(draw(model.spec.decode(arrays[list(order)]), model.spec, folder / "grid.png", rows))
    for path in paths:
        print(out / path.relative_to(folder))
    return 0


def refuse_of_cascades(settings: Sampling) -> None:
    """Refuse what only cascades have.

    Raises:
        UsageError: naming it.
    """
    for name in ("stage_steps", "augmentation"):
        if getattr(settings, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for cascades, and this is a single run; leave it out.")


def sized(model: Model, said: str | None) -> Model:
    """The model at the size that was asked for.

    Raises:
        UsageError: for no size, and for samples that have none.
    """
    if said is None:
        return model
    if model.spec.kind != "images":
        raise UsageError(f"--size is for pictures, not for {model.spec.kind}; leave it out.")
    from osmotic.data.sizes import size, spoken

    wanted = size(said)
    known = model.spec.sizes or (model.spec.shape[1:],)
    if wanted not in known:
        learned = ", ".join(map(spoken, known))
        print(f"osmotic: this model never saw pictures of {spoken(wanted)}; it learned {learned}.", file=sys.stderr)
    return model.at(wanted)


def planned(model: Model, settings: Sampling, guiding: Guiding) -> Plan:
    """How the samples are drawn.

    Raises:
        UsageError: for a stored choice that cannot be used, naming its file.
    """
    try:
        plan = model.plan(solver(model, settings, guiding), settings.steps, settings.grid, settings.nfe)
        if plan.tuned is not None:
            plan.grid(model.denoiser.schedule, plan.steps, model.denoiser.start)
    except RunError:
        raise  # it names its file already
    except ValueError as error:
        stored = None if settings.sampler or settings.steps or settings.grid else stored_choice(model, settings.nfe)
        if model.tuning is None or stored is None:
            raise
        path = model.tuning.path(stored.nfe)
        known = stored.choice.sampler in get_args(Sampler)
        reason = str(error).rstrip(".") if known else f"there is no sampler {stored.choice.sampler!r}"
        raise UsageError(
            f"{path} cannot be used ({reason}); run `osmotic tune {path.parent.parent}` again, or delete {path.parent}."
        ) from None
    return plan


def solver(model: Model, settings: Sampling, guiding: Guiding) -> str | Gamma | None:
    """The sampler that was asked for: a name, or gamma-sampling; with CFG++ DDIM, which it is made for, if none was.

    Raises:
        UsageError: for both, and for gamma where the model is no flow map.
    """
    if settings.gamma is None:
        return settings.sampler or ("ddim" if guiding.plus_plus else None)
    if settings.sampler is not None:
        raise UsageError("--gamma is a sampler of its own; leave out --sampler.")
    if model.recipe.student is None or model.recipe.student.form != "flow-map":
        raise UsageError(
            "--gamma is for flow maps (ctm, meanflow, shortcut), which aim between noise and data; leave it out here."
        )
    from osmotic.samplers import Gamma

    return Gamma(settings.gamma)


def stored_choice(model: Model, nfe: int | None) -> Tuned | None:
    """What tuning stored for a budget, or last."""
    tuning = model.tuning
    return None if tuning is None else tuning.last() if nfe is None else tuning.read(nfe)


def spoken_choice(model: Model, tuned: Tuned, guidance: float) -> str:
    """One line on the stored choice: what of it may not hold, and how to do without it."""
    line = f"osmotic: sampling as tuned for {plural(tuned.nfe, 'evaluation')}: {tuned.says()}"
    stale = tuned.stale(model.step, model.weights)
    if stale is None and guidance != tuned.guidance:
        line = f"{line} (found at guidance {tuned.guidance:g})"
    line = f"{line}; naming {WITHOUT} leaves the tuning out."
    return line if stale is None else f"{line} {stale}"


def place(usual: Path, out: Path | None) -> Path:
    """Where the samples go; a place of the user's own must be free.

    Raises:
        UsageError: if it is not.
    """
    if out is None:
        return usual
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty directory; choose another --out.")
    return out


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


def classed(spec: Spec, guiding: Guiding) -> tuple[Spec, bool]:
    """The data as they can be asked for, and whether their classes are lent by a classifier."""
    if guiding.classifier is None or spec.classes is not None:
        return spec, False
    if spec.parts:
        raise UsageError("--classifier leads models that are told classes or nothing; this one is told other things.")
    from osmotic.training.model import stored
    from osmotic.training.run import Run

    return spec.model_copy(update={"classes": stored(Run.open(guiding.classifier))[1].classes}), True


def asked(
    spec: Spec, wanted: Wanted, count: int, turns: bool = True
) -> tuple[dict[str, Any] | None, list[int] | None, list[str]]:
    """What the model is told, the class of each sample, and names for the rows of the grid where rows are alike."""
    from osmotic.training.conditions import class_number

    cond = told(spec, wanted, count, turns)
    if cond is None or "class" not in cond:
        texts = list(dict.fromkeys(wanted.prompt or ()))
        return cond, None, texts if len(texts) == 1 else []
    assert spec.classes is not None
    labels = [class_number(name, spec.classes) for name in cond["class"]]
    chosen = list(dict.fromkeys(labels))
    even = count % len(chosen) == 0 and all(labels.count(c) == count // len(chosen) for c in chosen)
    return cond, labels, [spec.classes[c] for c in sorted(chosen)] if even and not wanted.prompt else []


def attributes(spec: Spec, cond: dict[str, Any] | None, count: int) -> Any:
    """The raw attributes ``(n, A)`` that samples were drawn under, None where none was said."""
    if cond is None or not any(a.name in cond for a in spec.attributes):
        return None
    import numpy as np

    from osmotic.data.attributes import parse

    return np.tile(parse(spec.attributes, {a.name: cond.get(a.name) for a in spec.attributes}), (count, 1))
