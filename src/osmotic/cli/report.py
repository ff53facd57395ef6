"""``osmotic report RUN [RUN_B]`` (torch-free to the end)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from osmotic.cli.flags import parse


@dataclass
class Report:
    """Write one page that shows what RUN is and how good it is; a second run stands beside it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory of a run, which `osmotic train` or `osmotic distill` made"""
    other: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RUN_B]", help_behavior_hint="")] = None
    """another one to hold against it"""
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE", help_behavior_hint="(default: RUN/report.html, of two runs RUN/report-RUN_B.html)"
        ),
    ] = None
    """the page; an earlier report there is replaced"""
    open: bool = False
    """show it in the browser"""


def main(words: list[str]) -> int:
    """Parse, read, write, say where."""
    command = parse(Report, "report", words)
    from osmotic.recipes.report import report

    path = report(command.run, command.other, command.out)
    print(path)
    if command.open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return 0
