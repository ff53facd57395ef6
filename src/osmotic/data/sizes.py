"""Pictures of several sizes in one data set: which sizes, and which of them each picture is brought to. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

Size = tuple[int, int]
"""Height and width in pixels, as in a shape."""
Said = str | int | Sequence[int]
"""A size as a person says it: ``"320x192"`` (width x height), ``(192, 320)``, or ``256`` for shapes of that area."""

WIDEST = 4.0
"""The largest ratio of sides among the shapes that are found."""
RARE = 100
"""Of the shapes that are found, one that fewer than one picture in so many would take is left to its neighbours."""


class Sorted(NamedTuple):
    """The sizes that pictures take, the commonest first, and the number of its size for each picture ``(N,)``."""

    sizes: tuple[Size, ...]
    buckets: NDArray[np.int64]


def parsed(said: Sequence[Said]) -> tuple[Size, ...] | int:
    """The sizes that were said, each once, or the side of the square whose area all found shapes should have.

    Raises:
        DataError: for a word that is no size, and for a single number beside sizes.
    """
    found: dict[Size, None] = {}
    for one in said:
        if isinstance(one, int) or (isinstance(one, str) and one.isascii() and one.isdigit()):
            if len(said) > 1 or int(one) < 1:
                raise DataError(
                    f"sizes {' '.join(map(str, said))}: a single number is the side of a square whose area all shapes "
                    "have: give it alone and positive, or write each size as WIDTHxHEIGHT"
                )
            return int(one)
        found[size(one)] = None
    return tuple(found)


def size(said: Said) -> Size:
    """One size, from "320x192" (width x height) or (192, 320).

    Raises:
        DataError: for anything else.
    """
    if isinstance(said, str):
        match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", said.strip().lower())
        sides = (int(match[2]), int(match[1])) if match else None
    else:
        sides = (int(said[0]), int(said[1])) if not isinstance(said, int) and len(said) == 2 else None
    if sides is None or min(sides) < 1:
        raise DataError(f"{said!r} is no size of a picture: write WIDTHxHEIGHT in pixels, as in 320x192")
    return sides


def spoken(one: Sequence[int]) -> str:
    """Width and height in words: "320 x 192"."""
    return f"{one[-1]} x {one[-2]}"


def shapes(side: int) -> tuple[Size, ...]:
    """Sizes of about ``side^2`` pixels from one to four to four to one, the sides multiples of a step.

    The step is the largest power of 2 within side / 16: 64 pixels at 1024, as in SDXL's table (Podell et al. 2023,
    arXiv 2307.01952, appendix I), so that U-Nets and patches cut them evenly. Of each height the width is the multiple
    whose area is nearest to ``side^2``, off by half a step at most.
    """
    step = 1 << max(1, side // 16).bit_length() - 1
    tall = range(step, 4 * side + 1, step)
    pairs = [(h, max(step, round(side * side / h / step) * step)) for h in tall]
    return tuple((h, w) for h, w in pairs if max(h, w) <= WIDEST * min(h, w))


def nearest(sizes: Sequence[Size], pictures: Sequence[Size]) -> NDArray[np.int64]:
    """The number of the size that each picture is cut least for ``(N,)``: the nearest ratio of sides, then area."""
    own, there = np.log(np.asarray(pictures, np.float64)), np.log(np.asarray(sizes, np.float64))
    shape = np.abs((own[:, None, 0] - own[:, None, 1]) - (there[:, 0] - there[:, 1])).round(9)
    area = np.abs(own.sum(1)[:, None] - there.sum(1)).round(9)
    order = np.lexsort((area, shape), axis=1)
    return np.asarray(order[:, 0], np.int64)


def bucketed(said: Sequence[Said], pictures: Sequence[Size]) -> Sorted:
    """Every picture's size among those said, or among shapes of the area said; sizes that none takes are left out.

    Args:
        said: as :func:`parsed` takes it.
        pictures: height and width of each, at least one.
    """
    wanted = parsed(said)
    if not isinstance(wanted, int):
        return _counted(wanted, nearest(wanted, pictures))
    found = _counted(offered := shapes(wanted), nearest(offered, pictures))
    counts = np.bincount(found.buckets)
    kept = [one for one, count in zip(found.sizes, counts, strict=True) if count * RARE >= len(pictures)]
    return _counted(kept, nearest(kept, pictures))


def _counted(sizes: Sequence[Size], buckets: NDArray[np.int64]) -> Sorted:
    """Without the sizes that no picture takes, the commonest first."""
    counts = np.bincount(buckets, minlength=len(sizes))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    place = np.zeros(len(sizes), np.int64)
    place[order] = np.arange(len(order))
    return Sorted(tuple(sizes[i] for i in order), place[buckets])


def alike(indices: NDArray[np.int64], buckets: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """Indices in groups of samples of one size, each in the order given; one group where all have one."""
    if buckets is None:
        return [indices]
    own = buckets[indices]
    return [indices[own == b] for b in np.unique(own)]
