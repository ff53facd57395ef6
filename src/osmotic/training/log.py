"""What a run tells: metrics.jsonl, timing.jsonl, TensorBoard, and the progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from osmotic.training.errors import SaveFailed
from osmotic.training.run import Run, whole_lines, write_atomically

PLAIN_SECONDS = 10.0  # between progress lines where there is no terminal to draw a bar on


class Log:
    """The writing end of a run's logs; on any process but the main one it is silent.

    metrics.jsonl holds only numbers that are the same in every repetition; speed goes to timing.jsonl. Lines after the
    step that is resumed from are cut off, so that the file equals that of an unbroken run.

    Args:
        run: where to write.
        main: whether this process writes.
        resumed: the step that the run goes on from, None for a fresh start.
        steps: in all, for the progress bar.
        batch_size: samples a step, for the speed.
    """

    def __init__(self, run: Run, main: bool, resumed: int | None, steps: int, batch_size: int) -> None:
        self.main, self.steps, self.batch_size = main, steps, batch_size
        self.text = ""  # beside the bar
        self._start = self._said = self._timed = time.monotonic()
        self._aside = 0.0
        self._first = self._last = resumed or 0
        if not main:
            return
        self._metrics = _reopen(run.metrics_path, resumed)
        self._timing = _reopen(run.timing_path, resumed)
        self._board = _board(run, resumed, self.say)
        self._bar = tqdm(
            total=steps, initial=self._first, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()
        )

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line ``{"step": step, **values}``; numbers also become TensorBoard scalars. NaN becomes null."""
        if not self.main:
            return
        _append(self._metrics, {"step": step, **_plain(values)})
        self._show(lambda board: [board.add_scalar(name, value, step) for name, value in _scalars(values)])

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Show ``(H, W)`` or ``(H, W, 3)`` uint8 pixels in TensorBoard."""
        layout = "HWC" if pixels.ndim == 3 else "HW"
        if self.main:
            self._show(lambda board: board.add_image(name, pixels, step, dataformats=layout))

    def timing(self, step: int) -> None:
        """Append the speed since the last call to timing.jsonl."""
        now = time.monotonic()
        speed = (step - self._last) / max(now - self._timed, 1e-9)
        self._last, self._timed = step, now
        if not self.main:
            return
        values = {
            "step": step,
            "seconds": round(now - self._start, 3),
            "samples_per_second": round(speed * self.batch_size, 3),
            "seconds_left": round((self.steps - step) / max(speed, 1e-9), 1),
        }
        _append(self._timing, values)
        self._show(lambda board: board.add_scalar("samples_per_second", values["samples_per_second"], step))

    def progress(self, step: int) -> None:
        """Move the bar; where stderr is no terminal, say a line now and then."""
        if not self.main:
            return
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix_str(self.text, refresh=False)
        now = time.monotonic()
        if self._bar.disable and (now - self._said > PLAIN_SECONDS or step == self.steps):
            self._said = now
            left = (now - self._start - self._aside) / max(step - self._first, 1) * (self.steps - step)
            self.say(f"step {step}/{self.steps}, {_duration(left)} left" + (f", {self.text}" if self.text else ""))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens inside (measurements, pictures) does not count as training when time is estimated."""
        start = time.monotonic()
        yield
        self._aside += time.monotonic() - start

    def say(self, text: str) -> None:
        """One line on stderr, on the main process."""
        if self.main:
            tqdm.write(text, file=sys.stderr)

    def sync(self) -> None:
        """Put everything written so far on the disk, before a checkpoint claims that it happened."""
        if self.main:
            for file in (self._metrics, self._timing):
                os.fsync(file.fileno())

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.main:
            return
        self._bar.close()
        self._metrics.close()
        self._timing.close()
        self._show(lambda board: board.close())

    def _show(self, draw: Callable[[Any], object]) -> None:
        """Write to TensorBoard; that it cannot be written ends the curves, not the training."""
        if self._board is None:
            return
        try:
            draw(self._board)
        except OSError as error:
            self._board = None
            self.say(f"TensorBoard's curves stop here: {error}.")


def _reopen(path: Path, resumed: int | None) -> FileIO:
    """A JSON-lines file, cut after the lines of ``resumed``, open for appending without a buffer that could be lost."""
    kept = []
    if resumed is not None and path.is_file():
        kept = [line for line, record in whole_lines(path) if record.get("step", 0) <= resumed]
    write_atomically(path, b"".join(kept))
    return path.open("ab", buffering=0)


def _append(file: FileIO, record: Mapping[str, Any]) -> None:
    try:
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        while line:
            line = line[file.write(line) :]
    except OSError as error:
        raise SaveFailed(
            f"{file.name} cannot be written ({error.strerror}); the checkpoints are intact: make room there and go on "
            "with --resume."
        ) from error


def _board(run: Run, resumed: int | None, say: Any) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed, so no curves are written to tb/; `pip install tensorboard` adds them.")
        return None
    return SummaryWriter(run.tensorboard, purge_step=None if resumed is None else resumed + 1)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _scalars(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and np.isfinite(value):
            found.append((f"{prefix}{key}", float(value)))
    return found


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
