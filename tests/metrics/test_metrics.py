"""Measures against closed forms, brute force and scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from osmotic.metrics import accuracy_of_training_on, agreement, fit_classifier, nearest, share_closer


def test_nearest_is_scikit_learns():
    rng = np.random.default_rng(0)
    samples, training = rng.normal(size=(1500, 3, 4)), rng.normal(size=(700, 3, 4))
    found = nearest(samples, training)
    tree = NearestNeighbors(n_neighbors=1).fit(training.reshape(700, -1))
    distance, index = tree.kneighbors(samples.reshape(1500, -1))
    assert np.array_equal(found.index, index[:, 0])
    assert np.allclose(found.distance, distance[:, 0])


def test_a_copy_has_distance_zero():
    training = np.random.default_rng(0).normal(size=(50, 64)) * 1e4
    assert (nearest(training, training).distance == 0).all()


def test_share_closer_is_half_for_fresh_data_and_one_for_copies():
    rng = np.random.default_rng(0)
    training, held_out, fresh = rng.normal(size=(500, 8)), rng.normal(size=(2000, 8)), rng.normal(size=(2000, 8))
    assert abs(share_closer(fresh, held_out, training) - 0.5) < 5 * np.sqrt(2 * 0.25 / 2000)
    assert share_closer(training, held_out, training) == 1.0
    assert share_closer(held_out + 100, held_out, training) == 0.0


def test_classifier_scores_on_real_digits():
    bunch = load_digits()
    x, y = bunch.images, bunch.target
    judge = fit_classifier(x[:1400], y[:1400])
    real = agreement(judge, x[1400:], y[1400:])
    assert real > 0.94  # support vector machines reach about 97 % on this split
    assert agreement(judge, x[1400:], (y[1400:] + 1) % 10) < 0.03
    assert accuracy_of_training_on(x[:1400], y[:1400], x[1400:], y[1400:]) == real
    shuffled = np.random.default_rng(0).permutation(y[:1400])
    assert accuracy_of_training_on(x[:1400], shuffled, x[1400:], y[1400:]) < 0.35


def test_the_judge_does_not_care_for_the_scale():
    bunch = load_digits()
    for scale in (1 / 16, 1000.0):
        judge = fit_classifier(bunch.images[:500] * scale, bunch.target[:500])
        assert agreement(judge, bunch.images[500:1000] * scale, bunch.target[500:1000]) > 0.9
