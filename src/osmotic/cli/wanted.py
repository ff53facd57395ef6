"""Flags that say which samples are wanted: classes, texts, attributes (torch-free)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from osmotic.cli.flags import UsageError
from osmotic.data.errors import listed
from osmotic.data.given import read_image
from osmotic.data.spec import Spec
from osmotic.training.recipe import Frozen


class Wanted(Frozen):
    """What the samples should be."""

    classes: tuple[str, ...] | None = Field(
        None,
        description="classes to draw, by name or number, in turn (default: all in turn, without --prompt)",
        json_schema_extra={"flag": "class"},
    )
    prompt: tuple[str, ...] | None = Field(None, description="texts to draw, in turn, each in quotes")
    attributes: dict[str, str] | None = Field(
        None,
        description="what else the model was told in training (--condition), by name",
        json_schema_extra={"flag": "set", "metavar": "NAME VALUE ..."},
    )
    control: tuple[Path, ...] | None = Field(
        None,
        description="pictures to follow, in turn: the images themselves where the model was told images of their own, "
        "else what it learned to see of a picture (edges, ...)",
    )
    negative: str | None = Field(
        None, description="a text (a class, where there are no texts) to lead away from; needs --guidance above 1"
    )


def told(spec: Spec, wanted: Wanted, count: int, turns: bool = True) -> dict[str, Any] | None:
    """What the model is told of each sample, by name; None for nothing.

    Args:
        spec: of the model's data.
        wanted: what was said.
        count: of the samples.
        turns: whether samples are of all classes in turn where nothing is said of them.

    Raises:
        UsageError: for what these data do not have.
    """
    said: dict[str, Any] = dict(wanted.attributes or {})
    for name in said:
        if name not in spec.parts or name in ("class", "text", "image", "embedding"):
            others = [a.name for a in spec.attributes]
            have = f"; it was told {listed(others, 20)}" if others else "; leave out --set"
            raise UsageError(f"This model was told no {name!r}{have}.")
    if wanted.classes is not None and spec.classes is None:
        raise UsageError("This model was trained without classes; leave out --class.")
    if wanted.prompt is not None:
        if spec.captions is None:
            hint = "use --class" if spec.classes is not None else "leave out --prompt"
            raise UsageError(f"This model was trained without texts; {hint}.")
        said["text"] = [wanted.prompt[i % len(wanted.prompt)] for i in range(count)]
    if wanted.control is not None:
        if spec.control is None:
            raise UsageError("This model was trained without a control image; leave out --control.")
        made = read_image(wanted.control, spec)
        said["image"] = [made[i % len(made)] for i in range(count)]
    named = wanted.classes or (spec.classes if turns and not wanted.prompt else None)
    if named is not None:
        said["class"] = [named[i % len(named)] for i in range(count)]
    return said or None


def away(spec: Spec, wanted: Wanted) -> dict[str, Any] | None:
    """What samples are led away from; None for nothing.

    Raises:
        UsageError: where the data have neither texts nor classes.
    """
    if wanted.negative is None:
        return None
    if spec.captions is None and spec.classes is None:
        raise UsageError("This model was trained without texts and classes; leave out --negative.")
    return {"class" if spec.captions is None else "text": wanted.negative}
