"""A page that stands alone: its style and script are inside, and it forbids itself to fetch anything."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from .html import Html, join, tag

MARK = Html('<meta name="generator" content="osmotic report" />')
"""By which a page of ours is known."""


def document(title: str, body: Html) -> str:
    """The whole page; only its own style and script, known by their hashes, are allowed by its security policy."""
    style, script = (_part(name) for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = join(
        [
            tag("meta", charset="utf-8"),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            MARK,
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            Html(f"<style>{style}</style>"),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}\n<script>{script}</script></body></html>\n'
    )


def section(name: str, title: str, *inside: Html | str | None, about: str = "") -> Html:
    """A part of the page under its own heading, which links lead to.

    Args:
        name: of the anchor.
        title: its heading.
        inside: what it shows.
        about: a quiet sentence below the heading.
    """
    told = tag("p", about, class_="quiet") if about else None
    return Html("\n" + tag("section", tag("h2", title), told, *inside, id=name))


def contents(names: dict[str, str]) -> Html:
    """Links to the sections: anchors and titles."""
    return tag("nav", *(tag("a", title, href=f"#{name}") for name, title in names.items()), aria_label="contents")


def still(picture: Html, caption: str) -> Html:
    """One picture with its caption."""
    return tag("figure", picture, tag("figcaption", caption), class_="still")


def film(frames: list[tuple[Html, str]], what: str) -> Html:
    """Pictures in turn: a slider where scripts run, a strip elsewhere.

    Args:
        frames: pictures and their captions, the last one shown first.
        what: the slider moves through.
    """
    figures = [tag("figure", tag("figcaption", caption), picture) for picture, caption in frames]
    last = len(frames) - 1
    slide = tag("input", type="range", min=0, max=last, value=last, hidden=True, aria_label=what) if last else None
    return tag("div", slide, tag("div", *figures, class_="frames"), class_="film")


def facts(pairs: list[tuple[str, Html | str]]) -> Html:
    """Names with what is true of them, a line each."""
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in pairs), class_="facts")


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
