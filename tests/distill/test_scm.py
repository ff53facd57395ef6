"""Continuous-time consistency: exact tangents, zero at the exact map, on every path."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.clocks import SMOOTH, Angle
from osmotic.denoiser import Denoiser, NeuralDenoiser, Rescheduled
from osmotic.distill.base import Setting, Start
from osmotic.distill.scm import METHOD, Continuous, aimed, continuous, importance, softness, tangent, trig, velocity
from osmotic.estimate import Estimate, Karras
from osmotic.flow_map import Consistency
from osmotic.nn import MLP, DiT
from osmotic.oracles import Dataset as Finite
from osmotic.schedules import CATALOG, VE
from osmotic.training.denoise import PLAYER, Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.test_consistency import SD, Bent, draws, gaussian
from tests.distill.toys import devices

PATHS = sorted(CATALOG)
TRIG = trig(SD)


def some_times(n: int = 64) -> Tensor:
    return torch.linspace(0.03, 0.9, n, dtype=torch.float64)


def slope_of(teacher: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    return velocity(teacher(x, t), math.pi / 2 * t, SD)


@pytest.mark.parametrize("path", PATHS)
def test_the_tangent_and_the_loss_vanish_at_the_exact_map(path: str) -> None:
    exact = Rescheduled(gaussian(CATALOG[path]()), TRIG)
    x0, eps = draws()
    t = some_times().clamp(max=exact.start)
    alpha, sigma = (n[:, None] for n in TRIG(t))
    x = alpha * x0 + sigma * eps
    _, g = tangent(exact, x, t, slope_of(exact, x, t))
    assert float(g.abs().max()) < 1e-8
    assert float(continuous(exact, exact, exact, x0, t, eps).max()) < 1e-12


@pytest.mark.parametrize("path", ["ve", "vp", "rectified", "ddpm-linear"])
def test_the_gradient_points_back(path: str) -> None:
    exact = gaussian(CATALOG[path]())
    teacher = Rescheduled(exact, TRIG)
    x0, eps = draws()
    for number in (0.05, 0.5, 0.9):
        t = torch.full((64,), number, dtype=torch.float64)
        for value in (0.3, -0.3):
            k = torch.tensor(value, dtype=torch.float64, requires_grad=True)
            bent = Rescheduled(Bent(exact, k), TRIG)
            continuous(bent, bent, teacher, x0, t, eps).mean().backward()
            assert k.grad is not None
            assert float(k.grad) * value > 0


class AsIs(Denoiser):
    """A teacher taken for a consistency function: what a student is at its start."""

    def __init__(self, teacher: Denoiser) -> None:
        super().__init__()
        self.around(teacher)
        self.teacher = teacher

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        return self.teacher(x, t, cond)


def test_the_warm_up_starts_from_a_stationary_point() -> None:
    """Without its second part the tangent compares the student with its teacher, and they are equal."""
    teacher = Rescheduled(gaussian(CATALOG["vp"]()), TRIG)
    x0, eps = draws()
    student, t = AsIs(teacher), some_times()
    assert float(continuous(student, student, teacher, x0, t, eps, warm=0.0).max()) < 1e-20
    assert float(continuous(student, student, teacher, x0, t, eps, warm=1.0).min()) > 1e-6


def network(dropout: float = 0.0, attention: bool = False) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = DiT(1, (2, 2), 32, 1, 16) if attention else MLP((3,), (32, 32), dropout)
    for p in made.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=1.5 / math.sqrt(p.shape[1:].numel()))
    return made


def student(path: str = "vp", dropout: float = 0.0, attention: bool = False) -> Consistency:
    return Consistency(network(dropout, attention), CATALOG[path](), Karras(SD), clock=Angle(SMOOTH), sigma_data=SD)


@pytest.mark.parametrize("path", ["ve", "vp", "cosine", "ddpm-cosine"])
def test_the_tangent_is_the_derivative_of_the_network(path: str) -> None:
    """Against central differences, in double precision but for the sines of the clock."""
    model = Rescheduled(student(path).double(), TRIG)
    x0, eps = draws()
    t = some_times()
    theta = math.pi / 2 * t
    alpha, sigma = (n[:, None] for n in TRIG(t))
    x, slope = alpha * x0 + sigma * eps, torch.flip(eps, (0,))
    out, g = tangent(model, x, t, slope)
    cos, sin = theta.cos()[:, None], theta.sin()[:, None]
    change = (-g - cos**2 * (out - slope)) / (cos * sin) - x / SD

    def moved(h: float) -> Tensor:
        return velocity(aimed(model, x + h * SD * slope, t + 2 / math.pi * h, None), theta + h, SD)

    h = 2e-3
    with torch.no_grad():
        torch.testing.assert_close(out, moved(0.0))
        expected = (moved(h) - moved(-h)) / (2 * h)
    assert float(expected.abs().mean()) > 0.1
    torch.testing.assert_close(change, expected, rtol=2e-3, atol=2e-3)


def test_the_slope_of_a_karras_network_is_its_output_with_the_sign_turned() -> None:
    model = NeuralDenoiser(network().double(), TRIG, Karras(SD), sigma_data=SD)
    x0, eps = draws()
    t = some_times()
    alpha, sigma = (n[:, None] for n in TRIG(t))
    x = alpha * x0 + sigma * eps
    torch.testing.assert_close(slope_of(model, x, t), -model.output(x, t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_the_slope_is_the_velocity_of_the_exact_flow(path: str) -> None:
    exact = Rescheduled(gaussian(CATALOG[path]()), TRIG)
    x0, eps = draws()
    t = torch.full((64,), 0.4, dtype=torch.float64)
    alpha, sigma = (n[:, None] for n in TRIG(t))
    x = alpha * x0 + sigma * eps
    gap = 1e-3
    ahead = gaussian(TRIG).flow(x, t, t + gap) - gaussian(TRIG).flow(x, t, t - gap)
    torch.testing.assert_close(slope_of(exact, x, t), ahead / (math.pi * gap * SD), rtol=1e-4, atol=1e-4)


def test_attention_has_a_forward_derivative() -> None:
    model = Rescheduled(student(attention=True), TRIG)
    x0 = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * SD
    t = torch.tensor([0.1, 0.4, 0.6, 0.8], dtype=torch.float64)
    loss = continuous(model, model, None, x0, t, x0.flip(0))
    loss.sum().backward()
    assert bool(loss.isfinite().all())
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.parameters())


@devices
def test_both_branches_see_the_same_dropout(device: str) -> None:
    """Where the tangent is 0 nothing but a difference of masks could be left."""
    model = student(dropout=0.5).train().to(device)
    x0, eps = (z.float().to(device) for z in draws())
    t = some_times()
    wrapped = Rescheduled(model, TRIG)

    class Echo(Denoiser):
        """A teacher that says what the student says, under the masks that the loss sets."""

        schedule = TRIG

        def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
            return told[0]

    alpha, sigma = (n[:, None].float().to(device) for n in TRIG(t))
    torch.manual_seed(5)
    with torch.no_grad():
        told = [aimed(wrapped, x0 * alpha + eps * sigma, t, None)]
    torch.manual_seed(5)
    loss = continuous(wrapped, wrapped, Echo(), x0, t, eps, warm=0.0)
    assert float(loss.detach().max()) < 1e-9


def test_levels_near_the_start_of_sampling_count() -> None:
    theta = torch.atan(torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64))
    torch.testing.assert_close(importance(theta)[0], torch.tensor(1e3 + 0.1).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(importance(theta)[1], torch.tensor(2**0.25 + 0.1).double())
    assert float(importance(theta)[2]) > 0.1


def test_a_random_tangent_is_normalised_softly_in_few_dimensions() -> None:
    """Where few are told the same; where many are, a batch's expectation is not random."""
    alone, together = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    for dimension, c in ((1, 100.0), (64, 100.0), (128, 25.0), (3072, 0.1)):
        assert softness(alone, dimension).tolist() == pytest.approx([c] * 8)
        assert softness(together, dimension).tolist() == pytest.approx([0.1] * 8)
    assert softness(together[:7], 1).tolist() == [100.0] * 7
    assert softness(torch.tensor([0] * 8 + [1]), 1).tolist() == pytest.approx([0.1] * 8 + [100.0])


def test_without_a_teacher_the_slope_is_what_the_batch_expects() -> None:
    model = Rescheduled(student().double(), TRIG)
    x0, eps = draws()
    t = some_times()
    taught = continuous(model, model, Finite(TRIG, x0), x0, t, eps)
    torch.testing.assert_close(continuous(model, model, None, x0, t, eps), taught)


@pytest.mark.parametrize("taught", [True, False])
@pytest.mark.parametrize("path", ["rectified", "ve", "ddpm-zero-terminal"])
def test_the_task_trains_and_measures(path: str, taught: bool) -> None:
    model = student(path)
    teacher = gaussian(model.schedule).float() if taught else None
    setting = Setting(model, teacher, Start(model.schedule, SD, 1, False, Distillation()), 100, Drop())
    task, rows = Continuous(setting), np.arange(256)
    x0 = draws(256)[0].float()
    losses = {}
    for domain in Domain:
        model.train(domain == Domain.TRAINING)
        noise = Noise(0, 0, 256, 0, 256, torch.device("cpu"), domain)
        with torch.set_grad_enabled(domain == Domain.TRAINING):
            losses[domain] = task.loss(PLAYER, Batch(x0, None, rows, rows, 0, noise), task.players)
        assert losses[domain].shape == (256,)
        assert bool(losses[domain].isfinite().all())
    losses[Domain.TRAINING].mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_student_on_another_path_is_refused() -> None:
    x0, eps = draws(4)
    with pytest.raises(ValueError, match="trigonometric path"):
        continuous(gaussian(VE()), gaussian(VE()), None, x0, some_times(4), eps)


def test_it_needs_no_teacher_and_a_slow_clock() -> None:
    made = METHOD.stages(Start(VE(), SD, 1, False, Distillation()))[0].student(
        Start(VE(), SD, 1, False, Distillation())
    )
    assert not METHOD.teacher
    assert made.smooth
    assert made.form == "consistency"
