"""What a person gives to be edited, read as a model's own data are: pictures, tables with gaps, arrays with NaN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import VALUE_KEYS
from .attributes import Attribute, category
from .columns import Categorical, Columns, Numeric
from .controls import LUMA, Beside, Low, made
from .encoding import Array, FloatArray
from .errors import DataError, listed
from .pictures import BadPicture, as_channels, pixels
from .spec import Spec


@dataclass(frozen=True)
class Given:
    """Samples, some of whose entries may not be known.

    Args:
        x: ``(N, *shape)`` float32 in the network's scale, NaN where nothing is known.
        raw: the same as the encoding's raw values, to put known ones back exactly; None for pictures.
        names: of the samples.
        cells: a table's columns as they stand there, by name, those that the model is told too; None where empty.
    """

    x: FloatArray
    raw: Array | None
    names: tuple[str, ...]
    cells: dict[str, list[Any]] = field(default_factory=dict)

    def told(self, spec: Spec, each: int) -> dict[str, list[Any]]:
        """What the table says of each result, by the names that a model is told."""
        label = spec.encoding.label if isinstance(spec.encoding, Columns) else None
        told = {}
        for name in (attribute.name for attribute in spec.attributes):
            if name in self.cells:
                told[name] = [value for value in self.cells[name] for _ in range(each)]
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
        raise DataError(f"one file of {spec.kind} at a time can be edited; {len(paths)} were given")
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
        raise DataError(f"{path}: the mask is {_size(painted.shape)}, and the pictures are {_size(spec.shape[1:])}")
    bright = painted if painted.ndim == 2 else painted.mean(-1)
    return np.asarray(bright > 127)


def _pictures(paths: Sequence[Path], spec: Spec, factor: int, grey: bool) -> Given:
    channels = 1 if grey else spec.shape[0]
    wanted = tuple(side // factor for side in spec.shape[1:])
    found = []
    for path in paths:
        picture = _picture(path)
        if picture.shape[:2] != wanted:
            raise DataError(f"{path}: the picture is {_size(picture.shape)}, and this model takes {_size(wanted)}")
        found.append(as_channels(picture if picture.ndim == 2 or channels == 3 else _luma(picture), channels))
    x = np.moveaxis(np.stack(found), -1, 1).astype(np.float32) / 127.5 - 1
    return Given(x, None, tuple(path.stem for path in paths))


def _picture(path: Path) -> NDArray[np.uint8]:
    try:
        return pixels(path)
    except BadPicture as error:
        raise DataError(f"{path}: {error}") from None


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.rint(picture @ LUMA).astype(np.uint8)
    return grey


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _array(path: Path, spec: Spec) -> Given:
    if path.suffix not in (".npy", ".npz"):
        raise DataError(f"{path}: this model takes arrays: give an .npy or .npz file, NaN where nothing is known")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            loaded = loaded[next((key for key in VALUE_KEYS if key in loaded.files), loaded.files[0])]
        raw = np.asarray(loaded, np.float64)
    except Exception as error:  # numpy and zipfile each have their own errors for a broken file
        raise DataError(f"{path}: not a readable array of numbers ({str(error)[:100]}): save it again") from None
    values = raw
    if values.ndim == len(spec.shape) and len(spec.shape) > 1 and spec.shape[0] == 1:
        values = values[:, None]  # sequences of one channel may come without that axis
    if values.shape[1:] != spec.shape or not len(values):
        raise DataError(f"{path}: an array of shape {values.shape} does not fit samples of shape {spec.shape}")
    return Given(spec.encode(values), values, tuple(f"row {i}" for i in range(len(values))))


def _table(path: Path, spec: Spec, columns: Columns) -> Given:
    from .table import load

    told = [attribute.column for attribute in spec.attributes]
    told += [] if columns.label is None else [columns.label.column]
    table = load(path, [*columns.columns, *told])
    names = [column.name for column in columns.columns]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: has no column {listed(missing)}; this model's are {listed(names, 40)}")
    raw = np.stack([_column(c, table.column(c.name).to_pylist(), path) for c in columns.columns], 1)
    x = np.concatenate([_encoded(column, raw[:, i]) for i, column in enumerate(columns.columns)], 1)
    names += [column.name for column in told if column.name in table.column_names]
    cells = {name: table.column(name).to_pylist() for name in names}
    return Given(x, raw, tuple(f"row {i}" for i in range(len(raw))), cells)


def _column(column: Numeric | Categorical, values: list[Any], path: Path) -> NDArray[np.float64]:
    """Raw values of a table's column, NaN where there are none; numbers beyond what was seen stay as they are."""
    attribute = Attribute(column=column)
    if isinstance(column, Categorical):
        try:
            return np.array([attribute.parse(value) for value in values])
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    try:
        return np.array([np.nan if value is None else attribute.steps(value) for value in values])
    except (TypeError, ValueError):
        raise DataError(f"{path}: column {column.name!r} should hold {column.type}") from None


def _encoded(column: Numeric | Categorical, raw: NDArray[np.float64]) -> FloatArray:
    """A column's coordinates, NaN where the cell is empty; a cell to be filled in is told that it is not missing."""
    absent = np.isnan(raw)
    filled = np.where(absent, 0.0 if isinstance(column, Categorical) else column.values[0], raw)
    x = column.encode(filled)
    # Of a number all but its flag, of a category all but "missing", which is the last.
    unknown = 1 if isinstance(column, Numeric) else column.width - (None in column.categories)
    x[absent, :unknown] = np.nan
    return x
