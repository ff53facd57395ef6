"""``osmotic gallery`` (torch-free until it starts)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from osmotic.cli.flags import UsageError, parse
from osmotic.data.errors import plural


@dataclass
class Gallery:
    """Draw the theory: every figure as a PNG with the numbers behind it, and a page that shows them all."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("gallery")
    """directory of the figures: new, empty, or an earlier gallery"""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="(default: all)")] = ()
    """names of figures to draw"""
    list: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """say what figures there are, and draw none"""
    seed: int = 0
    """the one number all randomness is a function of"""


def main(words: list[str]) -> int:
    """Draw, and say where the page is."""
    settings = parse(Gallery, "gallery", words)
    if not -(2**63) <= settings.seed < 2**63:
        raise UsageError(f"--seed is a 64-bit integer; got {settings.seed}.")
    from osmotic.recipes.gallery import FIGURES, gallery

    if settings.list:
        width = max(map(len, FIGURES))
        for name, figure in FIGURES.items():
            print(f"{name:<{width}}  {figure.caption}")
        return 0
    from tqdm import tqdm

    with tqdm(total=len(set(settings.only)) or len(FIGURES), desc="drawing", unit="figure", leave=False) as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        page, *pictures = gallery(settings.out, settings.only, settings.seed, advance)
    whose = "its" if len(pictures) == 1 else "their"
    print(f"{plural(len(pictures), 'figure')} and {whose} numbers in {settings.out}; look at {page}")
    return 0
