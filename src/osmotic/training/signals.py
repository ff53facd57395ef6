"""Ctrl-C and SIGTERM as a question asked between steps, not an exception in the middle of one."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """While inside, the first SIGINT or SIGTERM is remembered in :attr:`caught`; a second one acts as usual.

    Args:
        speak: tell the person at the keyboard (one process of many should).
    """

    def __init__(self, speak: bool) -> None:
        self.speak = speak
        self.caught = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        # Only the main thread may set handlers; elsewhere the program around us is in charge of them.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        self._restore()
        if self.speak:
            text = f"{signal.Signals(number).name}: finishing this step and saving; once more stops without saving."
            os.write(2, f"\n{text}\n".encode())  # a print may have been interrupted, and cannot be entered twice

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
