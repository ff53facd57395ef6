"""The four ports and their nulls."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from osmotic.condition import Condition
from osmotic.nn import Embedding, Fourier

X, TIME = torch.zeros(3, 1, 4), torch.tensor([0.0, 10.0, 1000.0])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_labels_add_their_row_to_the_time_embedding() -> None:
    embed = Embedding(8, classes=4)
    plain = embed.time(TIME)
    labels = torch.tensor([3, 0, 3])
    keep = torch.tensor([True, True, False])
    rows = embed.vector.table.weight
    expected = torch.nn.functional.silu(plain + torch.stack([rows[3], rows[0], rows[4]]))
    assert torch.equal(embed(X, TIME, Condition(vector=labels, keep=keep)).vector, expected)
    assert torch.equal(embed(X, TIME).vector, torch.nn.functional.silu(plain + rows[4]))


def test_every_attribute_has_its_own_null_and_hidden_ones_do_not_matter() -> None:
    embed = Embedding(8, attributes=[None, 3, None])
    assert embed.parts == 3
    known = torch.tensor([[0.5, 2, -1.0]]).expand(3, -1)
    full = embed(X, TIME, Condition(vector=known)).vector
    for i in range(3):
        lacking = known.clone()
        lacking[:, i] = float("nan")
        keep = torch.ones(3, 3, dtype=torch.bool)
        keep[:, i] = False
        unknown = embed(X, TIME, Condition(vector=lacking)).vector
        assert torch.equal(unknown, embed(X, TIME, Condition(vector=known, keep=keep)).vector)
        assert not torch.allclose(unknown, full)
        other = known.clone()
        other[:, i] = 1e6
        assert torch.equal(unknown, embed(X, TIME, Condition(vector=other, keep=keep)).vector)
    nothing = torch.full((3, 3), float("nan"))
    assert torch.equal(embed(X, TIME, Condition(vector=nothing)).vector, embed(X, TIME).vector)
    embed(X, TIME, Condition(vector=nothing)).vector.sum().backward()
    assert all(p.grad.isfinite().all() for p in embed.vector.parameters())  # the NaN has not reached them


def test_attributes_add_up() -> None:
    embed = Embedding(8, attributes=[None, 3])
    silu = torch.nn.functional.silu
    plain, (number, category) = embed.time(TIME), embed.vector.each
    values, ones = torch.tensor([0.5, -2.0, 1.0]), torch.ones(3, dtype=torch.bool)
    expected = silu(plain + number(values, ones) + category.table.weight[torch.tensor([2, 0, 1])])
    found = embed(X, TIME, Condition(vector=torch.stack([values, torch.tensor([2.0, 0.0, 1.0])], dim=1))).vector
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(number(values, ones)[0], number(values + 0.01, ones)[0], atol=1e-6)


def test_whole_numbers_are_attributes_too() -> None:
    embed = Embedding(8, attributes=[None, 5])
    z = torch.tensor([[1, 2], [0, 0], [3, 4]])
    assert torch.equal(embed(X, TIME, Condition(vector=z)).vector, embed(X, TIME, Condition(vector=z.float())).vector)


def test_parts_are_hidden_one_by_one() -> None:
    embed = Embedding(8, classes=4, vocabulary=9, image_channels=2)
    torch.nn.init.normal_(embed.image.null)
    cond = Condition(vector=torch.tensor([3, 0, 3]), tokens=torch.tensor([[1, 2]] * 3), image=torch.randn(3, 2, 4))
    keep = torch.tensor([[False, True, True], [True, False, True], [True, True, False]])
    found, full, nothing = embed(X, TIME, cond.drop(keep)), embed(X, TIME, cond), embed(X, TIME)
    assert torch.equal(found.tokens[0], full.tokens[0])
    assert found.mask[1].tolist() == [True, False, False]
    assert torch.equal(found.image[:2], full.image[:2])
    assert torch.equal(found.image[2], nothing.image[2])
    assert torch.equal(found.vector[2], full.vector[2])
    assert not torch.allclose(found.vector[:2], full.vector[:2])
    every = embed(X, TIME, cond.drop(torch.zeros(3, 3, dtype=torch.bool)))
    assert torch.equal(every.vector, nothing.vector)
    with pytest.raises(ValueError, match="3 parts of the condition"):
        embed(X, TIME, cond.drop(torch.ones(3, 2, dtype=torch.bool)))


def test_a_text_is_read_in_its_order_and_padding_does_not_matter() -> None:
    embed = Embedding(16, vocabulary=9, reader=2)
    ids = torch.tensor([[1, 2, 3, 0], [2, 1, 3, 0], [1, 2, 3, 7]])
    mask = torch.tensor([[True, True, True, False]] * 3)
    found = embed(X, TIME, Condition(tokens=ids, mask=mask))
    torch.testing.assert_close(found.tokens[0, 1:4], found.tokens[2, 1:4])  # what is masked is not read
    plain = [embed(X[i : i + 1], TIME[:1], Condition(tokens=ids[i : i + 1, :3])).vector[0] for i in range(2)]
    assert not torch.allclose(plain[0], plain[1])  # the reader knows the order, so the mean of its tokens does
    # An empty text, a hidden one and none at all are one.
    empty = embed(X, TIME, Condition(tokens=ids, mask=torch.zeros(3, 4, dtype=torch.bool)))
    assert torch.equal(empty.vector, embed(X, TIME).vector)
    assert empty.tokens.isfinite().all()


def test_a_null_token_stands_first_and_is_seen_only_where_nothing_else_is() -> None:
    embed = Embedding(8, token_features=5)
    mask = torch.tensor([[True, False], [False, False], [True, True]])
    tokens = torch.randn(3, 2, 5)
    context = embed(X, TIME, Condition(tokens=tokens, mask=mask, keep=torch.tensor([True, True, False])))
    expected = [[False, True, False], [True, False, False], [True, False, False]]
    assert context.mask.tolist() == expected
    assert torch.equal(context.tokens[:, 0], embed.tokens.null.expand(3, -1))
    torch.testing.assert_close(context.tokens[0, 1], embed.tokens.embed.layer(tokens[0, 0]))
    nothing = embed(X, TIME)
    assert nothing.mask.tolist() == [[True]] * 3
    assert torch.equal(nothing.tokens, embed.tokens.null.expand(3, 1, -1))


def test_tokens_without_mask_are_all_real() -> None:
    embed = Embedding(8, token_features=5)
    context = embed(X, TIME, Condition(tokens=torch.randn(3, 2, 5)))
    assert context.mask.tolist() == [[False, True, True]] * 3


def test_masks_may_be_zeros_and_ones() -> None:
    embed = Embedding(8, token_features=5)
    tokens, mask, valid = torch.randn(3, 2, 5), torch.tensor([[1, 0], [0, 0], [1, 1]]), torch.ones(3, 4)
    context = embed(X, TIME, Condition(tokens=tokens, mask=mask, valid=valid))
    assert context.mask.tolist() == [[False, True, False], [True, False, False], [False, True, True]]
    assert context.valid.dtype == torch.bool


def test_the_order_of_token_ids_counts() -> None:
    embed = Embedding(8, vocabulary=9)
    ids = torch.tensor([[1, 2, 2], [2, 1, 2], [1, 2, 2]])
    tokens = embed(X, TIME, Condition(tokens=ids)).tokens[:, 1:]
    assert torch.equal(tokens[0], tokens[2])
    hidden = Condition(tokens=ids + 100, keep=torch.zeros(3, dtype=torch.bool))
    assert not embed(X, TIME, hidden).mask[:, 1:].any()  # and hidden ids may be anything
    # Same word, other place; same place, same word.
    assert not torch.allclose(tokens[0, 0], tokens[1, 1])
    assert torch.equal(tokens[0, 2], tokens[1, 2])


def test_a_hidden_image_is_one_learned_colour() -> None:
    embed = Embedding(8, image_channels=2)
    torch.nn.init.normal_(embed.image.null)
    image = torch.randn(3, 2, 4)
    seen = embed(X, TIME, Condition(image=image, keep=torch.tensor([True, False, True]))).image
    colour = embed.image.null.detach()[:, None].expand(2, 4)
    assert torch.equal(seen, torch.stack([image[0], colour, image[2]]))
    assert torch.equal(embed(X, TIME).image, colour.expand(3, 2, 4))


def test_valid_alone_is_no_condition() -> None:
    embed = Embedding(8, classes=4)
    valid = torch.tensor([[True, True, True, False]] * 3)
    context = embed(X, TIME, Condition(valid=valid))
    assert torch.equal(context.vector, embed(X, TIME).vector)
    assert torch.equal(context.valid, valid)
    hidden = Condition(vector=torch.zeros(3, dtype=torch.long), valid=valid, keep=torch.zeros(3, dtype=torch.bool))
    assert torch.equal(embed(X, TIME, hidden).valid, valid)


def test_random_features_may_replace_the_sinusoidal_ones() -> None:
    embed = Embedding(8, time=Fourier(6))
    assert embed.time.layers[0].in_features == 6
    assert embed(X, TIME).vector.shape == (3, 8)


LABELS = torch.tensor([0, 1, 3])
REFUSED = {
    "label too large": ({"classes": 3}, Condition(vector=LABELS), "run from 0 to 2 here; found 3"),
    "label negative": ({"classes": 3}, Condition(vector=LABELS - 1), "run from 0 to 2 here; found -1"),
    "label float": ({"classes": 4}, Condition(vector=LABELS.float()), "class labels"),
    "label column": ({"classes": 4}, Condition(vector=LABELS[:, None]), "class labels"),
    "attributes width": ({"attributes": [None] * 4}, Condition(vector=torch.zeros(3, 5)), r"\(3, 4\), found \(3, 5\)"),
    "attributes flat": ({"attributes": [None]}, Condition(vector=torch.zeros(3)), r"\(3, 1\), found \(3,\)"),
    "no such category": (
        {"attributes": [2]},
        Condition(vector=torch.full((3, 1), 2.0)),
        "run from 0 to 1 here; found 2",
    ),
    "id too large": ({"vocabulary": 3}, Condition(tokens=LABELS[:, None]), "run from 0 to 2 here; found 3"),
    "ids float": ({"vocabulary": 3}, Condition(tokens=torch.zeros(3, 2)), "token ids"),
    "features width": ({"token_features": 4}, Condition(tokens=torch.zeros(3, 2, 5)), r"\(B, L, 4\)"),
    "mask length": (
        {"token_features": 4},
        Condition(tokens=torch.zeros(3, 2, 4), mask=torch.ones(3, 3, dtype=torch.bool)),
        "cond.mask",
    ),
    "mask alone": ({"token_features": 4}, Condition(mask=torch.ones(3, 3, dtype=torch.bool)), "without cond.tokens"),
    "image size": ({"image_channels": 2}, Condition(image=torch.zeros(3, 2, 5)), "resize it"),
    "image channels": ({"image_channels": 2}, Condition(image=torch.zeros(3, 1, 4)), r"\(3, 2, 4\)"),
    "valid size": ({}, Condition(valid=torch.ones(3, 5, dtype=torch.bool)), "cond.valid"),
    "unexpected vector": ({}, Condition(vector=LABELS), "no vector port"),
    "unexpected tokens": ({"classes": 4}, Condition(vector=LABELS, tokens=torch.zeros(3, 2, 4)), "no tokens port"),
    "unexpected image": ({}, Condition(image=torch.zeros(3, 1, 4)), "no image port"),
    "missing tokens": ({"classes": 4, "vocabulary": 3}, Condition(vector=LABELS), "cond.tokens, which is missing"),
    "missing vector": ({"classes": 4, "image_channels": 1}, Condition(image=X), "cond.vector, which is missing"),
    "batch": ({"classes": 4}, Condition(vector=LABELS[:2]), "2 samples and x holds 3"),
}


@pytest.mark.parametrize(("ports", "cond", "match"), REFUSED.values(), ids=REFUSED)
def test_conditions_that_do_not_fit_are_refused_in_one_sentence(ports, cond: Condition, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        Embedding(8, **ports)(X, TIME, cond)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ports", [{"classes": 3, "attributes": [None]}, {"vocabulary": 3, "token_features": 2}])
def test_a_port_holds_one_kind(ports) -> None:
    with pytest.raises(ValueError, match="not both"):
        Embedding(8, **ports)


def test_labels_are_checked_on_the_cpu_only() -> None:
    """Elsewhere the look would wait for the queue; the meta device stands for any accelerator."""
    embed = Embedding(8, classes=2).to("meta")
    cond = Condition(vector=torch.full((3,), 9)).to("meta")
    assert embed(X.to("meta"), TIME.to("meta"), cond).vector.shape == (3, 8)


def test_dropping_twice_hides_more() -> None:
    embed = Embedding(8, classes=4)
    cond = Condition(vector=LABELS)
    twice = cond.drop(torch.tensor([True, False, True])).drop(torch.tensor([False, True, True]))
    null = embed(X, TIME).vector
    shown = embed(X, TIME, cond).vector
    assert torch.equal(embed(X, TIME, twice).vector, torch.stack([null[0], null[1], shown[2]]))
    assert torch.equal(embed(X, TIME, replace(twice, keep=None)).vector, shown)
