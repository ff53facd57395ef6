"""Means over blocks: as data of their own, and as the image that a model is told beside each picture."""

import numpy as np
import pytest
import torch

from osmotic.data.controls import LEVEL, Low, blocks, channels
from osmotic.data.dataset import Under, open_data
from osmotic.data.errors import DataError
from osmotic.data.given import read_image
from osmotic.data.source import Options
from osmotic.data.spec import Spec


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(0).integers(0, 256, (12, 8, 12, 3), np.uint8)


def means(x, factor):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // factor, factor, w // factor, factor).mean((3, 5))


def test_reduced_pictures_are_means_in_eight_bits_with_all_that_is_known(raw):
    labels = np.arange(12) % 3
    whole, small = open_data((raw, labels)), open_data((raw, labels), reduce=4)
    assert small.spec.shape == (3, 2, 3)
    x, y = small.batch(np.arange(12))
    expected = means(whole.batch(np.arange(12))[0].double().numpy(), 4)
    assert np.abs(x.numpy() - expected).max() <= 1 / 255 + 1e-6
    assert np.allclose(np.rint((x.numpy() + 1) * 127.5), (x.numpy() + 1) * 127.5, atol=1e-4)  # on the lattice
    assert y.tolist() == labels.tolist()
    assert small.spec.classes == whole.spec.classes
    assert Spec.model_validate_json(small.spec.model_dump_json()) == small.spec
    assert small.spec.decode(x.numpy()).shape == (12, 2, 3, 3)
    # Values of another range become 8 bits too, for 17 levels could not hold a mean of four.
    grey = open_data("digits", reduce=2)
    steps = (grey.batch(np.arange(50))[0] + 1) * 127.5
    assert len(steps.round().unique()) > 40


def test_the_low_resolution_is_told_at_no_noise_beside_all_else(raw):
    data = open_data((raw, {"label": np.arange(12) % 3, "size": np.arange(12.0)}), upscale=4)
    assert data.spec.control == Low(factor=4)
    assert channels(data.spec.control, data.spec.shape) == 3
    assert data.spec.parts == ("class", "size", LEVEL, "image")
    told = data.told(np.array([3, 7]))
    x, _ = data.batch(np.array([3, 7]))
    assert told["vector"].shape == (2, 3)
    assert told["vector"][:, 0].tolist() == [0, 1]
    assert told["vector"][:, 2].tolist() == [0, 0]
    low = torch.from_numpy(means(x.double().numpy(), 4)).float()
    assert torch.allclose(told["image"], low.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-6)
    assert "keep" not in told
    plain = open_data(raw, upscale=2)
    assert plain.spec.parts == (LEVEL, "image")
    assert plain.told(np.arange(2))["vector"].tolist() == [[0.0], [0.0]]
    assert any("told its means over 2 x 2 pixels" in line for line in plain.spec.describe())
    assert Spec.model_validate_json(data.spec.model_dump_json()) == data.spec
    # Data of whom less is known, under the same description: the class is hidden, the image is not.
    fewer = Under(open_data(raw), data.spec).told(np.arange(2))
    assert fewer["keep"].tolist() == [[False, False, True, True]] * 2
    assert torch.equal(fewer["image"], data.told(np.arange(2))["image"])


def test_reduced_first_and_told_what_is_smaller_still(raw):
    both = open_data(raw[:, :, :8], reduce=2, upscale=2)
    assert both.spec.shape == (3, 4, 4)
    x = both.batch(np.arange(12))[0].numpy()
    assert np.allclose(both.told(np.arange(12))["image"].numpy(), blocks(x, 2))


def test_a_given_low_resolution_is_repeated_over_its_blocks(raw, tmp_path):
    from PIL import Image

    Image.fromarray(raw[0, :2, :3]).save(tmp_path / "low.png")
    spec = open_data(raw, upscale=4).spec
    image = read_image([tmp_path / "low.png"], spec)
    assert image.shape == (1, 3, 8, 12)
    assert np.allclose(image[0, :, ::4, ::4], np.moveaxis(raw[0, :2, :3], -1, 0) / 127.5 - 1, atol=1e-6)
    Image.fromarray(raw[0]).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="this model takes 3 x 2"):
        read_image([tmp_path / "large.png"], spec)


def test_what_cannot_be(raw):
    with pytest.raises(DataError, match="12 x 8 pixels cannot be enlarged by 3, which divides not both sides"):
        open_data(raw, upscale=3)
    with pytest.raises(DataError, match="cannot be reduced by 16"):
        open_data(raw, reduce=16)
    with pytest.raises(DataError, match="only pictures can be enlarged, and these are table"):
        open_data("wine", upscale=2)
    with pytest.raises(DataError, match="upscale 1 is no side of a block"):
        Options(upscale=1)
    with pytest.raises(DataError, match="reduce 0 is no side of a block"):
        open_data(raw, reduce=0)
    with pytest.raises(DataError, match="leave out control"):
        open_data(raw, upscale=4, control="edges")
    with pytest.raises(DataError, match="cannot be called 'noise of image'"):
        open_data((raw, {LEVEL: np.arange(12.0)}))
