"""Random convolution features against the same network in scipy, and against what a measure must see."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigvals
from scipy.signal import correlate2d
from sklearn.datasets import load_digits, load_sample_images
from sklearn.neighbors import KNeighborsClassifier

from osmotic.metrics.features import RandomConv, default_features, random_conv
from osmotic.metrics.features.random_conv import kernels


def digits():
    bunch = load_digits()
    return (bunch.images * 255 / 16).astype(np.uint8)[..., None], bunch.target


def patches(count, side):
    """Squares of two photographs."""
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    found = []
    for i in range(count):
        y, x = (int(rng.integers(0, n - side)) for n in photos[i % 2].shape[:2])
        found.append(photos[i % 2][y : y + side, x : x + side])
    return np.stack(found)


def slowly(image):
    """The features of one image in float64, one pair of maps at a time."""
    maps = [2 * channel / 255 - 1 for channel in np.moveaxis(image.astype(np.float64), -1, 0)]
    maps = maps * (3 // len(maps))
    found = []
    for w in kernels(0):
        maps = [abs(sum(correlate2d(m, k, "same") for m, k in zip(maps, row, strict=True))) for row in w]
        found += [[m.mean() for m in maps], [m.std() for m in maps]]
        maps = [
            np.array([[m[i : i + 2, j : j + 2].mean() for j in range(0, m.shape[1], 2)] for i in range(0, len(m), 2)])
            for m in maps
        ]
    return np.concatenate(found)


@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 4, 3), (5, 7, 3), (13, 4, 1), (32, 24, 3)])
def test_features_are_those_of_a_slow_network(shape):
    x = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    wanted = np.stack([slowly(image) for image in x])
    assert np.abs(RandomConv()(x) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_weights_are_the_same_on_every_machine():
    # The first numbers of PCG64 seeded by (0, 0), as numpy 1.26.4 and 2.4.6 both give them.
    raw = [11749869230777074271, 4976686463289251617, 755828109848996024]
    wanted = [(2 * number / 2**64 - 1) * (2 / 9) ** 0.5 for number in raw]
    assert np.allclose(kernels(0)[0].ravel()[:3], wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_have_hes_variance_and_later_ones_no_mean(seed):
    for stage, w in enumerate(kernels(seed)):
        inputs = w[0].size
        spread = 5 * np.sqrt(0.8 / w.size)  # of the variance of uniform numbers: their kurtosis is 1.8
        assert abs(w.astype(float).var() * inputs / 2 - (1 - (stage > 0) / inputs)) < spread
        assert stage == 0 or np.abs(w.sum((1, 2, 3))).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(room=st.integers(1, 40), n=st.integers(0, 30), seed=st.integers(0, 99))
def test_batches_do_not_matter(room, n, seed):
    x = np.random.default_rng(seed).integers(0, 256, (n, 6, 5, 3), dtype=np.uint8)
    whole = RandomConv()(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_conv, "ROOM", room * 32 * 30)
        blocks = list(RandomConv().blocks(x))
    assert all(len(block) <= room for block in blocks)
    assert whole.shape == (n, 256)
    assert np.allclose(np.concatenate([np.empty((0, 256)), *blocks]), whole, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow_with_the_samples():
    for shape in ((32, 32, 3), (256, 256, 3)):
        assert RandomConv()._batch(shape) * 32 * shape[0] * shape[1] <= random_conv.ROOM


def test_grey_is_the_same_in_three_channels():
    x, _ = digits()
    assert np.array_equal(RandomConv()(x[:20]), RandomConv()(x[:20].repeat(3, -1)))


def test_fitted_features_are_standard_on_the_training_data():
    x, _ = digits()
    fitted = default_features("images", x)
    found = fitted(x)
    moving = found.std(0) > 1e-3
    assert moving[:224].all()  # the last maps of 8 x 8 images have one pixel, and no deviation
    assert not moving[224:].any()
    assert np.abs(found.mean(0)).max() < 1e-6
    assert np.abs(found[:, moving].std(0) - 1).max() < 1e-6
    assert fitted.name == "256 random convolution features, seed 0, standardised (not Inception)"


def test_rounding_is_not_blown_up_where_all_images_are_alike():
    x = np.full((50, 8, 8, 3), 77, np.uint8)
    assert np.abs(RandomConv.fitted(x)(x)).max() < 1e-4


def distorted(kind, x):
    f = x.astype(np.float64)
    rng = np.random.default_rng(1)
    if kind == "noise":
        f += rng.normal(0, 10, f.shape)
    elif kind == "blur":
        f = (2 * f + np.roll(f, 1, 1) + np.roll(f, 1, 2)) / 4
    elif kind == "upside down":
        f = f[:, ::-1]
    elif kind == "brighter":
        f += 10
    elif kind == "tinted":
        f += [8, 0, -8]
    elif kind == "halves of two":
        half = f.shape[1] // 2
        f = np.concatenate([f[rng.permutation(len(f)), :half], f[:, half:]], 1)
    return f.clip(0, 255).round().astype(np.uint8)


def frechet(a, b):
    """Between the Gaussians of two sets, by scipy."""
    roots = eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0) ** 0.5
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2 * roots.sum()


@pytest.fixture(scope="module")
def halves():
    """Two halves of 2000 real patches, their features, and the distances of ten other pairs of halves."""
    x = patches(2000, 16)
    features = RandomConv.fitted(x)
    found = features(x)
    rng = np.random.default_rng(2)
    orders = [rng.permutation(2000) for _ in range(11)]
    usual = [frechet(found[order[:1000]], found[order[1000:]]) for order in orders[1:]]
    return features, x[orders[0][:1000]], x[orders[0][1000:]], np.array(usual)


@pytest.mark.parametrize("kind", ["noise", "blur", "upside down", "brighter", "tinted", "halves of two", "nothing"])
def test_what_a_person_would_see_is_seen(halves, kind):
    """Distorted images lie further from real ones than real ones from each other, by 5 standard deviations of that."""
    features, one, other, usual = halves
    z = (frechet(features(one), features(distorted(kind, other))) - usual.mean()) / usual.std(ddof=1)
    assert z < 5 if kind == "nothing" else z > 5


def test_digits_are_told_apart():
    x, y = digits()
    features = RandomConv.fitted(x[:1200])
    judge = KNeighborsClassifier(1).fit(features(x[:1200]), y[:1200])
    # Neighbours by pixels get 0.95 to 0.97 here, and chance 0.1.
    assert judge.score(features(x[1200:]), y[1200:]) > 0.9


def test_nothing_random_is_left_behind():
    before = torch.get_rng_state()
    first = RandomConv(3)(digits()[0][:5])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(RandomConv(3)(digits()[0][:5]), first)
    assert np.abs(RandomConv(4)(digits()[0][:5]) - first).max() > 0.1


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 8, 8, 3)), r"Images for features are \(N, H, W, 1 or 3\) uint8, not \(2, 8, 8, 3\) float64"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"not \(2, 3, 8, 8\) uint8"),
        (np.zeros((2, 8, 3, 1), np.uint8), "8 x 3 pixels are too small: give 4 x 4 at least"),
    ],
)
def test_what_is_no_image_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        RandomConv()(x)


def test_nothing_to_fit_to_is_refused():
    with pytest.raises(ValueError, match="there are none"):
        RandomConv.fitted(np.zeros((0, 8, 8, 3), np.uint8))
