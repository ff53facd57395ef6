"""``osmotic edit RUN INPUT`` (torch-free until it starts)."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from osmotic.cli.editing import Drawing, Editing, refuse_idle, refuse_no_texts, refuse_several
from osmotic.cli.flags import UsageError, build, flags, given, parse
from osmotic.cli.guiding import Guiding, guide
from osmotic.cli.sample import asked, fresh, place
from osmotic.cli.wanted import Wanted, away
from osmotic.data.controls import Beside
from osmotic.data.errors import listed
from osmotic.data.given import ROUNDING

if TYPE_CHECKING:
    from torch import Tensor

    from osmotic.data.given import Given
    from osmotic.data.spec import Spec
    from osmotic.recipes.edit import Progress, Way
    from osmotic.training.model import Model


MADE = {"table": "rows of a table", "array": "arrays"}
"""What a model makes, where that is not the name of its kind."""

EditFlags, What, How = flags(Editing, "edit"), flags(Wanted, "what is wanted"), flags(Guiding, "guidance")
DrawFlags = flags(Drawing, "drawing")


@dataclass
class Edit:
    """Fill in, restore or change INPUT with the model in RUN: pictures, a table with empty cells, an array with NaN.

    Without INPUT, --from and --prompt draw a text and what another makes of it, side by side.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory of a run, which `osmotic train` or `osmotic distill` made"""
    inputs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="INPUT ...")]
    """pictures; or one table (.csv, .parquet); or one array (.npy, .npz)"""
    editing: EditFlags = field(default_factory=EditFlags)  # type: ignore[valid-type]
    """what is done"""
    wanted: What = field(default_factory=What)  # type: ignore[valid-type]
    """what the results should be"""
    guiding: How = field(default_factory=How)  # type: ignore[valid-type]
    """how they are led, besides --guidance"""
    drawing: DrawFlags = field(default_factory=DrawFlags)  # type: ignore[valid-type]
    """how they are drawn"""


def main(words: list[str]) -> int:
    """Parse, load, edit, write, say where."""
    command = parse(Edit, "edit", words)
    editing, wanted = build(Editing, given(command.editing)), build(Wanted, given(command.wanted))
    drawing, guiding = build(Drawing, given(command.drawing)), build(Guiding, given(command.guiding))
    out = place(command.run / "samples" / f"edit-{drawing.seed}", drawing.out)
    refuse_several(editing)
    refuse_no_texts(editing, wanted, bool(command.inputs))
    refuse_idle(editing, drawing, bool(command.inputs))
    from osmotic.training.run import Run

    Run.open(command.run)  # a wrong directory is refused before torch is imported
    from tqdm import tqdm

    from osmotic.data.given import read_given
    from osmotic.report.edited import write_edited
    from osmotic.training.model import load

    model = load(command.run, drawing.weights)
    spec, before = model.spec, None
    images: dict[str, Any] = {}
    if command.inputs:
        before = read_given(command.inputs, spec, editing.downsampled or 1, editing.grey)
        for line in before.facts:
            print(f"osmotic: {line}", file=sys.stderr)
        if editing.was is not None or editing.between is not None:
            drawing = drawing.model_copy(update={"each": 1})  # nothing is drawn at random
        if by_instruction(spec, editing):
            images = instructing(command.inputs, spec, wanted, drawing.each)
    if guiding.classifier is not None and spec.classes is None:
        raise UsageError("This model was trained without classes; --classifier leads `osmotic sample` alone.")
    filled = editing.strength is None and editing.was is None and editing.between is None
    way, labels = how(model, wanted, guiding, drawing, before, images, filled)
    count = way.each * (1 if before is None else len(before.x))
    with tqdm(total=count, desc="editing", unit="result", delay=2, leave=False) as bar:
        if before is None:
            before, x = both(model, editing, way, bar.update)
        else:
            x = edited(model, before, editing, way, bar.update)
    notes = [{"command": shlex.join(["osmotic", "edit", *words])}] * len(x)
    told = said_of_rows(before, spec, way) if filled else {}
    with fresh(out) as folder:
        labels = labels if len(x) == count else None
        paths = write_edited(x.numpy(), spec, folder, before, filled, labels, notes, told, drawn=not command.inputs)
    for path in paths:
        print(out / path.relative_to(folder))
    return 0


def said_of_rows(taken: Given, spec: Spec, way: Way) -> dict[str, list[Any]]:
    """A table's columns that the model was told, as they are written; it is said which of their gaps stay."""
    if not taken.cells:
        return {}
    from osmotic.recipes import rows

    found = rows.written(taken, spec, way.cond if isinstance(way.cond, dict) else {}, way.each)
    empty = [column for column, values in found.items() if None in values]
    if empty:
        verb = "is told to the model, not drawn; its gaps stay" if len(empty) == 1 else "are told, not drawn; gaps stay"
        print(f"osmotic: {listed(empty)} {verb}, unless --class or --set says what they hold.", file=sys.stderr)
    return found


def by_instruction(spec: Spec, editing: Editing) -> bool:
    """Whether the input is what the model is told: with nothing else to be done, where it learned from pairs."""
    return editing == Editing() and isinstance(spec.control, Beside)


def instructing(inputs: tuple[Path, ...], spec: Spec, wanted: Wanted, each: int) -> dict[str, Any]:
    """The input as the image that every result is told.

    Raises:
        UsageError: if another image was said.
    """
    from osmotic.data.given import read_image

    if wanted.control is not None:
        raise UsageError("The input is the image that this model is told; leave out --control.")
    return {"image": [image for image in read_image(inputs, spec) for _ in range(each)]}


def how(
    model: Model,
    wanted: Wanted,
    guiding: Guiding,
    drawing: Drawing,
    taken: Given | None,
    images: dict[str, Any],
    filled: bool,
) -> tuple[Way, list[int] | None]:
    """How results are drawn, and the class of each, if one was asked for.

    Where gaps are ``filled``, what a table says of its rows holds; elsewhere what is asked for changes it.
    """
    from osmotic.recipes.edit import Way

    spec, total = model.spec, (1 if taken is None else len(taken.x)) * drawing.each
    said, labels = {}, None
    if wanted.classes or wanted.prompt or wanted.attributes or wanted.control:
        found, labels, _ = asked(spec, wanted, total, turns=False)
        said = found or {}
    own: dict[str, Any] = {} if taken is None else taken.told(spec, drawing.each)
    if taken is not None and filled and taken.cells:
        from osmotic.recipes import rows

        own, said = {}, rows.told(taken, spec, said, drawing.each)
    cond = own | images | said or None
    negative = away(spec, wanted)
    around, scale = guide(model, guiding, drawing.guidance, model.condition(negative, 1, 0, 1), cond)
    return (
        Way(
            each=drawing.each,
            cond=cond,
            guidance=scale,
            negative=None if guiding.plus_plus else negative,
            guide=around,
            steps=drawing.steps,
            particles=drawing.particles,
            seed=drawing.seed,
            batch_size=drawing.batch_size,
        ),
        labels,
    )


def both(model: Model, editing: Editing, way: Way, progress: Progress) -> tuple[Given, Tensor]:
    """Samples drawn under the first text, as if they had been given, and what the other text makes of them."""
    from osmotic.data.given import Given
    from osmotic.prompts.shared import CROSS
    from osmotic.recipes.reword import drawn

    share = CROSS if editing.attention is None else editing.attention
    pairs = drawn(model, editing.was or "", way, share, progress)
    names = tuple(str(i) for i in range(len(pairs)))
    return Given(pairs[:, 0].numpy(), None, names), pairs[:, 1]


def edited(model: Model, taken: Given, editing: Editing, way: Way, progress: Progress) -> Tensor:
    """The results ``(N each, *S)``.

    Raises:
        UsageError: for an input that the edit does not fit.
    """
    import torch

    from osmotic.data.given import read_mask
    from osmotic.guidance.operators import Blur, Downsample, Grey, Operator
    from osmotic.recipes.edit import between, fill, redraw, restore, swap
    from osmotic.recipes.instructed import instructed
    from osmotic.recipes.reword import reword

    x, spec = torch.from_numpy(taken.x), model.spec
    pictured = ("mask", "downsampled", "blurred", "grey")
    if spec.kind != "images" and any(getattr(editing, name) not in (None, False) for name in pictured):
        raise UsageError(f"That edit is for pictures; this model makes {MADE.get(spec.kind, spec.kind)}.")
    if x.isnan().any() and (editing.strength or editing.was or editing.between):
        raise UsageError("The input has gaps; fill them first, without --strength, --from and --between.")
    if editing.strength is not None:
        return redraw(model, x, editing.strength, way, progress)
    if editing.was is not None and editing.attention:
        return reword(model, x, editing.was, way, editing.attention, progress)
    if editing.was is not None:
        named = {"class" if spec.captions is None else "text": editing.was}
        return swap(model, x, named, way, progress)
    if editing.between is not None:
        if len(x) != 2:
            raise UsageError(f"--between goes from one input to a second; give two, not {len(x)}.")
        one = {name: values[0] for name, values in way.cond.items()} if isinstance(way.cond, dict) else None
        return between(model, x[0], x[1], editing.between, replace(way, cond=one))
    operator: Operator | None = None
    if editing.downsampled is not None:
        operator = Downsample(editing.downsampled)
    if editing.blurred is not None:
        operator = Blur.gaussian(editing.blurred)
    if editing.grey:
        if spec.shape[0] != 3:
            raise UsageError("This model makes pictures without colours; leave out --grey.")
        operator = Grey()
    if operator is not None:
        noise = ROUNDING if editing.noise is None else editing.noise
        return restore(model, x, operator, noise, way, progress)
    if by_instruction(spec, editing):
        return instructed(model, len(x) * way.each, way, progress)
    if editing.mask is not None:
        x = x.masked_fill(torch.from_numpy(read_mask(editing.mask, spec)), float("nan"))
    refuse_whole(taken, x, spec)
    return fill(model, x, way, progress)


def refuse_whole(taken: Given, x: Tensor, spec: Spec) -> None:
    """Refuse an input without gaps.

    Raises:
        UsageError: saying how gaps are told.
    """
    if x.isnan().any():
        return
    if told := [name for name, values in taken.cells.items() if None in values]:
        raise UsageError(f"The gaps are in {listed(told)}, which this model is told and does not draw; fill it in.")
    raise UsageError(
        "Everything of the input is known; say with --mask, --strength, --from or --downsampled what to change."
        if spec.kind == "images"
        else "Everything of the input is known; leave cells empty (NaN in an array), or say --strength or --from."
    )
