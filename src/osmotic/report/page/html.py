"""HTML that is safe by construction: plain strings are escaped wherever they go in, only `Html` stays as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

EMPTY = {"img", "br", "meta", "input", "line", "path", "circle", "rect", "polyline"}
"""Elements without content."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(node: Html | str | None) -> Html:
    """Markup as it is, a plain string with its special characters escaped, nothing for None."""
    if node is None:
        return Html()
    return node if isinstance(node, Html) else Html(html.escape(node))


def join(nodes: Iterable[Html | str | None], between: str = "") -> Html:
    """All of them, one after the other."""
    return Html(html.escape(between).join(escaped(node) for node in nodes))


def tag(name: str, /, *inside: Html | str | None, **attributes: str | float | bool | None) -> Html:
    """An element; attributes that are None or False are left out, True ones have no value.

    ``class_`` is written ``class``, and other underscores become dashes.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        text = f"{value:g}" if isinstance(value, float) else str(value)
        written.append(f" {key}" if value is True else f' {key}="{html.escape(text)}"')
    opened = f"<{name}{''.join(written)}"
    # Inside SVG an element without content must say that it is closed; elsewhere the slash does nothing.
    return Html(f"{opened} />") if name in EMPTY else Html(f"{opened}>{join(inside)}</{name}>")


def paragraph(*inside: Html | str | None, quiet: bool = False) -> Html:
    """A paragraph, in the second tone if quiet."""
    return tag("p", *inside, class_="quiet" if quiet else None)


def table(heads: Sequence[Html | str], rows: Iterable[Sequence[Html | str]], numbers: Iterable[int] = ()) -> Html:
    """A table that scrolls in its own box where it is wider than the page.

    Args:
        heads: of the columns.
        rows: of cells, as many as there are heads; the first one of each heads its row.
        numbers: the columns that are set to the right, from 0.
    """
    right = set(numbers)

    def cell(name: str, column: int, inside: Html | str, **more: str) -> Html:
        return tag(name, inside, class_="number" if column in right else None, **more)

    head = tag("tr", *(cell("th", i, text, scope="col") for i, text in enumerate(heads)))
    body = [
        tag("tr", cell("th", 0, row[0], scope="row"), *(cell("td", i, text) for i, text in enumerate(row) if i))
        for row in rows
    ]
    whole = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label="table")


def folded(title: Html | str, *inside: Html | str | None) -> Html:
    """What is shown only when its title is clicked."""
    return tag("details", tag("summary", title), *inside)


def command(*lines: str) -> Html:
    """Words for a terminal, one command a line; a long one is broken between words, never at a word's dashes."""
    shown = (join((tag("span", word) for word in line.split(" ")), " ") for line in lines)
    return tag("pre", tag("code", join(shown, "\n")), tabindex="0")
