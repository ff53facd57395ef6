"""Flags made from pydantic models: one definition for a recipe and its command line (torch-free)."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import tyro
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from osmotic.cli import wording

# Flat names (no "--training.steps"), and a flag that is off has no "--no-" twin.
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
FOUND = "found from the data"
PAIRS = ("--set", "--scales")
"""Flags of several names, each with its value."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class UsageError(ValueError):
    """A flag's value cannot be used."""


def parse(command: type[T], name: str, words: list[str]) -> T:
    """The command's settings from the words after its name.

    Raises:
        UsageError: in one sentence, what cannot be understood and what was probably meant.
    """
    heard = io.StringIO()
    _refuse_twice(words)
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(command, prog=f"osmotic {name}", args=words, config=CONFIG)
    except SystemExit as stop:
        if not stop.code:
            raise
    raise UsageError(wording.sentence(heard.getvalue(), command, name))


def flags(
    model: type[BaseModel], title: str, leave: frozenset[str] = frozenset(), found: frozenset[str] = frozenset()
) -> Any:
    """A dataclass with one flag per plain field of a model, None (or False) meaning "not given".

    Args:
        model: whose fields, descriptions and defaults are used.
        title: what the group of flags is called in ``--help``.
        leave: fields that get no flag.
        found: fields whose default depends on the data.
    """
    made = [
        (
            name,
            _annotation(field, found=name in found),
            dataclasses.field(default=False if field.annotation is bool else None),
        )
        for name, field in model.model_fields.items()
        if name not in leave and not _nested(field)
    ]
    group = dataclasses.make_dataclass(title, made)
    group.__doc__ = title
    return group


def given(values: Any) -> dict[str, Any]:
    """The flags that were given, by field name."""
    named = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    return {name: value for name, value in named.items() if value is not None and value is not False}


def build(model: type[M], values: dict[str, Any]) -> M:
    """The model with these values.

    Raises:
        UsageError: naming the first flag that cannot be, its value and the reason.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise UsageError(sentence(error)) from None


def sentence(error: ValidationError) -> str:
    """The first complaint of a validation, in the command line's words."""
    first = error.errors()[0]
    names = [str(part) for part in first["loc"] if isinstance(part, str)]
    flag = "--" + names[0].replace("_", "-") if names else "the settings"
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{flag} {reason[0].lower()}{reason[1:]}; got {first['input']!r}."


def _refuse_twice(words: list[str]) -> None:
    """Refuse a name that is given two values, of which the parser would keep the last.

    Raises:
        UsageError: naming it.
    """
    for flag in PAIRS:
        if words.count(flag) > 1:
            raise UsageError(f"{flag} is given {words.count(flag)} times; give all names and values after one.")
        if flag in words:
            said = list(itertools.takewhile(lambda word: not word.startswith("--"), words[words.index(flag) + 1 :]))
            twice = [name for i, name in enumerate(said[::2]) if name in said[: 2 * i : 2]]
            if twice:
                raise UsageError(f"{flag} {twice[0]} is given twice; give one value.")


def _nested(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _annotation(field: FieldInfo, found: bool) -> Any:
    kind: Any = field.annotation
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    note = tyro.conf.arg(
        name=str(extra["flag"]) if "flag" in extra else None,  # a name that Python keeps for itself
        help=field.description,
        help_behavior_hint=_hint(field, found),
        metavar=str(extra["metavar"]) if "metavar" in extra else _metavar(kind),
    )
    return Annotated[kind if kind is bool else kind | None, note]


def _hint(field: FieldInfo, found: bool) -> str:
    if found or field.default is None:
        return f"({FOUND})" if found else ""
    if field.annotation is bool:
        return ""
    default = field.default
    return f"(default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def _each(kind: Any) -> str:
    """A word for one value of a row of them."""
    args = [k for k in get_args(kind) if k is not type(None)]
    if float in args or int in args:
        return "FLOAT" if float in args else "INT"
    return next((word for word in (_each(k) for k in args) if word != "TEXT"), "TEXT")


def _metavar(kind: Any) -> str | None:
    """A word for the value; choices show themselves."""
    members = [k for k in get_args(kind) if k is not type(None)]
    words = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
    if kind in words:
        return words[kind]
    if getattr(kind, "__origin__", None) is tuple or any(getattr(k, "__origin__", None) is tuple for k in members):
        return f"{_each(kind)} ..."
    if len(members) == 1 and members[0] in words:
        return _metavar(members[0])
    choices = members if all(isinstance(m, str) for m in members) else get_args(members[0]) if members else ()
    return "{" + ",".join(map(str, choices)) + "}" if choices and all(isinstance(c, str) for c in choices) else None
