"""Prepare things ahead in threads, without any state: what is prepared for k is a function of k."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """``prefetch(k)`` is ``make(k)``, computed ahead by threads; any number of them gives the same.

    Args:
        make: a pure function of k, safe to call from several threads.
        stop: the first k that is never asked for.
        workers: threads; 0 calls ``make`` when asked.
    """

    def __init__(self, make: Callable[[int], T], stop: int, workers: int) -> None:
        self.make, self.stop, self.workers = make, stop, workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches") if workers else None
        self._ahead: dict[int, Future[T]] = {}

    def __call__(self, k: int) -> T:
        if self._pool is None:
            return self.make(k)
        for j in range(k, min(k + 1 + 2 * self.workers, self.stop)):
            if j not in self._ahead:
                self._ahead[j] = self._pool.submit(self.make, j)
        return self._ahead.pop(k).result()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
