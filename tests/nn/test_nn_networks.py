"""Properties of every network, whatever its kind, dimensions and sizes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from nn_family import (
    BATCH,
    FAMILY,
    FEATURES,
    LENGTH,
    SPATIAL,
    Member,
    condition,
    distance,
    full_embedding,
    inputs,
    network,
    settled,
)

from osmotic import nn as networks
from osmotic.condition import Condition
from osmotic.nn import Embedding

ROUNDING = 2e-5  # float32 sums in another order, relative to the output

every = pytest.mark.parametrize("member", FAMILY, ids=str)
spatial = pytest.mark.parametrize("member", SPATIAL, ids=str)


@every
def test_output_has_the_shape_of_x_and_is_zero_at_initialisation(member: Member) -> None:
    x, time = inputs(member)
    y = network(member)(x, time, condition(member))
    assert y.shape == x.shape
    assert torch.equal(y, torch.zeros_like(x))


@every
def test_every_input_acts_on_the_output(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    base = net(x, time, cond)
    shifted = torch.roll(cond.vector, 1) if len(cond.vector.unique()) > 1 else (cond.vector + 1) % 5
    others = {
        "x": net(x + 0.5, time, cond),
        "time": net(x, time + 20, cond),
        "vector": net(x, time, replace(cond, vector=shifted)),
        "tokens": net(x, time, replace(cond, tokens=cond.tokens + 0.5)),
        "image": net(x, time, replace(cond, image=cond.image + 0.5)),
    }
    for name, other in others.items():
        assert distance(other, base) > 1e-3, name


@every
def test_a_sample_does_not_see_its_batch(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    together = net(x, time, cond)
    for i in range(BATCH):
        alone = net(x[i : i + 1], time[i : i + 1], cond[i : i + 1])
        assert distance(alone[0], together[i]) < ROUNDING


@every
def test_no_condition_is_a_condition_hidden_in_all_samples(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    hidden = net(x, time, cond.drop(torch.zeros(BATCH, dtype=torch.bool)))
    # Masked keys change the order of the sums in the attention kernel, nothing else.
    assert distance(hidden, net(x, time)) < ROUNDING
    without = replace(cond, tokens=None, mask=None)
    bare = settled(member, Embedding(20, classes=5, image_channels=2))
    hidden = bare(x, time, without.drop(torch.zeros(BATCH, dtype=torch.bool)))
    assert torch.equal(hidden, bare(x, time))


@every
def test_hiding_is_per_sample(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    keep = torch.tensor([True, False, True])
    mixed, shown, null = net(x, time, cond.drop(keep)), net(x, time, cond), net(x, time)
    assert distance(mixed[keep], shown[keep]) < ROUNDING
    assert distance(mixed[~keep], null[~keep]) < ROUNDING
    assert distance(shown[1], null[1]) > 1e-3


@every
def test_hidden_values_may_be_anything(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    keep = torch.tensor([True, False, True])
    wild = replace(cond, vector=cond.vector.clone(), tokens=cond.tokens.clone(), image=cond.image.clone())
    wild.vector[1], wild.tokens[1], wild.image[1] = 999, float("nan"), float("inf")
    y = net(x, time, wild.drop(keep))
    assert torch.equal(y, net(x, time, cond.drop(keep)))
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@every
def test_tokens_are_a_set_and_masked_ones_do_not_act(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    base = net(x, time, cond)
    order = torch.tensor([2, 0, 3, 1])
    permuted = replace(cond, tokens=cond.tokens[:, order], mask=cond.mask[:, order])
    assert distance(net(x, time, permuted), base) < ROUNDING
    noise = torch.where(cond.mask[..., None], cond.tokens, 1e3 * torch.randn(BATCH, LENGTH, FEATURES))
    assert torch.equal(net(x, time, replace(cond, tokens=noise)), base)
    longer = replace(
        cond,
        tokens=torch.cat([cond.tokens, torch.ones(BATCH, 5, FEATURES)], 1),
        mask=torch.cat([cond.mask, torch.zeros(BATCH, 5, dtype=torch.bool)], 1),
    )
    assert distance(net(x, time, longer), base) < ROUNDING


@spatial
def test_padded_positions_do_not_act_and_are_zero(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    generator = torch.Generator().manual_seed(5)
    valid = torch.rand(BATCH, *member.shape[1:], generator=generator) > 0.4
    cond, hole = replace(cond, valid=valid), ~valid[:, None]
    base = net(x, time, cond)
    junk = torch.where(hole, float("nan"), x)
    picture = torch.where(hole, float("nan"), cond.image)
    assert torch.equal(net(junk, time, replace(cond, image=picture)), base)
    assert torch.equal(base * hole, torch.zeros_like(base))
    assert base.isfinite().all()
    assert distance(base[:, :, 0], net(x, time, replace(cond, valid=None))[:, :, 0]) > 1e-3


@pytest.mark.parametrize("member", [m for m in SPATIAL if not m.name.startswith("mlp")], ids=str)
def test_how_much_padding_follows_does_not_matter(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    inner = tuple(slice(0, n) for n in member.shape[1:])
    wider = [n + 4 for n in member.shape[1:]]
    valid = torch.zeros(BATCH, *wider, dtype=torch.bool)
    valid[:, *inner] = True
    large, picture = torch.randn(BATCH, member.shape[0], *wider), torch.randn(BATCH, 2, *wider)
    large[:, :, *inner], picture[:, :, *inner] = x, cond.image
    y = net(large, time, replace(cond, image=picture, valid=valid))
    exact = replace(cond, valid=torch.ones(BATCH, *member.shape[1:], dtype=torch.bool))
    assert distance(y[:, :, *inner], net(x, time, exact)) < ROUNDING
    assert distance(y[:, :, *inner], net(x, time, cond)) < ROUNDING


@every
def test_every_parameter_learns(member: Member) -> None:
    """Zero outputs hold gradients back for a few steps only (output, then blocks, then what steers them)."""
    net, (x, time), cond = network(member), inputs(member), condition(member)
    cond = cond.drop(torch.tensor([True, False, True]))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, time, cond) - x.cos()).square().mean().backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
    idle = [name for name, p in net.named_parameters() if not p.grad.any()]
    assert not idle


@every
def test_no_parameter_is_left_out_without_a_condition(member: Member) -> None:
    """DistributedDataParallel waits for the gradient of every parameter, be it zero."""
    net, (x, time) = settled(member), inputs(member)
    net(x, time).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


@every
def test_copies_and_repetitions_agree_bit_for_bit(member: Member) -> None:
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    base = net(x, time, cond)
    assert torch.equal(base, net(x, time, cond))
    twin = copy.deepcopy(net)
    assert torch.equal(base, twin(x, time, cond))
    other = settled(member, seed=7)
    other.load_state_dict(net.state_dict())
    assert torch.equal(base, other(x, time, cond))


@every
def test_bfloat16_is_close(member: Member) -> None:
    """bfloat16 has 8 bits: a rounding error of 2^-9 at each of some ten operations in a row."""
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    base = net(x, time, cond)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x, time, cond)
    assert ((mixed - base).square().mean() / base.square().mean()).sqrt() < 0.03
    low = copy.deepcopy(net).to(torch.bfloat16)(x.bfloat16(), time, cond)
    assert low.dtype == torch.bfloat16
    assert ((low - base).square().mean() / base.square().mean()).sqrt() < 0.05


@pytest.mark.parametrize("name", ["unet-7x13", "dit-7x13", "mlp-2"])
def test_compiles_as_one_graph(name: str) -> None:
    member = next(m for m in FAMILY if m.name == name)
    net, (x, time), cond = settled(member), inputs(member), condition(member)
    cond = cond.drop(torch.tensor([True, False, True]))
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    assert distance(compiled(x, time, cond), net(x, time, cond)) < ROUNDING


@pytest.mark.parametrize("name", ["unet-8x8", "dit-8x8", "mlp-2"])
def test_dropout_follows_the_global_seed(name: str) -> None:
    shape = {"unet-8x8": (3, 8, 8), "dit-8x8": (3, 8, 8), "mlp-2": (2,)}[name]
    build = {
        "unet-8x8": lambda e: networks.UNet(3, (8, 12), dropout=0.5, embedding=e),
        "dit-8x8": lambda e: networks.DiT(3, width=24, depth=2, dropout=0.5, embedding=e),
        "mlp-2": lambda e: networks.MLP((2,), (16,), dropout=0.5, embedding=e),
    }[name]
    member = Member(name, shape, build)
    net, (x, time) = settled(member, Embedding(20)), inputs(member)
    assert torch.equal(net(x, time), net(x, time))
    net.train()
    draws = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            draws.append(net(x, time))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_transformer_knows_where_its_patches_are() -> None:
    """Without positions it would commute with every permutation of the patches."""
    member = next(m for m in FAMILY if m.name == "dit-8x8")
    net, (x, time) = settled(member), inputs(member)
    base = net(x, time)
    for axis in (2, 3):
        assert distance(net(x.roll(2, axis), time), base.roll(2, axis)) > 1e-2


def test_blocks_name_the_repeated_parts() -> None:
    for member in FAMILY:
        held = [m for m in network(member).modules() if isinstance(m, networks.BLOCKS)]
        assert len(held) >= 2
        assert not any(isinstance(inner, networks.BLOCKS) for m in held for inner in m.modules() if inner is not m)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: networks.UNet(1, ()), "at least one level"),
        (lambda: networks.UNet(1, (8,), blocks=0), "at least one level and one block"),
        (lambda: networks.UNet(1, (8,), ndim=4), "1, 2 or 3 position axes, not 4"),
        (lambda: networks.UNet(1, (8, 8), attention={2}), "names level 2"),
        (lambda: networks.UNet(1, (8,), embedding=full_embedding()), "at least one level in attention"),
        (lambda: networks.DiT(1, ()), "patch"),
        (lambda: networks.DiT(1, (2, 0)), "patch"),
        (lambda: networks.DiT(1, depth=0), "depth 0"),
        (lambda: networks.DiT(1, (2, 2), width=3), "width 3"),
        (lambda: networks.MLP((), (8,)), "shape"),
        (lambda: networks.MLP((2,), ()), "at least one block"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(build, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        build()
    assert "\n" not in str(error.value)


@every
def test_inputs_of_another_shape_are_refused(member: Member) -> None:
    net, (x, time) = network(member), inputs(member)
    more = torch.cat([x, x[:, :1]], dim=1)
    with pytest.raises(ValueError, match="found"):
        net(more, time)
    with pytest.raises(ValueError, match="found"):
        net(x.unsqueeze(-1), time)
    with pytest.raises(ValueError, match="one number a sample"):
        net(x, time[:1])
    valid = torch.ones(BATCH, *member.shape[1:], 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="valid"):
        net(x, time, Condition(valid=valid))
