"""Written samples: PNGs that other readers read back exactly with their text, and the evaluators' npz."""

import numpy as np
import pytest
from PIL import Image

from osmotic.data.dataset import open_data
from osmotic.data.images import save_images, save_npz

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_pngs_are_exact_and_numbered(tmp_path, channels):
    images = RNG.integers(0, 256, (3, 5, 4, channels), np.uint8)
    notes = [{"seed": str(i), "command": "osmotic sample ünicode ✓"} for i in range(3)]
    paths = save_images(images, tmp_path / "new" / "out", 7, notes)
    assert [path.name for path in paths] == ["000007.png", "000008.png", "000009.png"]
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == [path.name for path in paths]
    for image, path, note in zip(images, paths, notes, strict=True):
        with Image.open(path) as found:
            np.testing.assert_array_equal(np.asarray(found).reshape(5, 4, channels), image)
            assert found.text == note
    data = open_data(tmp_path / "new" / "out")
    np.testing.assert_array_equal(data.spec.decode(data.batch(np.arange(3))[0].numpy()), images)


def test_npz_is_what_evaluators_and_we_read(tmp_path):
    images, labels = RNG.integers(0, 256, (4, 5, 5, 3), np.uint8), np.array([2, 0, 1, 1])
    path = save_npz(images, tmp_path / "sub" / "samples.npz", labels)
    with np.load(path, allow_pickle=False) as archive:
        assert archive.files == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(archive["arr_0"], images)
        assert archive["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(archive["arr_1"], labels)
    assert [p.name for p in path.parent.iterdir()] == ["samples.npz"]
    assert open_data(path).labels.tolist() == labels.tolist()
    with np.load(save_npz(images, tmp_path / "b.npz")) as archive:
        assert archive.files == ["arr_0"]


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 3, 3, 3)), np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3, 2), np.uint8)]
)
def test_other_arrays_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="uint8"):
        save_images(wrong, tmp_path)
    with pytest.raises(ValueError, match="uint8"):
        save_npz(wrong, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_labels_must_fit(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        save_npz(np.zeros((2, 3, 3, 3), np.uint8), tmp_path / "a.npz", [1])
