"""Encodings: exact values, exact inverses, JSON round trips, what is said to a person."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from osmotic.data.arrays import from_array
from osmotic.data.encoding import Pixels, Standard
from osmotic.data.errors import DataError, closest, listed, plural
from osmotic.data.source import Options
from osmotic.data.spec import Spec


def spec_of(array, **options):
    source = from_array(np.asarray(array), Options(**options), "test")
    return source.spec, source.raw(np.arange(len(array)))


def test_all_bytes_survive_and_have_the_stated_values():
    raw = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = Pixels().encode(raw)
    assert x.dtype == np.float32
    assert x.shape == (1, 1, 16, 16)
    np.testing.assert_array_equal(x[0, 0], raw[0, ..., 0].astype(np.float32) / np.float32(127.5) - 1)
    np.testing.assert_array_equal(Pixels().decode(x), raw)


def test_pixels_clip_and_survive_what_a_bad_model_makes():
    x = np.array([-7.0, 7.0, np.nan, np.inf, -np.inf], np.float32).reshape(1, 1, 1, 5)
    with np.errstate(invalid="raise"):  # a cast of NaN is 0 on one machine and 255 on another
        np.testing.assert_array_equal(Pixels().decode(x).ravel(), [0, 255, 0, 255, 0])


def test_channels_move_and_nothing_else_does():
    raw = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    x = Pixels().encode(raw)
    for c in range(3):
        np.testing.assert_allclose((x[:, c] + 1) * 127.5, raw[..., c], atol=1e-4)


@pytest.mark.parametrize(
    ("array", "low", "high"),
    [
        (np.linspace(0, 1, 64).reshape(1, 8, 8, 1), 0, 1),
        (np.linspace(-1, 1, 64).reshape(1, 8, 8, 1), -1, 1),
        (np.linspace(0, 255, 64).reshape(1, 8, 8, 1), 0, 255),
        (np.arange(64, dtype=np.uint16).reshape(1, 8, 8, 1) * 1000, 0, 65535),
        (np.eye(8, dtype=np.uint8).reshape(1, 8, 8), 0, 1),
        (np.arange(64, dtype=np.int32).reshape(1, 8, 8, 1), 0, 255),
    ],
)
def test_the_range_is_found_and_stated(array, low, high):
    spec, raw = spec_of(array)
    assert spec.kind == "images"
    assert any(f"read as [{low}, {high}]" in fact for fact in spec.facts)
    x = spec.encode(raw)
    np.testing.assert_allclose(x[0, 0], (array.reshape(8, 8) - low) / (high - low) * 2 - 1, atol=2e-6)
    np.testing.assert_array_equal(spec.decode(x)[..., 0], np.rint((array.reshape(1, 8, 8) - low) / (high - low) * 255))


NUMBERS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.bool_]),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=6),
    ).filter(lambda a: np.isfinite(a).all() and np.abs(a.astype(float)).max() < 1e6)
)
def test_vectors_come_back(array):
    spec, raw = spec_of(array, kind="vectors")
    back = spec.decode(spec.encode(raw))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    if array.dtype.kind in "biu":
        np.testing.assert_array_equal(back, array)
    else:
        spread = array.astype(float).std(0) + 1e-6 * np.abs(array.astype(float)).max(0)
        assert np.all(np.abs(back.astype(float) - array) <= 1e-5 * spread + 1e-30)


def test_statistics_are_those_of_each_channel():
    rng = np.random.default_rng(1)
    array = rng.normal([[[3.0], [-100.0]]], [[[0.5], [20.0]]], (500, 2, 7))
    spec, raw = spec_of(array)
    assert spec.kind == "sequences"
    x = spec.encode(raw)
    np.testing.assert_allclose(x.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(spec.encoding.mean, array.mean((0, 2)))
    np.testing.assert_allclose(spec.encoding.std, array.std((0, 2)))


def test_statistics_do_not_lose_precision_far_from_zero():
    array = 1e9 + np.random.default_rng(2).normal(size=(4000, 1))
    spec, raw = spec_of(array)
    np.testing.assert_allclose(spec.encoding.std, array.std(0), rtol=1e-6)
    np.testing.assert_allclose(spec.decode(spec.encode(raw)), array, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, -1e20, 1e-30])
def test_a_constant_column_becomes_zero_and_comes_back(value):
    spec, raw = spec_of(np.full((7, 1), value))
    np.testing.assert_array_equal(spec.encode(raw), 0)
    np.testing.assert_array_equal(spec.decode(np.zeros((2, 1), np.float32)), value)


def test_a_spread_too_small_for_its_square_is_no_division_by_zero():
    spec, raw = spec_of(np.array([[0.0], [1e-200]]))
    assert np.isfinite(spec.encode(raw)).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64", "uint64"])
def test_integers_clip_and_never_wrap(dtype):
    standard = Standard(dtype=dtype, mean=(0.0,), std=(1e30,))
    info = np.iinfo(dtype)
    low, high = standard.decode(np.array([[-1.0], [1.0]])).ravel()
    assert low == info.min
    assert high >= info.max - 2048  # the nearest float64 below 2^63 is 1024 (2048 below 2^64) smaller
    assert high > 0


def test_batches_are_encoded_like_the_whole():
    array = np.random.default_rng(3).normal(size=(9, 2, 3, 4, 5))
    spec, raw = spec_of(array)
    assert spec.kind == "array"
    np.testing.assert_array_equal(spec.encode(raw)[2:4], spec.encode(raw[2:4]))


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 9), (5, 8, 8, 3), (5, 4, 2, 2)])
def test_json_round_trip_gives_the_same_decoder(shape):
    spec, raw = spec_of(np.random.default_rng(4).normal(size=shape))
    again = Spec.model_validate_json(spec.model_dump_json())
    assert again == spec
    x = spec.encode(raw)
    np.testing.assert_array_equal(again.decode(x), spec.decode(x))


def test_a_spec_is_a_value_and_strict():
    spec, _ = spec_of(np.zeros((3, 2)))
    with pytest.raises(ValidationError):
        spec.count = 4
    with pytest.raises(ValidationError):
        Spec.model_validate({**spec.model_dump(), "extra": 1})
    with pytest.raises(ValidationError):
        Standard(dtype="float32", mean=(float("nan"),), std=(1.0,))


def test_samples_of_another_shape_are_refused():
    spec, _ = spec_of(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"\(3,\) do not fit data of shape \(2,\)"):
        spec.decode(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="do not fit"):
        spec.encode(np.zeros((1, 2, 2)))


def test_small_sets_get_advice_and_large_ones_none():
    tiny, _ = spec_of(np.random.default_rng(0).normal(size=(50, 2)))
    large, _ = spec_of(np.random.default_rng(0).normal(size=(5000, 2)))
    assert sum(line.startswith("advice") for line in tiny.describe()) == 1
    assert not any(line.startswith("advice") for line in large.describe())
    assert "50 vectors, seen by the network as 2" in tiny.describe()[0]


def test_words():
    assert closest("digts", ["moons", "digits"]) == "; did you mean 'digits'?"
    assert closest("zzz", ["moons", "digits"]) == ""
    assert listed(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert [plural(1, "class"), plural(2, "class"), plural(3000, "row")] == ["1 class", "2 classes", "3,000 rows"]
    assert issubclass(DataError, ValueError)
