"""A small CLIP of random weights, stored as the real ones are, against transformers' own reading of it."""

import numpy as np
import pytest
from PIL import Image
from tests.clips import SIDE, stored_clip

from osmotic.data.clip import load_clip
from osmotic.data.errors import DataError

transformers = pytest.importorskip("transformers")


def pictures(count: int, side: int, channels: int = 3) -> np.ndarray:
    """Smooth ones, so that two ways to interpolate agree."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(picture.squeeze()) for picture in rng.integers(0, 255, (count, 4, 4, channels), np.uint8)]
    found = [np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in coarse]
    return np.stack(found).reshape(count, side, side, channels)


def unit(output) -> np.ndarray:
    features = getattr(output, "pooler_output", output).detach().numpy()
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("side", [SIDE, 40])
def test_embeddings_are_those_of_transformers(side, tmp_path):
    model, tokenizer = stored_clip(tmp_path)
    clip = load_clip(str(tmp_path))
    assert clip.width == 12
    raw = pictures(3, side)
    looks = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    read = looks([Image.fromarray(picture) for picture in raw], return_tensors="pt")
    found = clip.pictures(raw).numpy()
    # Pillow rounds resized pictures to whole numbers of 255.
    np.testing.assert_allclose(found, unit(model.get_image_features(**read)), atol=1e-5 if side == SIDE else 0.01)
    texts = ["a red circle", "blue square"]
    read = tokenizer(texts, padding=True, return_tensors="pt")
    expected = unit(model.get_text_features(input_ids=read["input_ids"], attention_mask=read["attention_mask"]))
    np.testing.assert_allclose(clip.texts(texts).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(clip.texts(texts[1:]).numpy(), expected[1:], atol=1e-5)  # neighbours do not matter


def test_grey_pictures_are_read_as_colours(tmp_path):
    stored_clip(tmp_path)
    clip, grey = load_clip(str(tmp_path)), pictures(2, SIDE, 1)
    np.testing.assert_allclose(clip.pictures(grey), clip.pictures(grey.repeat(3, axis=-1)), atol=1e-6)
    assert not np.allclose(*clip.pictures(grey), atol=1e-3)


def test_what_is_no_clip_is_refused(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(DataError, match="no CLIP of transformers"):
            load_clip(str(folder))
    load_clip.cache_clear()
