"""The adversary's losses, penalty and discriminator against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from osmotic.condition import Condition
from osmotic.denoiser import NeuralDenoiser
from osmotic.distill.adversarial import (
    EVERY,
    PENALTY,
    discriminator_loss,
    discriminator_of,
    generator_loss,
    lazily,
    penalty,
)
from osmotic.distill.base import Setting, Start
from osmotic.estimate import V
from osmotic.nn import MLP, DiT, Embedding, UNet
from osmotic.schedules import Rectified
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation


def setting(network: nn.Module, positions: int = 1) -> Setting:
    start = Start(Rectified(), 0.5, positions, False, Distillation())
    return Setting(NeuralDenoiser(network, Rectified(), V()), None, start, 10, Drop())


def test_the_losses_are_the_negative_logarithms_of_probabilities() -> None:
    real, fake = torch.randn(2, 9, dtype=torch.float64)
    torch.testing.assert_close(generator_loss(fake), -torch.sigmoid(fake).log())
    expected = -torch.sigmoid(real).log() - (1 - torch.sigmoid(fake)).log()
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    nought = torch.zeros(1, dtype=torch.float64)
    assert float(discriminator_loss(nought, nought)) == pytest.approx(2 * math.log(2), abs=1e-15)


def test_the_best_discriminator_is_the_log_ratio_of_densities() -> None:
    """At ``log p / q`` the expected loss is stationary, exactly: 2 log 2 - 2 JS there, on a two-point space."""
    p = torch.tensor([0.7, 0.3], dtype=torch.float64)
    q = torch.tensor([0.2, 0.8], dtype=torch.float64)
    logits = (p / q).log().requires_grad_(True)
    nought = torch.full_like(logits, -80.0)  # a fake this sure costs nothing
    loss = (p * discriminator_loss(logits, nought)).sum() + (q * discriminator_loss(-nought, logits)).sum()
    (slope,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)
    middle = (p + q) / 2
    divergence = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
    assert float(loss.detach()) == pytest.approx(2 * math.log(2) - 2 * float(divergence), abs=1e-12)


def test_a_sure_discriminator_still_moves_the_generator() -> None:
    """The non-saturating loss has slope -1 where fakes are found out; log(1 - D) would have none."""
    fake = torch.tensor([-40.0], requires_grad=True)
    generator_loss(fake).backward()
    assert float(fake.grad) == pytest.approx(-1, abs=1e-6)


def test_the_penalty_is_half_the_squared_slope_and_has_a_gradient() -> None:
    """For the logit ``|A x|^2 / 2`` the slope is ``A^T A x``."""
    a = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    found = penalty((x @ a.T).square().sum(1) / 2, x)
    expected = (x @ a.T @ a).square().sum(1) / 2
    torch.testing.assert_close(found, expected)
    (one,) = torch.autograd.grad(found.sum(), a)
    (other,) = torch.autograd.grad(expected.sum(), a)
    torch.testing.assert_close(one, other)


def test_the_lazy_penalty_has_the_whole_one_s_mean() -> None:
    weights = [lazily(step) for step in range(5 * EVERY)]
    assert sum(weights) / len(weights) == pytest.approx(PENALTY)
    assert weights.count(0.0) == 5 * (EVERY - 1)
    assert weights[0] > 0


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["mlp", "mlp on a line", "unet", "dit"])
def test_a_discriminator_fits_the_student_s_data(kind: str, channels: int) -> None:
    told = Embedding(32, classes=3, aims=True, scales=True, latents=4)
    network, shape = {
        "mlp": lambda: (MLP((5,), (32,), embedding=told), (5,)),
        "mlp on a line": lambda: (MLP((2, 9), (32,), embedding=told), (2, 9)),
        "unet": lambda: (UNet(3, (8, 12), embedding=told), (3, 16, 16)),
        "dit": lambda: (DiT(1, (2,), 32, 2, 16, embedding=told), (1, 12)),
    }[kind]()
    judge = discriminator_of(setting(network, math.prod(shape[1:])), channels)
    x = torch.randn(4, channels * shape[0], *shape[1:])
    told_labels = Condition(vector=torch.tensor([0, 1, 2, 0]))
    logits = judge(x, torch.rand(4) * 1000, told_labels)
    assert logits.shape == (4,)
    assert logits.std() > 0
    assert {p.requires_grad for p in judge.parameters()} == {True}
    # The student's own embedding is not the judge's: they are trained against each other.
    mine = {id(p) for p in network.parameters()}
    assert not any(id(p) in mine for p in judge.parameters())
    assert network.embedding.aim is not None


def test_a_discriminator_s_first_weights_are_always_the_same_and_seed_nothing() -> None:
    torch.manual_seed(1)
    network = MLP((2,), (16,))
    before = torch.get_rng_state()
    first = discriminator_of(setting(network))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = discriminator_of(setting(network))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_levels_end_where_few_positions_are_left() -> None:
    for side, count in ((4, 1), (8, 2), (32, 4)):
        judge = discriminator_of(setting(UNet(1, (8,)), side**2))
        assert len(judge.blocks) == count


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="MLP, a UNet or a DiT"):
        discriminator_of(setting(nn.Linear(2, 2)))
