"""Batches from anything: embedded sets, indexables, subsets; splits that are disjoint, stratified and repeatable."""

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from osmotic.data.dataset import Subset, open_data, split
from osmotic.data.embedded import EMBEDDED
from osmotic.data.errors import DataError

RNG = np.random.default_rng(0)


def test_digits_are_scikit_learns():
    data = open_data("digits")
    bunch = sklearn.datasets.load_digits()
    x, labels = data.batch(np.arange(1797))
    assert data.spec.shape == (1, 8, 8)
    assert data.spec.classes == tuple("0123456789")
    np.testing.assert_allclose(x[:, 0], bunch.images / 8 - 1)
    np.testing.assert_array_equal(labels, bunch.target)
    np.testing.assert_array_equal(data.spec.decode(x.numpy())[..., 0], np.rint(bunch.images * 255 / 16))


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_are_standardised_and_the_same_every_time(name):
    first, second = open_data(name), open_data(name)
    everything = np.arange(len(first))
    x, labels = first.batch(everything)
    assert torch.equal(x, second.batch(everything)[0])
    assert torch.isfinite(x).all()
    if first.spec.kind != "images":
        assert x.mean(0).abs().max() < 0.15
        assert (x.std(0) - 1).abs().max() < 0.35
    if labels is not None:
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) == set(range(len(first.spec.classes)))


def test_point_clouds_have_their_shape():
    moons = open_data("moons")
    points = moons.spec.decode(moons.batch(np.arange(len(moons)))[0].numpy())
    upper = moons.labels == moons.spec.classes.index("upper")
    radius = np.where(upper, np.hypot(*points.T), np.hypot(*(points - [1, 0.5]).T))
    assert abs(radius.mean() - 1) < 0.01
    assert abs(radius.std() - 0.05) < 0.005
    circles = open_data("circles")
    points = circles.spec.decode(circles.batch(np.arange(len(circles)))[0].numpy())
    inner = circles.labels == circles.spec.classes.index("inner")
    assert abs(np.hypot(*points[inner].T).mean() - 0.5) < 0.01
    assert abs(np.hypot(*points[~inner].T).mean() - 1) < 0.01
    roll = open_data("swiss-roll")
    points = roll.spec.decode(roll.batch(np.arange(len(roll)))[0].numpy())
    # On a spiral the radius grows with the angle: r = angle + 2 pi k.
    turns = (np.hypot(*points.T) - np.arctan2(points[:, 1], points[:, 0])) / (2 * np.pi)
    assert np.abs(turns - np.rint(turns)).mean() < 0.12


def test_anything_indexable():
    x, y = RNG.normal(size=(7, 4)).astype(np.float32), np.arange(7) % 3
    tensors = torch.from_numpy(x)
    sources = {
        "arrays": list(x),
        "lists": x.tolist(),
        "pairs": list(zip(x, y.tolist(), strict=True)),
        "tensor set": TensorDataset(tensors, torch.from_numpy(y)),
        "tensors alone": TensorDataset(tensors),
    }
    for name, source in sources.items():
        data = open_data(source)
        got, labels = data.batch(np.arange(7))
        np.testing.assert_allclose(data.spec.decode(got.numpy()), x, atol=1e-5, err_msg=name)
        labelled = name in ("pairs", "tensor set")
        assert (labels.tolist() == y.tolist()) if labelled else labels is None, name


def test_pairs_of_numbers_are_points():
    assert open_data([(0.1, 0.2), (0.3, 0.9), (1.0, 2.0)]).spec.shape == (2,)


def test_pictures_in_memory():
    raw = RNG.integers(0, 256, (3, 6, 5, 3), np.uint8)
    data = open_data([(Image.fromarray(picture), i) for i, picture in enumerate(raw)])
    assert data.spec.shape == (3, 6, 5)
    np.testing.assert_array_equal(data.spec.decode(data.batch(np.arange(3))[0].numpy()), raw)


class Frame:
    columns = ("a",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise KeyError(index)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([], "is empty"),
        (3, "a int is no data"),
        ({"y": np.zeros(3)}, "a dict is no data"),
        (b"digits", "a bytes is no data"),
        (Frame(), "save it as .parquet"),
        ([np.zeros(3), np.zeros(4)], r"item 1 has shape \(4,\) without a label, item 0 has \(3,\)"),
        ([(np.zeros(3), 0), np.zeros(3)], "item 1 .* without a label, item 0 .* with one"),
        ("dijits", "did you mean 'digits'"),
        ("", "name of the data is empty"),
        ("/dev/null", "neither a file nor a folder"),
        ("x" * 5000, "no such file"),
        ("a\0b", "no such file"),
        ("Moons", "did you mean 'moons'"),
        ("nothing-like-it", "Embedded sets: digits"),
    ],
)
def test_what_is_no_data(source, says):
    with pytest.raises(DataError, match=says):
        open_data(source)


def test_options_left_empty_say_nothing():
    assert len(open_data("iris", columns=[], drop=(), categorical=[])) == 150
    with pytest.raises(DataError, match="'drop' means nothing for an embedded set"):
        open_data("iris", drop=["class"])


def test_subset():
    data = open_data("digits")
    part = Subset(data, np.array([5, 3, 100]))
    assert len(part) == 3
    assert part.spec == data.spec
    assert torch.equal(part.batch(np.array([2, 0]))[0], data.batch(np.array([100, 5]))[0])
    assert part.name(1) == "row 3"
    assert part.labels.tolist() == data.labels[[5, 3, 100]].tolist()


def test_batches_are_pure_functions():
    data = open_data("digits")
    whole, labels = data.batch(np.arange(100))
    part, some = data.batch(np.array([40, 7, 40]))
    assert torch.equal(part, whole[[40, 7, 40]])
    assert torch.equal(some, labels[[40, 7, 40]])
    part.zero_()
    assert torch.equal(data.batch(np.arange(100))[0], whole)


@pytest.mark.parametrize("holdout", [0.0, 0.001, 0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("name", ["digits", "swiss-roll", "iris"])
def test_splits_are_disjoint_complete_and_stratified(name, holdout):
    data = open_data(name)
    n = len(data)
    train, held = split(data, holdout, 3)
    assert sorted([*train.indices, *held.indices]) == list(range(n))
    assert len(held) == (max(1, round(n * holdout)) if holdout else 0)
    assert np.all(np.diff(train.indices) > 0)
    if data.labels is not None:
        sizes = np.bincount(data.labels)
        parts = np.bincount(held.labels, minlength=len(sizes))
        assert np.abs(parts - sizes * len(held) / n).max() < 1


def test_splits_are_functions_of_the_seed():
    data = open_data("digits")
    first = split(data, 0.2, 0)[1].indices
    np.testing.assert_array_equal(first, split(open_data("digits"), 0.2, 0)[1].indices)
    other = split(data, 0.2, 1)[1].indices
    # Two independent fifths share about a fifth of their members: 360 * 0.2 = 72, deviation about 7.
    assert 40 < len(set(first) & set(other)) < 105


def test_every_sample_can_be_held_out():
    data = open_data((RNG.normal(size=(10, 2)), np.arange(10) % 2))
    counts = np.zeros(10)
    for seed in range(1000):
        counts[split(data, 0.3, seed)[1].indices] += 1
    # 300 expected; the deviation of a binomial count is 14.5.
    assert np.abs(counts - 300).max() < 5 * 14.5


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 2.0])
def test_impossible_shares(holdout):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        split(open_data("iris"), holdout, 0)


def test_something_must_be_left_to_train_on():
    with pytest.raises(ValueError, match="leaves none to train on"):
        split(open_data(np.zeros((1, 2))), 0.1, 0)
