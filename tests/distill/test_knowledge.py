"""Knowledge distillation on Gaussians, whose map from noise to data is known."""

import numpy as np
import pytest
import torch
from torch import nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.knowledge import METHOD, Knowledge, knowledge
from osmotic.distill.pairs import begun
from osmotic.estimate import Karras, Point, solve
from osmotic.oracles import Gaussian
from osmotic.schedules import CATALOG, VE
from osmotic.training import build
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.toys import CPU, generator, network

D64 = torch.float64
VARIANCES = torch.tensor([0.04, 0.25, 1.3], dtype=D64)


class Gain(Denoiser):
    """``f(x) = mean + gain (x - alpha mean)``, one gain an axis."""

    def __init__(self, schedule, mean, gain):
        super().__init__()
        self.schedule, self.mean, self.gain = schedule, mean, nn.Parameter(gain)

    def forward(self, x, t, cond=None, s=None):
        assert bool((s == 0).all())
        alpha = self.schedule.scalars(1.0)[0]
        x0 = self.mean + self.gain * (x - alpha * self.mean)
        return solve(x, x0, self.schedule.numbers(t), Point(s).numbers(self.schedule, t))


def exact(path):
    return Gaussian(CATALOG[path](), torch.tensor([0.3, -0.2, 0.1], dtype=D64), VARIANCES)


def pairs(oracle, n=2000):
    noise = torch.randn(n, 3, generator=generator(0), dtype=D64)
    return oracle.flow(begun(oracle, noise), 1.0, 0.0), noise


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_loss_vanishes_at_the_exact_map(path):
    oracle = exact(path)
    loss = knowledge(oracle, *pairs(oracle, 32))
    assert loss.shape == (32,)
    assert float(loss.abs().max()) < 1e-20


@pytest.mark.parametrize("path", ["ve", "vp", "rectified"])
def test_a_linear_student_is_led_to_the_known_gain(path):
    oracle = exact(path)
    alpha, sigma = oracle.schedule.scalars(1.0)
    truth = (VARIANCES / (alpha**2 * VARIANCES + sigma**2)).sqrt()
    x0, noise = pairs(oracle)
    student = Gain(oracle.schedule, oracle.mean, truth * 1.1)
    seen = begun(oracle, noise) - alpha * oracle.mean
    (slope,) = torch.autograd.grad(knowledge(student, x0, noise).mean(), student.gain)
    # d/dg of mean_i (g - g*)^2 seen_i^2 / 3
    assert torch.allclose(slope, 2 * 0.1 * truth * seen.square().mean(0) / 3, rtol=1e-9)
    assert bool((slope > 0).all())
    solved = (seen * (x0 - oracle.mean)).sum(0) / seen.square().sum(0)
    assert torch.allclose(solved, truth, rtol=1e-9)


def setting(drop=0.0, sd=0.5):
    schedule = VE(40.0)
    start = Start(schedule, sd, 1, True, Distillation())
    (stage,) = METHOD.stages(start)
    assert stage.pairs
    assert stage.name == ""
    student = stage.student(start)
    torch.manual_seed(0)
    denoiser = build.few_step(student, network(2, student), schedule, Karras(sd), {"sigma_data": sd})
    return Setting(denoiser, exact("ve"), start, 10, Drop(drop))


def batch(cond=None, domain=Domain.TRAINING):
    rows = np.arange(4)
    x = torch.randn(4, 2, 2, generator=generator(4))
    return Batch(x, cond, rows, rows, 0, Noise(0, 0, 4, 0, 4, CPU, domain))


def test_the_task_reads_data_then_noise_in_units_of_the_data():
    made = setting(sd=0.25)
    task, given = Knowledge(made), batch()
    with torch.no_grad():
        loss = task.loss("denoiser", given, task.players)
        held_out = task.loss("denoiser", batch(domain=Domain.HELD_OUT), task.players)
        expected = knowledge(made.student, given.x0[:, 0], given.x0[:, 1]) * 16
        swapped = knowledge(made.student, given.x0[:, 1], given.x0[:, 0]) * 16
    assert torch.allclose(loss, expected)
    assert torch.equal(loss, held_out)
    assert not torch.allclose(loss, swapped)


def test_labels_are_never_hidden():
    """The recipe of such a stage has no condition dropout, so nobody can ask its student for what it never learned."""
    assert not any(stage.hides for stage in METHOD.stages(setting().start))


def test_the_student_is_asked_for_its_one_jump_alone():
    student = setting().student
    with pytest.raises(ValueError, match="aims at the data and has no posterior mean"):
        student(torch.zeros(1, 2), torch.ones((), dtype=D64))
    assert student.stops == (1.0,)
