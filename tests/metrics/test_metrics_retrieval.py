"""Retrieval by hand, and by chance."""

import numpy as np
import pytest

from osmotic.metrics.retrieval import retrieval


def test_shares_counted_by_hand():
    similarity = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.8], [0.1, 0.7, 0.2], [0.6, 0.0, 0.5]])
    found = retrieval(similarity, np.array([0, 2, 1, 2]))  # the last finds text 0, which is not its own
    assert (found.text, found.sample, found.texts) == (0.75, 1.0, 3)
    assert found.chance == pytest.approx(1 / 3)
    assert found.sample_chance == pytest.approx((1 + 1 + 2) / 4 / 3)
    assert "3 texts" in found.line()
    assert "75%" in found.line()


def test_blind_similarities_find_what_chance_finds():
    rng, own = np.random.default_rng(0), np.repeat(np.arange(10), 30)
    found = [retrieval(rng.random((300, 10)), rng.permutation(own)) for _ in range(200)]
    for share, chance, tries in (("text", "chance", 300), ("sample", "sample_chance", 10)):
        mean = np.mean([getattr(f, share) for f in found])
        p = getattr(found[0], chance)
        assert p == pytest.approx(0.1)
        assert mean == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / (200 * tries)))


def test_a_text_without_a_sample_is_refused():
    with pytest.raises(ValueError, match="a sample of its own"):
        retrieval(np.ones((2, 3)), np.array([0, 1]))
