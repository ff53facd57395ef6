"""Streaming moments are numpy's, however the rows are split among batches and processes."""

import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osmotic.metrics import Moments, gathered


def rows(count: int, width: int, seed: int) -> np.ndarray:
    """Correlated, of unequal scales, and far from 0: what the textbook's sum of squares cannot do."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) * 10 ** rng.uniform(-1, 1, width) + 1e4


def assert_moments(found: Moments, x: np.ndarray) -> None:
    scale = np.abs(np.cov(x, rowvar=False)).max()
    assert found.count == len(x)
    assert np.allclose(found.mean, x.mean(0), rtol=1e-10)
    assert np.abs(found.covariance - np.cov(x, rowvar=False).reshape(x.shape[1], -1)).max() < 1e-10 * scale


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    seed=st.integers(0, 2**31),
    processes=st.integers(1, 4),
)
def test_any_split_into_batches_and_sets(width, cuts, seed, processes):
    x = rows(300, width, seed)
    parts = [Moments() for _ in range(processes)]
    for i, batch in enumerate(np.split(x, sorted(cuts))):
        parts[i % processes].update(batch)
    total = Moments()
    for part in parts:
        before = part.count
        total = total.merged(part)
        assert part.count == before
    assert_moments(total, x)


def test_more_rows_than_a_block_and_any_shape_of_row():
    x = rows(9000, 6, 0)
    assert_moments(Moments().update(x.reshape(9000, 2, 3)), x)


def test_half_precision_is_summed_in_float64():
    x = np.full((5000, 2), 1000.0, np.float16)
    x[::2] += 1
    found = Moments().update(x)
    assert np.array_equal(found.mean, [1000.5, 1000.5])
    assert np.allclose(found.covariance, 0.25 * 5000 / 4999)


def test_files_go_both_ways(tmp_path):
    x = rows(50, 4, 0)
    Moments().update(x).save(tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as file:
        assert set(file.files) == {"mu", "sigma", "count"}
        assert np.allclose(file["sigma"], np.cov(x, rowvar=False))
    found = Moments.load(tmp_path / "ours.npz")
    assert_moments(found, x)
    assert_moments(found.update(x), np.concatenate([x, x]))
    np.savez(tmp_path / "foreign.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False), mu_s=0, arr_0=np.zeros(3))
    foreign = Moments.load(tmp_path / "foreign.npz")
    assert foreign.count is None
    assert np.array_equal(foreign.mean, x.mean(0))
    assert np.allclose(foreign.covariance, np.cov(x, rowvar=False))
    foreign.save(tmp_path / "again.npz")
    assert Moments.load(tmp_path / "again.npz").count is None


def test_files_that_are_none(tmp_path):
    np.savez(tmp_path / "other.npz", arr_0=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("mu sigma")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:100])
    for name in ("other.npz", "array.npy", "text.npz", "empty.npz", "cut.npz"):
        with pytest.raises(ValueError, match=f"{name} is no file of reference statistics"):
            Moments.load(tmp_path / name)
    np.savez(tmp_path / "pickled.npz", mu=np.array([{}], object), sigma=np.eye(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        Moments.load(tmp_path / "pickled.npz")


def test_broken_rows_are_refused_before_any_is_taken():
    moments = Moments().update(np.ones((3, 4)))
    x = np.ones((6000, 4))
    x[5, 1], x[5000, 0], x[5000, 2] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match="in 2 of 6000 rows"):
        moments.update(x)
    assert moments.count == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Moments().mean, "no rows"),
        (lambda: Moments().covariance, "at least 2 rows"),
        (lambda: Moments().update(np.ones((1, 3))).covariance, "seen 1"),
        (lambda: Moments().update(np.ones((2, 3))).update(np.ones((2, 4))), "of 3 features; got rows of 4"),
        (lambda: Moments().update(np.ones((2, 3))).merged(Moments().update(np.ones((2, 4)))), "of 3 and of 4"),
        (lambda: Moments().update(3.0), "must be real numbers"),
        (lambda: Moments.given([0.0], [[1.0]]).update(np.ones((2, 1))), "without a count"),
        (lambda: Moments().merged(Moments.given([0.0], [[1.0]])), "without a count"),
        (lambda: Moments.given([0.0, 0.0], np.eye(3)), r"\(2,\) and \(3, 3\)"),
        (lambda: Moments.given([np.nan], [[1.0]]), "NaN or infinity"),
        (lambda: Moments.given([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (lambda: Moments.given([0.0], [[-1.0]]), "not symmetric with a diagonal of variances"),
        (lambda: Moments.given([0.0], [[1.0]], 1), "at least 2"),
    ],
)
def test_wrong_use_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_alone_nothing_is_gathered():
    moments = Moments().update(np.eye(3))
    assert gathered(moments) is moments


PROCESS = """
import sys, numpy as np, torch.distributed as dist
from osmotic.metrics import Moments, gathered
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
x = np.load(f"{folder}/x.npy", allow_pickle=False)
gathered(Moments().update([x[:70], x[70:]][rank])).save(f"{folder}/all{rank}.npz")
gathered(Moments().update([x, x[:0]][rank])).save(f"{folder}/lopsided{rank}.npz")
assert gathered(Moments()).count == 0
for wrong in (
    Moments().update(np.ones((2, 3 + rank))),
    Moments.given([0.0], [[1.0]]) if rank else Moments().update(np.ones((2, 1))),
):
    try:
        gathered(wrong)
    except ValueError as error:
        assert "of one width" in str(error)
    else:
        raise AssertionError("not refused")
dist.destroy_process_group()
"""


def test_two_processes_gather_all_rows(tmp_path):
    x = rows(200, 5, 0)
    np.save(tmp_path / "x.npy", x)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    command = [sys.executable, "-c", textwrap.dedent(PROCESS)]
    both = [
        subprocess.Popen([*command, str(rank), port, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for name in ("all", "lopsided"):
        one, two = (Moments.load(tmp_path / f"{name}{rank}.npz") for rank in range(2))
        assert_moments(one, x)
        assert np.array_equal(one.covariance, two.covariance)
        assert np.array_equal(one.mean, two.mean)
