"""Discriminators: one logit a sample, in every dimension, told times and conditions, blind to their neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn_family import BATCH, CHANNELS, CLASSES, FEATURES, LENGTH, PICTURE, full_embedding
from torch import Tensor

from osmotic.condition import Condition
from osmotic.nn import Discriminator, Embedding

SHAPES = [(), (37,), (1,), (7, 13), (8, 8), (3, 4, 5)]
every = pytest.mark.parametrize("positions", SHAPES, ids=str)


def judge(positions: tuple[int, ...], embedding: Embedding | None = None) -> Discriminator:
    """A discriminator no weight of which is at zero."""
    torch.manual_seed(0)
    made = Discriminator(CHANNELS, (8, 12), len(positions), embedding or full_embedding())
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn_like(p) * (0.3 if p.dim() == 1 else p[0].numel() ** -0.5))
    return made


def inputs(positions: tuple[int, ...]) -> tuple[Tensor, Tensor, Condition]:
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, CHANNELS, *positions, generator=draws)
    told = Condition(
        vector=torch.randint(CLASSES, (BATCH,), generator=draws),
        tokens=torch.randn(BATCH, LENGTH, FEATURES, generator=draws),
        image=torch.randn(BATCH, PICTURE, *positions, generator=draws),
    )
    return x, torch.rand(BATCH, generator=draws) * 1000, told


@every
def test_every_input_acts_on_the_logits(positions: tuple[int, ...]) -> None:
    net, (x, time, cond) = judge(positions), inputs(positions)
    base = net(x, time, cond)
    assert base.shape == (BATCH,)
    others = {
        "x": net(x + 0.5, time, cond),
        "time": net(x, time + 20, cond),
        "labels": net(x, time, replace(cond, vector=(cond.vector + 1) % CLASSES)),
        "tokens": net(x, time, replace(cond, tokens=cond.tokens + 1)),
        "image": net(x, time, replace(cond, image=cond.image + 1)),
        "hidden": net(x, time, None),
    }
    for name, other in others.items():
        assert (other - base).abs().min() > 1e-4, name


@every
def test_a_sample_s_logit_does_not_depend_on_its_neighbours(positions: tuple[int, ...]) -> None:
    """Batch statistics would fail here: so would a penalty of each sample's own slope."""
    net, (x, time, cond) = judge(positions), inputs(positions)
    whole = net(x, time, cond)
    alone = torch.cat([net(x[i : i + 1], time[i : i + 1], cond[slice(i, i + 1)]) for i in range(BATCH)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


@every
def test_slopes_can_be_penalised(positions: tuple[int, ...]) -> None:
    """Double backward reaches every weight; beside central differences, in float64."""
    net, (x, time, _) = judge(positions, Embedding(20)).double(), inputs(positions)
    x = x.double()

    def slope() -> Tensor:
        inside = x.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(net(inside, time).sum(), inside, create_graph=True)
        return found.square().sum()

    value = slope()
    value.backward()
    weight = net.stem.weight
    step = torch.zeros_like(weight)
    step.view(-1)[3] = 1e-5
    with torch.no_grad():
        weight += step
    above = slope()
    with torch.no_grad():
        weight -= 2 * step
    below = slope()
    assert float(weight.grad.view(-1)[3]) == pytest.approx(float((above - below).detach()) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("positions", [(9,), (6, 7), (3, 4, 5)], ids=str)
def test_what_stands_at_padded_positions_is_not_seen(positions: tuple[int, ...]) -> None:
    net, (x, time, _) = judge(positions, Embedding(20)), inputs(positions)
    valid = torch.ones(BATCH, *positions, dtype=torch.bool)
    valid[:, -2:] = False
    spoilt = torch.where(valid.unsqueeze(1), x, torch.nan)
    shown = Condition(valid=valid)
    assert torch.equal(net(x, time, shown), net(spoilt, time, shown))
    assert not torch.equal(net(x, time, shown), net(x, time))


@pytest.mark.parametrize("positions", [(8,), (8, 4)], ids=str)
def test_a_padded_sample_is_judged_as_it_is_without_padding(positions: tuple[int, ...]) -> None:
    net, (x, time, _) = judge(positions, Embedding(20)), inputs(positions)
    padded = torch.full((BATCH, CHANNELS, positions[0] + 4, *positions[1:]), 7.0)
    padded[:, :, : positions[0]] = x
    valid = torch.zeros(BATCH, *padded.shape[2:], dtype=torch.bool)
    valid[:, : positions[0]] = True
    torch.testing.assert_close(net(padded, time, Condition(valid=valid)), net(x, time), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "word"), [({"ndim": 4}, "axes, not 4"), ({"widths": ()}, "one block"), ({"channels": 0}, "channels")]
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Discriminator(**{"channels": 1} | arguments)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 8)])
def test_samples_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(batch, 3"):
        Discriminator(3, (8,))(torch.zeros(shape), torch.zeros(2))
