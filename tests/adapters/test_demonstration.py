"""Adapters learn what they are for within a minute, on bright blobs of 8 x 8 pixels and points in the plane."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from adapting import bits, same
from torch import Tensor, nn

from osmotic import NeuralDenoiser, samplers, schedules
from osmotic.adapters import ControlNet, LoRA, learn
from osmotic.condition import Condition
from osmotic.estimate import V
from osmotic.guidance import ClassifierFree
from osmotic.nn import MLP, Embedding, UNet
from osmotic.objectives import denoising
from osmotic.samplers import sample
from osmotic.times import LogSNR

SIZE, NARROW, WIDE, NEAR, DRAWN = 8, 1.0, 1.8, 0.05, 200

Batch = tuple[Tensor, Condition | None]


def blobs(places: Tensor, width: float) -> Tensor:
    """Gaussian bumps ``(n, 1, 8, 8)`` of a width at places ``(n, 2)``, from -1 up to 1."""
    axis = torch.arange(SIZE)
    rows, columns = ((axis - places[:, i, None]).square() for i in (0, 1))
    return (2 * torch.exp(-(rows[:, :, None] + columns[:, None, :]) / (2 * width**2)) - 1)[:, None]


def places(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(1, SIZE - 1, (n, 2), generator=generator)


def marks(at: Tensor) -> Tensor:
    """Images ``(n, 1, 8, 8)`` that are 1 at one place and 0 elsewhere."""
    image = torch.zeros(len(at), 1, SIZE, SIZE)
    image[torch.arange(len(at)), 0, at[:, 0], at[:, 1]] = 1
    return image


def peaks(x: Tensor) -> Tensor:
    brightest = x.flatten(1).argmax(1)
    return torch.stack([brightest // SIZE, brightest % SIZE], dim=1)


def share(x: Tensor, width: float) -> float:
    """The share of samples that are blobs of this width: within a mean squared error of 0.05 of one."""
    error = (x - blobs(peaks(x), width)).square().flatten(1).mean(1)
    return float((error < NEAR).float().mean())


def train(network: nn.Module, batch: Callable[[torch.Generator], Batch], steps: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(1)
    denoiser = NeuralDenoiser(network, schedules.Cosine(), V())
    optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 20) * (1 - step / steps)
        x0, cond = batch(generator)
        t = 0.01 + 0.98 * torch.rand(len(x0), generator=generator)
        optimizer.zero_grad()
        denoising(denoiser, x0, t, torch.randn(x0.shape, generator=generator), cond).mean().backward()
        optimizer.step()


@torch.no_grad()
def draw(network: nn.Module, shape: tuple[int, ...], cond: Condition | None = None, guidance: float = 1.0) -> Tensor:
    denoiser = ClassifierFree(NeuralDenoiser(network, schedules.Cosine(), V()), guidance)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(DRAWN, *shape, generator=generator)
    return sample(samplers.CATALOG["ddim"](), denoiser, noise, LogSNR()(denoiser.schedule, 20, 1.0), cond)


IMAGE = (1, SIZE, SIZE)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained() -> UNet:
    """A network that draws narrow blobs anywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(1, (8, 16), blocks=1)
    train(network, lambda g: (blobs(places(32, g), NARROW), None), 450, 4e-3)
    return network.eval()


@pytest.fixture(scope="module")
def styled(trained: UNet) -> LoRA:
    """The same with an adapter of rank 4 that was shown wide blobs."""
    lora = LoRA(copy.deepcopy(trained))
    lora.add("wide", 4, generator=torch.Generator().manual_seed(3))
    train(lora, lambda g: (blobs(places(32, g), WIDE), None), 250, 1e-2)
    return lora.eval()


@pytest.fixture(scope="module")
def controlled(trained: UNet) -> ControlNet:
    """The same with control by marks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        control = ControlNet(copy.deepcopy(trained), 1)

    def batch(g: torch.Generator) -> Batch:
        at = places(32, g)
        return blobs(at, NARROW), Condition(image=marks(at))

    train(control, batch, 250, 4e-3)
    return control.eval()


def told() -> tuple[Tensor, Condition]:
    at = places(DRAWN, torch.Generator().manual_seed(4))
    return at, Condition(image=marks(at))


def hits(x: Tensor, at: Tensor) -> float:
    return float((peaks(x) == at).all(1).float().mean())


def test_lora_learns_a_style_and_leaves_the_base_alone(trained: UNet, styled: LoRA, capsys) -> None:
    assert same(styled.network.state_dict(), trained.state_dict())
    before = draw(trained, IMAGE)
    after = draw(styled, IMAGE)
    with capsys.disabled():
        print(
            f"\nwide blobs: {share(before, WIDE):.1%} of the base's samples, {share(after, WIDE):.1%} with the adapter"
        )
    assert share(before, NARROW) > 0.9
    assert share(before, WIDE) < 0.05
    assert share(after, WIDE) > 0.8
    assert share(after, NARROW) < 0.05
    assert peaks(after).float().std(0).min() > 1  # still anywhere: the places' deviation is 1.7


def test_the_scale_leads_from_the_base_to_the_style(styled: LoRA) -> None:
    light = []
    for scale in (0.0, 0.5, 1.0):
        styled.rescale("wide", scale)
        light.append(float(draw(styled, IMAGE).mean()))
    assert light == sorted(light)
    gap = light[2] - light[0]
    assert 0.1 * gap < light[1] - light[0] < 0.9 * gap


def test_merged_it_draws_the_same_and_unmerged_the_base_is_back(trained: UNet, styled: LoRA) -> None:
    after = draw(styled, IMAGE)
    styled.merge()
    torch.testing.assert_close(draw(styled.network, IMAGE), after, rtol=0, atol=1e-3)
    styled.unmerge()
    assert torch.equal(draw(styled.network, IMAGE), draw(trained, IMAGE))


def test_control_is_obeyed(trained: UNet, controlled: ControlNet, capsys) -> None:
    at, cond = told()
    obeyed = draw(controlled, IMAGE, cond)
    chance = hits(draw(ControlNet(trained, 1), IMAGE, cond), at)
    with capsys.disabled():
        print(f"\nblobs at the mark: {chance:.1%} untrained, {hits(obeyed, at):.1%} trained")
    assert chance < 0.12  # one place in 36; five deviations above
    assert hits(obeyed, at) > 0.95
    assert share(obeyed, NARROW) > 0.9
    hidden = cond.drop(torch.zeros(DRAWN, dtype=torch.bool))
    assert torch.equal(draw(controlled, IMAGE, hidden), draw(trained, IMAGE))
    assert hits(draw(controlled, IMAGE, cond, guidance=2.0), at) > 0.95


def test_style_and_control_join(styled: LoRA, controlled: ControlNet) -> None:
    """The control was learned over the plain base; it leads the styled one, too."""
    at, cond = told()
    styled.rescale("wide", 1.0)
    styled.merge()
    joined = copy.deepcopy(controlled)
    joined.network.load_state_dict(styled.network.state_dict())
    styled.unmerge()
    x = draw(joined, IMAGE, cond)
    assert hits(x, at) > 0.8
    assert share(x, WIDE) > share(x, NARROW)


def test_a_new_class_is_learned_by_its_row_alone(capsys) -> None:
    """Eight classes on a circle of radius 2; the ninth lies half way between two of them."""
    spread = 0.2

    def points(angle: Tensor, g: torch.Generator) -> Tensor:
        centre = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
        return centre + spread * torch.randn(len(angle), 2, generator=g)

    def batch(g: torch.Generator) -> Batch:
        label = torch.randint(8, (128,), generator=g)
        return points(label * (math.pi / 4), g), Condition(vector=label)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP((2,), (64, 64, 64), embedding=Embedding(32, classes=8))
    train(network, batch, 600, 3e-3)
    before, between = bits(network), math.pi / 8
    words = learn(network, network.embedding.vector, {"between": 0})
    number = words.ids["between"]

    def own(g: torch.Generator) -> Batch:
        return points(torch.full((128,), between), g), Condition(vector=torch.full((128,), number))

    target = 2 * torch.tensor([math.cos(between), math.sin(between)])
    cond = Condition(vector=torch.full((DRAWN,), number))
    first = draw(network, (2,), cond).mean(0)
    train(network, own, 200, 3e-2)
    x = draw(network, (2,), cond)
    gap, left = float((first - target).norm()), float((x.mean(0) - target).norm())
    with capsys.disabled():
        print(
            f"\nthe new class: {gap:.2f} from where it belongs at first, {left:.2f} when learned; deviation {x.std(0)}"
        )
    assert left < 0.25 * gap
    assert all(torch.equal(network.state_dict()[n], t) for n, t in before.items())
    known = replace(cond, vector=torch.zeros(DRAWN, dtype=torch.long))
    assert float((draw(network, (2,), known).mean(0) - torch.tensor([2.0, 0.0])).norm()) < 0.2
