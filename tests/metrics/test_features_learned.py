"""Features of classifiers trained on real data, judged by data that they did not see."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from osmotic.metrics import agreement
from osmotic.metrics.features import learned
from osmotic.metrics.features.learned import Classifier, Learned

CUT = 1400


@pytest.fixture(scope="module", autouse=True)
def short():
    """Fewer steps than a user gets: enough for digits of 8 x 8 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "STEPS", (250, 250))
        yield


@pytest.fixture(scope="module")
def digits():
    bunch = load_digits()
    return (bunch.images * 255 / 16).astype(np.uint8)[..., None], bunch.target


@pytest.fixture(scope="module")
def classifier(digits):
    x, y = digits
    return Learned.trained(x[:CUT], y[:CUT] + 5)


def test_a_classifier_knows_digits_it_did_not_see(digits, classifier):
    x, y = digits
    # Support vector machines reach 0.97 on this split; 397 digits leave 0.01 of chance.
    assert agreement(classifier, x[CUT:], y[CUT:] + 5) > 0.93
    assert agreement(classifier, x[CUT:], (y[CUT:] + 1) % 10 + 5) < 0.03
    assert abs(classifier.accuracy - agreement(classifier, x[CUT:], y[CUT:] + 5)) < 0.05
    assert classifier.name == "96 features of a classifier trained on these data (10 classes, seed 0)"


def test_probabilities_are_probabilities(digits, classifier):
    x, _ = digits
    found = classifier.probabilities(x[CUT:])
    assert found.shape == (397, 10)
    assert (found >= 0).all()
    assert np.allclose(found.sum(1), 1, atol=1e-12)
    assert list(classifier.classes) == list(range(5, 15))


def test_features_do_not_depend_on_the_batch(digits, classifier, monkeypatch):
    x, _ = digits
    whole = classifier(x[:300])
    assert whole.shape == (300, 96)
    monkeypatch.setattr(Learned, "_batch", lambda self, shape: 7)
    assert np.allclose(classifier(x[:300]), whole, atol=1e-4)


def test_the_same_seed_gives_the_same_features(digits):
    x, _ = digits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "STEPS", (10, 10))
        before = torch.get_rng_state()
        one, two, other = (Learned.trained(x[:200], seed=seed)(x[:50]) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(one, two)
    assert np.abs(one - other).max() > 0.1


def test_turns_teach_what_digits_are(digits):
    x, y = digits
    features = Learned.trained(x[:CUT])
    assert not isinstance(features, Classifier)
    assert not hasattr(features, "probabilities")
    assert features.name == "96 features of a classifier trained on these data (4 turns of them, seed 0)"
    assert features.accuracy > 0.8  # chance is 0.25
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(features(x[:CUT]), y[:CUT])
    assert judge.score(features(x[CUT:]), y[CUT:]) > 0.8  # chance is 0.1, and no label was seen


def test_oblong_and_large_images_learn_too(digits):
    x, _ = digits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "STEPS", (60, 60))
        oblong = Learned.trained(x[:CUT, :, 1:7])
        # Enlarged to 40 pixels, which are averaged to 20 again.
        large = Learned.trained(x[:300].repeat(5, 1).repeat(5, 2))
    # Chance is 0.25; it turned 560 and 120 held-out images, so 5 standard deviations of luck are 0.09 and 0.2.
    assert oblong.accuracy > 0.35
    assert large.accuracy > 0.45
    assert large(x[:3].repeat(5, 1).repeat(5, 2)).shape == (3, 96)


def test_labelled_tables_have_a_classifier():
    bunch = load_wine()
    order = np.random.default_rng(0).permutation(178)
    x, y = bunch.data[order], bunch.target[order]
    found = Learned.trained(x[:120], y[:120])
    assert np.mean(found.predict(x[120:]) == y[120:]) > 0.85  # linear rules reach 0.97; 58 rows leave 0.03 of chance
    assert found(x).shape == (178, 96)


def test_more_pixels_mean_fewer_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "STEPS", (250, 1000))
        steps = [learned._steps(torch.zeros(1, 3, side, side)) for side in (8, 20, 32, 64)]
    assert steps == [1000, 640, 250, 250]


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.zeros((5, 8, 8, 1), np.uint8), None, "5 samples are too few to train features on: give 20"),
        (np.zeros((30, 4)), None, "from images only: give labels"),
        (np.zeros((30, 8, 8, 1), np.uint8), np.zeros(30, int), "All labels are the same"),
        (np.zeros((30, 8, 8, 1), np.uint8), np.zeros(29, int), r"must be \(30,\) integers, one a sample, not \(29,\)"),
        (np.zeros((30, 8, 8, 1), np.uint8), np.zeros(30), "not .* float64"),
        (np.zeros((30, 8, 8, 2), np.uint8), None, "1 or 3"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(x, labels, message):
    with pytest.raises(ValueError, match=message):
        Learned.trained(x, labels)


def test_other_shapes_are_refused(classifier):
    with pytest.raises(ValueError, match=r"shape \(9, 8, 1\) do not fit training data of shape \(8, 8, 1\)"):
        classifier(np.zeros((2, 9, 8, 1), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        classifier(np.zeros((2, 8, 8, 1)))
