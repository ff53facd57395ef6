"""Consistency distillation: the exact map is its zero, the grid has its optimum, both branches see one world."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.consistency import INTERVALS, METHOD, Consistency, distillation
from osmotic.distill.draws import noised
from osmotic.distill.gap import Intervals, closeness, difference, huber, spread, squared
from osmotic.estimate import Estimate, Karras, like
from osmotic.flow_map import Consistency as Student
from osmotic.nn import MLP
from osmotic.oracles import Gaussian
from osmotic.samplers import Heun
from osmotic.schedules import CATALOG, VE, Schedule
from osmotic.training.denoise import PLAYER, Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.toys import devices

PATHS = sorted(CATALOG)
SD = 0.5


def draws(n: int = 64, d: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return SD * x0, eps


def gaussian(schedule: Schedule, d: int = 3) -> Gaussian:
    return Gaussian(schedule, torch.linspace(-0.3, 0.4, d).double(), torch.linspace(0.04, 1.3, d).double())


def at_ratio(schedule: Schedule, ratio: float, n: int = 64) -> Tensor:
    """The time where sigma / alpha is this many deviations of the data, per sample."""
    return schedule.time(torch.full((n,), -2 * math.log(ratio * SD), dtype=torch.float64))


class Bent(Denoiser):
    """An exact map with a known error ``k rho / (rho + sd)`` in its x0, which grows with the noise."""

    def __init__(self, exact: Denoiser, k: Tensor) -> None:
        super().__init__()
        self.around(exact)
        self.exact, self.k = exact, k

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        estimate = self.exact(x, t, cond, s)
        alpha, sigma = like(x, *self.schedule(t))
        return Estimate(estimate.x0 + self.k * sigma / (sigma + SD * alpha), estimate.eps)


class Linear(Denoiser):
    """``f(x, t) = a_t x`` with a number for each of a grid's times: a student that can be solved exactly."""

    def __init__(self, schedule: Schedule, times: Tensor, gains: Tensor) -> None:
        super().__init__()
        self.schedule, self.times, self.gains = schedule, times, gains

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        index = (t[:, None] == self.times).double().argmax(1)
        return Estimate(x * like(x, self.gains[index])[0], x)


@pytest.mark.parametrize("path", PATHS)
def test_the_exact_map_leaves_only_the_teachers_heun_error(path: str) -> None:
    """A third-order local error, so a loss of order 6 in the gap, less one for its weight."""
    schedule = CATALOG[path]()
    exact = gaussian(schedule)
    x0, eps = draws()
    losses = []
    for share in (0.05, 0.025):
        t, u = at_ratio(schedule, 0.7), at_ratio(schedule, 0.7 * (1 - share))
        losses.append(float(distillation(exact, exact, exact, x0, t, u, eps).mean()))
    assert losses[0] < 1e-6
    assert 2**4.5 < losses[0] / losses[1] < 2**5.5


@pytest.mark.parametrize("path", PATHS)
def test_trajectories_of_the_exact_map_have_no_difference(path: str) -> None:
    schedule = CATALOG[path]()
    exact = gaussian(schedule)
    x0, eps = draws()
    times = Intervals(schedule, SD, 12).times
    for t, u in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        t, u = torch.full((64,), t).double(), torch.full((64,), u).double()
        x = noised(schedule, x0, t, eps)
        gap = difference(exact, exact, x, t, exact.flow(x, t, u), u)
        assert float(gap.abs().max()) < 1e-10


@pytest.mark.parametrize("path", ["ve", "vp", "rectified", "ddpm-zero-terminal"])
def test_the_gradient_points_back(path: str) -> None:
    schedule = CATALOG[path]()
    exact = gaussian(schedule)
    x0, eps = draws()
    times = Intervals(schedule, SD, INTERVALS).times
    for index in (0, 10, 25, INTERVALS - 1):
        t, u = (times[i].expand(64) for i in (index, index + 1))
        for value in (0.5, -0.5):
            k = torch.tensor(value, dtype=torch.float64, requires_grad=True)
            bent = Bent(exact, k)
            distillation(bent, bent, exact, x0, t, u, eps).mean().backward()
            assert k.grad is not None
            assert float(k.grad) * value > 0


@pytest.mark.parametrize(
    ("points", "expected"), [(11, (1.23, 1.17, 1.13)), (18, (1.073, 1.055, 1.043)), (41, (1.012, 1.009, 1.007))]
)
def test_a_coarse_grid_has_the_published_optimum(points: int, expected: tuple[float, ...]) -> None:
    """The product of Heun's gains is the loss's zero, and too wide by the factors of distillation.md, section 7."""
    schedule = VE(80.0)
    times = Intervals(schedule, SD, points).times
    for variance, factor in zip((0.04, 0.25, 1.3), expected, strict=True):
        teacher = Gaussian(schedule, torch.zeros(1).double(), variance)
        one = torch.ones(1, 1, dtype=torch.float64)
        gains = [1.0]
        for t, u in zip(times[:-1].flip(0), times[1:].flip(0), strict=True):
            gains.append(gains[-1] * float(Heun().step(teacher, one, t.expand(1), u.expand(1))[0]))
        student = Linear(schedule, times.flip(0), torch.tensor(gains, dtype=torch.float64))
        x0, eps = draws(points, 1)
        loss = distillation(student, student, teacher, x0, times[:-1], times[1:], eps)
        assert float(loss.max()) < 1e-10
        assert gains[-1] * math.sqrt(variance + 80.0**2) / math.sqrt(variance) == pytest.approx(factor, abs=6e-3)


def test_the_metric_is_a_square_near_zero_and_a_distance_far_away() -> None:
    step = torch.tensor([[3e-6, 4e-6], [300.0, 400.0], [0.0, 0.0]], dtype=torch.float64)
    root = 5 / math.sqrt(2) / SD
    assert huber(step, SD, 0.01)[0] == pytest.approx((root * 1e-6) ** 2 / 0.02, rel=1e-6)
    assert huber(step, SD, 0.01)[1] == pytest.approx(root * 100 - 0.01, rel=1e-6)
    assert huber(step, SD, 0.01)[2] == 0
    assert squared(step, SD)[1] == pytest.approx((root * 100) ** 2)


def test_the_weight_is_the_inverse_gap_on_every_path_and_never_nothing() -> None:
    for make in CATALOG.values():
        schedule = make()
        t, u = at_ratio(schedule, 0.8, 1), at_ratio(schedule, 0.6, 1)
        assert float(closeness(schedule, t, u, SD)) == pytest.approx(1 / 0.2 + 0.1, rel=1e-5)
        lifted = closeness(schedule, t, u, SD, 1.0)
        assert float(lifted) == pytest.approx(math.hypot(0.8, 1) / 0.2 + 0.1, rel=1e-5)
        start = closeness(schedule, torch.ones(1).double(), at_ratio(schedule, 2.0, 1), SD)
        assert 0.1 <= float(start) < 0.2


@pytest.mark.parametrize("path", PATHS)
def test_intervals_cover_the_path_and_are_drawn_as_often_as_said(path: str) -> None:
    schedule = CATALOG[path]()
    intervals = Intervals(schedule, SD, 10, even=0.2)
    assert intervals.times[0] == 1
    assert intervals.times[-1] == 0
    assert bool((intervals.times.diff() < 0).all())
    # The paper's formula, in its own unit of sigma: ln(sigma) of mean -1.1 and deviation 2 for data of deviation 1/2.
    with np.errstate(divide="ignore"):
        sigma = torch.exp(-schedule.log_snr(intervals.times) / 2).log()
    share = -torch.erf((sigma + 1.1) / (math.sqrt(2) * 2.0)).diff()
    expected = 0.8 * share / share.sum() + 0.02
    torch.testing.assert_close(intervals.shares, expected)
    t, u = intervals.draw(Noise(0, 0, 100_000, 0, 100_000, torch.device("cpu")))
    for index, chance in enumerate(expected.tolist()):
        drawn = t == intervals.times[index]
        assert bool((u[drawn] == intervals.times[index + 1]).all())
        assert float(drawn.double().mean()) == pytest.approx(chance, abs=2e-5)


@pytest.mark.parametrize("path", PATHS)
def test_continuous_times_follow_the_log_normal_law_and_reach_the_start(path: str) -> None:
    schedule = CATALOG[path]()
    n = 20_000
    t = spread(schedule, SD, Noise(0, 0, n, 0, n, torch.device("cpu")))
    assert 0 < float(t.min()) <= float(t.max()) <= 1
    end = math.exp(-float(schedule.log_snr(1.0)) / 2) / SD
    for ratio in (0.05, 0.5, 2.0, 20.0, 100.0):
        if ratio < end:
            log_sigma = math.log(ratio / 2)  # for data of deviation 1/2: mean -1.1, deviation 2
            expected = 0.85 * (1 + math.erf((log_sigma + 1.1) / (2 * math.sqrt(2)))) / 2
            expected += 0.15 * min(max(math.log(ratio) / math.log(160), 0), 1)
            share = float((torch.exp(-schedule.log_snr(t) / 2) < ratio * SD).double().mean())
            assert share == pytest.approx(expected, abs=1e-3)


def student(dropout: float = 0.5) -> Student:
    torch.manual_seed(0)
    network = MLP((3,), (32, 32), dropout)
    nn.init.normal_(network.out.weight)
    for block in network.blocks:
        nn.init.normal_(block.second.weight, std=0.1)  # type: ignore[union-attr]
    return Student(network, CATALOG["vp"](), Karras(SD), sigma_data=SD)


@devices
def test_both_branches_see_the_same_dropout(device: str) -> None:
    model = student().train().to(device)
    x0, eps = (z.float().to(device) for z in draws())
    t = at_ratio(model.schedule, 0.5)
    x = noised(model.schedule, x0, t, eps)
    assert float(difference(model, model, x, t, x, t).detach().abs().max()) == 0
    with torch.no_grad():
        once, twice = (model(x, t, None, torch.zeros_like(t)).x0 for _ in range(2))
    assert float((once - twice).abs().max()) > 1e-3  # with masks of their own they would differ
    # What is drawn after the loss is not what the target saw.
    torch.manual_seed(3)
    difference(model, model, x, t, x, t)
    after = torch.rand(1, device=device)
    torch.manual_seed(3)
    with torch.no_grad():
        model(x, t, None, torch.zeros_like(t))
    assert after == torch.rand(1, device=device)


def test_a_target_above_its_point_is_refused() -> None:
    exact = gaussian(VE())
    x0, eps = draws()
    t = at_ratio(exact.schedule, 0.5)
    with pytest.raises(ValueError, match=r"u lies 0\.1 above t"):
        distillation(exact, exact, exact, x0, t, t + 0.1, eps)


class Spy(Denoiser):
    """A teacher that remembers what it is told."""

    def __init__(self, exact: Denoiser) -> None:
        super().__init__()
        self.around(exact)
        self.exact, self.told = exact, []

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        self.told.append(cond)
        return self.exact(x, t)


class Told(Spy):
    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        self.told.append(cond)
        return self.exact(x, t, None, s)


@pytest.mark.parametrize("training", [True, False])
def test_teacher_and_student_are_told_the_same(training: bool) -> None:
    exact = gaussian(CATALOG["vp"]())
    teacher, pupil = Spy(exact), Told(exact)
    start = Start(exact.schedule, SD, 1, True, Distillation())
    task = Consistency(Setting(pupil, teacher, start, 10, Drop(0.5)))  # type: ignore[arg-type]
    x0, _ = draws(32)
    cond = Condition(vector=torch.arange(32) % 2)
    rows = np.arange(32)
    domain = Domain.TRAINING if training else Domain.HELD_OUT
    noise = Noise(0, 3, 32, 0, 32, torch.device("cpu"), domain)
    losses = task.loss(PLAYER, Batch(x0, cond, rows, rows, 3, noise), task.players)
    assert losses.shape == (32,)
    assert bool(losses.isfinite().all())
    kept = [c.keep for c in (*teacher.told, *pupil.told)]
    assert len(kept) == 4
    if not training:
        assert all(k is None for k in kept)
        return
    assert 0 < int(kept[0].sum()) < 32
    assert all(bool((k == kept[0]).all()) for k in kept)


def test_it_is_described() -> None:
    start = Start(VE(), SD, 1, False, Distillation())
    (stage,) = METHOD.stages(start)
    made = stage.student(start)
    assert METHOD.teacher
    assert (made.method, made.form, made.sampler, made.steps) == (
        "consistency",
        "consistency",
        "consistency",
        1,
    )
