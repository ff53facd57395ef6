"""The figures of diffusion's theory, each a function of a seed, written with the numbers behind it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from osmotic.recipes.gallery.catalog import FIGURES, Figure
from osmotic.recipes.gallery.page import INDEX, claim, write_index, write_numbers

__all__ = ["FIGURES", "INDEX", "Figure", "gallery"]


def gallery(
    out: str | Path, only: Sequence[str] = (), seed: int = 0, progress: Callable[[str], None] | None = None
) -> list[Path]:
    """Write figures as PNG with their numbers as JSON, and the page that shows all that are there.

    Args:
        out: a new or empty folder, or an earlier gallery, whose other figures stay.
        only: names of figures; all if empty.
        seed: the one number all randomness is a function of.
        progress: told the name of each figure when it is written.

    Returns:
        The page, then the pictures.

    Raises:
        ValueError: for a name that is no figure, or a folder that holds something else.
    """
    unknown = [name for name in only if name not in FIGURES]
    if unknown:
        raise ValueError(f"There is no figure {unknown[0]!r}; the figures are {', '.join(FIGURES)}.")
    out = Path(out)
    claim(out)
    pictures = []
    for name in [name for name in FIGURES if name in only] or list(FIGURES):
        figure = FIGURES[name]
        numbers = figure.numbers(seed)
        command = shlex.join(["osmotic", "gallery", "--only", name, "--seed", str(seed)])
        head = {"figure": name, "caption": figure.caption, "seed": seed, "command": command}
        pictures.append(figure.draw(numbers, out / f"{name}.png"))
        write_numbers(out / f"{name}.json", head, numbers)
        if progress is not None:
            progress(name)
    return [write_index(out, {name: figure.caption for name, figure in FIGURES.items()}), *pictures]
