"""Arrays and their files: what the axes mean, labels, and every refusal with the rows it names."""

import io
import zipfile

import numpy as np
import pytest
import torch

from osmotic.data import arrays
from osmotic.data.dataset import open_data
from osmotic.data.errors import DataError

RNG = np.random.default_rng(0)


def bytes_of(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("array", "kind", "shape"),
    [
        (RNG.normal(size=(6,)), "vectors", (1,)),
        (RNG.normal(size=(6, 4)), "vectors", (4,)),
        (RNG.normal(size=(6, 4, 9)), "sequences", (4, 9)),
        (bytes_of(6, 5, 7), "images", (1, 5, 7)),
        (bytes_of(6, 5, 7, 3), "images", (3, 5, 7)),
        (bytes_of(6, 5, 7, 1), "images", (1, 5, 7)),
        (bytes_of(6, 3, 5, 7), "images", (3, 5, 7)),
        (bytes_of(6, 1, 5, 7), "images", (1, 5, 7)),
        (bytes_of(6, 3, 5, 3), "images", (3, 3, 5)),  # both could be: last before first
        (RNG.random((6, 3, 5, 7)), "images", (3, 5, 7)),
        (RNG.random((6, 5, 7, 3), np.float32), "images", (3, 5, 7)),
        (RNG.normal(size=(6, 3, 5, 7)) * 9, "array", (3, 5, 7)),
        (RNG.normal(size=(6, 4, 5, 7)), "array", (4, 5, 7)),
        (RNG.normal(size=(6, 2, 3, 4, 5)), "array", (2, 3, 4, 5)),
    ],
)
def test_kind_and_shape_follow_from_the_axes(array, kind, shape):
    for source in (array, torch.from_numpy(array)):
        data = open_data(source)
        assert data.spec.kind == kind
        assert data.spec.shape == shape
        x, labels = data.batch(np.array([5, 0, 0]))
        assert x.shape == (3, *shape)
        assert x.dtype == torch.float32
        assert labels is None
        assert torch.equal(x[1], x[2])
        assert data.name(3) == "row 3"


def test_a_stated_kind_settles_what_is_ambiguous():
    grey = RNG.random((6, 5, 7))
    assert open_data(grey).spec.kind == "sequences"
    assert "kind 'images'" in open_data(grey).spec.facts[0]
    assert open_data(grey, kind="images").spec.shape == (1, 5, 7)
    assert open_data(grey, kind="array").spec.shape == (5, 7)
    assert open_data(grey[:, 0], kind="sequences").spec.shape == (1, 7)


def test_channels_first_and_last_agree():
    last = bytes_of(4, 6, 5, 3)
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    a, b = open_data(last), open_data(first)
    assert torch.equal(a.batch(np.arange(4))[0], b.batch(np.arange(4))[0])
    np.testing.assert_array_equal(b.spec.decode(b.batch(np.arange(4))[0].numpy()), last)


def test_bfloat16_and_gradients_are_no_obstacle():
    x = torch.linspace(-3, 3, 24, dtype=torch.bfloat16).reshape(12, 2).requires_grad_()
    data = open_data(x)
    np.testing.assert_allclose(data.spec.decode(data.batch(np.arange(12))[0].numpy()), x.detach().float(), atol=1e-5)


@pytest.mark.parametrize(
    ("array", "options", "says"),
    [
        (np.zeros((0, 3)), {}, "holds no samples"),
        (np.array(3.0), {}, "holds no samples"),
        (np.array([["a", "b"]]), {}, "not numbers"),
        (np.array([{}, []], dtype=object), {}, "not numbers"),
        (np.zeros((3, 2), complex), {}, "not numbers"),
        (np.array([[1e200], [0.0]]), {}, "too large to compute with"),
        (bytes_of(3, 5, 7, 4), {}, "neither 1 nor 3 channels"),
        (bytes_of(3, 5, 7), {"kind": "vectors"}, r"cannot be read as vectors, which needs \(samples, numbers\)"),
        (bytes_of(3, 5), {"kind": "images"}, "cannot be read as images"),
        (bytes_of(3, 5), {"kind": "table"}, "CSV or Parquet"),
        (RNG.normal(size=(3, 5, 7)) * 500, {"kind": "images"}, "no usual range: say value_range"),
        (RNG.random((3, 5, 7)), {"kind": "images", "value_range": (0, 0.1)}, "do not fit the range 0 to 0.1"),
        (RNG.random((3, 5, 7)), {"value_range": (1, 0)}, "smaller number first"),
        (RNG.random((3, 5)), {"label": "y"}, "'label' means nothing for an array"),
        (RNG.random((3, 5)), {"size": 8}, "'size' means nothing"),
        (RNG.random((3, 5)), {"size": 0}, "no side of a picture"),
        (RNG.random((3, 5)), {"max_bad": 1.5}, "from 0 to 1"),
    ],
)
def test_refusals(array, options, says):
    with pytest.raises(DataError, match=says):
        open_data(array, **options)


def test_an_explicit_range_is_obeyed():
    data = open_data(RNG.integers(0, 17, (5, 8, 8)), kind="images", value_range=(0, 16))
    x, _ = data.batch(np.arange(5))
    assert x.min() == -1
    assert x.max() == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_bad_numbers_are_named(bad, monkeypatch):
    monkeypatch.setattr(arrays, "CHUNK", 1000)  # looked at in pieces, as large files are
    array = RNG.normal(size=(5000, 3))
    array[[17, 4711], [0, 2]] = bad
    with pytest.raises(DataError, match=r"2 of 5,000 samples hold NaN or infinite values \(row 17, 4711\)"):
        open_data(array)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 1, -1], r"1 labels are negative \(-1 in row 2\)"),
        ([0, 1.5, 2], r"not whole numbers \(1.5 in row 1\)"),
        ([0, float("nan"), 2], "not whole numbers"),
        ([0, 1], r"labels have shape \(2,\), but there are 3 samples"),
        ([[0], [1], [2]], "shape"),
        ([0, 1, 100_000], "number the classes from 0"),
        (np.array([None, 1, 2], object), "neither integers nor texts"),
    ],
)
def test_bad_labels_are_named(labels, says):
    with pytest.raises(DataError, match=says):
        open_data((RNG.normal(size=(3, 2)), labels))


def test_labels_may_be_numbers_or_names():
    x = RNG.normal(size=(4, 2))
    numbered = open_data((x, torch.tensor([2, 0, 0, 3])))
    assert numbered.spec.classes == ("0", "1", "2", "3")
    assert numbered.batch(np.array([3, 0]))[1].tolist() == [3, 2]
    named = open_data((x, ["dog", "cat", "dog", "ant"]))
    assert named.spec.classes == ("ant", "cat", "dog")
    assert named.batch(np.arange(4))[1].tolist() == [2, 1, 2, 0]


def test_npy_is_mapped_and_equal(tmp_path):
    array = RNG.normal(size=(20, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    data = open_data(tmp_path / "a.npy")
    assert isinstance(data.source.values, np.memmap) or isinstance(data.source.values.base, np.memmap)
    back = data.spec.decode(data.batch(np.arange(20))[0].numpy())
    np.testing.assert_allclose(back, array, atol=1e-6)
    assert back.dtype == np.float32


@pytest.mark.parametrize("key", ["x", "images", "arr_0", "data"])
@pytest.mark.parametrize("label_key", [None, "y", "labels", "label", "arr_1"])
def test_npz_keys(tmp_path, key, label_key):
    array, labels = bytes_of(6, 4, 4, 3), np.arange(6) % 3
    np.savez(tmp_path / "a.npz", **{key: array}, **({label_key: labels} if label_key else {}))
    x, y = open_data(str(tmp_path / "a.npz")).batch(np.arange(6))
    np.testing.assert_allclose((x.numpy().transpose(0, 2, 3, 1) + 1) * 127.5, array, atol=1e-4)
    assert (y is None) if label_key is None else (y.tolist() == labels.tolist())


def test_arrays_of_an_npz_that_are_not_read_are_named(tmp_path):
    x = bytes_of(6, 4, 4, 3)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(6) % 3, kinds=np.arange(6), weight=np.arange(6.0))
    assert any("also holds kinds, not read: labels are called y" in fact for fact in
               open_data(tmp_path / "a.npz", condition=("weight",)).spec.facts)  # fmt: skip
    np.savez(tmp_path / "b.npz", x=x, label=np.arange(6.0), weight=np.arange(6.0))
    told = open_data(tmp_path / "b.npz", condition=("label", "weight"))
    assert told.spec.parts == ("label", "weight")  # what is asked for as a condition is no class
    assert not any("also holds" in fact for fact in told.spec.facts)


def test_npz_without_samples_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.zeros(3), weights=np.zeros(3))
    with pytest.raises(DataError, match=r"holds pictures, weights.*x, images, arr_0, data"):
        open_data(tmp_path / "a.npz")


class Bomb:
    """Unpickling this makes a file: the test sees whether anything did."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_pickled_objects_are_never_loaded(tmp_path, ending):
    array = np.array([Bomb(tmp_path / "fired")], dtype=object)
    path = tmp_path / f"a{ending}"
    np.save(path, array) if ending == ".npy" else np.savez(path, x=array)
    with pytest.raises(DataError, match="could run code"):
        open_data(path)
    assert not (tmp_path / "fired").exists()


def test_broken_files_say_so(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((100, 3)))
    whole = (tmp_path / "a.npy").read_bytes()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=RNG.normal(size=(100, 3)))
    packed = buffer.getvalue()
    for cut in (0, 3, 50, 200):
        (tmp_path / "a.npy").write_bytes(whole[:cut])
        (tmp_path / "a.npz").write_bytes(packed[:cut])
        for name in ("a.npy", "a.npz"):
            with pytest.raises(DataError, match="not a readable"):
                open_data(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", packed[:80])
    with pytest.raises(DataError, match="not numbers"):
        open_data(tmp_path / "b.npz")
