"""The drawn shapes: what a detector reads out of a picture is what was drawn, also through noise."""

import numpy as np
import pytest

from osmotic.data.dataset import open_data
from osmotic.data.shapes import COLOURS, FORMS, Shape, captioned, coverage, draw, every, recognise


def test_every_shape_is_recognised_at_any_size_and_place():
    rng = np.random.default_rng(3)
    for shape in every():
        for _ in range(4):
            picture = draw(shape, rng)
            assert recognise(picture) == shape
            noisy = np.clip(picture + rng.normal(0, 10, picture.shape), 0, 255).astype(np.uint8)
            assert recognise(noisy) == shape


def test_what_is_no_shape_is_none():
    assert recognise(np.full((16, 16, 3), 255, np.uint8)) is None
    speck = np.full((16, 16, 3), 255, np.uint8)
    speck[3, 3] = 0
    assert recognise(speck) is None


@pytest.mark.parametrize("form", FORMS)
def test_coverage_is_the_area(form):
    area = {"circle": np.pi * 9, "square": 5.4**2, "triangle": 6.6 * 6.6 / 2}[form]
    found = coverage(form, 8.1, 7.9, 3.0)
    assert found.sum() == pytest.approx(area, abs=21.6 / 16)  # an edge is right to half a subpixel along its length
    assert found.min() == 0
    assert found.max() == 1


def test_captions_say_what_is_there_and_half_of_them_leave_something_out():
    pictures, texts, shapes = captioned(800, 5)
    for picture, text, shape in zip(pictures[:100], texts, shapes, strict=False):
        assert recognise(picture) == shape
        words = set(text.split())
        assert words & {*COLOURS, *FORMS} <= {shape.colour, shape.form}
        assert all(word in shape.caption().split() for word in words - {"shape"})
    whole = np.mean([text == shape.caption() for text, shape in zip(texts, shapes, strict=True)])
    expected = 0.5 + 0.5 / 8
    assert whole == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 800) ** 0.5)
    assert Shape("red", "circle", "on the left").caption(form=False) == "a red shape on the left"


def test_the_embedded_set_is_captioned():
    data = open_data("shapes")
    assert data.spec.parts == ("text",)
    assert not data.spec.captions.spelled
    assert set(COLOURS) | set(FORMS) < set(data.spec.captions.words)
