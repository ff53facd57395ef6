"""From what a user names to a source: one place that tells formats apart, and says what was found instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import binaries
from .arrays import from_array, read_npy, read_npz
from .embedded import EMBEDDED
from .encoding import Array
from .errors import DataError, NoSuchData, closest, listed
from .folder import read_folder
from .source import Options, Source
from .table import read_table

BY_SUFFIX: dict[str, Callable[[Path, Options], Source]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_table,
    ".bin": binaries.read_cifar,
}


def read(source: Any, options: Options) -> Source:
    """Source of samples for a path, an embedded name, an array, an (array, labels) pair or anything indexable."""
    if isinstance(source, str) and source in EMBEDDED:
        options.only("an embedded set")
        return EMBEDDED[source]()
    if isinstance(source, str) and not source:
        raise NoSuchData(f"the name of the data is empty: give a path or one of {', '.join(EMBEDDED)}")
    if isinstance(source, str | Path):
        return _read_path(Path(source).expanduser(), options)
    if isinstance(source, np.ndarray):
        return from_array(source, options, "array in memory")
    if isinstance(source, tuple) and len(source) == 2:
        known = dict(source[1]) if isinstance(source[1], Mapping) else {"label": source[1]}
        labels = known.pop("label", None)
        return from_array(np.asarray(source[0]), options, "array in memory", labels, known=known)
    if hasattr(source, "columns"):
        raise DataError(f"a {type(source).__name__} in memory is not read: save it as .parquet and give the path")
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, Mapping | str | bytes):
        values, labels = _gather(source)
        return from_array(values, options, f"{type(source).__name__} in memory", labels)
    raise DataError(
        f"a {type(source).__name__} is no data: give a path, a name ({listed(EMBEDDED, 20)}), an array, "
        "an (array, labels) pair, a mapping with the array as 'x', or something with a length and items"
    )


def _read_path(path: Path, options: Options) -> Source:
    if not os.path.exists(path):  # unlike Path.exists, it takes names that no file system takes
        raise NoSuchData(_nothing_at(path))
    if path.is_dir():
        return _folder_reader(path)(path, options)
    if not path.is_file():
        raise DataError(f"{path}: neither a file nor a folder: give one of them")
    if binaries.CIFAR_PICKLE.fullmatch(path.name):
        binaries.refuse_cifar_pickle(path)
    if path.suffix.lower() in BY_SUFFIX:
        return BY_SUFFIX[path.suffix.lower()](path, options)
    if "ubyte" in path.name or binaries.IDX_NAME.fullmatch(path.name):
        return binaries.read_idx(path, options)
    if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth", ".ckpt"):
        raise DataError(f"{path}: pickled data can run code when read: save it as .npy or .npz")
    raise DataError(
        f"{path}: a file of this kind is not known: give a folder of pictures or a file in "
        f"{', '.join(BY_SUFFIX)} or idx format"
    )


def is_picture_folder(source: str | Path) -> bool:
    """Whether a path is a folder that `read` takes for pictures (an embedded name is none)."""
    path = Path(source).expanduser()
    embedded = isinstance(source, str) and source in EMBEDDED
    return not embedded and path.is_dir() and _folder_reader(path) is read_folder


def _folder_reader(path: Path) -> Callable[[Path, Options], Source]:
    names = sorted(entry.name for entry in path.iterdir())
    if any(binaries.IDX_NAME.fullmatch(name) for name in names):
        return binaries.read_idx_folder
    if any(binaries.CIFAR_NAME.fullmatch(name) for name in names):
        return binaries.read_cifar_folder
    for name in names:
        if binaries.CIFAR_PICKLE.fullmatch(name):
            binaries.refuse_cifar_pickle(path / name)
    return read_folder


def _nothing_at(path: Path) -> str:
    """Why there is nothing: the nearest name in the first folder that exists, or the nearest embedded set."""
    parent = path.parent
    if len(path.parts) == 1 and (near := closest(path.name, list(EMBEDDED))):
        return f"{path}: no such file, folder or embedded set{near}"
    if not os.path.isdir(parent):
        return f"{path}: no such file or folder; {parent} does not exist either: check the path"
    near = closest(path.name, [entry.name for entry in parent.iterdir()])
    sets = f" Embedded sets: {', '.join(EMBEDDED)}" if len(path.parts) == 1 else ""
    return f"{path}: no such file or folder{near or ': check the path.'}{sets}"


def _gather(items: Any) -> tuple[Array, Array | None]:
    """All items of something indexable, as one array: samples, or (sample, label) pairs."""
    if len(items) == 0:
        raise DataError(f"the {type(items).__name__} is empty: give at least one sample")
    values: list[Array] = []
    labels: list[Any] = []
    for index in tqdm(range(len(items)), desc="reading samples", delay=2, leave=False):
        item = items[index]
        # Two numbers are a point in the plane, not a sample with a label.
        pair = isinstance(item, tuple) and len(item) == 2 and np.ndim(item[0]) > 0
        value = _sample(item[0] if pair or (isinstance(item, tuple) and len(item) == 1) else item)
        if values and (value.shape != values[0].shape or pair != bool(labels)):
            raise DataError(
                f"item {index} has shape {value.shape} {'with' if pair else 'without'} a label, item 0 has "
                f"{values[0].shape} {'with' if labels else 'without'} one: make all items alike"
            )
        values.append(value)
        labels += [np.asarray(item[1]).item()] if pair else []
    return np.stack(values), np.asarray(labels) if labels else None


def _sample(item: Any) -> Array:
    if isinstance(item, Image.Image):
        return np.asarray(item if item.mode in ("L", "RGB") else item.convert("RGB"))
    return np.asarray(item)
