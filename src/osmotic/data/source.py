"""Readers' common ground: raw samples with labels and names, torch-free. `dataset` turns a source into batches."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .controls import MADE
from .encoding import Array
from .errors import DataError, closest, listed
from .sizes import Said, parsed, spoken
from .spec import Kind, Spec

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """What a user may say about the data; every field has a default found from the data itself.

    `kind`: how to read an array whose axes could mean several things. `value_range`: the raw values that become -1 and
    1 in images. `size`: side to which pictures of mixed sizes are brought; `sizes`: several that one model learns, each
    picture at the nearest (see `sizes.parsed`). `label`, `columns`, `drop`, `categorical`: names of table columns
    (the target, those to use, those to leave out, those whose numbers are codes). `condition`: names of what a model is
    told besides the class: columns of a table, fields of metadata.jsonl, arrays of an .npz file. `control`: which image
    it is told: one made of each picture, by name, or the column of metadata.jsonl (the array of an .npz file) that has
    one for each. `text_encoder`: folder or hub name of the frozen model that reads captions; by default a small one
    learns with the network. `max_bad`: share of unreadable pictures that may be skipped; one file always may. `reduce`:
    the pictures are means over blocks of so many pixels a side. `upscale`: the model is told such means of each
    picture, to enlarge them.
    """

    kind: Kind | None = None
    value_range: tuple[float, float] | None = None
    size: int | None = None
    sizes: Sequence[Said] = ()
    label: str | None = None
    columns: Sequence[str] | None = None
    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()
    condition: Sequence[str] = ()
    control: str | None = None
    text_encoder: str | None = None
    max_bad: float = 0.01
    reduce: int | None = None
    upscale: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise DataError(f"size {self.size} is no side of a picture: give 1 or more pixels")
        for name in ("reduce", "upscale"):
            if (factor := getattr(self, name)) is not None and factor < 2:
                raise DataError(f"{name} {factor} is no side of a block: give 2 or more pixels")
            if factor is not None and self.sizes:
                raise DataError(f"{name} is for pictures of one size: leave out it, or sizes")
        if self.sizes and self.size is not None:
            raise DataError("size brings all pictures to one side and sizes to several: give one of them")
        parsed(self.sizes)
        if not 0.0 <= self.max_bad <= 1.0:
            raise DataError(f"max_bad {self.max_bad} is no share: give a number from 0 to 1")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise DataError(f"value_range {self.value_range} is empty: give the smaller number first")
        if self.control is not None and self.control in self.condition:
            raise DataError(f"{self.control!r} is named as an image (control) and as a condition: name it once")

    def only(self, what: str, *allowed: str) -> None:
        """Raises DataError when an option is set that means nothing for `what`: silence would hide a mistake."""
        for option in fields(self):
            value = getattr(self, option.name)
            unset = value == option.default or value in ([], ())  # no names given is nothing said
            if not unset and option.name == "control" and "control" not in allowed:
                raise DataError(
                    f"{what} has no image {value!r} beside each sample{closest(value, MADE) or ':'} what is made of a "
                    f"picture is {', '.join(MADE)}"
                )
            if not unset and option.name not in (*allowed, "max_bad"):
                raise DataError(f"the option {option.name!r} means nothing for {what}: leave it out")


class Source(abc.ABC):
    """Samples in their raw form. `labels`: (N,) class numbers or None; `attributes`: (N, A) raw values as the spec's
    attributes take them; `texts`: captions or None; `beside`: the images beside the samples, in the same order, or
    None; `buckets`: (N,) the number of each sample's size among the spec's, None where all have one."""

    spec: Spec
    labels: Labels | None = None
    attributes: NDArray[np.float64] | None = None
    texts: Sequence[str] | None = None
    beside: Source | None = None
    buckets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.spec.count

    @abc.abstractmethod
    def raw(self, indices: NDArray[np.int64]) -> Array:
        """Raw samples (B, ...) as `spec.encode` takes them."""

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """File name or row of one sample."""


class Stored(Source):
    """Samples in one array, in memory or mapped from a file; `names` are row numbers unless given."""

    def __init__(
        self,
        spec: Spec,
        values: Array,
        labels: Labels | None = None,
        names: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        attributes: NDArray[np.float64] | None = None,
    ) -> None:
        self.spec = spec
        self.attributes = attributes
        self.values = values
        self.labels = labels
        self.names = names
        self.texts = texts

    def raw(self, indices: NDArray[np.int64]) -> Array:
        return np.asarray(self.values[indices])

    def name(self, index: int) -> str:
        return self.names[index] if self.names is not None else f"row {index}"


class Sized(Source):
    """Pictures of several sizes in memory: `stores` has an array for each size, in the order in which they come."""

    def __init__(
        self,
        spec: Spec,
        stores: Sequence[Array],
        buckets: NDArray[np.int64],
        labels: Labels | None = None,
        names: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        attributes: NDArray[np.float64] | None = None,
    ) -> None:
        self.spec, self.stores, self.buckets, self._buckets = spec, stores, buckets, buckets
        self.labels, self.names, self.texts, self.attributes = labels, names, texts, attributes
        self._rows = np.zeros(len(buckets), np.int64)
        for bucket in range(len(stores)):
            here = buckets == bucket
            self._rows[here] = np.arange(here.sum())

    def raw(self, indices: NDArray[np.int64]) -> Array:
        return np.asarray(self.stores[one_size(self.spec, self._buckets[indices])][self._rows[indices]])

    def name(self, index: int) -> str:
        return self.names[index] if self.names is not None else f"row {index}"


def one_size(spec: Spec, buckets: NDArray[np.int64]) -> int:
    """The number of the size that all of some samples have; raises DataError where they have several."""
    numbers = np.unique(buckets)
    if len(numbers) > 1:
        shown = listed(spoken(spec.sizes[b]) for b in numbers)
        raise DataError(
            f"{spec.source}: pictures of several sizes ({shown}) cannot stand in one batch, and this needs one size: "
            "read the data with --size N instead"
        )
    return int(numbers[0]) if len(numbers) else 0


def class_numbers(
    labels: ArrayLike, count: int, where: str, classes: Sequence[str] | None = None
) -> tuple[Labels, tuple[str, ...]]:
    """Class number of each sample (N,) int64 and the names of the classes.

    Integers 0..K-1 are class numbers (K - 1 is the largest, or `classes` gives the names); texts are names, sorted.
    Raises DataError naming the first rows that are no class.
    """
    found = np.asarray(labels)
    if found.shape != (count,):
        raise DataError(f"{where}: labels have shape {found.shape}, but there are {count:,} samples: give one each")
    if found.dtype.kind in "US":
        names, numbers = np.unique(found.astype(str), return_inverse=True)
        return numbers.astype(np.int64), tuple(str(name) for name in names)
    if found.dtype.kind not in "biuf":
        raise DataError(f"{where}: labels of type {found.dtype} are neither integers nor texts: convert them")
    _refuse_rows(found, ~np.isfinite(found) | (found != np.rint(found)), "not whole numbers", where)
    _refuse_rows(found, found < 0, "negative", where)
    numbers = found.astype(np.int64)
    if classes is not None:
        _refuse_rows(found, numbers >= len(classes), f"not below {len(classes)}, the number of classes", where)
        return numbers, tuple(classes)
    largest, distinct = int(numbers.max()), len(np.unique(numbers))
    if largest >= 1000 and distinct < (largest + 1) / 10:
        raise DataError(
            f"{where}: labels go up to {largest:,} but have only {distinct:,} values: number the classes from 0"
        )
    return numbers, tuple(str(i) for i in range(largest + 1))


def _refuse_rows(labels: NDArray[Any], bad: NDArray[np.bool_], what: str, where: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        shown = listed(f"{labels[row]} in row {row}" for row in rows[:5])
        raise DataError(
            f"{where}: {len(rows):,} labels are {what} ({shown}): labels must be class numbers 0, 1, 2, ..."
        )
