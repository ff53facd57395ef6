"""How many threads small trees grow on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MANY = 50_000
"""Rows from which more than one thread pays: below, threads mostly wait for each other, ten times longer on a machine
that is busy."""


@contextmanager
def threads_for(rows: int) -> Iterator[None]:
    """One thread while few rows are learned from, all of the process's otherwise."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1 if rows < MANY else None, user_api="openmp"):
        yield
