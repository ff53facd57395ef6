"""Samples with a vector each: what a model is told of them, in training and by a person."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osmotic.data.dataset import Under, open_data
from osmotic.data.embedding import Embedding, sphere
from osmotic.data.errors import DataError
from osmotic.data.spec import Spec
from osmotic.data.with_embedding import WithEmbedding
from osmotic.training.conditions import told

KIND = Embedding(of="picture", width=3, fingerprint="f")


def pictures(count: int = 6):
    x = np.random.default_rng(0).integers(0, 255, (count, 4, 4), np.uint8)
    return open_data(
        {"x": x, "label": np.arange(count) % 2, "text": ["a", "b"] * (count // 2), "size": np.arange(count)}
    )


def vectors(count: int = 6) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)


def test_directions_are_told_and_nothing_else():
    data, each = pictures(), vectors()
    found = WithEmbedding(data, 5 * each, KIND)
    assert found.spec.parts == ("embedding",)
    assert "3 numbers" in " ".join(found.spec.describe())
    rows = np.array([4, 1])
    known = found.told(rows)
    assert known.keys() == {"vector"}
    expected = each[rows] / np.linalg.norm(each[rows], axis=1, keepdims=True) * np.sqrt(3)
    np.testing.assert_allclose(known["vector"], expected, rtol=1e-5)
    assert torch.equal(found.batch(rows)[0], data.batch(rows)[0])
    assert found.name(4) == data.name(4)
    assert Spec.model_validate(found.spec.model_dump(mode="json")) == found.spec


def test_what_a_person_says_is_what_was_trained_on():
    found = WithEmbedding(pictures(), vectors(), KIND)
    trained = found.told(np.arange(6))["vector"]
    for said in (torch.from_numpy(vectors()) * 0.1, list(vectors())):
        cond = told(found.spec, {"embedding": said}, 6)
        torch.testing.assert_close(cond.vector, trained)
        assert cond.keep is None
    one = told(found.spec, {"embedding": torch.from_numpy(vectors()[2])}, 3)
    torch.testing.assert_close(one.vector, trained[2].expand(3, -1))
    some = told(found.spec, {"embedding": [vectors()[0], None]}, 2)
    assert some.keep is not None
    assert some.keep.tolist() == [[True], [False]]


def test_data_of_which_no_vectors_are_known_hide_them():
    data = open_data(np.random.default_rng(0).integers(0, 255, (6, 4, 4), np.uint8))
    known = Under(data, WithEmbedding(pictures(), vectors(), KIND).spec).told(np.arange(2))
    assert known["keep"].tolist() == [[False], [False]]
    assert known["vector"].shape == (2, 3)


@pytest.mark.parametrize("value", [np.zeros(3), np.full(3, np.nan)], ids=["zero", "nan"])
def test_a_vector_without_a_direction_is_refused(value):
    with pytest.raises(DataError, match="no direction"):
        sphere(np.stack([np.ones(3), value]))
    with pytest.raises(DataError, match="no direction"):
        told(WithEmbedding(pictures(), vectors(), KIND).spec, {"embedding": torch.from_numpy(value)}, 1)


def test_other_numbers_of_vectors_are_refused():
    with pytest.raises(DataError, match="embed these samples"):
        WithEmbedding(pictures(), vectors(4), KIND)
    with pytest.raises(DataError, match="3 numbers"):
        told(WithEmbedding(pictures(), vectors(), KIND).spec, {"embedding": torch.ones(4)}, 1)
