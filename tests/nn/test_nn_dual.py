"""Two encoders into one space, and the port through which a network is told a vector of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.nn import MLP, DiT, DualEncoder, Embedding, Encoder, TextEncoder, UNet
from osmotic.nn.ports import Features, Vocabulary

WORDS, D = 20, 12


def dual(features: int | None = None) -> DualEncoder:
    torch.manual_seed(0)
    picture = nn.Sequential(Encoder(3, (8, 16), 4), nn.Flatten(), nn.Linear(4 * 16, D))
    embed = Vocabulary(WORDS, 32, 2) if features is None else Features(features, 32)
    return DualEncoder(picture, TextEncoder(embed, 32, D))


def pairs(n: int = 5) -> tuple[Tensor, Condition]:
    keyed = torch.Generator().manual_seed(1)
    x, tokens = torch.randn(n, 3, 8, 8, generator=keyed), torch.randint(WORDS, (n, 6), generator=keyed)
    mask = torch.arange(6) < torch.tensor([6, 3, 0, 1, 4])[:n, None]
    return x, Condition(tokens=tokens, mask=mask)


def test_embeddings_have_length_one_and_padding_says_nothing() -> None:
    model, (x, cond) = dual().eval(), pairs()
    pictures, texts, scale = model(x, None, cond)
    for found in (pictures, texts):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    assert float(scale.detach()) == pytest.approx(1 / 0.07, rel=1e-5)
    assert cond.tokens is not None
    assert cond.mask is not None
    other = torch.where(cond.mask, cond.tokens, (cond.tokens + 7) % WORDS)
    torch.testing.assert_close(model.texts(other, cond.mask), texts)
    torch.testing.assert_close(model.texts(cond.tokens[:2, :3], cond.mask[:2, :3])[1], texts[1])  # beside others or not
    reversed_ = model.texts(cond.tokens[:1].flip(1), cond.mask[:1])
    assert not torch.allclose(reversed_, texts[:1], atol=1e-3)  # the order of words counts


def test_every_weight_learns_and_the_scale_stops_at_a_hundred() -> None:
    model, (x, cond) = dual(), pairs()
    with torch.no_grad():
        for p in model.parameters():  # some layers begin at zero, and hide what is before them
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3))
    pictures, texts, scale = model(x, None, cond)
    (scale * (pictures * texts).sum()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    assert float(model.scale.detach()) == pytest.approx(100.0, rel=1e-5)


def test_ready_features_are_read_as_words_are() -> None:
    model = dual(7).eval()
    tokens = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    found = model.texts(tokens, mask)
    torch.testing.assert_close(model.texts(tokens[1:2, :2]), found[1:2])
    with pytest.raises(ValueError, match=r"cond\.tokens"):
        model(torch.zeros(3, 3, 8, 8))


def test_a_vector_is_told_or_hidden_as_a_whole() -> None:
    torch.manual_seed(0)
    net = MLP((2,), (16, 16), embedding=Embedding(16, vector=D))
    nn.init.normal_(net.out.weight)
    x, time = torch.randn(4, 2), torch.full((4,), 300.0)
    vector = torch.randn(4, D)
    assert net.embedding.parts == 1
    told, nothing = net(x, time, Condition(vector=vector)), net(x, time, None)
    assert not torch.allclose(told, nothing)
    assert not torch.allclose(told, net(x, time, Condition(vector=vector.flip(0))))
    keep = torch.tensor([True, False, True, False])
    broken = torch.where(keep[:, None], vector, torch.nan)  # hidden values are never computed with
    found = net(x, time, Condition(vector=broken, keep=keep))
    torch.testing.assert_close(found, torch.where(keep[:, None], told, nothing))
    torch.testing.assert_close(net(x, time, Condition(vector=broken, keep=keep[:, None])), found)
    found.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_an_embedding_is_attended_to_as_tokens_as_well(kind: str) -> None:
    """Hidden ones are the learned tokens, all weights learn, and with texts beside them both are read."""
    torch.manual_seed(0)
    told = Embedding(16, vector=D, spread=4)
    net = DiT(2, (2, 2), 16, 1, 16, embedding=told) if kind == "dit" else UNet(2, (8,), attention=(0,), embedding=told)
    with torch.no_grad():
        for p in net.parameters():  # outputs, gates and written attention begin at zero
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3))
    x, time, vector = torch.randn(3, 2, 4, 4), torch.full((3,), 300.0), torch.randn(3, D)
    keep = torch.tensor([True, False, True])
    shown, nothing = net(x, time, Condition(vector=vector)), net(x, time, None)
    found = net(x, time, Condition(vector=torch.where(keep[:, None], vector, torch.nan), keep=keep))
    torch.testing.assert_close(found, torch.where(keep[:, None, None, None], shown, nothing))
    found.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    assert told.spread is not None
    with torch.no_grad():
        told.spread.layer.weight.zero_()
    assert not torch.allclose(net(x, time, Condition(vector=vector)), shown)

    both = Embedding(16, vector=D, spread=4, vocabulary=WORDS)
    tokens, mask = torch.ones(3, 5, dtype=torch.long), torch.ones(3, 5, dtype=torch.bool)
    context = both(x, time, Condition(vector=vector, tokens=tokens, mask=mask, keep=torch.eye(3)[:, :2].bool()))
    assert context.tokens is not None
    assert context.mask is not None
    assert context.tokens.shape == (3, 1 + 5 + 4, 16)
    # The second sample shows its text, the others their null; the four of the embedding are always seen.
    assert context.mask.sum(1).tolist() == [1 + 4, 5 + 4, 1 + 4]


def test_tokens_of_an_embedding_need_attention() -> None:
    with pytest.raises(ValueError, match="read by attention"):
        UNet(2, (8,), embedding=Embedding(16, vector=D, spread=4))
    assert Embedding(16, vector=D).attended is False


def test_other_vectors_and_two_kinds_of_one_port_are_refused() -> None:
    net = MLP((2,), (16,), embedding=Embedding(16, vector=D))
    for wrong in (torch.zeros(1, D + 1), torch.zeros(1, D, dtype=torch.long), torch.zeros(1)):
        with pytest.raises(ValueError, match="an embedding here"):
            net(torch.zeros(1, 2), torch.zeros(1), Condition(vector=wrong))
    with pytest.raises(ValueError, match="not both"):
        Embedding(16, classes=3, vector=D)
