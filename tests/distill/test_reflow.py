"""Rectified flow on Gaussians: one Euler step of the first flow is the mean, of the second the map."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.knowledge import Knowledge
from osmotic.distill.pairs import begun, chord
from osmotic.distill.reflow import METHOD, Ends, Reflow, rectified, straightness
from osmotic.estimate import Estimate, Karras
from osmotic.oracles import Gaussian
from osmotic.samplers import DDIM, sample
from osmotic.schedules import CATALOG, VE, Rectified
from osmotic.training import build
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.toys import CPU, generator, network

D64 = torch.float64
MEAN, VARIANCES = torch.tensor([0.3, -0.2, 0.1], dtype=D64), torch.tensor([0.04, 0.25, 1.3], dtype=D64)
PATHS = list(CATALOG)


class Second(Denoiser):
    """The exact second rectified flow of Gaussian data: every point lies on one line ``x0 = mean + gain eps``."""

    def __init__(self, schedule, by=0.0):
        super().__init__()
        self.schedule, self.by = schedule, nn.Parameter(torch.tensor(by, dtype=D64))
        alpha, sigma = schedule.scalars(1.0)
        kept = (VARIANCES / (alpha**2 * VARIANCES + sigma**2)).sqrt()
        self.gain = sigma * kept / (1 - alpha * kept)

    def forward(self, x, t, cond=None, s=None):
        alpha, sigma = (number.reshape(-1, 1) for number in self.schedule(t))
        eps = (x - alpha * MEAN) / (alpha * self.gain + sigma)
        return Estimate(MEAN + self.gain * eps + self.by, eps - self.by * alpha / sigma)


def pairs(schedule, n=64):
    oracle = Gaussian(schedule, MEAN, VARIANCES)
    noise = torch.randn(n, 3, generator=generator(0), dtype=D64)
    x0 = oracle.flow(begun(oracle, noise), 1.0, 0.0)
    return oracle, x0, chord(schedule, x0, noise), begun(oracle, noise)


def times(schedule, n=64):
    return Ends(0.5).quantile(schedule, torch.linspace(0.01, 0.99, n, dtype=D64))


@pytest.mark.parametrize("path", PATHS)
def test_loss_and_straightness_vanish_at_the_second_flow_of_a_gaussian(path):
    _, x0, eps, _ = pairs(CATALOG[path]())
    flow, t = Second(CATALOG[path]()), times(CATALOG[path]())
    with torch.no_grad():
        for loss in (rectified(flow, x0, eps, t, sigma_data=0.5), straightness(flow, x0, eps, t)):
            assert loss.shape == (64,)
            assert float(loss.abs().max()) < 1e-12


@pytest.mark.parametrize("path", PATHS)
def test_one_euler_step_of_the_second_flow_is_the_map_and_of_the_first_is_not(path):
    oracle, x0, _, x = pairs(CATALOG[path]())
    grid = torch.tensor([1.0, 0.0], dtype=D64)
    assert torch.allclose(sample(DDIM(), Second(oracle.schedule), x, grid), x0, atol=1e-8)
    first = sample(DDIM(), oracle, x, grid)
    assert float((first - x0).square().mean()) > 0.2
    if oracle.schedule.scalars(1.0)[0] == 0:
        assert torch.allclose(first, MEAN.expand(64, 3), atol=1e-9)  # nothing of the noise is left


def test_beside_the_optimum_the_loss_is_quadratic_and_its_gradient_points_back():
    for schedule in (Rectified(), VE(40.0)):
        _, x0, eps, _ = pairs(schedule)
        t = times(schedule)
        alpha, sigma = schedule(t)
        for by in (0.1, -0.1):
            student = Second(schedule, by)
            loss = rectified(student, x0, eps, t, sigma_data=0.5)
            weight = (2.0 + alpha / sigma) ** 2  # d v = -(1 / sd + alpha / sigma) d x0
            assert torch.allclose(loss, weight * by**2, rtol=1e-6)
            (slope,) = torch.autograd.grad((loss / weight).mean(), student.by)
            assert math.isclose(float(slope), 2 * by, rel_tol=1e-6)


def test_the_first_flow_is_as_crooked_as_known():
    # Independent pairs, unit path: Var(eps - x0 | x_t) = lam / ((1 - t)^2 lam + t^2).
    schedule, n = Rectified(), 200_000
    oracle = Gaussian(schedule, MEAN, VARIANCES)
    x0, eps = oracle.sample(n, generator(1)), torch.randn(n, 3, generator=generator(2), dtype=D64)
    t = torch.full((n,), 0.4, dtype=D64)
    known = (VARIANCES / (0.36 * VARIANCES + 0.16)).mean()
    assert abs(float(straightness(oracle, x0, eps, t).mean() / known) - 1) < 0.01


def test_shuffled_pairs_are_not_straight():
    _, x0, eps, _ = pairs(Rectified())
    with torch.no_grad():
        assert float(straightness(Second(Rectified()), x0, eps.roll(1, 0), times(Rectified())).mean()) > 0.1


def test_times_have_the_shape_of_a_u_on_every_path():
    u = torch.linspace(0.001, 0.999, 999, dtype=D64)
    t = Ends(1.0).quantile(Rectified(), u)  # for unit data tau is the path's own time
    assert torch.allclose(t + t.flip(0), torch.ones_like(t), atol=1e-9)
    density = 0.001 / t.diff()
    middle, near = density[len(density) // 2], density[-100]
    place = (t[-100] + t[-101]) / 2
    assert torch.allclose(near / middle, torch.cosh(4 * (place - 0.5)), rtol=1e-3)
    for path in PATHS:
        schedule = CATALOG[path]()
        t = Ends(0.5).quantile(schedule, torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=D64))
        assert bool((t.diff() > 0).all())
        assert float(t[0]) > 0
        assert math.isclose(float(t[-1]), 1, abs_tol=1e-9)
        assert math.isclose(float(schedule.log_snr(t[2])), -2 * math.log(0.5), abs_tol=1e-6)


def test_stages_are_the_flows_and_then_one_step():
    start = Start(VE(40.0), 0.5, 1, False, Distillation(rounds=2))
    stages = METHOD.stages(start)
    assert [stage.name for stage in stages] == ["flow-1", "flow-2", ""]
    assert all(stage.pairs for stage in stages)
    students = [stage.student(start) for stage in stages]
    assert [(student.form, student.stops) for student in students] == [
        ("denoiser", None), ("denoiser", None), ("consistency", (1.0,)),
    ]  # fmt: skip
    assert [stage.task for stage in stages] == [Reflow, Reflow, Knowledge]


@pytest.mark.parametrize("domain", list(Domain))
def test_the_task_pairs_data_with_its_own_noise(domain):
    start = Start(Rectified(), 0.5, 1, False, Distillation())
    student = build.few_step(METHOD.stages(start)[0].student(start), network(3), Rectified(), Karras(0.5), {})
    task = Reflow(Setting(student, None, start, 1, Drop()))
    exact = Second(Rectified())
    task.denoiser, task.players = exact, {"denoiser": exact}
    oracle = Gaussian(Rectified(), MEAN, VARIANCES)
    noise = torch.randn(8, 3, generator=generator(3), dtype=D64)
    data = torch.stack([oracle.flow(noise, 1.0, 0.0), noise], dim=1)
    rows = np.arange(8)

    def loss(x):
        with torch.no_grad():
            return task.loss("denoiser", Batch(x, None, rows, rows, 0, Noise(0, 0, 8, 0, 8, CPU, domain)), task.players)

    assert float(loss(data).max()) < 1e-12
    assert float(loss(data.flip(1)).min()) > 1e-3
