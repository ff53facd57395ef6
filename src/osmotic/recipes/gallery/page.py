"""The files of a gallery: pictures, the numbers behind them, and one page that shows them all."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from osmotic.data.whole import whole
from osmotic.recipes.gallery.numbers import Array, Numbers

INDEX = "index.html"
MARK = '<meta name="generator" content="osmotic gallery">'
DIGITS = 6
STYLE = """
body { margin: 2rem auto; max-width: 50rem; padding: 0 1rem; background: #fafafa; color: #2b2b2b;
       font: 16px/1.5 system-ui, sans-serif; }
figure { margin: 0 0 3rem; }
img { width: 100%; background: white; border: 1px solid #e5e5e5; }
figcaption p { margin: .5rem 0; }
code { font-size: .85em; background: #eee; padding: .1em .3em; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{mark}
<meta name="viewport" content="width=device-width"><title>osmotic: the theory in figures</title>
<style>{style}</style></head>
<body><h1>The theory in figures</h1>
{figures}
</body></html>
"""
FIGURE = """<figure id="{name}"><h2>{name}</h2>
<a href="{picture}"><img src="{picture}" alt="{caption}"></a>
<figcaption><p>{caption}</p><p><code>{command}</code> &middot; <a href="{numbers}">the numbers</a></p></figcaption>
</figure>"""


def claim(out: Path) -> None:
    """Make a folder a gallery, or find that it is one, before anything is drawn.

    Raises:
        ValueError: if it holds something else.
    """
    if out.exists() and not is_free(out):
        raise ValueError(f"{out} is neither empty nor a gallery; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    if not (out / INDEX).exists():
        write_index(out, {})


def is_free(out: Path) -> bool:
    """Whether a gallery may be written to an existing path: an empty folder, or a gallery."""
    if not out.is_dir():
        return False
    index = out / INDEX
    return MARK in index.read_text(encoding="utf-8", errors="replace") if index.is_file() else not any(out.iterdir())


def write_numbers(path: Path, head: dict[str, Any], numbers: Numbers) -> Path:
    """A figure's numbers as JSON, floats to six significant digits, after what says where they come from."""
    record = {**head, "numbers": {name: plain(values) for name, values in numbers.items()}}
    with whole(path) as part:
        part.write_text(json.dumps(record, allow_nan=False) + "\n", encoding="utf-8")
    return path


def plain(values: Array) -> Any:
    """An array as nested lists of numbers or words; what is not finite becomes null."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(v) for v in value]
        if isinstance(value, float):
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        return value

    return rounded(np.asarray(values).tolist())


def write_index(out: Path, captions: dict[str, str]) -> Path:
    """The page of all figures whose picture and numbers are in the folder, in the order of ``captions``."""
    shown = []
    for name, caption in captions.items():
        picture, numbers = f"{name}.png", f"{name}.json"
        if not ((out / picture).is_file() and (out / numbers).is_file()):
            continue
        command = html.escape(json.loads((out / numbers).read_text(encoding="utf-8"))["command"])
        shown.append(
            FIGURE.format(name=name, picture=picture, numbers=numbers, caption=html.escape(caption), command=command)
        )
    text = PAGE.format(mark=MARK, style=STYLE, figures="\n".join(shown))
    with whole(out / INDEX) as part:
        part.write_text(text, encoding="utf-8")
    return out / INDEX
