"""``osmotic serve RUN`` (torch-free and gradio-free until it starts)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from osmotic.cli.flags import parse


@dataclass
class Serve:
    """Play with the model in RUN in the browser: draw, watch, compare with the training data, repaint.

    The page is for this machine alone. --host with another address also needs --token, which every request must show.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """directory of a run, which `osmotic train` or `osmotic distill` made"""
    port: int = 7860
    """to listen on; 0 for any that is free"""
    host: str = "127.0.0.1"
    """address to listen on"""
    token: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")] = None
    """secret of at least 16 characters that every request must show"""


def main(words: list[str]) -> int:
    """Parse, load, say where, serve until Ctrl-C."""
    settings = parse(Serve, "serve", words)
    from osmotic.training.run import Run

    Run.open(settings.run)  # a wrong directory is refused before torch is imported
    from osmotic.web.serve import Server

    server = Server(settings.run, settings.port, settings.host, settings.token)
    print(f"open {server.url} ; Ctrl-C stops", flush=True)
    # A shell may have started this with Ctrl-C ignored; the server stops on it all the same, and then returns.
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()
    print("stopped")
    return 0
