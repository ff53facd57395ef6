"""``osmotic demo`` (torch-free until it starts)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Demo:
    """Train a class-conditional model of real handwritten digits, sample it with guidance, judge it and draw it."""

    out: Path = Path("runs/demo")
    """directory of the run, new or empty"""
    seed: int = 0
    """the one number all randomness is a function of"""


def main(words: list[str]) -> int:
    """Run the demo and print its table and pictures."""
    settings = tyro.cli(Demo, prog="osmotic demo", args=words)
    from osmotic.recipes.demo import demo

    scores, paths = demo(settings.out, settings.seed, print)
    print()
    for line in scores.lines():
        print(line)
    print()
    print("look at:")
    for path in paths:
        print(f"  {path}")
    return 0
