"""The Inception score against its extremes, its formula and torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn
from torchmetrics.image.inception import InceptionScore

from osmotic.metrics import inception_score


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_extremes(classes):
    sure = np.eye(classes)[np.arange(500) % classes]
    assert inception_score(sure, 1).value == pytest.approx(classes, rel=1e-12)
    same = np.random.default_rng(0).dirichlet(np.ones(classes))
    found = inception_score(np.tile(same, (50, 1)), 5)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1), rel=1e-12)


def test_the_mutual_information():
    """The score is ``exp(H(p(y)) - E H(p(y|x)))`` with scipy's entropy."""
    p = np.random.default_rng(0).dirichlet(np.full(7, 0.2), 300)
    truth = np.exp(entropy(p.mean(0)) - entropy(p, axis=1).mean())
    assert inception_score(p, 1).value == pytest.approx(truth, rel=1e-10)


def test_sorted_samples_are_shuffled_before_they_are_split():
    sure = np.eye(10)[np.repeat(np.arange(10), 100)]
    found = inception_score(sure)
    # The mean of K classes in splits of 100 loses about (K - 1) / (2 * 100) nats.
    assert found.value == pytest.approx(10 * np.exp(-9 / 200), rel=0.01)
    assert found.low < found.value < found.high
    assert inception_score(sure, seed=1) != found


class Logits(nn.Module):
    """Pictures whose first pixels are the logits, in [0, 8]."""

    def forward(self, x):
        return x[:, 0].flatten(1)[:, :10].double() / 32


def test_torchmetrics_agrees():
    images = torch.randint(256, (200, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    witness = InceptionScore(Logits(), splits=1)
    witness.update(images)
    p = softmax(Logits()(images).numpy(), axis=1)
    assert inception_score(p, 1).value == pytest.approx(float(witness.compute()[0]), rel=1e-5)


@pytest.mark.parametrize(
    ("p", "splits", "words"),
    [
        (np.random.default_rng(0).normal(size=(20, 3)), 1, "apply the softmax"),
        (np.full((20, 3), 0.5), 1, "apply the softmax"),
        (np.full((4, 2), 0.5), 5, "cannot be cut into 5"),
        (np.full((4, 2), 0.5), 0, "cannot be cut into 0"),
        (np.full((4, 2), np.nan), 1, "NaN or infinity in 4 of 4 rows"),
    ],
)
def test_wrong_use_is_named(p, splits, words):
    with pytest.raises(ValueError, match=words):
        inception_score(p, splits)
