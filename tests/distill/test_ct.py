"""Consistency training: the published curriculum, its blurred optimum on a Gaussian, its slow target."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.distill.base import Setting, Start
from osmotic.distill.ct import METHOD, ConsistencyTraining, decay, levels, training
from osmotic.distill.gap import Intervals
from osmotic.distill.shadow import Shadow
from osmotic.estimate import Karras
from osmotic.flow_map import Consistency
from osmotic.nn import MLP
from osmotic.oracles import Gaussian
from osmotic.schedules import CATALOG, VE
from osmotic.training.denoise import PLAYER, Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.test_consistency import SD, Bent, Linear, draws
from tests.distill.toys import devices


def test_the_curriculum_is_the_published_one() -> None:
    assert [levels(step, 100) for step in (0, 50, 100)] == [2, 107, 151]
    assert all(levels(k + 1, 100) >= levels(k, 100) for k in range(100))
    assert decay(2, 800_000) == pytest.approx(0.9)
    assert decay(151, 800_000) == pytest.approx(0.9 ** (2 / 151))
    assert decay(151, 8_000) == pytest.approx(0.9 ** (200 / 151))


@pytest.mark.parametrize(
    ("points", "expected"), [(11, (0.72, 0.75, 0.78)), (41, (0.922, 0.931, 0.939)), (161, (0.980, 0.982, 0.984))]
)
def test_a_grid_has_the_published_blur(points: int, expected: tuple[float, ...]) -> None:
    """``a_t = a_u (v + rho_t rho_u) / (v + rho_t^2)`` is where the gradient vanishes; distillation.md, section 7."""
    schedule = VE(80.0)
    times = Intervals(schedule, SD, points).times
    rho = (80.0 * times).flip(0).tolist()
    for variance, factor in zip((0.04, 0.25, 1.3), expected, strict=True):
        found = [1.0]
        for clean, noisy in itertools.pairwise(rho):
            found.append(found[-1] * (variance + clean * noisy) / (variance + noisy**2))
        assert found[-1] * math.sqrt(variance + 80.0**2) / math.sqrt(variance) == pytest.approx(factor, abs=6e-3)
        # Four draws with the data's moments, at every interval at once.
        x0 = math.sqrt(variance) * torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64).repeat(points)[:, None]
        eps = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).repeat(points)[:, None]
        t, u = (z.repeat_interleave(4) for z in (times[:-1], times[1:]))
        optimum = torch.tensor(found, dtype=torch.float64)
        for shift in (0.0, 1e-3):
            free = (optimum * (1 + shift)).requires_grad_()
            student = Linear(schedule, times.flip(0), free)
            target = Linear(schedule, times.flip(0), optimum)
            training(student, target, x0, t, u, eps).sum().backward()
            assert free.grad is not None
            slope = (free.grad * optimum)[1:]
            assert float(slope.abs().max()) < 1e-9 if shift == 0 else float(slope.min()) > 1e-9


@pytest.mark.parametrize("path", sorted(CATALOG))
def test_it_vanishes_at_the_exact_map_of_a_single_point_and_points_back_beside_it(path: str) -> None:
    """Of more than a point the target is random, and its variance remains."""
    schedule = CATALOG[path]()
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    exact = Gaussian(schedule, mean, 0.0)
    _, eps = draws(40, 2)
    x0 = mean.expand(40, 2)
    times = Intervals(schedule, SD, 40).times
    assert float(training(exact, exact, x0, times[:-1], times[1:], eps).max()) < 1e-10
    for value in (0.4, -0.4):
        k = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        bent = Bent(exact, k)
        (slope,) = torch.autograd.grad(training(bent, bent, x0, times[:-1], times[1:], eps).mean(), k)
        assert float(slope) * value > 0


def small(dropout: float = 0.5) -> Consistency:
    torch.manual_seed(0)
    network = MLP((2,), (16, 16), dropout)
    nn.init.normal_(network.out.weight)
    for block in network.blocks:
        nn.init.normal_(block.second.weight, std=0.3)  # type: ignore[union-attr]
    return Consistency(network, CATALOG["rectified"](), Karras(SD), sigma_data=SD)


def task(steps: int = 10) -> ConsistencyTraining:
    model = small()
    return ConsistencyTraining(Setting(model, None, Start(model.schedule, SD, 1, False, Distillation()), steps, Drop()))


def batch(step: int = 0, domain: Domain = Domain.TRAINING, n: int = 64) -> Batch:
    rows = np.arange(n)
    return Batch(draws(n, 2)[0].float(), None, rows, rows, step, Noise(0, step, n, 0, n, torch.device("cpu"), domain))


@devices
def test_no_gap_no_loss_under_dropout(device: str) -> None:
    model = small().train().to(device)
    slow = Shadow(model, 0.9).denoiser.train()
    x0, eps = (z.float().to(device) for z in draws(64, 2))
    t = torch.full((64,), 0.5, dtype=torch.float64)
    assert float(training(model, slow, x0, t, t, eps).detach().max()) == 0


def test_it_is_not_compiled() -> None:
    """The slow copy stays eager, and an eager and a compiled network draw other masks from one state."""
    assert not METHOD.compiles


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def test_the_target_follows_slowly_and_is_stored() -> None:
    steps = 20_000
    one = task(steps)
    before = weights(one.denoiser)
    with torch.no_grad():
        for p in one.denoiser.parameters():
            p.add_(1.0)
    one.update(PLAYER, batch(3).noise, torch.zeros(64))
    mu = decay(levels(3, steps), steps)
    torch.testing.assert_close(weights(one.shadow.denoiser), mu * before + (1 - mu) * (before + 1))
    other = task()
    other.load_state(one.state())
    assert bool((weights(other.shadow.denoiser) == weights(one.shadow.denoiser)).all())


def test_the_target_is_the_slow_copy() -> None:
    """Its weights matter, and get no gradient; in measuring, dropout is off in both."""
    one = task()
    for domain in Domain:
        one.denoiser.train(domain == Domain.TRAINING)
        torch.manual_seed(0)
        first = one.loss(PLAYER, batch(5, domain), one.players)
        with torch.no_grad():
            one.shadow.denoiser.network.out.bias.add_(0.5)
        torch.manual_seed(0)
        second = one.loss(PLAYER, batch(5, domain), one.players)
        assert bool(first.isfinite().all())
        assert not torch.allclose(first, second)
        assert one.shadow.denoiser.training == one.denoiser.training
    second.mean().backward()
    assert all(p.grad is None for p in one.shadow.denoiser.parameters())


def test_it_needs_no_teacher() -> None:
    start = Start(VE(), SD, 1, False, Distillation())
    made = METHOD.stages(start)[0].student(start)
    assert not METHOD.teacher
    assert made.method == "ct"
    assert made.form == "consistency"
    assert made.sampler == "consistency"
