"""What ``osmotic edit`` can be told, and what of it does not go together (torch-free)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from osmotic.cli.flags import UsageError
from osmotic.cli.wanted import Wanted
from osmotic.data.given import ROUNDING
from osmotic.training.recipe import Frozen


class Editing(Frozen):
    """What is done with the input; without any of these its gaps are filled in (NaN, empty cells), or the model is told
    it, where it learned from pairs of pictures (--control NAME), and --prompt what should become of it."""

    mask: Path | None = Field(None, description="a picture, bright where the input is to be drawn anew")
    downsampled: int | None = Field(None, ge=2, description="the input is so many times smaller: draw it large")
    blurred: float | None = Field(None, gt=0, description="the input is blurred by so many pixels: draw it sharp")
    grey: bool = Field(False, description="the input has no colours: draw it in colour")
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="draw over the input, keeping what survives this much noise: near 0 almost all, at 1 nothing",
    )
    was: str | None = Field(
        None,
        description="the class or text that the input is, to be changed into --class or --prompt",
        json_schema_extra={"flag": "from"},
    )
    attention: float | None = Field(
        None,
        ge=0,
        le=1,
        description="with --from and --prompt: the share of the way on which words keep their attention, 0 for none "
        "(default: 0; 0.8 without INPUT, where both are drawn)",
    )
    between: int | None = Field(None, ge=2, description="go from the first input to the second in so many pictures")
    noise: float | None = Field(
        None,
        ge=0,
        description="deviation of the noise in the input, with --downsampled and the like, 1 being half of a picture's "
        f"range (default: {ROUNDING:.4f}, what a file of 8 bits rounds away; 0 takes every pixel for exact)",
    )


class Drawing(Frozen):
    """How results are drawn."""

    out: Path | None = Field(None, description="directory for the results (default: RUN/samples/edit-SEED)")
    each: int = Field(4, ge=1, description="results for each input")
    seed: int = Field(0, ge=0, lt=2**63, description="result i of a seed is the same whatever the batch size")
    guidance: float = Field(1.0, description="classifier-free scale: 1 is plain, above 1 sharpens")
    steps: int | None = Field(None, ge=1, description="steps of the solver (default: 50 for gaps and measurements)")
    particles: int | None = Field(None, ge=1, description="candidates that are weighed (default: root of the steps)")
    batch_size: int = Field(64, ge=1, description="results at a time: memory, not results")
    weights: str | None = Field(None, description="which weights: model, or ema-HALFLIFE (default: the first average)")


def refuse_several(editing: Editing) -> None:
    """One thing at a time.

    Raises:
        UsageError: naming two.
    """
    names = ("mask", "downsampled", "blurred", "grey", "strength", "was", "between")
    said = [{"was": "from"}.get(name, name) for name in names if getattr(editing, name) not in (None, False)]
    if len(said) > 1:
        raise UsageError(f"--{said[0]} and --{said[1]} are two different edits; do one after the other.")
    if editing.noise is not None and not set(said) & {"downsampled", "blurred", "grey"}:
        raise UsageError("--noise is of a measured picture: it goes with --downsampled, --blurred or --grey.")


def refuse_no_texts(editing: Editing, wanted: Wanted, given: bool) -> None:
    """Attention needs two texts, and without an input there is nothing else.

    Raises:
        UsageError: saying what to give.
    """
    texts = editing.was is not None and wanted.prompt is not None
    if not given and not texts:
        raise UsageError("Nothing to edit was named; give a file behind the run, or two texts: --from and --prompt.")
    if editing.attention is not None and not texts:
        raise UsageError("--attention is shared between two texts; it goes with --from and --prompt.")
    if editing.was is not None and wanted == Wanted(negative=wanted.negative):
        raise UsageError("--from says what the input is; say with --class or --prompt what it should become.")


def refuse_idle(editing: Editing, drawing: Drawing, given: bool) -> None:
    """Refuse options that this edit does not read.

    Raises:
        UsageError: naming one.
    """
    for name, said in (("strength", editing.strength), ("from", editing.was), ("between", editing.between)):
        if said is None:
            continue
        if drawing.particles is not None:
            raise UsageError(f"--particles are for gaps and measurements, not for --{name}; leave it out.")
        adaptive = name == "between" or (name == "from" and given and not editing.attention)
        if drawing.steps is not None and adaptive:
            raise UsageError(f"--{name} follows the flow in as many steps as it needs; leave out --steps.")
