"""The files in which MNIST (idx) and CIFAR-10 (its binary version) are distributed; nothing in them can run code."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .arrays import from_array
from .errors import DataError, listed
from .source import Options, Stored

IDX_NAME = re.compile(r".*images[.-]idx\d-ubyte(\.gz)?", re.IGNORECASE)
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_RATIO = 1100  # deflate packs at most about 1,032 bytes into one
CIFAR_NAME = re.compile(r"(data|test)_batch(_\d+)?\.bin", re.IGNORECASE)
CIFAR_PICKLE = re.compile(r"(data_batch_\d+|test_batch|batches\.meta)")
CIFAR_RECORD = 1 + 3 * 32 * 32
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_idx_folder(root: Path, options: Options) -> Stored:
    """The training pictures (or the only pictures) of a folder with MNIST's files."""
    found = sorted(path for path in root.iterdir() if IDX_NAME.fullmatch(path.name))
    # The same file often lies there packed and unpacked.
    distinct = {path.name.removesuffix(".gz"): path for path in reversed(found)}
    chosen = [path for name, path in distinct.items() if "train" in name] or list(distinct.values())
    if len(chosen) > 1:
        raise DataError(f"{root}: several sets of pictures ({listed(p.name for p in chosen)}): name one of the files")
    return read_idx(chosen[0], options)


def read_idx(path: Path, options: Options) -> Stored:
    """Pictures of an idx file, packed with gzip or not, and the labels of the file beside it, if there is one."""
    options.only("an idx file", "kind", "value_range")
    values = idx_array(path)
    labels = next((idx_array(beside) for beside in _label_files(path) if beside.is_file()), None)
    return from_array(values, options, str(path), labels)


def _label_files(path: Path) -> list[Path]:
    """Where the labels of `...images-idx3-ubyte` may lie: the same name with labels and idx1, packed or not."""
    if not IDX_NAME.fullmatch(path.name):
        return []
    stem = re.sub(r"idx\d", "idx1", path.name.replace("images", "labels")).removesuffix(".gz")
    return [path.with_name(stem), path.with_name(stem + ".gz")]


def idx_array(path: Path) -> NDArray[Any]:
    """Array of an idx file: magic (0, 0, type, axes), big-endian 32-bit sizes, then the values."""
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        # A hostile header must not make us allocate what the file cannot hold.
        largest = path.stat().st_size * (GZIP_RATIO if packed else 1)
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            return _idx_values(file, path, largest)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: does not unpack ({error}): get it again") from error


def _idx_values(file: IO[bytes] | gzip.GzipFile, path: Path, largest: int) -> NDArray[Any]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or head[3] == 0:
        raise DataError(f"{path}: does not begin like an idx file: get it again")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path}: cut short within its header: get it again")
    shape = struct.unpack(f">{head[3]}I", sizes)
    dtype = np.dtype(IDX_TYPES[head[2]])
    wanted = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if wanted > largest:
        raise DataError(f"{path}: announces {wanted:,} bytes of values, more than the file can hold: get it again")
    data = file.read(wanted + 1)  # one byte more finds a file that is too long, and no more: it may be a gzip bomb
    if len(data) != wanted:
        longer = "longer" if len(data) > wanted else f"{len(data):,} bytes"
        raise DataError(f"{path}: announces {wanted:,} bytes of values but is {longer}: get it again")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def read_cifar_folder(root: Path, options: Options) -> Stored:
    """The training batches of a folder with CIFAR-10's binary version (the test batch when it is alone)."""
    found = sorted(path for path in root.iterdir() if CIFAR_NAME.fullmatch(path.name))
    training = [path for path in found if path.name.lower().startswith("data")]
    return _read_cifar(training or found, options, str(root))


def read_cifar(path: Path, options: Options) -> Stored:
    """One batch of CIFAR-10's binary version."""
    return _read_cifar([path], options, str(path))


def refuse_cifar_pickle(path: Path) -> None:
    """Raises DataError: CIFAR-10's Python version is a pickle."""
    raise DataError(
        f"{path}: this is CIFAR-10's Python version, a pickle, and reading a pickle can run code: "
        "get the binary version (cifar-10-binary.tar.gz)"
    )


def _read_cifar(paths: list[Path], options: Options, source: str) -> Stored:
    options.only("CIFAR-10's files")
    parts = []
    for path in paths:
        data = np.fromfile(path, np.uint8)
        if len(data) == 0 or len(data) % CIFAR_RECORD:
            raise DataError(
                f"{path}: {len(data):,} bytes are no whole number of CIFAR-10's records of {CIFAR_RECORD}: get it again"
            )
        parts.append(data.reshape(-1, CIFAR_RECORD))
    records = np.concatenate(parts)
    pictures = records[:, 1:].reshape(-1, 3, 32, 32)
    return from_array(pictures, Options(kind="images", value_range=(0, 255)), source, records[:, 0], CIFAR_CLASSES)
