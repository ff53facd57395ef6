"""Distribution matching against closed-form divergences, and its task."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.dmd import (
    ANCHOR,
    CLEANEST,
    EVERY,
    FAKE,
    FLOOR,
    METHOD,
    NOISIEST,
    difference,
    levels,
    pulled,
    simulate,
)
from osmotic.estimate import Estimate, Karras
from osmotic.nn import MLP, Embedding
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import prior, sample
from osmotic.schedules import CATALOG, VE, Schedule
from osmotic.training import build
from osmotic.training.denoise import PLAYER, Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise, Task

every_path = pytest.mark.parametrize("path", CATALOG)
CPU = torch.device("cpu")


def gaussian(schedule: Schedule, mean: float, variance: float) -> Gaussian:
    return Gaussian(schedule, torch.tensor([mean], dtype=torch.float64), variance)


def quadrature(points: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (z, e) of two unit normals and their weights: exact for polynomials of low degree."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    z, e = torch.meshgrid(torch.tensor(nodes), torch.tensor(nodes), indexing="ij")
    share = torch.tensor(np.outer(weights, weights)) / (2 * math.pi)
    return z.reshape(-1, 1), e.reshape(-1, 1), share.reshape(-1)


@every_path
def test_nothing_moves_where_the_distributions_are_equal(path: str) -> None:
    schedule = CATALOG[path]()
    means = torch.randn(3, 4, dtype=torch.float64)
    oracle = GaussianMixture(schedule, means, 0.1, [0.2, 0.3, 0.5])
    x, t = oracle.sample(64), torch.linspace(0.05, 0.95, 64, dtype=torch.float64)
    assert bool((difference(oracle, oracle, x, t, torch.randn_like(x), 0.5) == 0).all())


@every_path
@pytest.mark.parametrize("t", [0.2, 0.6, 0.95])
def test_the_mean_gradient_is_the_divergence_s(path: str, t: float) -> None:
    """``E[(grad log p_fake - grad log p_real) dx / d theta] = d KL / d theta`` for ``x = b + a z``, exactly.

    The two scores differ by ``alpha / sigma^2`` times the two estimates.
    """
    schedule = CATALOG[path]()
    a = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    mean, variance = -0.2, 0.5
    z, e, share = quadrature()
    x = b + a * z
    fake, real = gaussian(schedule, float(b.detach()), float(a.detach()) ** 2), gaussian(schedule, mean, variance)
    time = torch.full((len(x),), t, dtype=torch.float64)
    alpha, sigma = schedule.scalars(t)
    with torch.no_grad():
        size = (x - real(alpha * x + sigma * e, time).x0).abs()
        size = size.clamp(min=FLOOR * 0.5 * sigma / math.hypot(sigma, 0.5 * alpha))
    scores = difference(fake, real, x.detach(), time, e, 0.5) * size * (alpha / sigma) ** 2
    # What training differentiates: the mean over a sample's one dimension, weighted by the nodes.
    found = torch.autograd.grad((pulled(x, scores) * share).sum(), (a, b))
    one, other = alpha**2 * a**2 + sigma**2, alpha**2 * variance + sigma**2
    divergence = ((one + alpha**2 * (b - mean) ** 2) / other - 1 - (one / other).log()) / 2
    for mine, exact in zip(found, torch.autograd.grad(divergence, (a, b)), strict=True):
        assert float(mine) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


def test_scores_move_mass_back_to_a_mode_that_has_too_little() -> None:
    """Where noise joins the modes, samples of a mixture .1/.9 are moved towards the mode that should have .3."""
    modes = torch.tensor([[-0.5], [0.5]])
    fake, real = (GaussianMixture(VE(40.0), modes, 0.01, weights) for weights in ([0.1, 0.9], [0.3, 0.7]))
    x = fake.sample(4000, torch.Generator().manual_seed(0))
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    t = VE(40.0).time(torch.full((4000,), -2 * math.log(0.5), dtype=torch.float64))
    moved = -difference(fake, real, x, t, eps, 0.5)
    assert float(moved.mean()) < -0.02  # towards the mode at -0.5


def test_the_normaliser_makes_the_gradient_free_of_units() -> None:
    one, other = (
        GaussianMixture(VE(40.0), c * torch.tensor([[-1, 0.3], [1, 0]]).double(), c * c * 0.1) for c in (1.0, 5.0)
    )
    fakes = [Gaussian(VE(40.0), torch.zeros(2).double(), c * c * 0.7) for c in (1.0, 5.0)]
    x, eps = torch.randn(2, 50, 2, dtype=torch.float64)
    t = torch.linspace(0.001, 0.15, 50, dtype=torch.float64)
    torch.testing.assert_close(
        difference(fakes[0], one, x, t, eps, 0.5),
        difference(fakes[1], other, 5 * x, 5 * t, eps, 2.5),
        rtol=1e-9,
        atol=1e-12,
    )


def test_a_sample_that_is_its_own_estimate_does_not_count_for_everything() -> None:
    """In one dimension ``|x - D_real|`` is 0 somewhere; the gradient there stays within a few of the others."""
    real, fake = gaussian(VE(40.0), 0.0, 0.25), gaussian(VE(40.0), 0.1, 0.25)
    t = torch.full((2001,), 0.0125, dtype=torch.float64)  # sigma = 0.5
    x = torch.linspace(-1.5, 1.5, 2001, dtype=torch.float64)[:, None]
    found = difference(fake, real, x, t, torch.zeros_like(x), 0.5).abs()
    assert bool(torch.isfinite(found).all())
    assert float(found.max()) < 2


def test_the_pulled_loss_has_the_given_gradient() -> None:
    x = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(3, 2, 5, dtype=torch.float64)
    loss = pulled(x, g)
    assert loss.shape == (3,)
    torch.testing.assert_close(loss.detach(), g.square().flatten(1).mean(1) / 2)
    (found,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(found, g / 10)


@every_path
def test_levels_lie_between_the_cuts(path: str) -> None:
    schedule, sd = CATALOG[path](), 0.3
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    t = levels(schedule, sd, u)
    rho = torch.exp(-schedule.log_snr(t) / 2)
    last = min(NOISIEST * sd, math.exp(min(-float(schedule.log_snr(1.0)) / 2, 50.0)))
    assert bool((t.diff() >= 0).all())
    assert float(t[0]) > 0
    assert float(t[-1]) < 1
    root = rho ** (1 / 7)
    ends = (CLEANEST * sd) ** (1 / 7), last ** (1 / 7)
    inside = (root - ends[0]) / (ends[1] - ends[0])
    # Discrete paths have a cleanest level of their own; elsewhere the ladder is EDM's.
    exact = rho > 1.01 * CLEANEST * sd * 2
    torch.testing.assert_close(inside[exact], (0.02 + 0.96 * u)[exact], rtol=0, atol=1e-3)


class Exact(Denoiser):
    """The exact consistency function of a Gaussian."""

    def __init__(self, oracle: Gaussian) -> None:
        super().__init__()
        self.oracle, self.schedule = oracle, oracle.schedule

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        assert float(torch.as_tensor(s).abs().max()) == 0
        return self.oracle(x, t, cond, 0.0)


@every_path
def test_backward_simulation_is_what_the_sampler_does(path: str) -> None:
    """At every stop the student is trained at the very samples at which it will be evaluated."""
    oracle = Gaussian(CATALOG[path](), torch.tensor([0.2, -0.1], dtype=torch.float64), 0.3)
    stops = (1.0, 0.7, 0.4)
    start, *fresh = torch.randn(3, 6, 2, dtype=torch.float64)
    index = torch.tensor([0, 1, 2, 2, 1, 0])
    found = simulate(Exact(oracle), start, fresh, index, stops, None)
    x, expected = start * math.hypot(*oracle.schedule.scalars(1.0)), []
    for number, stop in enumerate(stops):
        if number:
            alpha, sigma = oracle.schedule.scalars(stop)
            x = alpha * oracle.flow(x, stops[number - 1], 0.0) + sigma * fresh[number - 1]
        expected.append(x)
    for row, i in enumerate(index.tolist()):
        torch.testing.assert_close(found[row], expected[i][row])


def made(jumps: int = 1, dropout: float = 0.0, classes: int = 0) -> tuple[Task, Setting]:
    start = Start(VE(40.0), 0.5, 1, bool(classes), Distillation(last_jumps=jumps))
    (stage,) = METHOD.stages(start)
    assert stage.pairs
    torch.manual_seed(0)
    network = MLP((2,), (16, 16), dropout, Embedding(16))
    nn.init.normal_(network.out.weight, std=0.1)
    student = build.few_step(stage.student(start), network, VE(40.0), Karras(0.5), {"sigma_data": 0.5})
    setting = Setting(student, GaussianMixture(VE(40.0), torch.eye(2), 0.1), start, 10, Drop())
    return stage.task(setting), setting


def batch(count: int = 8, domain: Domain = Domain.TRAINING, step: int = 0) -> Batch:
    pairs = torch.randn(count, 2, 2, generator=torch.Generator().manual_seed(4))
    rows = np.arange(count)
    return Batch(pairs, None, rows, rows, step, Noise(0, step, count, 0, count, CPU, domain))


@pytest.mark.parametrize("jumps", [1, 3])
def test_each_player_s_loss_moves_that_player_alone(jumps: int) -> None:
    task, setting = made(jumps)
    for player in (PLAYER, FAKE):
        for name, module in task.players.items():
            module.requires_grad_(name == player).zero_grad()
        loss = task.loss(player, batch(), task.players)
        assert loss.shape == (8,)
        assert bool(torch.isfinite(loss).all())
        loss.sum().backward()
        for name, module in task.players.items():
            moved = sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)
            assert (moved > 0) == (name == player), (player, name)
    assert all(p.grad is None for p in setting.taught.parameters())


def test_the_anchor_is_the_regression_to_the_pairs() -> None:
    """With equal scores nothing else is left: the loss is ``ANCHOR |G(noise) - data|^2 / 2 sd^2``."""
    task, setting = made()
    task.fake = task.real
    told = batch()
    x = told.x0[:, 1] * math.hypot(1, 40)
    found = task.loss(PLAYER, told, task.players)
    x0 = setting.student(x, torch.ones(8, dtype=torch.float64), None, 0.0).x0
    expected = ANCHOR * ((x0 - told.x0[:, 0]) / 0.5).square().mean(1) / 2
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        told.x0[:, 0] = x0
    assert float(task.loss(PLAYER, told, task.players).detach().max()) < 1e-10


def test_later_stops_have_no_pairs_and_no_anchor() -> None:
    task, _ = made(4)
    task.fake = task.real
    found = task.loss(PLAYER, batch(256), task.players)
    share = float((found > 0).double().mean())
    assert 0.15 < share < 0.35  # one stop in four


def test_the_fake_score_looks_at_samples_without_their_gradients() -> None:
    """Not only because the loop freezes whose turn it is not."""
    task, setting = made()
    task.loss(FAKE, batch(), task.players).sum().backward()
    assert all(weight.grad is None for weight in setting.student.parameters())


def test_held_out_losses_can_be_measured() -> None:
    task, _ = made(2)
    for module in task.players.values():
        module.eval()
    with torch.no_grad():
        for player in task.players:
            first, second = (task.loss(player, batch(domain=Domain.HELD_OUT), task.players) for _ in range(2))
            assert torch.equal(first, second)


def test_the_fake_score_starts_as_the_student_without_dropout_and_steps_more_often() -> None:
    task, setting = made(dropout=0.3)
    fake = task.players[FAKE]
    for one, other in zip(fake.parameters(), setting.student.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one is not other
    assert fake.diagonal
    assert {m.p for m in fake.modules() if isinstance(m, nn.Dropout)} == {0.0}
    assert {m.p for m in setting.student.modules() if isinstance(m, nn.Dropout)} == {0.3}
    turns = {name: sum(task.active(name, step) for step in range(4 * EVERY)) for name in task.players}
    assert turns == {PLAYER: 4, FAKE: 4 * EVERY}
    assert next(iter(task.players)) == PLAYER


def test_a_student_of_several_jumps_can_be_sampled_in_its_own() -> None:
    task, setting = made(3)
    student = setting.student.eval()
    assert student.stops is not None
    assert len(student.stops) == 3
    assert student.stops[0] == 1.0
    grid = torch.tensor([*student.stops, 0.0], dtype=torch.float64)
    x = prior(student, (5, 2), torch.Generator().manual_seed(0))
    assert sample(SAMPLERS["consistency"](), student, x, grid, None, torch.Generator().manual_seed(1)).shape == (5, 2)
    with pytest.raises(ValueError, match="as many steps as the model has"):
        sample(SAMPLERS["consistency"](), student, x, torch.tensor([1.0, 0.5, 0.0]), None, None)
    assert task.players[PLAYER] is student


def test_pairs_keep_their_conditions() -> None:
    """A hidden condition would be regressed to a sample of a class that is not told: the recipe hides none then."""
    assert not any(stage.hides for stage in METHOD.stages(made()[1].start))
