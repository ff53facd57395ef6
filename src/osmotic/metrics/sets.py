"""What every score asks of a set of samples, and how it says that it did not get it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Set = NDArray[np.float64]
"""Samples in rows, ``(N, D)``."""


def as_set(x: ArrayLike, name: str, least: int = 2) -> Set:
    """A set of samples as ``(N, D)`` float64; the array itself where it is that already, so nobody writes into it.

    Args:
        x: ``(N, ...)``, flattened behind the first axis; ``(N,)`` numbers are N samples of one column.
        name: what a message calls the set, such as ``"samples"``.
        least: the fewest samples that the score can do with.

    Raises:
        ValueError: for something else than numbers in rows, for too few rows, and for rows that are not finite.
    """
    array = np.asarray(x)
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"The {name} must be real numbers of shape (N, ...); got {array.dtype} of shape {array.shape}."
        )
    if len(array) < least:
        raise ValueError(f"The {name} must be at least {least} for this score; got {len(array)}.")
    rows = array.reshape(len(array), int(np.prod(array.shape[1:]))).astype(np.float64, copy=False)
    if not rows.shape[1]:
        raise ValueError(f"The {name} have no columns; got shape {array.shape}.")
    bad = not_finite(rows)
    if bad:
        raise ValueError(f"The {name} have NaN or infinity in {bad} of {len(rows)} rows; leave these out or mend them.")
    return rows


def as_pair(
    x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("samples", "reference"), least: int = 2
) -> tuple[Set, Set]:
    """Two sets of the same width; see :func:`as_set`.

    Raises:
        ValueError: also where the widths differ.
    """
    one, two = as_set(x, names[0], least), as_set(y, names[1], least)
    if one.shape[1] != two.shape[1]:
        raise ValueError(
            f"The {names[0]} have {one.shape[1]} columns and the {names[1]} {two.shape[1]}; compare like with like."
        )
    return one, two


def as_labels(labels: ArrayLike, count: int, name: str) -> NDArray[np.generic]:
    """One label for each of count samples.

    Raises:
        ValueError: where they are not ``(count,)``.
    """
    array = np.asarray(labels)
    if array.shape != (count,):
        raise ValueError(f"The {name} must be one for each of {count} samples; got shape {array.shape}.")
    return array


def not_finite(rows: NDArray[np.floating]) -> int:
    """How many rows hold a NaN or an infinity."""
    return int((~np.isfinite(rows)).any(axis=1).sum())
