"""New words and classes over every kind of network."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapting import NETWORKS, bits, same
from nn_family import BATCH, CLASSES, Member, distance, inputs, settled
from torch import nn

from osmotic.adapters import LoRA, Words, learn, load
from osmotic.condition import Condition
from osmotic.nn import Embedding, UNet
from osmotic.nn.ports import Category, Labels, Vocabulary

WORDS, LENGTH = 7, 4
PORTS = {
    "classes": (lambda net: net.embedding.vector, CLASSES),
    "category": (lambda net: net.embedding.vector.each[1], CLASSES),
    "tokens": (lambda net: net.embedding.tokens.embed, WORDS),
}

networks = pytest.mark.parametrize("member", NETWORKS, ids=str)
ports = pytest.mark.parametrize("port", PORTS)


def base(member: Member, port: str, seed: int = 0) -> nn.Module:
    vector = {"attributes": (None, CLASSES)} if port == "category" else {"classes": CLASSES}
    return settled(member, Embedding(20, vocabulary=WORDS, reader=1, **vector), seed)


def at(net: nn.Module, port: str) -> Labels | Category | Vocabulary:
    found: Labels | Category | Vocabulary = PORTS[port][0](net)
    return found


def told(port: str, seed: int = 0) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    numbers = torch.stack([torch.randn(BATCH, generator=generator), labels.float()], dim=1)
    return Condition(
        vector=numbers if port == "category" else labels,
        tokens=torch.randint(WORDS, (BATCH, LENGTH), generator=generator),
    )


def saying(port: str, number: int, seed: int = 0) -> Condition:
    """The same with one id in the place of the first of each sample."""
    cond = told(port, seed)
    if port == "classes":
        return replace(cond, vector=torch.full((BATCH,), number))
    if port == "category":
        return replace(cond, vector=torch.stack([cond.vector[:, 0], torch.full((BATCH,), float(number))], dim=1))
    return replace(cond, tokens=torch.cat([torch.full((BATCH, 1), number), cond.tokens[:, 1:]], dim=1))


@networks
@ports
def test_what_was_known_is_known_bit_for_bit_and_a_new_word_begins_as_the_old(member: Member, port: str) -> None:
    net, (x, time) = base(member, port), inputs(member)
    before, known = bits(net), PORTS[port][1]
    keep = torch.tensor([True, False, True])
    calls = [lambda: net(x, time, told(port)), lambda: net(x, time), lambda: net(x, time, told(port).drop(keep))]
    outputs = [call() for call in calls]
    words = learn(net, at(net, port), {"one": 2, "two": 0})
    assert words.ids == {"one": known, "two": known + 1}
    assert all(torch.equal(call(), y) for call, y in zip(calls, outputs, strict=True))
    for word, like in (("one", 2), ("two", 0)):
        assert torch.equal(net(x, time, saying(port, words.ids[word])), net(x, time, saying(port, like)))
    state = net.state_dict()
    assert same({name: t for name, t in state.items() if name in before}, before)
    assert [name for name in state if name not in before] == [f"{words.port}.table.rows.0"]
    more = learn(net, at(net, port), {"three": words.ids["two"]})
    assert more.ids == {"three": known + 2}
    assert all(torch.equal(call(), y) for call, y in zip(calls, outputs, strict=True))
    with pytest.raises(ValueError, match=f"run from 0 to {known + 2} here; found {known + 3}"):
        net(x, time, saying(port, known + 3))


@networks
@ports
def test_only_the_new_rows_move(member: Member, port: str) -> None:
    net, (x, time) = base(member, port), inputs(member)
    words = learn(net, at(net, port), {"one": 2, "two": 0})
    before, output = bits(net), net(x, time, told(port))
    assert [p for p in net.parameters() if p.requires_grad] == [words.rows]
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (net(x, time, saying(port, words.ids["one"])) - x.cos()).square().mean().backward()
        assert words.rows.grad is not None
        assert words.rows.grad[0].any()
        assert not words.rows.grad[1].any()  # it was not said
        optimizer.step()
    rows = f"{words.port}.table.rows.0"
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {rows}
    assert torch.equal(net(x, time, told(port)), output)
    assert distance(net(x, time, saying(port, words.ids["one"])), net(x, time, saying(port, 2))) > 1e-3


@networks
@ports
def test_files_give_the_words_back(member: Member, port: str, tmp_path: Path) -> None:
    net, (x, time), known = base(member, port), inputs(member), PORTS[port][1]
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    words, more = learn(net, at(net, port), {"one": 2, "two": 0}), learn(net, at(net, port), {"three": 1})
    with torch.no_grad():
        words.rows.normal_(generator=torch.Generator().manual_seed(1))
        more.rows.normal_(generator=torch.Generator().manual_seed(2))
    words.save(first)
    more.save(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.safetensors", "second.safetensors"]
    other = base(member, port)
    late, early = load(second, other), load(first, other)  # in another order: ids follow, meanings stay
    assert (late.ids, early.ids) == ({"three": known}, {"one": known + 1, "two": known + 2})
    for mine, theirs in ((words, early), (more, late)):
        assert torch.equal(mine.rows, theirs.rows)
        for word in mine.ids:
            expected = net(x, time, saying(port, mine.ids[word]))
            assert torch.equal(other(x, time, saying(port, theirs.ids[word])), expected)
    with pytest.raises(ValueError, match="has learned 'one' already"):
        load(first, other)


@ports
def test_copies_are_apart_and_adapters_lie_around(port: str) -> None:
    member = NETWORKS[1]
    net, (x, time) = base(member, port), inputs(member)
    words = learn(net, at(net, port), {"one": 2})
    said = saying(port, words.ids["one"])
    output, twin = net(x, time, said), copy.deepcopy(net)
    with torch.no_grad():
        words.rows.zero_()
    assert torch.equal(twin(x, time, said), output)
    assert distance(net(x, time, said), output) > 1e-3
    lora = LoRA(net)
    lora.add("style", 2)
    assert not words.rows.requires_grad  # an adapter is learned alone, unless asked for
    words.rows.requires_grad_(True)
    lora(x, time, said).square().mean().backward()
    assert words.rows.grad is not None


def test_wrong_uses_are_refused_in_a_sentence() -> None:
    net = UNet(1, (8,), embedding=Embedding(8, classes=3))
    port = net.embedding.vector
    stranger = Labels(3, 8)
    learn(net, port, {"mine": 0})
    for call, match in [
        (lambda: learn(net, port, {}), "at least one word"),
        (lambda: learn(net, port, {"mine": 1}), "has learned 'mine' already"),
        (lambda: learn(net, port, {"other": 4}), "begins as one of the 4 known ids, not as 4"),
        (lambda: learn(net, port, {"other": -1}), "not as -1"),
        (lambda: learn(net, stranger, {"other": 0}), "belongs to another network"),
    ]:
        with pytest.raises(ValueError, match=match) as error:
            call()
        assert "\n" not in str(error.value)
    assert port.classes == 4
    assert isinstance(stranger.table, nn.Embedding)
    with pytest.raises(AttributeError):
        Words(net, "a", {}, nn.Parameter(torch.zeros(1))).port = "b"
