"""Effective numbers against their extremes and definition; distances within classes against scipy."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import entropy
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import cosine_similarity, polynomial_kernel

from osmotic.metrics import GaussianKernel, NegativeDistance, Polynomial, pairwise_diversity, vendi


@pytest.mark.parametrize("width", [6, 40])
def test_copies_are_one_and_orthogonal_samples_are_all(width):
    x = np.random.default_rng(0).normal(size=(1, width))
    assert vendi(np.repeat(x, 20, 0)) == pytest.approx(1, rel=1e-9)
    assert vendi(np.repeat(x, 20, 0), GaussianKernel(1.0)) == pytest.approx(1, rel=1e-9)
    assert vendi(5 * np.eye(width)) == pytest.approx(width, rel=1e-9)
    assert vendi(1e3 * np.eye(width), GaussianKernel(1.0)) == pytest.approx(width, rel=1e-9)


def test_groups_of_unequal_size_count_by_their_entropy():
    shares = np.array([50, 30, 15, 5])
    x = np.repeat(np.eye(4) * 100, shares, axis=0)
    truth = np.exp(entropy(shares))
    assert vendi(x) == pytest.approx(truth, rel=1e-9)
    assert vendi(x, GaussianKernel(1.0)) == pytest.approx(truth, rel=1e-9)


def test_the_definition_on_real_digits():
    x = load_digits().data[:300]
    for found, similarity in [
        (vendi(x), cosine_similarity(x)),
        (vendi(x[:40]), cosine_similarity(x[:40])),
    ]:
        shares = np.linalg.eigvalsh(similarity / len(similarity))
        assert found == pytest.approx(np.exp(entropy(shares.clip(0))), rel=1e-8)
    k = polynomial_kernel(x, degree=3)
    k = k / np.sqrt(np.outer(np.diag(k), np.diag(k)))
    truth = np.exp(entropy(np.linalg.eigvalsh(k / 300).clip(0)))
    assert vendi(x, Polynomial()) == pytest.approx(truth, rel=1e-8)


def test_a_lost_class_lowers_it():
    digits = load_digits()
    few = digits.data[digits.target < 3][:400]
    assert vendi(few) < 0.9 * vendi(digits.data[:400])


def test_within_classes_it_is_scipys_mean():
    digits = load_digits()
    found = pairwise_diversity(digits.images, digits.target)
    assert list(found) == list(range(10))
    for label, value in found.items():
        assert value == pytest.approx(pdist(digits.data[digits.target == label]).mean(), rel=1e-6)
    named = pairwise_diversity(np.array([[0.0], [3.0], [9.0]]), np.array(["a", "a", "b"]))
    assert named["a"] == 3
    assert np.isnan(named["b"])


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="1 samples are all 0"):
        vendi(np.array([[1.0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="with itself must be positive"):
        vendi(np.eye(2), NegativeDistance())
    with pytest.raises(ValueError, match="labels must be one for each of 3"):
        pairwise_diversity(np.eye(3), [1, 2])
