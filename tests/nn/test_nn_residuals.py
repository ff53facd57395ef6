"""What is added to a network from outside: to a U-Net's features, to what a transformer's blocks give."""

from __future__ import annotations

import pytest
import torch
from nn_family import FAMILY, Member, condition, distance, inputs, settled

from osmotic.nn import UNet

GRIDS = [member for member in FAMILY if not member.name.startswith("mlp")]
grids = pytest.mark.parametrize("member", GRIDS, ids=str)


def features(net, x, time, cond) -> list[torch.Tensor]:
    context = net.embedding(x, time, cond)
    if isinstance(net, UNet):
        return net.encode(x, context, net.valid(context))
    h, shown = net.embed(x, context)
    return [h := block(h, context, shown) for block in net.blocks]


@grids
def test_zeros_change_nothing_bit_for_bit(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    zeros = [torch.zeros_like(f) for f in features(net, x, time, cond)]
    assert torch.equal(net(x, time, cond, residuals=zeros), net(x, time, cond))


@grids
def test_each_residual_acts_and_learns(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    base = net(x, time, cond)
    zeros = [torch.zeros_like(f) for f in features(net, x, time, cond)]
    noise = torch.Generator().manual_seed(2)
    for index, zero in enumerate(zeros):
        draw = torch.randn(zero.shape, generator=noise).requires_grad_()
        y = net(x, time, cond, residuals=[*zeros[:index], draw, *zeros[index + 1 :]])
        assert distance(y, base) > 1e-3, index
        y.square().mean().backward()
        assert draw.grad is not None
        assert draw.grad.flatten(1).any(1).all()


@grids
def test_residuals_are_added_to_what_encode_gives(member: Member) -> None:
    """With the features of another x in place of its own, the network answers as for that x."""
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    other = inputs(member, seed=9)[0]
    swap = [b - a for a, b in zip(features(net, x, time, cond), features(net, other, time, cond), strict=True)]
    # A U-Net's way up reads nothing else of x; of a transformer's blocks the first alone reads it.
    y = net(x, time, cond, residuals=swap if isinstance(net, UNet) else swap[:1])
    assert distance(y, net(other, time, cond)) < 1e-4


def test_another_number_of_residuals_is_refused() -> None:
    unet, dit = (next(m for m in FAMILY if m.name == f"{kind}-8x8") for kind in ("unet", "dit"))
    for member, count, match in [(unet, 4, "5 features to add to, found 4"), (dit, 3, "2 blocks to add to, found 3")]:
        net, (x, time) = settled(member), inputs(member)
        with pytest.raises(ValueError, match=match):
            net(x, time, residuals=[torch.zeros(1)] * count)
