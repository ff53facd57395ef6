"""What a person gives to be edited, read as a model's own data are: pictures, tables with gaps, arrays with NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import VALUE_KEYS
from .attributes import category
from .cells import beyond, nearest_seen, raw_cells, seen_cells
from .columns import Columns
from .controls import LUMA, Beside, Low, made
from .encoding import Array, FloatArray
from .errors import DataError, listed
from .pictures import SUFFIXES, BadPicture, as_channels, pixels
from .spec import Spec

TABLES, ARRAYS = (".csv", ".tsv", ".parquet"), (".npy", ".npz")
"""Endings of files, beside those of pictures."""

ROUNDING = 1 / (255 * math.sqrt(3))
"""Deviation of what is lost where a picture is stored in 8 bits, on the network's scale of -1 to 1: a level is 2 / 255
wide there, and what is evenly spread over a width has the deviation of its ``sqrt(12)``-th part."""


@dataclass(frozen=True)
class Given:
    """Samples, some of whose entries may not be known.

    Args:
        x: ``(N, *shape)`` float32 in the network's scale, NaN where nothing is known.
        raw: the same as the encoding's raw values, to put known ones back exactly; None for pictures.
        names: of the samples.
        cells: a table's columns as they stand there, by name, those that the model is told too; None where empty.
        facts: what a person should know.
    """

    x: FloatArray
    raw: Array | None
    names: tuple[str, ...]
    cells: dict[str, list[Any]] = field(default_factory=dict)
    facts: tuple[str, ...] = ()

    def told(self, spec: Spec, each: int) -> dict[str, list[Any]]:
        """What the table says of each result, by the names that a model is told."""
        label = spec.encoding.label if isinstance(spec.encoding, Columns) else None
        told = {}
        for attribute in spec.attributes:
            if attribute.name in self.cells:
                values = nearest_seen(attribute.column, self.cells[attribute.name])
                told[attribute.name] = [value for value in values for _ in range(each)]
        if label is not None and label.column.name in self.cells:
            classes = [None if value is None else category(value) for value in self.cells[label.column.name]]
            told["class"] = [value for value in classes for _ in range(each)]
        return told

    def restored(self, raw: Array, each: int) -> Array:
        """Filled arrays ``(N each, ...)`` with what was known put back as it was given."""
        if self.raw is None or self.cells:
            return raw
        known = np.repeat(self.raw, each, axis=0)
        return np.where(np.isnan(known.astype(np.float64)), raw, known).astype(raw.dtype)


def read_given(paths: Sequence[Path], spec: Spec, factor: int = 1, grey: bool = False) -> Given:
    """Samples of one or more files, of the kind that a model of ``spec`` makes.

    Args:
        paths: pictures; or one table, or one ``.npy`` or ``.npz`` array.
        spec: of the model's data.
        factor: by how much smaller than the model's own the pictures are.
        grey: whether they have no colours while the model's have.

    Raises:
        DataError: for files that cannot be read, or are of another shape.
    """
    if spec.kind == "images":
        return _pictures(paths, spec, factor, grey)
    if len(paths) != 1:
        raise DataError(f"one file of {spec.kind} at a time can be edited, not {len(paths)}: name one")
    if isinstance(spec.encoding, Columns):
        return _table(paths[0], spec, spec.encoding)
    return _array(paths[0], spec)


def read_image(paths: Sequence[Path], spec: Spec) -> FloatArray:
    """The images ``(N, channels, *positions)`` that a model of ``spec`` is told, from files of pictures.

    What it learned to be told of a picture is made of each; where it learned with images of their own, each is one; and
    where it learned to enlarge, each is a low resolution.

    Raises:
        DataError: for files that cannot be read, or are of another size.
    """
    assert spec.control is not None
    if isinstance(spec.control, Beside):
        return read_given(paths, spec.model_copy(update={"shape": (spec.control.channels, *spec.shape[1:])})).x
    if isinstance(spec.control, Low):
        low = read_given(paths, spec, spec.control.factor).x
        return low.repeat(spec.control.factor, 2).repeat(spec.control.factor, 3)
    return made(spec.control, read_given(paths, spec).x)


def read_pictures(paths: Sequence[Path], channels: int) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Pictures of any size ``(H, W, channels)``, and the names of those that lose their colours for a grey model.

    Raises:
        DataError: for a file that is none.
    """
    found, greyed = [], []
    for path in paths:
        picture = _picture(path)
        if channels == 1 and picture.ndim == 3:
            greyed.append(path.name)
            picture = _luma(picture)
        found.append(np.ascontiguousarray(as_channels(picture, channels)))
    return found, greyed


def read_mask(path: Path, spec: Spec) -> NDArray[np.bool_]:
    """Where a picture of a mask is bright, ``(H, W)``: what is to be made anew.

    Raises:
        DataError: for a picture that cannot be read or has another size.
    """
    painted = _picture(path)
    if painted.shape[:2] != spec.shape[1:]:
        size = _size(spec.shape[1:])
        raise DataError(f"{path}: the mask is {_size(painted.shape)}, and the pictures are {size}: make it {size}")
    bright = np.asarray((painted if painted.ndim == 2 else painted.mean(-1)) > 127)
    if not bright.any():
        raise DataError(f"{path}: the mask is dark everywhere: paint white what is to be drawn anew")
    return bright


def _pictures(paths: Sequence[Path], spec: Spec, factor: int, grey: bool) -> Given:
    channels = 1 if grey else spec.shape[0]
    refuse_indivisible(spec, factor)
    wanted = tuple(side // factor for side in spec.shape[1:])
    found = []
    for path in paths:
        picture = _picture(path)
        if picture.shape[:2] != wanted:
            size = f"{path}: the picture is {_size(picture.shape)}, and this model takes {_size(wanted)}"
            raise DataError(f"{size}: bring it to that size{_smaller(picture.shape, spec) if factor == 1 else ''}")
        found.append(as_channels(picture if picture.ndim == 2 or channels == 3 else _luma(picture), channels))
    x = np.moveaxis(np.stack(found), -1, 1).astype(np.float32) / 127.5 - 1
    return Given(x, None, tuple(path.stem for path in paths))


def refuse_indivisible(spec: Spec, factor: int) -> None:
    """Refuse blocks that do not fill a model's pictures.

    Raises:
        DataError: naming those that do.
    """
    common = math.gcd(*spec.shape[1:])
    if common % factor:
        fitting = [str(n) for n in range(2, common + 1) if common % n == 0]
        advice = f"take {' or '.join(fitting)}" if fitting else "no factor does"
        raise DataError(f"pictures of {_size(spec.shape[1:])} are not {factor} times a smaller one's size: {advice}")


def _smaller(shape: Sequence[int], spec: Spec) -> str:
    """Where a picture is the model's own made smaller, how to say so."""
    (height, width), (own, other) = shape[:2], spec.shape[1:]
    factor = own // height
    alike = factor > 1 and (height * factor, width * factor) == (own, other)
    return f", or say --downsampled {factor} to have it drawn larger" if alike else ""


def _picture(path: Path) -> NDArray[np.uint8]:
    if path.suffix.lower() in (*TABLES, *ARRAYS) and path.is_file():
        raise DataError(f"{path}: this model draws pictures: give a {', '.join(SUFFIXES[:3])}, ...")
    try:
        return pixels(path)
    except BadPicture as error:
        advice = "" if ": " in str(error) else f": give a picture ({', '.join(SUFFIXES)})"
        raise DataError(f"{path}: {error}{advice}") from None


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.rint(picture @ LUMA).astype(np.uint8)
    return grey


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _array(path: Path, spec: Spec) -> Given:
    if path.suffix.lower() not in ARRAYS:
        raise DataError(f"{path}: this model takes arrays: give an .npy or .npz file, NaN where nothing is known")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            loaded = loaded[next((key for key in VALUE_KEYS if key in loaded.files), loaded.files[0])]
        raw = np.asarray(loaded, np.float64)
    except Exception as error:  # numpy and zipfile each have their own errors for a broken file
        raise DataError(f"{path}: not a readable array of numbers ({str(error)[:100]}): save it again") from None
    values = _with_axes(raw, spec)
    if values.shape[1:] != spec.shape or not len(values):
        raise DataError(
            f"{path}: an array of shape {raw.shape} does not fit samples of shape {spec.shape}{_longer(values, spec)}"
        )
    infinite = np.flatnonzero(np.isinf(values).reshape(len(values), -1).any(1))
    if len(infinite):
        raise DataError(f"{path}: infinite in row {listed(infinite)}: put a number there, or NaN for a gap")
    return Given(spec.encode(values), values, tuple(f"row {i}" for i in range(len(values))))


def _with_axes(values: NDArray[np.float64], spec: Spec) -> NDArray[np.float64]:
    """Samples (N, *shape); one sample may come alone, and sequences of one channel without that axis."""
    one = len(spec.shape) > 1 and spec.shape[0] == 1
    if values.shape == spec.shape[one:]:
        return values.reshape(1, *spec.shape)
    return values[:, None] if one and values.ndim == len(spec.shape) else values


def _longer(values: NDArray[np.float64], spec: Spec) -> str:
    """What to do with samples that are alike but for their length."""
    alike = values.ndim == len(spec.shape) + 1 and values.shape[1:-1] == spec.shape[:-1] and len(spec.shape) > 1
    length = spec.shape[-1]
    if not alike or not len(values):
        return f": give (samples, {', '.join(map(str, spec.shape))})"
    return f": append NaN to length {length}" if values.shape[-1] < length else f": cut it to length {length}"


def _table(path: Path, spec: Spec, columns: Columns) -> Given:
    from .table_files import load

    if path.suffix.lower() in (*SUFFIXES, *ARRAYS) and path.is_file():
        raise DataError(f"{path}: this model takes tables: give a {' or '.join(TABLES[::2])}")
    told = [attribute.column for attribute in spec.attributes]
    told += [] if columns.label is None else [columns.label.column]
    table = load(path, [*columns.columns, *told])
    if table.num_rows == 0:
        raise DataError(f"{path}: has columns ({listed(table.column_names)}) but no rows: give at least one")
    names = [column.name for column in columns.columns]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: has no column {listed(missing)}; this model's are {listed(names, 40)}")
    told = [column for column in told if column.name in table.column_names]
    held = (*columns.columns, *told)
    cells = {c.name: [None if v != v else v for v in table.column(c.name).to_pylist()] for c in held}  # NaN is no value
    every = {c.name: raw_cells(c, cells[c.name], path) for c in held}
    raw = np.stack([every[name] for name in names], 1)
    x = np.concatenate([seen_cells(column, every[column.name]) for column in columns.columns], 1)
    facts = [line for c in held for line in beyond(c, every[c.name], cells[c.name])]
    return Given(x, raw, tuple(f"row {i}" for i in range(len(raw))), cells, tuple(facts))
