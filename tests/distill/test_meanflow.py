"""MeanFlow: its identity on exact flow maps, its derivative, its expectation without a teacher, its dropout."""

import pytest
import torch
from torch import Tensor, nn

from osmotic.clocks import SMOOTH, Angle
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.expected import expected
from osmotic.distill.meanflow import (
    ALONE,
    METHOD,
    POWER,
    SOFT,
    MeanFlow,
    latest,
    line,
    meanflow,
    rate,
    straight,
    times,
    velocity,
)
from osmotic.estimate import Estimate, Velocity
from osmotic.flow_map import FlowMap
from osmotic.oracles import Gaussian
from osmotic.schedules import CATALOG, Rectified
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill import toys

SD = 0.7
PATH = line(SD)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=toys.generator(seed), dtype=torch.float64)


def gaussian(path: str = "ve", d: int = 3) -> Gaussian:
    root = draws(d, d, seed=4) * 0.4
    return Gaussian(CATALOG[path](), draws(d, seed=3), root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64))


def clock(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Times t in (0, 0.95) and aims s below them, the data among them."""
    t = torch.rand(n, generator=toys.generator(seed), dtype=torch.float64) * 0.9 + 0.05
    s = t * torch.rand(n, generator=toys.generator(seed + 1), dtype=torch.float64) * 0.95
    return t, torch.where(torch.arange(n) % 4 == 0, 0.0, s)


class Off(Denoiser):
    """Another denoiser whose average velocity on the straight path is off by a constant."""

    def __init__(self, denoiser: Denoiser, c: Tensor) -> None:
        super().__init__()
        self.around(denoiser)
        self.denoiser, self.c = denoiser, c

    def forward(self, x, t, cond=None, s=None) -> Estimate:
        x0, eps = self.denoiser(x, t, cond, s)
        alpha, sigma = (n.reshape(-1, 1) for n in self.schedule(t))
        # du = sd deps - dx0 = c with alpha dx0 + sigma deps = 0.
        step = self.c / (sigma + alpha * SD)
        return Estimate(x0 - sigma * step, eps + alpha * step)


@pytest.mark.parametrize("path", list(CATALOG))
def test_loss_is_zero_at_the_exact_flow_map_and_its_gradient_points_back(path):
    oracle, (t, s) = gaussian(path), clock(12)
    t, s = (v / 0.95 * latest(oracle, PATH) for v in (t, s))
    x0, eps = oracle.sample(12, toys.generator(0)), draws(12, 3, seed=5)
    exact = meanflow(oracle, oracle, PATH, x0, t, s, eps, teacher=oracle)
    assert exact.shape == (12,)
    assert float(exact.max()) < 1e-10
    c = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss = meanflow(Off(oracle, c), oracle, PATH, x0, t, s, eps, teacher=oracle)
    square = 0.09 / SD**2
    weight = (square + SOFT) ** -POWER
    assert torch.allclose(loss, torch.full_like(loss, square * weight), rtol=1e-5)
    (slope,) = torch.autograd.grad(loss.mean(), c)
    assert float(slope) == pytest.approx(2 * 0.3 / SD**2 * weight, rel=1e-5)


def test_a_wrong_flow_map_is_seen():
    """Aimed elsewhere than it says, the exact map of the wrong time has a loss: the derivative term counts."""

    class Late(Gaussian):
        def forward(self, x, t, cond=None, s=None) -> Estimate:
            return super().forward(x, t, cond, None if s is None else s * 0.8)

    oracle, (t, s) = gaussian(), clock(12)
    late = Late(oracle.schedule, oracle.mean, torch.diag(oracle.variances))
    x0, eps = late.sample(12, toys.generator(0)), draws(12, 3, seed=5)
    loss = meanflow(late, late, PATH, x0, t, s, eps, teacher=late)
    assert float(loss[s > 0].min()) > 1e-6
    assert float(loss[s == 0].max()) < 1e-10


def test_without_a_teacher_the_gradient_is_zero_at_the_exact_map_and_points_back_beside_it():
    """On average over 100 batches, whose expectations of the velocity are random but right on average."""
    n, batches = 64, 100
    oracle = Gaussian(CATALOG["vp"](), draws(1, seed=3), 0.5)
    t = torch.linspace(0.05, 0.95, n, dtype=torch.float64)
    for off in (0.0, 0.2, -0.2):
        slopes = []
        for seed in range(batches):
            c = torch.tensor(off, dtype=torch.float64, requires_grad=True)
            x0, eps = oracle.sample(n, toys.generator(seed)), draws(n, 1, seed=500 + seed)
            loss = meanflow(Off(oracle, c), oracle, PATH, x0, t, 0.4 * t, eps)
            slopes.append(torch.autograd.grad(loss.mean(), c)[0])
        mean, error = float(torch.stack(slopes).mean()), float(torch.stack(slopes).std()) / batches**0.5
        if off == 0:
            assert abs(mean) < 4 * error
        else:
            assert mean * off > 10 * error * abs(off)


def test_straight_is_rectified_in_units_of_the_data():
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    for mine, theirs in zip(line(1.0)(t), Rectified()(t), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.allclose(PATH.time(PATH.log_snr(t)), t, atol=1e-14)
    assert float(PATH.log_snr(0.5).exp() ** -0.5) == pytest.approx(SD)
    with pytest.raises(ValueError, match="positive"):
        line(0.0)


def network(schedule=None, dropout: float = 0.0, target=None) -> FlowMap:
    from osmotic.nn import MLP, Embedding

    torch.manual_seed(0)
    body = MLP((2,), (32, 32), dropout, embedding=Embedding(32, aims=True))
    for p in body.parameters():
        nn.init.normal_(p, std=0.2)
    return FlowMap(body, schedule or CATALOG["ve"](), target or Velocity(), Angle(SMOOTH), sigma_data=SD)


@pytest.mark.parametrize("path", ["ve", "rectified", "vp", "ddpm-cosine"])
def test_the_derivative_is_the_finite_difference_of_the_whole_denoiser(path):
    model, (t, s) = network(CATALOG[path](), target=toys.Karras(SD)), clock(16)
    x, v, h = draws(16, 2, seed=2).float(), draws(16, 2, seed=6).float(), 4e-3
    with torch.no_grad():
        found = rate(model, PATH, x, t, s, v)
        flow = straight(model, PATH)
        ends = [velocity(flow(x + k * h * v, t + k * h, None, s), PATH) for k in (1, -1)]
    assert torch.allclose(found, (ends[0] - ends[1]) / (2 * h), atol=0.02 * float(found.abs().max()))


class Slanted(Denoiser):
    """A flow map whose average velocity is ``x + c`` from any time to any other."""

    def __init__(self, c: Tensor) -> None:
        super().__init__()
        self.schedule, self.c = PATH, c

    def forward(self, x, t, cond=None, s=None) -> Estimate:
        u, t = x + self.c, t.reshape(-1, 1)
        return Estimate(x - t * u, (x + (1 - t) * u) / SD)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_random_velocity_does_not_move_the_optimum(share, alone):
    """From one noise alone, where 0.3 of the velocities lead to one end and 0.7 to the other, their mean is learned.

    At t = 1 the velocity is ``x - x0``. The gradient vanishes where ``(x + c) (1 + t - s) = x - E x0``, also where each
    sample is told something of its own; a weight that sees the random velocity would move that by a quarter.
    """
    n = 40
    x0 = torch.where(torch.arange(n) < 0.3 * n, -0.5, 0.5).double()[:, None]
    t, eps = torch.full((n,), 1 - 1e-9, dtype=torch.float64), torch.full((n, 1), 0.4, dtype=torch.float64)
    gap, at = share, 0.4 * SD
    best = (at - 0.2) / (1 + gap) - at
    cond = Condition(vector=torch.arange(n) if alone else torch.zeros(n, dtype=torch.int64))
    for off in (0.0, 0.1, -0.1):
        c = torch.tensor(best + off, dtype=torch.float64, requires_grad=True)
        model = Slanted(c)
        loss = meanflow(model, model, PATH, x0, t, t * (1 - share), eps, cond)
        (slope,) = torch.autograd.grad(loss.mean(), c)
        error = off * (1 + gap) / SD**2  # of u - goal, over sd^2
        known = (gap * (at + best + off)) ** 2 / SD**2
        assert float(slope) == pytest.approx(2 * error * (known + ALONE) ** -POWER, abs=1e-6)


class Masked(nn.Module):
    """A network that is nothing but dropout."""

    def forward(self, x, time, cond=None, aim=None) -> Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


@toys.devices
@pytest.mark.parametrize("taught", [True, False])
def test_both_passes_see_the_same_dropout(taught, device):
    """With the network ``m x``, m 0 or 2, the error is ``(m x - v + gap m w)^2`` with one m, not two."""
    model = FlowMap(Masked(), Rectified(), Velocity())
    oracle = Gaussian(Rectified(), torch.zeros(1), 0.5).to(device)
    n, path = 200, line(1.0)
    t, s = clock(n)
    x0, eps = draws(n, 1).float().to(device), draws(n, 1, seed=9).float().to(device)
    torch.manual_seed(3)
    loss = meanflow(model, model, path, x0, t, s, eps, teacher=oracle if taught else None)
    own, gap = t.float()[:, None].to(device), (t - s).float()[:, None].to(device)
    x = x0 * (1 - own) + eps * own
    groups = torch.zeros(n, dtype=torch.int64, device=device)
    v = velocity(oracle(x, t) if taught else expected(path, x0, x, t, eps, groups), path)
    choices = []
    for m in (0, 2):
        known = v if taught else m * x
        weight = ((m * x - known + gap * m * known) ** 2 + (SOFT if taught else ALONE)) ** -POWER
        choices.append((m * x - v + gap * m * known) ** 2 * weight)
    near = torch.stack([(loss[:, None] - c).abs() <= 1e-4 * (1 + c) for c in choices])
    assert bool(near.any(0).all())
    assert bool(near.any(1).all()), "both masks occur"


def setting(teacher: Denoiser | None) -> Setting:
    start = Start(toys.SCHEDULE, SD, 1, False, Distillation())
    return Setting(network(toys.SCHEDULE, target=toys.Karras(SD)), teacher, start, 10, Drop())


@pytest.mark.parametrize("teacher", [None, "oracle"])
def test_the_task_trains_and_is_measured_without_gradients(teacher):
    oracle = Gaussian(toys.SCHEDULE, torch.zeros(2), 0.5)
    task = MeanFlow(setting(oracle if teacher else None))
    x0 = draws(8, 2).float()
    batches = [
        Batch(x0, None, None, None, 0, Noise(0, 0, 8, 0, 8, toys.CPU, domain))
        for domain in (Domain.TRAINING, Domain.HELD_OUT)
    ]
    task.loss("denoiser", batches[0], task.players).mean().backward()
    assert all(p.grad is not None for p in task.denoiser.parameters())
    with torch.no_grad():
        held = task.loss("denoiser", batches[1], {"denoiser": task.denoiser.eval()})
    assert held.shape == (8,)
    assert bool(held.isfinite().all())


def test_times_are_ordered_and_hold_the_ends():
    t, s = times(Noise(0, 0, 4000, 0, 4000, toys.CPU), 0.9)
    assert float(t.max()) <= 0.9
    assert bool(((s >= 0) & (s <= t)).all())
    assert 0.3 < float((s == t).double().mean()) < 0.5
    assert float((s == 0).double().mean()) > 0.1
    assert float((t > 0.85).double().mean()) > 0.02, "where one step starts"
    parts = [times(Noise(0, 0, 4000, start, 2000, toys.CPU), 0.9)[0] for start in (0, 2000)]
    assert torch.equal(torch.cat(parts), t)


def test_the_method_makes_a_smooth_flow_map_and_needs_no_teacher():
    (stage,) = METHOD.stages(Start(toys.SCHEDULE, SD, 1, False, Distillation()))
    student = stage.student(Start(toys.SCHEDULE, SD, 1, False, Distillation()))
    assert (student.form, student.smooth, METHOD.teacher) == ("flow-map", True, False)
