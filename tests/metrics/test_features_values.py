"""Features that are values, their principal components, anybody's network, and what is used by default."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import nn

from osmotic.metrics.features import Pixels, Principal, RandomConv, Raw, base, default_features
from osmotic.metrics.features.base import evenly
from osmotic.metrics.features.module import Module
from osmotic.metrics.features.planes import planes


def digits():
    return (load_digits().images * 255 / 16).astype(np.uint8)[..., None]


def test_standardised_values_are_scikit_learns():
    x = load_wine().data
    raw = Raw.fitted(x[:100])
    assert np.allclose(raw(x), StandardScaler().fit(x[:100]).transform(x), rtol=1e-10, atol=1e-10)
    assert (raw.name, raw.dimensions) == ("standardised values", 13)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), max_size=3),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-10, 10),
    seed=st.integers(0, 99),
)
def test_standardised_values_do_not_care_for_units(shape, scale, shift, seed):
    rng = np.random.default_rng(seed)
    training, x = rng.normal(size=(20, *shape)), rng.normal(size=(7, *shape))
    found = Raw.fitted(scale * (training + shift))(scale * (x + shift))
    assert found.shape == (7, int(np.prod(shape)))
    assert np.allclose(found, Raw.fitted(training)(x), rtol=1e-8, atol=1e-8)


def test_constant_values_keep_their_unit():
    training = np.column_stack([np.full(30, 0.1), np.arange(30.0)])
    found = Raw.fitted(training)(np.array([[0.1, 14.5], [2.1, 14.5]]))
    assert np.allclose(found, [[0, 0], [2, 0]], atol=1e-12)


def test_values_that_are_no_numbers_are_refused():
    x = np.zeros((5, 3))
    raw = Raw.fitted(x)
    x[2, 1], x[4, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 5 samples hold NaN or infinite values"):
        raw(x)
    with pytest.raises(ValueError, match=r"type <U1 are no numbers"):
        raw(np.full((2, 3), "a"))
    with pytest.raises(ValueError, match=r"shape \(4,\) do not have the 3 values"):
        raw(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="there are none"):
        Raw.fitted(np.zeros((0, 3)))


def test_a_set_is_read_in_blocks(monkeypatch):
    x = np.random.default_rng(0).normal(size=(100, 4))
    whole = Raw.fitted(x)(x)
    monkeypatch.setattr("osmotic.metrics.features.raw.ROOM", 8 * 30)
    blocks = list(Raw.fitted(x).blocks(x))
    assert [len(block) for block in blocks] == [30, 30, 30, 10]
    assert np.array_equal(np.concatenate(blocks), whole)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 500), count=st.integers(2, 100))
def test_a_part_is_spread_over_the_whole(n, count):
    part = evenly(np.arange(n), count)
    assert len(part) == min(n, count)
    assert (part[0], part[-1]) == (0, n - 1)
    gaps = np.diff(part)
    assert n == 1 or gaps.max() - gaps.min() <= 1
    assert n == 1 or gaps.min() >= 1


@pytest.mark.parametrize("n", [1797, 40])  # more samples than features, and fewer
def test_principal_components_are_scikit_learns(n):
    x = digits()
    principal = Principal.fitted(Pixels((8, 8, 1)), x[:n], 10)
    wanted = PCA(10, svd_solver="full").fit(x[:n].reshape(n, -1) / 255).transform(x.reshape(1797, -1) / 255)
    found = principal(x)
    sign = np.sign((found * wanted).sum(0))
    assert np.allclose(found * sign, wanted, atol=1e-8)
    assert principal.name == "10 principal components of pixels"


def test_all_components_keep_distances_and_no_more_are_made():
    x = np.random.default_rng(0).normal(size=(30, 5)) @ np.random.default_rng(1).normal(size=(5, 9))
    raw = Raw.fitted(x)
    found = Principal.fitted(raw, x)(x)
    assert found.shape == (30, 5)
    distances = [np.linalg.norm(f[:, None] - f, axis=2) for f in (found, raw(x))]
    assert np.allclose(*distances, atol=1e-9)


def test_components_of_nothing_are_refused():
    with pytest.raises(ValueError, match="all alike"):
        Principal.fitted(Pixels((4, 4, 1)), np.full((9, 4, 4, 1), 3, np.uint8))
    with pytest.raises(ValueError, match="2 training samples at least, not 1"):
        Principal.fitted(Pixels((4, 4, 1)), np.full((1, 4, 4, 1), 3, np.uint8))
    with pytest.raises(ValueError, match=r"shape \(4, 4, 3\) do not fit those of shape \(4, 4, 1\)"):
        Pixels((4, 4, 1))(np.zeros((1, 4, 4, 3), np.uint8))


def test_a_network_gives_its_output_for_any_batch():
    torch.manual_seed(0)
    for head in (nn.Flatten(), nn.Identity()):
        network = nn.Sequential(nn.Conv2d(3, 6, 8), head).eval()
        features = Module(network, "six filters", 6, planes, batch=7)
        x = digits()[:20]
        kernel = network[0].weight.detach().double().numpy()
        pixels = np.repeat(x / 255, 3, -1).transpose(0, 3, 1, 2)
        wanted = np.einsum("nchw,kchw->nk", pixels, kernel) + network[0].bias.detach().numpy()
        assert np.allclose(features(x), wanted, atol=1e-5)
        assert (features.name, features.dimensions) == ("six filters", 6)


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"'noisy' is in training mode.*eval"):
        Module(nn.Dropout(), "noisy", 3, torch.from_numpy)
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"'wide' gave \(4, 3\) instead of \(4, 5\)"):
        Module(nn.Identity().eval(), "wide", 5, torch.from_numpy)(x)

    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ValueError, match=r"'two' gave tuple instead of \(4, 3\)"):
        Module(Two().eval(), "two", 3, torch.from_numpy)(x)


def test_planes_are_the_pixels():
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    x.setflags(write=False)
    found = planes(x)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), (x.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32))


def test_defaults_fit_the_kind():
    rng = np.random.default_rng(0)
    assert isinstance(default_features("images", digits()), RandomConv)
    small = default_features("images", digits()[:, :3, :3])
    assert (small.name, small.dimensions) == ("pixels", 9)
    assert default_features("table", rng.normal(size=(50, 256))).name == "standardised values"
    long = default_features("sequences", rng.normal(size=(100, 3, 90)))
    assert long.name == "64 principal components of standardised values"


def test_every_kind_gives_a_row_for_each_sample_and_none_for_none():
    x = digits()[:50]
    for features in (RandomConv(), Pixels((8, 8, 1)), Principal.fitted(RandomConv.fitted(x), x, 8), Raw.fitted(x)):
        assert features(x[:0]).shape == (0, features.dimensions)
        found = features(x, progress="features")
        assert found.shape == (50, features.dimensions)
        assert found.dtype == np.float64
        assert np.allclose(features(x[7:8]), found[7:8], atol=1e-4)
        assert isinstance(features, base.Features)
