"""Flags that say how data are read, shared by the commands that read data (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

import tyro

from osmotic.data.controls import MADE
from osmotic.data.spec import Kind

CHOICES = "{" + ",".join(MADE) + "}|NAME"
KINDS = "{" + ",".join(get_args(Kind)) + "}"


def _flag(metavar: str, text: str) -> Any:
    return tyro.conf.arg(metavar=metavar, help=text, help_behavior_hint="")


@dataclass
class Reading:
    """How to read the data; all of it is found when left out."""

    size: Annotated[int | None, _flag("INT", "bring pictures of mixed sizes to this side")] = None
    sizes: Annotated[
        tuple[str, ...] | None,
        _flag(
            "WxH ...", "train on several sizes: each picture at the nearest; one number N finds shapes of N x N pixels"
        ),
    ] = None
    label: Annotated[str | None, _flag("NAME", "column of a table whose values are the classes")] = None
    columns: Annotated[tuple[str, ...] | None, _flag("NAME ...", "columns of a table to use (default: all)")] = None
    drop: Annotated[tuple[str, ...] | None, _flag("NAME ...", "columns of a table to leave out")] = None
    categorical: Annotated[
        tuple[str, ...] | None, _flag("NAME ...", "columns of numbers that are codes, not amounts")
    ] = None
    condition: Annotated[
        tuple[str, ...] | None, _flag("NAME ...", "what the model is told besides: columns, fields of metadata.jsonl")
    ] = None
    control: Annotated[
        str | None,
        _flag(
            CHOICES,
            "an image beside each picture, which the model is told, too: made of it, or given, by the column NAME of "
            "metadata.jsonl or the array NAME of an .npz",
        ),
    ] = None
    upscale: Annotated[
        int | None,
        _flag("INT", "learn to enlarge: the model is told each picture so many times smaller (see `osmotic upscale`)"),
    ] = None
    reduce: Annotated[int | None, _flag("INT", "make the pictures so many times smaller, by means over blocks")] = None
    text_encoder: Annotated[
        str | None, _flag("NAME", "folder or hub name of a frozen CLIP, T5, ... that reads captions (default: learned)")
    ] = None
    kind: Annotated[Kind | None, _flag(KINDS, "what an array holds, where its axes could mean several things")] = None
    max_bad: Annotated[float | None, _flag("FLOAT", "share of unreadable pictures to skip (default: 0.01)")] = None
