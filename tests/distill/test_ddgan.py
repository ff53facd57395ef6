"""The denoising diffusion GAN's reverse step in closed form, its losses, its task, and why it draws x0."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.adversarial import EVERY
from osmotic.distill.base import Setting, Start
from osmotic.distill.ddgan import JUDGE, METHOD, USUAL, drawn, fooling, judging, pair, seen
from osmotic.estimate import Estimate, Karras
from osmotic.nn import MLP, Embedding
from osmotic.objectives.posterior import step
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import prior, sample
from osmotic.schedules import CATALOG, VE
from osmotic.times import Cosine
from osmotic.training import build
from osmotic.training.denoise import PLAYER, Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise, Task

every_path = pytest.mark.parametrize("path", CATALOG)
steps = pytest.mark.parametrize(("t", "s"), [(0.4, 0.1), (0.9, 0.5), (1.0, 0.6), (0.3, 0.0), (1.0, 0.0)])
MEAN, VARIANCE = 0.3, 0.4
CPU = torch.device("cpu")


class Draws(Denoiser):
    """The exact q(x0 | x_t) of isotropic mixtures, drawn by latents: one for the component, one for each dimension."""

    diagonal = False

    def __init__(self, oracle: GaussianMixture, spread: float = 1.0) -> None:
        super().__init__()
        self.oracle, self.schedule, self.spread = oracle, oracle.schedule, spread
        self.latents = 1 + oracle.means.shape[1]

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        assert isinstance(cond, Condition)
        assert cond.latent is not None
        share = torch.special.ndtr(cond.latent[:, :1].double())
        ends = self.oracle.posterior(x, t).double().cumsum(1)[:, :-1]
        which = (share > ends).sum(1)
        mean, variance = self.oracle.means[which], self.oracle.variances[which]
        t = torch.as_tensor(t, dtype=torch.float64).expand(len(x))
        alpha, sigma = (number.to(x)[:, None] for number in self.schedule(t))
        whole = alpha**2 * variance + sigma**2
        x0 = mean + alpha * variance / whole * (x - alpha * mean)
        x0 = x0 + self.spread * sigma * (variance / whole).sqrt() * cond.latent[:, 1:].to(x)
        return Estimate(x0, (x - alpha * x0) / sigma)


def columns(count: int) -> list[Tensor]:
    """Unit vectors as ``(count + 1, 1)`` batches, the last row zero: a linear map shows its coefficients on them."""
    return list(torch.eye(count + 1, dtype=torch.float64)[:count].unsqueeze(-1))


def constant(value: float, count: int) -> Tensor:
    return torch.full((count,), value, dtype=torch.float64)


@every_path
@steps
def test_a_pair_is_drawn_jointly_from_the_path(path: str, t: float, s: float) -> None:
    """Both marginals are the path's, and x_t is x_s with further noise: ``cov(x_s, x_t) = scale var(x_s)``."""
    schedule = CATALOG[path]()
    x0, eps, further = columns(3)
    x_s, x_t = pair(schedule, x0, constant(t, 4), constant(s, 4), eps, further)
    (alpha, sigma), (alpha_s, sigma_s) = schedule.scalars(t), schedule.scalars(s)
    low, high = x_s[:3, 0], x_t[:3, 0]
    assert low.tolist() == pytest.approx([alpha_s, sigma_s, 0])
    assert float(high[0]) == pytest.approx(alpha, abs=1e-12)
    assert float(high[1:].square().sum()) == pytest.approx(sigma**2, rel=1e-12)
    assert float(high[1] * alpha_s) == pytest.approx(alpha * sigma_s, abs=1e-12)


def moments(path: str, t: float, s: float, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of the pair (made x_s, x_t) from exact linear coefficients, and those of the true pair."""
    schedule = CATALOG[path]()
    one = GaussianMixture(schedule, torch.tensor([[MEAN]], dtype=torch.float64), VARIANCE)
    draws = Draws(one, spread)
    # Columns: the deviation of x0 from its mean, eps, the step's noise, the latent, the posterior's noise.
    x0, eps, further, z, xi = columns(5)
    x_s, x_t = pair(schedule, MEAN + VARIANCE**0.5 * x0, constant(t, 6), constant(s, 6), eps, further)
    latent = torch.cat([torch.zeros_like(z), z], dim=1)
    made = drawn(draws, x_t, constant(t, 6), constant(s, 6), latent, xi, None)

    def law(x: Tensor, y: Tensor) -> Tensor:
        joined = torch.cat([x, y], dim=1)
        centre, slopes = joined[5], joined[:5] - joined[5]
        return torch.cat([centre[None], slopes.T @ slopes])

    return law(made, x_t), law(x_s, x_t), made


@every_path
@steps
def test_an_exact_draw_of_x0_gives_the_exact_pair(path: str, t: float, s: float) -> None:
    found, true, _ = moments(path, t, s, 1.0)
    torch.testing.assert_close(found, true, rtol=1e-9, atol=1e-10)


@every_path
@steps
def test_the_mean_in_place_of_a_draw_lacks_a_known_variance(path: str, t: float, s: float) -> None:
    """``var(x_s)`` falls short by ``(posterior's coefficient of x0)^2 var(x0 | x_t)``: why latents are needed."""
    schedule = CATALOG[path]()
    found, true, _ = moments(path, t, s, 0.0)
    alpha, sigma = schedule.scalars(t)
    uncertain = VARIANCE * sigma**2 / (alpha**2 * VARIANCE + sigma**2)
    missing = float(step(schedule, t, s).x0) ** 2 * uncertain
    assert missing > 0
    expected = true.clone()
    expected[1, 0] -= missing
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@every_path
def test_the_last_step_adds_no_noise(path: str) -> None:
    oracle = GaussianMixture(CATALOG[path](), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.1)
    x, latent, (one, other) = torch.randn(5, 2), torch.randn(5, 3), torch.randn(2, 5, 2)
    t, s = constant(0.5, 5), torch.tensor([0.0, 0.0, 0.2, 0.2, 0.2], dtype=torch.float64)
    first, second = (drawn(Draws(oracle), x, t, s, latent, xi, None) for xi in (one, other))
    same = (first == second).all(1).tolist()
    assert same == [True, True, False, False, False]
    torch.testing.assert_close(first[:2], Draws(oracle)(x, t, Condition(latent=latent)).x0[:2])


@every_path
def test_what_the_judge_sees_has_unit_variance(path: str) -> None:
    schedule, sd = CATALOG[path](), 0.3
    x0, eps = columns(2)
    for t in (0.0, 0.01, 0.3, 1.0):
        alpha, sigma = schedule.scalars(t)
        found = seen(schedule, alpha * sd * x0 + sigma * eps, constant(t, 3), sd)
        assert float(found.square().sum()) == pytest.approx(1, abs=1e-9)


class Linear(nn.Module):
    """A judge whose logit is a known slope times the pair."""

    def __init__(self, *slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor, cond: object) -> Tensor:
        return x @ self.slope


def test_the_generator_climbs_the_judge_s_logit() -> None:
    """``d loss / d x_s = -(1 - D) w``, in closed form."""
    judge = Linear(0.7, -0.4, 9.0, 9.0)
    made = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    beside, time = torch.randn(5, 2, dtype=torch.float64), torch.zeros(5)
    loss = fooling(judge, made, beside, time, None)
    assert loss.shape == (5,)
    (slope,) = torch.autograd.grad(loss.sum(), made)
    logits = judge(torch.cat([made, beside], 1), time, None)
    torch.testing.assert_close(slope, -(1 - torch.sigmoid(logits))[:, None] * judge.slope[:2])


def test_the_penalty_is_that_of_the_true_less_noisy_sample_alone() -> None:
    judge = Linear(3.0, 4.0, 100.0, 100.0)
    real, made, beside = torch.randn(3, 5, 2, dtype=torch.float64)
    time = torch.zeros(5)
    plain, penalised = (judging(judge, real, made, beside, time, None, weight) for weight in (0.0, 0.5))
    torch.testing.assert_close(penalised - plain, torch.full((5,), 0.5 * 25 / 2, dtype=torch.float64))


def test_a_judge_that_cannot_tell_loses_two_bits() -> None:
    real, made, beside = torch.randn(3, 5, 2, dtype=torch.float64)
    loss = judging(Linear(0.0, 0.0, 0.0, 0.0), real, made, beside, torch.zeros(5), None, 0.0)
    torch.testing.assert_close(loss, torch.full((5,), 2 * math.log(2), dtype=torch.float64))


def test_with_few_steps_a_gaussian_kernel_misses_modes_and_an_implicit_one_does_not() -> None:
    """Both use the exact mixture and the same four large steps; only the drawn x0 gives the law back."""
    oracle = GaussianMixture(VE(40.0), torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.01, [0.3, 0.7])
    grid, n = Cosine(2.0)(oracle.schedule, 4), 20_000
    true = oracle.sample(n, torch.Generator().manual_seed(5))

    def misplaced(denoiser: Denoiser) -> tuple[float, float]:
        """Samples that are further than 5 deviations from both modes, and the error of the lesser mode's mass."""
        x = prior(denoiser, (n, 1), torch.Generator().manual_seed(1)).double()
        made = sample(SAMPLERS["ddpm"](), denoiser, x, grid, None, torch.Generator().manual_seed(2))
        between = float(((made.abs() - 1).abs() > 0.5).double().mean())
        return between, abs(float((made < 0).double().mean() - (true < 0).double().mean()))

    lost, _ = misplaced(oracle)
    assert lost > 0.1
    between, mass = misplaced(Draws(oracle))
    assert between < 1e-3
    assert mass < 0.02


def made(jumps: int = 1, classes: int = 0, drop: float = 0.0) -> tuple[Task, Setting]:
    start = Start(VE(40.0), 0.5, 1, bool(classes), Distillation(last_jumps=jumps))
    (stage,) = METHOD.stages(start)
    student = stage.student(start)
    torch.manual_seed(0)
    network = MLP((2,), (16, 16), 0.0, Embedding(16, classes=classes or None, latents=student.latents))
    nn.init.normal_(network.out.weight, std=0.1)
    denoiser = build.few_step(student, network, VE(40.0), Karras(0.5), {"sigma_data": 0.5})
    setting = Setting(denoiser, None, start, 10, Drop(drop))
    return stage.task(setting), setting


def batch(step: int = 0, domain: Domain = Domain.TRAINING, cond: Condition | None = None, count: int = 8) -> Batch:
    x0 = torch.randn(count, 2, generator=torch.Generator().manual_seed(4))
    rows = np.arange(count)
    return Batch(x0, cond, rows, rows, step, Noise(0, step, count, 0, count, CPU, domain))


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("classes", [0, 3])
def test_each_player_s_loss_moves_that_player_alone(step: int, classes: int) -> None:
    """Also with labels, some of them hidden, which both players are told alike."""
    task, _ = made(classes=classes, drop=0.5)
    cond = Condition(vector=torch.arange(8) % 3) if classes else None
    for player in (PLAYER, JUDGE):
        for name, module in task.players.items():
            module.requires_grad_(name == player).zero_grad()
        loss = task.loss(player, batch(step, cond=cond), task.players)
        assert loss.shape == (8,)
        assert bool(torch.isfinite(loss).all())
        loss.sum().backward()
        for name, module in task.players.items():
            moved = sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)
            assert (moved > 0) == (name == player), (player, name)


def test_the_penalty_comes_in_every_so_many_th_step() -> None:
    """The same draws under two numbers of the step: they differ by ``EVERY`` times the penalty's weight."""
    task, _ = made()
    told = batch()
    penalised, plain = (
        task.loss(JUDGE, replace(told, step=number), task.players).detach() for number in (EVERY, EVERY + 1)
    )
    added = penalised - plain
    assert bool((added > 0).all())
    again = task.loss(JUDGE, replace(told, step=3 * EVERY), task.players).detach()
    assert torch.equal(again, penalised)


def test_the_discriminator_looks_at_samples_without_their_gradients() -> None:
    """Not only because the loop freezes whose turn it is not."""
    task, setting = made()
    task.loss(JUDGE, batch(), task.players).sum().backward()
    assert all(weight.grad is None for weight in setting.student.parameters())


def test_held_out_losses_can_be_measured() -> None:
    task, _ = made()
    for module in task.players.values():
        module.eval()
    with torch.no_grad():
        for player in task.players:
            first, second = (task.loss(player, batch(0, Domain.HELD_OUT), task.players) for _ in range(2))
            assert torch.equal(first, second)


@pytest.mark.parametrize(("asked", "count"), [(None, USUAL), (1, 1), (2, 2), (8, 8)])
def test_the_student_is_sampled_in_the_steps_that_it_learned(asked: int | None, count: int) -> None:
    _, setting = made(asked)
    student = setting.student.eval()
    assert student.stops is not None
    assert len(student.stops) == count
    assert student.stops[0] == 1.0
    assert student.latents > 0
    grid = torch.tensor([*student.stops, 0.0], dtype=torch.float64)
    x = prior(student, (5, 2), torch.Generator().manual_seed(0))

    def end(seed: int) -> Tensor:
        return sample(SAMPLERS["ddpm"](), student, x, grid, None, torch.Generator().manual_seed(seed))

    assert torch.equal(end(1), end(1))
    assert not torch.equal(end(1), end(2))


def test_solvers_that_need_a_mean_refuse_it() -> None:
    _, setting = made()
    x = prior(setting.student, (5, 2), torch.Generator().manual_seed(0))
    assert setting.student.stops is not None
    grid = torch.tensor([*setting.student.stops, 0.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="posterior mean"):
        sample(SAMPLERS["heun"](), setting.student, x, grid)


def test_the_oracle_above_is_one() -> None:
    """Its draws have the posterior's moments: those of a Gaussian's own denoiser."""
    schedule = VE(40.0)
    one = GaussianMixture(schedule, torch.tensor([[MEAN]], dtype=torch.float64), VARIANCE)
    gaussian = Gaussian(schedule, torch.tensor([MEAN], dtype=torch.float64), VARIANCE)
    x, t = torch.randn(7, 1, dtype=torch.float64), constant(0.02, 7)
    mean: Callable[[Denoiser], Tensor] = lambda d: d(x, t, Condition(latent=torch.zeros(7, 2))).x0  # noqa: E731
    torch.testing.assert_close(mean(Draws(one)), gaussian(x, t).x0)
