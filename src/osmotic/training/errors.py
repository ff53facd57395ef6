"""What can stop a training run, as types the command line maps to exit codes (torch-free)."""

from __future__ import annotations

import signal
from pathlib import Path


class RunError(ValueError):
    """A run directory, a checkpoint or an option cannot be used; the message says what to do. Exit code 2."""


class SaveFailed(RunError):
    """A checkpoint could not be written (disk full, no permission); the earlier checkpoints are intact."""


class Diverged(RuntimeError):
    """Training produced non-finite numbers too often, or non-finite weights. Exit code 3."""

    exit_code = 3


class OutOfMemory(RuntimeError):
    """A training step did not fit in memory; the message says which number to change. Exit code 4."""

    exit_code = 4


class Interrupted(KeyboardInterrupt):
    """A signal ended the run between two steps, after a checkpoint was saved.

    ``exit_code`` is 130 for Ctrl-C (SIGINT), as shells expect, and 0 for SIGTERM: a scheduler that asked the run to
    stop got what it asked for.
    """

    def __init__(self, number: int, step: int, directory: Path) -> None:
        self.step = step
        self.exit_code = 130 if number == signal.SIGINT else 0
        name = signal.Signals(number).name
        super().__init__(f"{name}: stopped after step {step} and saved it in {directory}; go on with --resume.")
