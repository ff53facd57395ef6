"""Progressive distillation: target identities, the first teacher's order, the rounds."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.progressive import Progressive, Solved, progressive, rounds, stops
from osmotic.estimate import Karras, Point, solve
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import sample
from osmotic.schedules import CATALOG, VE, Rectified
from osmotic.training import build
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.toys import CPU, generator, network

D64 = torch.float64
PATHS = list(CATALOG)


class Aimless(Denoiser):
    """DDIM as jumps: the posterior mean, wherever it is aimed."""

    def __init__(self, denoiser):
        super().__init__()
        self.around(denoiser)
        self.denoiser = denoiser

    def forward(self, x, t, cond=None, s=None):
        return self.denoiser(x, t, cond)


class Off(Denoiser):
    """A jump whose x0 is wrong by a constant that can be learned."""

    def __init__(self, denoiser, by=0.0):
        super().__init__()
        self.around(denoiser)
        self.denoiser, self.by = denoiser, nn.Parameter(torch.tensor(by, dtype=D64))

    def forward(self, x, t, cond=None, s=None):
        x0 = self.denoiser(x, t, cond, s).x0 + self.by
        return solve(x, x0, self.schedule.numbers(t), (1.0, 0.0))


class Landing(Denoiser):
    """A student that says exactly what lands two of its teacher's jumps later."""

    def __init__(self, teacher, u):
        super().__init__()
        self.around(teacher)
        self.teacher, self.u = teacher, u

    def forward(self, x, t, cond=None, s=None):
        numbers = self.schedule.numbers
        middle = self.teacher(x, t, cond, self.u).at(*numbers(self.u))
        landed = self.teacher(middle, self.u, cond, s).at(*numbers(s))
        return solve(x, landed, numbers(t), Point(s).numbers(self.schedule, t))


def mixture(schedule):
    means = torch.tensor([[-0.5, 0.2], [0.4, 0.1], [0.1, -0.6]], dtype=D64)
    return GaussianMixture(schedule, means, torch.tensor([0.01, 0.02, 0.05], dtype=D64), [0.3, 0.5, 0.2])


def gaussian(schedule):
    return Gaussian(schedule, torch.tensor([0.3, -0.2], dtype=D64), torch.tensor([0.04, 0.3], dtype=D64))


def start(schedule, sd=0.5, **numbers):
    return Start(schedule, sd, 1, False, Distillation(**numbers))


def three(schedule, jumps=4):
    """All jumps of a grid at once: (t, u, s), the first from t = 1, the last to 0."""
    grid = stops(start(schedule), 2 * jumps)
    index = torch.arange(jumps)
    return grid[2 * index], grid[2 * index + 1], grid[2 * index + 2]


def draws(n=4):
    return torch.randn(2, n, 2, generator=generator(0), dtype=D64)


@pytest.mark.parametrize("path", PATHS)
def test_a_student_on_target_lands_where_two_jumps_of_its_teacher_do(path):
    teacher = Aimless(mixture(CATALOG[path]()))
    schedule, (t, u, s) = teacher.schedule, three(CATALOG[path]())
    x0, eps = draws()
    alpha, sigma = (number[:, None] for number in schedule(t))
    x = alpha * x0 + sigma * eps
    student = Landing(teacher, u)
    # Written out: two DDIM steps.
    first = teacher(x, t).at(*schedule.numbers(u))
    second = teacher(first, u).at(*schedule.numbers(s))
    assert torch.allclose(student(x, t, None, s).at(*schedule.numbers(s)), second, atol=1e-12)
    assert float(progressive(student, teacher, x0, (t, u, s), eps).abs().max()) < 1e-20


def test_the_target_is_the_published_one_in_noise_and_in_velocity():
    x0, eps = draws()
    for schedule in (VE(40.0), Rectified()):
        teacher = Aimless(mixture(schedule))
        t, u, s = three(schedule)
        alpha, sigma = (number[:, None] for number in schedule(t))
        x = alpha * x0 + sigma * eps
        student = Landing(teacher, u)
        landed = student(x, t, None, s).at(*schedule.numbers(s))
        goal = student(x, t, None, s)
        if isinstance(schedule, VE):
            rho, rho_s = sigma, 40 * s[:, None]
            assert torch.allclose(goal.x0, x - rho * (landed - x) / (rho_s - rho), atol=1e-12)
        else:
            assert torch.allclose(goal.eps - goal.x0, (x - landed) / (t - s)[:, None], atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_the_loss_vanishes_at_an_exact_flow_map(path):
    oracle = gaussian(CATALOG[path]())
    x0, eps = draws()
    loss = progressive(oracle, oracle, x0, three(oracle.schedule), eps, sigma_data=0.5)
    assert loss.shape == (4,)
    assert float(loss.abs().max()) < 1e-10


@pytest.mark.parametrize("path", PATHS)
def test_beside_it_the_loss_is_the_truncated_snr_and_its_gradient_points_back(path):
    oracle = gaussian(CATALOG[path]())
    times, (x0, eps) = three(oracle.schedule), draws()
    for by in (0.1, -0.1):
        student = Off(oracle, by)
        loss = progressive(student, oracle, x0, times, eps, sigma_data=0.5)
        weight = oracle.schedule.log_snr(times[0]).exp().clamp(min=4.0)
        assert torch.allclose(loss, weight * by**2, rtol=1e-6)
        (slope,) = torch.autograd.grad(loss.sum(), student.by)
        assert torch.allclose(slope, 2 * by * weight.sum(), rtol=1e-6)


@pytest.mark.parametrize("path", ["ve", "vp", "rectified", "cosine"])
def test_the_first_teacher_is_of_second_order(path):
    oracle = gaussian(CATALOG[path]())
    teacher, x = Solved(oracle, 1.0), draws()[0]

    def angle(value):
        return oracle.schedule.time(-2 * torch.log(torch.tan(torch.tensor(value, dtype=D64)))).expand(4)

    errors = []
    for gap in (0.2, 0.1, 0.05):
        t, s = angle(0.8), angle(0.8 - gap)
        landed = teacher(x, t, None, s).at(*oracle.schedule.numbers(s))
        errors.append(float((landed - oracle.flow(x, t, s)).abs().max()))
    # 2^3 a step, more where the leading terms of this oracle cancel.
    assert all(before / after > 6 for before, after in itertools.pairwise(errors))


def test_the_first_teacher_jumps_and_does_nothing_else():
    oracle = mixture(VE(40.0))
    teacher, x = Solved(oracle, 1.0), draws()[0]
    with pytest.raises(ValueError, match="knows jumps alone"):
        teacher(x, torch.tensor(0.5))
    zero = torch.zeros(4, dtype=D64)
    t = torch.full((4,), 0.01, dtype=D64)
    assert torch.allclose(teacher(x, t, None, zero).at(1.0, 0.0), teacher(x, t, None, zero).x0)


def test_stops_are_nested_and_the_same_levels_on_every_path():
    for path in PATHS:
        schedule = CATALOG[path]()
        said = start(schedule, jumps=16)
        for jumps in (16, 8, 4, 2, 1):
            mine, finer = stops(said, jumps), stops(said, 2 * jumps)
            assert torch.equal(mine, finer[::2])
            assert (len(mine), float(mine[0]), float(mine[-1])) == (jumps + 1, 1.0, 0.0)
    one, other = VE(40.0), Rectified()
    inner = [schedule.log_snr(stops(start(schedule), 8)[4]) for schedule in (one, other)]
    assert abs(float(inner[0] - inner[1])) < 0.1  # but for where the paths end


def test_rounds_halve_and_the_last_two_are_longer():
    stages = rounds(start(VE(40.0), jumps=16, last_jumps=2), "progressive")
    assert [stage.name for stage in stages] == ["jumps-16", "jumps-8", "jumps-4", ""]
    assert [stage.share for stage in stages] == [1.0, 1.0, 2.0, 2.0]
    students = [stage.student(start(VE(40.0), jumps=16, last_jumps=2)) for stage in stages]
    assert [len(student.stops) for student in students] == [16, 8, 4, 2]
    assert [student.steps for student in students] == [16, 8, 4, 2]
    assert set(students[1].stops) < set(students[0].stops)
    assert [stage.name for stage in rounds(start(VE(40.0), jumps=4, last_jumps=4), "progressive")] == [""]


@pytest.mark.parametrize(("jumps", "last"), [(12, 1), (32, 3), (4, 8)])
def test_jumps_that_do_not_halve_are_refused(jumps, last):
    with pytest.raises(ValueError, match=f"{jumps} jumps do not halve down to {last}; give --jumps as"):
        rounds(start(VE(40.0), jumps=jumps, last_jumps=last), "progressive")


def batch(n=64, domain=Domain.TRAINING):
    rows = np.arange(n)
    x0 = 0.5 * torch.randn(n, 2, generator=generator(3))
    return Batch(x0, None, rows, rows, 0, Noise(0, 0, n, 0, n, CPU, domain))


def task(jumps, first, oracle, student=None):
    said = start(oracle.schedule, jumps=8)
    described = rounds(said, "progressive")[0].student(said)
    torch.manual_seed(0)
    made = build.few_step(described, network(2), oracle.schedule, Karras(0.5), {"sigma_data": 0.5})
    found = Progressive(Setting(made, oracle, said, 1, Drop()), jumps, first)
    if student is not None:
        found.denoiser = student
        found.players = {"denoiser": student}
    return found


def test_the_task_draws_every_jump_equally_often_at_the_stops():
    oracle = gaussian(VE(40.0)).float()
    seen = []

    class Spy(Aimless):
        def forward(self, x, t, cond=None, s=None):
            seen.append((t, s))
            return self.denoiser(x, t, cond, s)

    made = task(8, False, oracle, Spy(oracle))
    with torch.no_grad():
        loss = made.loss("denoiser", batch(), made.players)
    assert float(loss.max()) < 1e-7  # float32, exact student, exact teacher
    grid = stops(start(oracle.schedule, jumps=8), 8).tolist()
    found = list(zip(seen[0][0].tolist(), seen[0][1].tolist(), strict=True))
    assert all(found.count(pair) == 8 for pair in itertools.pairwise(grid))


def test_the_first_round_solves_its_teacher_and_later_ones_believe_it():
    oracle = mixture(VE(40.0)).float()
    assert isinstance(task(8, True, oracle).teaching, Solved)
    chain = Aimless(oracle)
    assert task(8, False, chain).teaching is chain
    with torch.no_grad():
        for domain in Domain:
            made = task(8, True, oracle)
            assert bool(torch.isfinite(made.loss("denoiser", batch(domain=domain), made.players)).all())


def test_a_chain_of_exact_rounds_is_the_first_teachers_chain():
    oracle, count = mixture(VE(40.0)), 16
    said = start(oracle.schedule, jumps=count)
    teacher, grid = Aimless(oracle), stops(said, count)
    x = 40 * draws()[0]
    fine = sample(SAMPLERS["ddim"](), oracle, x, grid)
    for jumps in (8, 4, 2, 1):  # each round's student is its teacher twice
        grid = stops(said, 2 * jumps)
        teacher = Twice(teacher, grid)
    whole = teacher(x, torch.ones(4, dtype=D64), None, torch.zeros(4, dtype=D64)).x0
    assert torch.allclose(whole, fine, atol=1e-11)


class Twice(Denoiser):
    """The optimum of a round: between two stops, its teacher's two jumps."""

    def __init__(self, teacher, grid):
        super().__init__()
        self.around(teacher)
        self.teacher, self.grid = teacher, grid

    def forward(self, x, t, cond=None, s=None):
        index = int((self.grid - t[0]).abs().argmin())
        assert float(self.grid[index + 2]) == float(s[0])
        return Landing(self.teacher, self.grid[index + 1].expand(len(x)))(x, t, cond, s)
