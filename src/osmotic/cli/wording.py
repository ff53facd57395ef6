"""What the parser says in a box, as one sentence of ours (torch-free)."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from osmotic.training.recipe import Method

CHOICE = re.compile(r"invalid choice '(.*?)' for argument '(--\S+?)'")
TYPE = re.compile(r"Error parsing (--\S+?): .*?instantiated from \[(.*?)\]")
LITERAL = re.compile(r"Error parsing (--\S+?): invalid literal .*?'(.*?)' Argument helptext")
UNKNOWN = re.compile(r"nrecognized options: (--\S+?)(?:,|=|$)")


def sentence(heard: str, command: type, name: str) -> str:
    """The first complaint in what the parser printed about the words after ``osmotic NAME``.

    Args:
        heard: the box.
        command: the dataclass that the words should have filled.
        name: of the command.
    """
    # Boxes are drawn around the text, in lines or in ASCII; a flag's own dashes are on the left.
    lines = [line.strip(" │╭╮╰╯─|+").rstrip("-─ ") for line in heard.splitlines()]
    lines = [line for line in lines if line.strip("-─ ")]
    ends = [i for i, line in enumerate(lines) if line.startswith(("Perhaps you meant", "For full helptext"))]
    complaint = " ".join(lines[1 : min(ends, default=None)]) or "The command cannot be understood"
    more = f"`osmotic {name} --help` lists what there is."
    known = dict(flags(command))
    if (found := CHOICE.search(complaint)) and known.get(found[2]):
        value, flag = found.groups()
        if flag == "--objective" and value in get_args(Method):
            return f"{value} needs a teacher: `osmotic distill TEACHER --method {value} --out RUN`."
        return (
            f"There is no {flag} {value!r}{meant(value, known[flag], quote=True)}; there are {', '.join(known[flag])}."
        )
    if found := LITERAL.search(complaint):
        return f"{found[1]} takes a whole number; got {found[2]!r}; {more}"
    if found := TYPE.search(complaint):
        flag, values = found[1], " ".join(re.findall(r"'([^']*)'", found[2]))
        takes = next((line for line in lines if line.startswith(f"{flag} ")), f"{flag} something else")
        return f"{takes.replace(' ', ' takes ', 1)}; got {values!r}; {more}"
    hint = meant(found[1], list(known)) if (found := UNKNOWN.search(complaint)) else ""
    return f"{complaint.rstrip('.')}{hint}; {more}"


def meant(word: str, known: list[str], quote: bool = False) -> str:
    """What was probably meant, in brackets; nothing if nothing is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close and quote else f" (did you mean {close[0]}?)" if close else ""


def flags(command: type) -> Iterator[tuple[str, list[str]]]:
    """The flags of a command and the choices of each in their order, none for a flag of any value."""
    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        kind: Any = hints[field.name]
        notes: list[Any] = []
        if get_origin(kind) is Annotated:
            kind, *notes = get_args(kind)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from flags(kind)
        else:
            named = next((note.name for note in notes if getattr(note, "name", None)), field.name)
            yield f"--{named.replace('_', '-')}", list(choices(kind))


def choices(kind: Any) -> Iterator[str]:
    """The strings that a type is made of, if it is made of such."""
    if get_origin(kind) is Literal:
        yield from (str(value) for value in get_args(kind))
    else:
        for part in get_args(kind):
            yield from choices(part)
