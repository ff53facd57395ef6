"""Gradient checkpointing: the same bits with dropout, fewer bytes kept, whatever stands around the network."""

from __future__ import annotations

import pytest
import torch
from nn_family import FAMILY, Member, condition, inputs, settled
from torch import nn

from osmotic.adapters import ControlNet, LoRA
from osmotic.nn import Autoencoder, DiT, Embedding, Gaussian, UNet, count, gradient_checkpointing

CHOSEN = ["unet-8", "unet-7x13", "unet-5x6x7", "dit-7x13", "dit-3x4x5", "mlp-2"]
networks = pytest.mark.parametrize("member", [m for m in FAMILY if m.name in CHOSEN], ids=str)


def dropping(net: nn.Module) -> nn.Module:
    """The network in training, with dropout everywhere that it has some."""
    for part in net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.3
    return net.train()


def gradients(net: nn.Module, *args: object, seed: int = 5) -> dict[str, torch.Tensor]:
    """Of the squared output, by name, with global randomness as the training loop sets it."""
    net.zero_grad(set_to_none=True)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        y = net(*args)
        y.square().mean().backward()
        after = torch.rand(3)
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return found | {"output": y.detach(), "randomness after": after}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def kept(net: nn.Module, *args: object) -> int:
    """Bytes that a forward pass keeps for its gradient, but for the weights."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = net(*args)
    for p in net.parameters():
        sizes.pop(p.untyped_storage().data_ptr(), None)
    assert y.requires_grad
    return sum(sizes.values())


@networks
def test_gradients_are_the_same_to_the_bit(member: Member) -> None:
    net, (x, time), cond = dropping(settled(member)), inputs(member), condition(member)
    plain = gradients(net, x, time, cond)
    assert not torch.equal(plain["output"], gradients(net, x, time, cond, seed=6)["output"])  # dropout is on
    same(gradients(gradient_checkpointing(net), x, time, cond), plain)
    same(gradients(gradient_checkpointing(net, False), x, time, cond), plain)


@pytest.mark.parametrize("name", ["unet-8x8", "dit-8x8"])
def test_under_autocast_the_same_bits(name: str) -> None:
    member = next(m for m in FAMILY if m.name == name)
    net, (x, time), cond = dropping(settled(member)), inputs(member), condition(member)
    with torch.autocast("cpu", torch.bfloat16):
        plain = gradients(net, x, time, cond)
        same(gradients(gradient_checkpointing(net), x, time, cond), plain)


@pytest.mark.parametrize("name", ["unet-8x8", "dit-8x8"])
@pytest.mark.parametrize("around", ["lora", "control"])
def test_with_an_adapter_around_it(name: str, around: str) -> None:
    """LoRA's weights stand in for the base's during the call alone, and the second pass comes after it."""
    member = next(m for m in FAMILY if m.name == name)
    net = settled(member, Embedding(20, classes=5))
    x, time = inputs(member)
    cond = condition(member)
    told = cond.__class__(vector=cond.vector, image=cond.image if around == "control" else None)
    adapted = ControlNet(net, 2) if around == "control" else LoRA(net)
    if isinstance(adapted, LoRA):
        adapted.add("main", 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in adapted.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    dropping(adapted)
    plain = gradients(adapted, x, time, told)
    assert any(value.any() for name, value in plain.items() if name not in ("output", "randomness after"))
    same(gradients(gradient_checkpointing(adapted), x, time, told), plain)


def test_the_gradient_of_a_gradient() -> None:
    """As R1 and sliced score matching take it."""
    torch.manual_seed(0)
    net = UNet(3, (8, 12), blocks=1, embedding=Embedding(16)).train()  # fused attention has no second derivative
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape) * 0.1)
    x, time = torch.randn(2, 3, 8, 8), torch.rand(2) * 1000
    found = []
    for on in (False, True):
        gradient_checkpointing(net, on).zero_grad(set_to_none=True)
        own = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(own, time).square().sum(), own, create_graph=True)
        slope.square().mean().backward()
        found.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    same(*found)


def test_under_the_transforms_of_torch_a_block_computes_as_usual() -> None:
    member = next(m for m in FAMILY if m.name == "mlp-2")
    net, (x, time) = gradient_checkpointing(settled(member, Embedding(20)).train()), inputs(member)
    _, slope = torch.func.jvp(lambda z: net(z, time), (x,), (torch.ones_like(x),))
    expected = torch.func.jvp(lambda z: gradient_checkpointing(net, False)(z, time), (x,), (torch.ones_like(x),))[1]
    assert torch.equal(slope, expected)


def test_an_autoencoder_is_made_of_such_blocks_too() -> None:
    torch.manual_seed(0)
    autoencoder = Autoencoder.convolutional((3, 16, 12), (8, 16), 4, Gaussian()).train()
    x = torch.randn(2, 3, 16, 12)

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = autoencoder

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)[0]

    net = First()
    plain, bytes_plain = gradients(net, x), kept(net, x)
    gradient_checkpointing(net)
    same(gradients(net, x), plain)
    assert kept(net, x) < 0.6 * bytes_plain


def test_a_unet_keeps_what_blocks_read_and_what_lies_between_them() -> None:
    """All of it by hand, for a U-Net of one level without attention: inputs of convolutions, norms and blocks."""
    width, side = 8, 16
    net = UNet(3, (width,), blocks=1, embedding=Embedding(16)).train()
    x, time = torch.randn(2, 3, side, side), torch.rand(2) * 1000
    plain = kept(net, x, time)
    forgetting = kept(gradient_checkpointing(net), x, time)
    one = 4 * 2 * width * side * side  # bytes of features (2, width, side, side)
    # Down, middle twice: one each; up reads twice the channels: two; the end keeps the norm's input, the activation's
    # and the last convolution's: three. x itself and the embedding come on top.
    fixed = 4 * x.numel()
    assert 8 * one + fixed <= forgetting <= 8 * one + fixed + 2_000
    assert plain > 2.5 * forgetting


@pytest.mark.parametrize("depth", [2, 6])
def test_each_further_block_of_a_transformer_keeps_its_input_alone(depth: int) -> None:
    x, time = torch.randn(2, 3, 16, 16), torch.rand(2) * 1000

    def bytes_kept(blocks: int) -> int:
        net = DiT(3, (2, 2), width=32, depth=blocks, head_width=16).train()
        return kept(gradient_checkpointing(net), x, time)

    assert bytes_kept(depth + 1) - bytes_kept(depth) == 4 * 2 * 64 * 32


def test_the_count_of_activations_is_that_of_all_hooks() -> None:
    """Blocks apart, where they keep anything, and nothing without gradients."""
    x, time = torch.randn(2, 3, 16, 16), torch.rand(2) * 1000
    net = DiT(3, (2, 2), width=32, depth=3, head_width=16).train()
    with count.watched(net) as seen:
        net(x, time)
    assert seen.total == kept(net, x, time)
    assert len(seen.blocks) == 3
    with count.watched(gradient_checkpointing(net)) as forgetting:
        net(x, time)
    assert forgetting.total == kept(net, x, time)
    assert forgetting.largest == 0
    # What blocks keep, but for their input, is what is saved; the vector and its parts are kept once for all.
    inside = sum(sum(block.values()) for block in seen.blocks.values())
    assert seen.total - forgetting.total <= inside <= 3 * seen.largest
    with torch.no_grad(), count.watched(net) as nothing:
        net(x, time)
    assert nothing.total == 0
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
