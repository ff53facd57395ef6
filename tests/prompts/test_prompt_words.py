"""Two texts word by word: what is carried over, what is new, what is scaled."""

import itertools

import pytest
import torch

from osmotic.data.captions import fit_captions, split
from osmotic.prompts import Edit, Text

CAPTIONS = fit_captions(["a big red blue circle square on the left", "a big red blue circle square on the left"])


def text(words: str, length: int = 8) -> Text:
    """Words of one token each, numbered by what they are."""
    ids = torch.zeros(length, dtype=torch.long)
    said = torch.tensor(CAPTIONS.tokens(words), dtype=torch.long)
    ids[: len(said)] = said
    return Text(CAPTIONS.pieces(words), ids)


def carried(edit: Edit) -> dict[int, int]:
    """Whence each token of the target has its map."""
    return {j: int(edit.carry[:, j].argmax()) for j in range(len(edit.own)) if not edit.own[j]}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a red circle", "a red circle", {0: 0, 1: 1, 2: 2}),
        ("a red circle", "a blue circle", {0: 0, 1: 1, 2: 2}),  # a swap
        ("a red circle", "a blue square", {0: 0, 1: 1, 2: 2}),  # two
        ("a circle", "a red circle", {0: 0, 2: 1}),  # a refinement
        ("a red circle", "a circle", {0: 0, 1: 2}),
        ("a red circle", "a big blue circle", {0: 0, 3: 2}),  # two words for one: both are new
        ("a red circle", "a blue circle on the left", {0: 0, 1: 1, 2: 2}),
        ("", "a circle", {}),
        ("a circle", "", {}),
    ],
)
def test_shared_words_are_carried_over_and_others_keep_their_own(source, target, expected):
    edit = Edit.of(text(source), text(target))
    assert carried(edit) == expected
    assert torch.equal(edit.carry.sum(0), 1 - edit.own)
    assert torch.equal(edit.scale, torch.ones(8))


def test_whatever_the_texts_every_column_is_carried_whole_or_the_words_own():
    words = ["a", "red", "circle"]
    texts = [" ".join(chosen) for n in range(4) for chosen in itertools.product(words, repeat=n)]
    for source, target in itertools.product(texts, texts):
        edit = Edit.of(text(source), text(target))
        assert torch.equal(edit.carry.sum(0), 1 - edit.own)
        assert set(edit.own.tolist()) <= {0.0, 1.0}
        assert bool(edit.own[len(split(target)) :].all())
        places = list(carried(edit).values())
        assert places == sorted(set(places))  # in order, and none twice
        if source == target:
            assert places == list(range(len(split(source))))


def test_a_word_of_other_length_gets_the_whole_attention_of_the_one_it_replaces():
    source = Text([("a", 1), ("dog", 2), ("runs", 1)], torch.arange(6))
    target = Text([("a", 1), ("crocodile", 3), ("runs", 1)], torch.arange(6))
    edit = Edit.of(source, target)
    attention = torch.tensor([0.1, 0.2, 0.4, 0.3, 0.0, 0.0])
    found = attention @ edit.carry
    assert torch.allclose(found, torch.tensor([0.1, 0.2, 0.2, 0.2, 0.3, 0.0]))
    assert edit.own.tolist() == [0, 0, 0, 0, 0, 1]


def test_scales_are_of_every_token_of_every_such_word():
    target = Text([("a", 1), ("dog", 2), ("a", 1)], torch.arange(6))
    edit = Edit.of(target, target, {"a": 3.0, "DOG": 0.5})
    assert edit.scale.tolist() == [3, 0.5, 0.5, 3, 1, 1]


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(ValueError, match="'green' is not in the prompt 'a red circle'"):
        Edit.of(text("a circle"), text("a red circle"), {"green": 2.0})
    with pytest.raises(ValueError, match="padded alike"):
        Edit.of(text("a"), text("a", 9))
    with pytest.raises(ValueError, match="do not fit into 2 tokens"):
        Edit.of(Text([("a", 3)], torch.arange(2)), Text([("a", 1)], torch.arange(2)))


def test_captions_say_how_many_tokens_a_word_has():
    spelled = fit_captions(["a dog", "a cat"])
    assert spelled.pieces("A dög, a") == [("a", 1), ("dög", 5), (",", 2), ("a", 1)]
    assert sum(n for _, n in spelled.pieces("A dög, a")) == len(spelled.tokens("A dög, a"))
