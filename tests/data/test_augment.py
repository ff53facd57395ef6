"""Augmentations: functions of (seed, position) alone, right transformations with right frequencies."""

import numpy as np
import pytest
import torch
from scipy import stats

from osmotic.data.augment import HorizontalFlip, Shift, Turn, VerticalFlip

ALL = [HorizontalFlip(), VerticalFlip(), Turn(), Shift(2)]
X = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3, 6, 6)).astype(np.float32))
POSITIONS = np.arange(1000, 1200)


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
def test_independent_of_batching(augment):
    whole = augment(X, 5, POSITIONS)
    order = np.random.default_rng(1).permutation(200)
    for rows in np.array_split(order, 7):
        assert torch.equal(augment(X[rows], 5, POSITIONS[rows]), whole[rows])
    assert torch.equal(augment(X, 5, POSITIONS), whole)
    assert not torch.equal(augment(X, 6, POSITIONS), whole)
    assert not torch.equal(augment(X, 5, POSITIONS + 200), whole)


@pytest.mark.parametrize(
    ("augment", "images"),
    [
        (HorizontalFlip(), [lambda a: a, lambda a: a[..., ::-1]]),
        (VerticalFlip(), [lambda a: a, lambda a: a[..., ::-1, :]]),
        (Turn(), [lambda a, k=k: np.rot90(a, k, (1, 2)) for k in range(4)]),
        (
            Shift(1),
            [
                lambda a, i=i, j=j: np.pad(a, [(0, 0), (1, 1), (1, 1)], mode="edge")[:, i : i + 6, j : j + 6]
                for i in range(3)
                for j in range(3)
            ],
        ),
    ],
    ids=["HorizontalFlip", "VerticalFlip", "Turn", "Shift"],
)
def test_every_sample_is_one_of_the_images_and_all_are_equally_likely(augment, images):
    n = 900
    x = X[:1].expand(n, -1, -1, -1)
    found = augment(x, 0, np.arange(n)).numpy()
    candidates = np.stack([image(X[0].numpy()) for image in images])
    matches = (found[:, None] == candidates).all((2, 3, 4))
    np.testing.assert_array_equal(matches.sum(1), 1)
    assert stats.chisquare(matches.sum(0)).pvalue > 1e-3


def test_flips_of_one_sample_are_independent_of_each_other():
    marks = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(2000, 1, 2, 2)
    flipped = VerticalFlip()(HorizontalFlip()(marks, 0, np.arange(2000)), 0, np.arange(2000))
    counts = np.bincount(flipped[:, 0, 0, 0].long(), minlength=4)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_non_square_pictures():
    tall = X[:, :, :, :4]
    assert HorizontalFlip()(tall, 0, POSITIONS).shape == tall.shape
    assert Shift(1)(tall, 0, POSITIONS).shape == tall.shape
    with pytest.raises(ValueError, match="6 x 4 are not square"):
        Turn()(tall, 0, POSITIONS)


def test_no_shift_is_the_identity_and_inputs_are_left_alone():
    before = X.clone()
    assert torch.equal(Shift(0)(X, 0, POSITIONS), X)
    for augment in ALL:
        augment(X, 0, POSITIONS)
    assert torch.equal(X, before)
