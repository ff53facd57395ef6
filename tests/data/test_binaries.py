"""MNIST's idx and CIFAR-10's binary files, written byte by byte here; nothing unpickles."""

import gzip
import pickle
import struct

import numpy as np
import pytest

from osmotic.data.binaries import IDX_TYPES, idx_array
from osmotic.data.dataset import open_data
from osmotic.data.errors import DataError

RNG = np.random.default_rng(0)


def idx(array, kind=0x08):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.astype(IDX_TYPES[kind]).tobytes()


def cifar(pictures, labels):
    """Label byte, then 1,024 red, 1,024 green, 1,024 blue bytes, row by row; pictures (N, 32, 32, 3)."""
    return b"".join(
        bytes([label]) + b"".join(picture[..., c].tobytes() for c in range(3))
        for picture, label in zip(pictures, labels, strict=True)
    )


@pytest.fixture
def mnist(tmp_path):
    pictures, labels = RNG.integers(0, 256, (20, 7, 5), np.uint8), (np.arange(20) % 10).astype(np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(pictures))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(pictures[:3]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:3]))
    return tmp_path, pictures, labels


def check(data, pictures, labels):
    assert data.spec.kind == "images"
    x, y = data.batch(np.arange(len(data)))
    np.testing.assert_array_equal(data.spec.decode(x.numpy()), pictures)
    assert (y is None) if labels is None else (y.tolist() == labels.tolist())


def test_mnist_folder_takes_the_training_part(mnist):
    folder, pictures, labels = mnist
    check(open_data(folder), pictures[..., None], labels)


def test_mnist_file_with_labels_beside_it(mnist):
    folder, pictures, labels = mnist
    check(open_data(folder / "t10k-images-idx3-ubyte"), pictures[:3, ..., None], labels[:3])
    (folder / "t10k-labels-idx1-ubyte").unlink()
    check(open_data(folder / "t10k-images-idx3-ubyte"), pictures[:3, ..., None], None)


def test_mnist_packed_and_with_dots(tmp_path, mnist):
    folder, pictures, labels = mnist
    other = tmp_path / "packed"
    other.mkdir()
    (other / "train-images.idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
    (other / "train-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    check(open_data(other), pictures[..., None], labels)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
    check(open_data(folder), pictures[..., None], labels)


@pytest.mark.parametrize("kind", list(IDX_TYPES))
def test_all_idx_types(tmp_path, kind):
    array = RNG.integers(0, 100, (3, 4)).astype(IDX_TYPES[kind])
    (tmp_path / "a").write_bytes(idx(array, kind))
    found = idx_array(tmp_path / "a")
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin like an idx file"),
        (b"\x89PNG", "does not begin"),
        (bytes([0, 0, 0x07, 1, 0, 0, 0, 1, 5]), "does not begin"),
        (bytes([0, 0, 0x08, 3, 0, 0]), "within its header"),
        (idx(np.zeros((2, 3)))[:-1], "announces 6 bytes of values but is 5 bytes"),
        (idx(np.zeros((2, 3))) + b"x", "is longer"),
        (bytes([0, 0, 0x0E, 4]) + b"\xff" * 16 + b"x", "more than the file can hold"),
        (gzip.compress(bytes([0, 0, 0x08, 1]) + b"\xff" * 4, mtime=0), "more than the file can hold"),
        (gzip.compress(idx(np.zeros((2, 3))), mtime=0)[:-9], "does not unpack"),
        (b"\x1f\x8b" + b"junk" * 9, "does not unpack"),
    ],
)
def test_broken_idx(tmp_path, content, says):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    for source in (path, tmp_path):
        with pytest.raises(DataError, match=says):
            open_data(source)


def test_labels_that_do_not_fit_are_refused(mnist):
    folder, _, labels = mnist
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels[:-1]))
    with pytest.raises(DataError, match=r"labels have shape \(19,\), but there are 20 samples"):
        open_data(folder)


def test_cifar_folder_and_file(tmp_path):
    pictures, labels = RNG.integers(0, 256, (9, 32, 32, 3), np.uint8), RNG.integers(0, 10, 9)
    for part in range(3):
        rows = slice(3 * part, 3 * part + 3)
        (tmp_path / f"data_batch_{part + 1}.bin").write_bytes(cifar(pictures[rows], labels[rows]))
    (tmp_path / "test_batch.bin").write_bytes(cifar(pictures[:2], labels[:2]))
    (tmp_path / "batches.meta.txt").write_text("airplane\n")
    data = open_data(tmp_path)
    assert data.spec.shape == (3, 32, 32)
    assert data.spec.classes[3] == "cat"
    check(data, pictures, labels)
    check(open_data(tmp_path / "test_batch.bin"), pictures[:2], labels[:2])


def test_cifar_refusals(tmp_path):
    pictures = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(cifar(pictures, [3, 10]))
    with pytest.raises(DataError, match=r"not below 10, the number of classes \(10 in row 1\)"):
        open_data(path)
    for content in (b"", cifar(pictures, [1, 2])[:-1]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no whole number of CIFAR-10's records"):
            open_data(tmp_path)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_the_pickled_cifar_is_refused_unread(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"data": 1}))
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match="a pickle, and reading a pickle can run code: get the binary version"):
            open_data(source)
