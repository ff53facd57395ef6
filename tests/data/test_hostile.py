"""Damaged files of every format: a hundred mutations of each give data or a DataError, and nothing else."""

import struct

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from osmotic.data.dataset import open_data
from osmotic.data.errors import DataError


def write(path):
    """A small good file of the format that the name says."""
    rng = np.random.default_rng(0)
    if path.suffix == ".npy":
        np.save(path, rng.normal(size=(5, 3)))
    elif path.suffix == ".npz":
        np.savez(path, x=rng.normal(size=(5, 3)), y=np.arange(5))
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]}), path)
    elif path.suffix == ".csv":
        path.write_text("a,b\n1,x\n2,y\n")
    elif path.suffix == ".bin":
        path.write_bytes(bytes(3073))
    else:
        path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 2, 2) + bytes(range(8)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy and zipfile comment on what they find
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.parquet", "a.csv", "data_batch_1.bin", "images-idx3-ubyte"])
def test_damage_gives_data_or_a_data_error(tmp_path, name):
    path = tmp_path / name
    write(path)
    good = path.read_bytes()
    open_data(path)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(100):
        damaged = np.frombuffer(good, np.uint8).copy()
        places = rng.integers(len(damaged), size=rng.integers(1, 6))
        damaged[places] = rng.integers(256, size=len(places))
        path.write_bytes(damaged.tobytes()[: rng.integers(len(damaged)) if rng.random() < 0.3 else None])
        try:
            data = open_data(path)
            data.batch(np.arange(len(data)))
        except DataError:
            refused += 1
    assert refused > 10
