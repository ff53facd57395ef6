"""``osmotic demo`` (torch-free until it starts)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from osmotic.cli.flags import parse


@dataclass
class Demo:
    """Train a class-conditional model of real handwritten digits, sample it with guidance, judge it and draw it."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """directory of the run, new or empty (default: the first free one of runs/demo, runs/demo-2, ...)"""
    seed: int = 0
    """the one number all randomness is a function of"""


def free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    numbered = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def main(words: list[str]) -> int:
    """Run the demo and print its table and pictures."""
    settings = parse(Demo, "demo", words)
    from osmotic.recipes.demo import demo

    scores, paths = demo(settings.out or free(Path("runs/demo")), settings.seed, print)
    print()
    for line in scores.lines():
        print(line)
    print()
    print("look at:")
    for path in paths:
        print(f"  {path}")
    return 0
