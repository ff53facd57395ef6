"""What few-step networks read besides: the time aimed at, the guidance scale, the latent draw."""

import pytest
import torch

from osmotic.condition import Condition
from osmotic.nn import MLP, DiT, Embedding, UNet

MAKERS = {
    "mlp": lambda told: MLP((2, 4, 4), (16, 16), embedding=told(16)),
    "unet": lambda told: UNet(2, (8, 16), blocks=1, attention=(1,), embedding=told(32)),
    "dit": lambda told: DiT(2, (2, 2), 16, 2, 8, embedding=told(16)),
}
X, T = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([10.0, 300.0, 999.0])


def stirred(network):
    """Random weights everywhere, zero-initialised layers included, except those that start as nothing on purpose."""
    draws = torch.Generator().manual_seed(1)
    for name, p in network.named_parameters():
        if ".aim.last" not in name and ".scale.layers.layers.2" not in name:
            p.data.normal_(std=0.2, generator=draws)
    return network.eval()


def plain(network, other):
    """The network without extra inputs, with the other's weights."""
    state = {k: v for k, v in other.state_dict().items() if k in network.state_dict()}
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize("name", MAKERS)
def test_an_aim_and_a_scale_change_nothing_at_first_and_something_later(name):
    told = stirred(MAKERS[name](lambda width: Embedding(width, aims=True, scales=True)))
    bare = plain(MAKERS[name](Embedding), told)
    cond, aim = Condition(scale=torch.tensor([1.0, 2.0, 7.5])), T / 3
    assert torch.equal(told(X, T, cond, aim), bare(X, T))
    for part in ("aim.last", "scale.layers.layers.2"):
        layer = told.get_submodule(f"embedding.{part}")
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(2))
        once = told(X, T, cond, aim)
        assert not torch.allclose(once, bare(X, T))
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.normal_(told.embedding.aim.last.weight, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(told(X, T, cond, aim), told(X, T, cond, aim / 2))


@pytest.mark.parametrize("name", MAKERS)
def test_a_latent_draw_is_read(name):
    network = stirred(MAKERS[name](lambda width: Embedding(width, latents=5)))
    first, second = (Condition(latent=torch.randn(3, 5, generator=torch.Generator().manual_seed(k))) for k in (1, 2))
    assert not torch.allclose(network(X, T, first), network(X, T, second))
    mixed = Condition(latent=torch.cat([first.latent[:1], second.latent[1:]]))
    assert torch.allclose(network(X, T, mixed)[:1], network(X, T, first)[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("embedding", "cond", "aim", "words"),
    [
        ({"aims": True}, None, None, "needs a time to aim at"),
        ({}, None, T, "reads no time to aim at"),
        ({"scales": True}, None, None, "needs cond.scale"),
        ({}, Condition(scale=torch.ones(3)), None, "reads no cond.scale"),
        ({"latents": 4}, None, None, "needs cond.latent"),
        ({"latents": 4}, Condition(latent=torch.ones(3, 5)), None, r"expected shape \(3, 4\)"),
    ],
)
def test_what_is_missing_or_too_much_is_said_in_a_sentence(embedding, cond, aim, words):
    with pytest.raises(ValueError, match=words):
        MLP((2, 4, 4), (16,), embedding=Embedding(16, **embedding))(X, T, cond, aim)


def test_hiding_a_condition_keeps_scale_and_draw():
    network = stirred(MLP((2, 4, 4), (16,), embedding=Embedding(16, classes=3, scales=True, latents=2)))
    torch.nn.init.normal_(network.embedding.scale.layers.layers[2].weight, generator=torch.Generator().manual_seed(3))
    cond = Condition(vector=torch.tensor([0, 1, 2]), scale=torch.tensor([1.0, 2.0, 3.0]), latent=torch.randn(3, 2))
    hidden = cond.drop(torch.zeros(3, dtype=torch.bool))
    other = Condition(scale=cond.scale, latent=cond.latent)
    assert torch.equal(network(X, T, hidden), network(X, T, other))
    louder = Condition(vector=cond.vector, scale=2 * cond.scale, latent=cond.latent)
    assert not torch.allclose(network(X, T, hidden), network(X, T, louder.drop(torch.zeros(3, dtype=torch.bool))))
