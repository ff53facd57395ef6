"""Guided distillation on a mixture of two classes, whose guided estimates have a closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.guided import METHOD, Guided, Scales, guided, scaled
from osmotic.estimate import Karras, solve
from osmotic.guidance import ClassifierFree
from osmotic.nn import MLP, Embedding
from osmotic.oracles import GaussianMixture
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import sample
from osmotic.schedules import CATALOG, VE
from osmotic.times import suggested
from osmotic.training import build
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.toys import CPU, generator

D64 = torch.float64
LABELS = torch.tensor([0, 1, 1, 0])
SCALES = torch.tensor([1.0, 2.5, 4.0, 1.7], dtype=D64)


def classes(schedule, dtype=D64):
    means = torch.tensor([[-0.5, -0.3], [-0.4, 0.4], [0.5, 0.2]], dtype=dtype)
    return GaussianMixture(schedule, means, torch.tensor([0.04, 0.03, 0.06], dtype=dtype), None, [0, 0, 1])


def draws():
    return torch.randn(2, 4, 2, generator=generator(0), dtype=D64)


def times(schedule):
    return schedule.time(torch.tensor([4.0, 1.0, -1.0, -3.0], dtype=D64))


class Exact(Denoiser):
    """The guided estimate by its formula, and wrong by a constant that can be learned."""

    def __init__(self, oracle, by=0.0):
        super().__init__()
        self.around(oracle)
        self.oracle, self.by = oracle, nn.Parameter(torch.tensor(by, dtype=D64))

    def forward(self, x, t, cond=None, s=None):
        w = cond.scale.to(x)[:, None]
        known, unknown = self.oracle(x, t, replace(cond, scale=None)).x0, self.oracle(x, t).x0
        return solve(x, unknown + w * (known - unknown) + self.by, self.schedule.numbers(t), (1.0, 0.0))


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_loss_vanishes_at_the_guided_estimate_and_its_gradient_points_back(path):
    oracle = classes(CATALOG[path]())
    (x0, eps), t, cond = draws(), times(oracle.schedule), Condition(vector=LABELS, scale=SCALES)
    assert float(guided(Exact(oracle), oracle, x0, t, eps, cond, 0.5).detach().abs().max()) < 1e-20
    for by in (0.1, -0.1):
        student = Exact(oracle, by)
        loss = guided(student, oracle, x0, t, eps, cond, 0.5)
        weight = oracle.schedule.log_snr(t).exp() + 4
        assert torch.allclose(loss, weight * by**2, rtol=1e-9)
        (slope,) = torch.autograd.grad(loss.sum(), student.by)
        assert torch.allclose(slope, 2 * by * weight.sum(), rtol=1e-9)


def test_the_optimum_is_the_score_of_the_sharpened_density():
    oracle, cond = classes(VE(40.0)), Condition(vector=LABELS, scale=SCALES)
    t = times(oracle.schedule)
    x = (draws()[0]).requires_grad_()
    log = SCALES * oracle.log_prob(x, t, LABELS) + (1 - SCALES) * oracle.log_prob(x, t)
    (score,) = torch.autograd.grad(log.sum(), x)
    sigma = oracle.schedule(t)[1][:, None]
    assert torch.allclose(Exact(oracle)(x, t, cond).x0, x + sigma**2 * score, atol=1e-12)


def test_guidance_takes_a_scale_per_sample():
    oracle, cond = classes(VE(40.0)), Condition(vector=LABELS)
    x, t = draws()[0], times(oracle.schedule)
    for time in (t, t[1]):
        together = ClassifierFree(oracle, SCALES)(x, time, cond)
        for row, scale in enumerate(SCALES.tolist()):
            alone = ClassifierFree(oracle, scale)(x, time, cond)
            assert torch.allclose(together.x0[row], alone.x0[row], atol=1e-12)
            assert torch.allclose(together.eps[row], alone.eps[row], atol=1e-12)


def start(**numbers):
    return Start(VE(40.0), 0.5, 1, True, Distillation(**numbers))


def network(scales):
    torch.manual_seed(0)
    return MLP((2,), (64, 64), embedding=Embedding(64, classes=2, scales=scales))


def batch(n=64, step=0, cond=True, domain=Domain.TRAINING):
    rows, labels = np.arange(n), torch.arange(n) % 2
    x0 = classes(VE(40.0), torch.float32).sample(n, generator(step), labels)
    told = Condition(vector=labels) if cond else None
    return Batch(x0, told, rows, rows, step, Noise(0, step, n, 0, n, CPU, domain))


def test_every_sample_has_a_scale_of_its_own_and_keeps_its_label():
    given = batch(4000)
    cond = scaled(given, 4.0)
    assert cond.keep is None
    assert torch.equal(cond.vector, given.cond.vector)
    assert 1 <= float(cond.scale.min()) < 1.01
    assert 3.99 < float(cond.scale.max()) <= 4
    assert abs(float(cond.scale.mean()) - 2.5) < 0.05
    assert torch.equal(cond.scale, scaled(batch(4000), 4.0).scale)
    assert not torch.equal(cond.scale, scaled(batch(4000, step=1), 4.0).scale)


def test_data_without_labels_are_refused():
    with pytest.raises(ValueError, match="needs labels, and these data have none; use --method progressive"):
        scaled(batch(cond=False), 4.0)
    with pytest.raises(ValueError, match="needs a teacher that was told classes"):
        METHOD.stages(Start(VE(40.0), 0.5, 1, False, Distillation()))


def test_stages_are_the_scales_and_then_the_rounds():
    said = start(jumps=4, largest_guidance=3.0)
    stages = METHOD.stages(said)
    assert [stage.name for stage in stages] == ["scales", "jumps-4", "jumps-2", ""]
    students = [stage.student(said) for stage in stages]
    assert [student.form for student in students] == ["denoiser", "chain", "chain", "chain"]
    assert all(student.scales == (1.0, 3.0) and student.method == "guided" for student in students)


def trained(steps=250):
    """All stages on the oracle, small."""
    said = start(jumps=2, largest_guidance=3.0)
    teacher = classes(VE(40.0), torch.float32)
    first = None
    for number, stage in enumerate(METHOD.stages(said)):
        described = stage.student(said)
        student = build.few_step(described, network(True), VE(40.0), Karras(0.5), {"sigma_data": 0.5})
        if first is not None:
            student.load_state_dict(first.state_dict())
        task = stage.task(Setting(student, teacher, said, steps, Drop(0.1)))
        optimizer = torch.optim.Adam(student.parameters(), lr=4e-3)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            loss = task.loss("denoiser", batch(128, 1000 * number + step), task.players).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falling.step()
        teacher = first = student.eval()
    return student


def test_one_jump_of_the_student_is_the_guided_flow_at_every_scale():
    student, oracle = trained(), classes(VE(40.0), torch.float32)
    n = 512
    x, labels = 40.0 * torch.randn(n, 2, generator=generator(5)), torch.arange(n) % 2
    found, truth = [], []
    for scale in (1.0, 2.0, 3.0):
        told = Condition(vector=labels, scale=torch.full((n,), scale))
        found.append(sample(SAMPLERS["jump"](), student, x, torch.tensor([1.0, 0.0], dtype=D64), told))
        grid, taught = suggested(0.5)(VE(40.0), 40), ClassifierFree(oracle, scale)
        truth.append(sample(SAMPLERS["flow-2pc"](), taught, x, grid, Condition(vector=labels)))
        assert distance(found[-1], truth[-1]) < 0.2 * float(truth[-1].std()), f"scale {scale}"
    # What the scale does to a sample is what it does to the teacher's.
    assert distance(found[2] - found[0], truth[2] - truth[0]) < 0.6 * distance(truth[2], truth[0])


def distance(a, b):
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("kind", ["scales", "rounds"])
def test_held_out_losses_are_measured_without_gradients(kind):
    said = start(jumps=2)
    stage = METHOD.stages(said)[0 if kind == "scales" else 1]
    student = build.few_step(stage.student(said), network(True), VE(40.0), Karras(0.5), {"sigma_data": 0.5})
    teacher = classes(VE(40.0), torch.float32)
    task = stage.task(Setting(student, teacher if kind == "scales" else Exact(teacher), said, 1, Drop(0.5)))
    assert isinstance(task, Scales if kind == "scales" else Guided)
    student.eval()
    with torch.no_grad():
        loss = task.loss("denoiser", batch(domain=Domain.HELD_OUT), task.players)
    assert loss.shape == (64,)
    assert bool(torch.isfinite(loss).all())
