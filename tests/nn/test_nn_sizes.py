"""Networks of several sizes: told how large x is, which changes nothing before it is learned."""

import pytest
import torch
from nn_family import FAMILY, SPATIAL, inputs, network, settled

from osmotic.nn import Embedding
from osmotic.nn.positions import sincos

GRIDS = [member for member in SPATIAL if not member.name.startswith("mlp")]


def embedding(member, sizes: bool = True) -> Embedding:
    return Embedding(20, sizes=len(member.shape) - 1 if sizes else 0)


@pytest.mark.parametrize("member", [m for m in FAMILY if m.name in ("unet-7x13", "dit-3x4x5", "mlp-3x3x5")], ids=str)
def test_untrained_it_changes_nothing(member):
    x, time = inputs(member)
    told, plain = (settled(member, embedding(member, sizes)) for sizes in (True, False))
    told.load_state_dict(plain.state_dict(), strict=False)
    for p in told.embedding.size.last.parameters():
        torch.nn.init.zeros_(p)
    assert torch.equal(told(x, time), plain(x, time))
    assert not network(member, embedding(member)).embedding.size.last.weight.any()


@pytest.mark.parametrize("member", GRIDS, ids=str)
def test_every_axis_is_told_apart(member):
    net = settled(member, embedding(member))
    x, time = inputs(member)
    vectors = [net.embedding(x, time).vector]
    for axis in range(2, x.dim()):
        vectors.append(net.embedding(torch.cat([x, x], axis), time).vector)
    for i, one in enumerate(vectors):
        for other in vectors[:i]:
            assert (one - other).abs().max() > 1e-2
    net(x, time).square().sum().backward()
    assert all(p.grad.any() for p in net.embedding.size.parameters())


def test_positions_of_a_transformer_follow_the_size():
    """A patch has the same features whatever stands to its right and below."""
    small, large = (sincos(size, 12, torch.device("cpu")).view(*size, 12) for size in ((3, 5), (6, 7)))
    assert torch.equal(large[:3, :5], small)
