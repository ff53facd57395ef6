"""Parameters and operations against counts by hand."""

from __future__ import annotations

import pytest
import torch
from nn_family import FAMILY, Member, condition, network
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from osmotic.condition import Condition
from osmotic.nn import MLP, DiT, UNet, count


class Plain(nn.Module):
    """A network of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None = None) -> Tensor:
        return self.layer(x)


def test_a_convolution() -> None:
    net = Plain(nn.Conv2d(3, 5, 3, padding=1))
    assert count.parameters(net) == 5 * 3 * 9 + 5
    assert count.flops(net, (3, 7, 4)) == 2 * 5 * 3 * 9 * 7 * 4


def test_a_linear_layer() -> None:
    net = Plain(nn.Linear(6, 11))
    assert count.parameters(net) == 6 * 11 + 11
    assert count.flops(net, (6,)) == 2 * 6 * 11


def test_frozen_parameters_are_not_counted() -> None:
    net = Plain(nn.Linear(6, 11))
    net.layer.bias.requires_grad_(False)
    assert count.parameters(net) == 66


def test_a_perceptron_by_hand() -> None:
    net = MLP((3,), (8, 16))
    time = 128 * 8 + 8 * 8
    first = 8 * 16 + (8 * 8 + 8 * 8)
    second = 8 * 16 + (8 * 16 + 16 * 16) + 8 * 16
    ends = 3 * 8 + 8 * 32 + 16 * 3
    assert count.flops(net, (3,)) == 2 * (time + first + second + ends)


def test_attention_is_counted() -> None:
    """The fused kernel on the CPU escapes torch's counter; two products of N x N x C a block do not escape ours."""
    n, c, depth = 16, 24, 2
    net = DiT(1, (2, 2), width=c, depth=depth, head_width=12)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    linear = 128 * c + c * c + n * 4 * c + depth * (6 * c * c + n * 12 * c * c) + 2 * c * c + n * c * 4
    products = depth * 2 * n * n * c
    assert count.flops(net, (1, 8, 8)) == 2 * (linear + products)
    assert counter.get_total_flops() in (2 * linear, 2 * (linear + products))


@pytest.mark.parametrize("member", FAMILY, ids=str)
def test_operations_are_proportional_to_the_batch_and_leave_no_trace(member: Member) -> None:
    net = network(member)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    one, four = (count.flops(net, member.shape, condition(member, batch=n)) for n in (1, 4))
    assert four == 4 * one > 0
    after = net.state_dict()
    assert all(torch.equal(after[name], value) and after[name].device.type == "cpu" for name, value in before.items())
    assert all(p.grad is None for p in net.parameters())
    assert net.training


def test_a_network_that_has_parameters_only_where_they_are_counted() -> None:
    net = UNet(1, (8, 12))
    assert count.parameters(net) == sum(value.numel() for value in net.state_dict().values())
