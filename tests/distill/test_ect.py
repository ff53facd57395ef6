"""Easy consistency tuning: gaps, stages, and the blur that each stage's optimum has on a Gaussian."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.distill.base import Setting, Start
from osmotic.distill.ct import training
from osmotic.distill.ect import METHOD, Easy, below, quotient
from osmotic.estimate import Karras
from osmotic.flow_map import Consistency
from osmotic.nn import MLP
from osmotic.schedules import CATALOG, VE
from osmotic.training.denoise import PLAYER, Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.test_consistency import SD, Linear

# distillation.md, section 3.7: the optimum's deviation at rho = 80 over the true one, by stage of q = 2.
STAGES = {
    0.25: (0.60, 0.68, 0.86, 0.94, 0.970, 0.985, 0.993, 0.996),
    0.04: (0.44, 0.46, 0.83, 0.92, 0.964, 0.982, 0.991, 0.996),
}


def chain(q: float) -> Tensor:
    """The times from the noisiest down to 0, each the one below the last."""
    schedule, times = VE(80.0), [torch.ones(1, dtype=torch.float64)]
    while times[-1] > 1e-6:  # from q = 16 on the gap never reaches 0 by itself
        times.append(below(schedule, times[-1], SD, q))
    return torch.cat([*(t for t in times if t > 0), torch.zeros(1, dtype=torch.float64)])


def gains(schedule: VE, times: Tensor, variance: float) -> list[float]:
    """``a_t = a_u (v + rho_u rho_t) / (v + rho_t^2)`` from a = 1 at 0 upwards: the optimum of squared losses."""
    rho = (schedule.sigma_max * times).tolist()
    found = [1.0]
    for noisy, clean in zip(rho[-2::-1], rho[:0:-1], strict=True):
        found.append(found[-1] * (variance + clean * noisy) / (variance + noisy**2))
    return found


@pytest.mark.parametrize("variance", STAGES)
@pytest.mark.parametrize("stage", range(1, 9))
def test_each_stage_has_the_published_blur(variance: float, stage: int) -> None:
    schedule = VE(80.0)
    found = gains(schedule, chain(2.0**stage), variance)
    ratio = found[-1] * math.sqrt(variance + 80.0**2) / math.sqrt(variance)
    assert ratio == pytest.approx(STAGES[variance][stage - 1], abs=6e-3)


@pytest.mark.parametrize("q", [2.0, 16.0])
def test_that_optimum_is_the_losss(q: float) -> None:
    """The gradient vanishes there, on four draws whose moments are those of the data, and points back beside it."""
    schedule, times, variance = VE(80.0), chain(q), 0.25
    optimum = torch.tensor(gains(schedule, times, variance), dtype=torch.float64)
    x0 = math.sqrt(variance) * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    eps = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    for shift in (0.0, 1e-3, -1e-3):
        for index in range(len(times) - 1):
            t, u = times[index].expand(4), times[index + 1].expand(4)
            place = len(times) - 1 - index
            free = optimum.clone()
            free[place] += shift
            free.requires_grad_()
            student = Linear(schedule, times.flip(0), free)
            training(student, Linear(schedule, times.flip(0), optimum), x0, t, u, eps).mean().backward()
            assert free.grad is not None
            # Relative to the loss's curvature in this gain.
            slope = float(free.grad[place]) * float(1 + schedule.sigma_max * t[0]) ** -2
            assert abs(slope) < 1e-10 if shift == 0 else slope * shift > 0


@pytest.mark.parametrize("path", sorted(CATALOG))
def test_the_gap_is_the_same_share_of_the_noise_on_every_path(path: str) -> None:
    schedule = CATALOG[path]()
    ratio = torch.tensor([0.02, 0.3, 1.0, 8.0], dtype=torch.float64)
    t = schedule.time(-2 * (ratio * SD).log())
    for q in (2.0, 16.0, 256.0):
        u = below(schedule, t, SD, q)
        sigma = ratio * SD  # the paper's own unit, b = 1
        share = (1 - (1 + 8 * torch.sigmoid(-sigma)) / q).clamp(min=0)
        rho = torch.where(u > 0, torch.exp(-schedule.log_snr(u) / 2), torch.zeros_like(u))
        torch.testing.assert_close(rho, sigma * share, rtol=1e-6, atol=1e-12)


def test_stages_double_to_256() -> None:
    assert [quotient(step, 80) for step in range(0, 80, 10)] == [2.0**a for a in range(1, 9)]
    assert [quotient(step, 80) for step in (9, 79, 500)] == [2, 256, 256]


def easy(steps: int = 8) -> Easy:
    torch.manual_seed(0)
    network = MLP((2,), (16, 16), dropout=0.5)
    nn.init.normal_(network.out.weight)
    student = Consistency(network, CATALOG["rectified"](), Karras(SD), sigma_data=SD)
    return Easy(Setting(student, None, Start(student.schedule, SD, 1, False, Distillation()), steps, Drop()))


@pytest.mark.parametrize("step", [0, 7])
def test_the_task_trains_and_measures(step: int) -> None:
    task, rows = easy(), np.arange(512)
    x0 = torch.randn(512, 2, generator=torch.Generator().manual_seed(0)) * SD
    for domain in Domain:
        task.denoiser.train(domain == Domain.TRAINING)
        noise = Noise(0, step, 512, 0, 512, torch.device("cpu"), domain)
        with torch.set_grad_enabled(domain == Domain.TRAINING):
            losses = task.loss(PLAYER, Batch(x0, None, rows, rows, step, noise), task.players)
        assert losses.shape == (512,)
        assert bool(losses.isfinite().all())
        assert float(losses.detach().min()) > 0
        if domain == Domain.TRAINING:
            losses.mean().backward()
            assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in task.denoiser.parameters())


def test_it_starts_from_a_teacher_and_asks_it_nothing() -> None:
    start = Start(VE(), SD, 1, False, Distillation())
    made = METHOD.stages(start)[0].student(start)
    assert METHOD.teacher
    assert made.method == "ect"
    assert made.form == "consistency"
    assert made.sampler == "consistency"
