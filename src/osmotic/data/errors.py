"""Errors that a user of the data room sees: one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class DataError(ValueError):
    """Data that cannot be used as it is."""


class NoSuchData(DataError, FileNotFoundError):
    """A path or name under which no data was found."""


def listed(items: Iterable[object], limit: int = 5) -> str:
    """First `limit` items joined by commas, and how many more there are."""
    texts = [str(item) for item in items]
    more = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {more:,} more" if more > 0 else "")


def plural(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `3 classes`: a counted noun."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{count:,} {noun}{ending}"


def differ(name: str) -> str:
    """`shape differs`, `classes differ`: what two descriptions of data do not share."""
    return f"{name} {'differ' if name.endswith('s') else 'differs'}"


def closest(word: str, known: Sequence[str]) -> str:
    """A sentence part that suggests the nearest known word, or nothing when none is near."""
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return f"; did you mean {lowered[near[0]]!r}?" if near else ""
