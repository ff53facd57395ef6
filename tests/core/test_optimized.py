"""Grids tuned to a model: better than the closed-form ones on fresh noise, found as the criterion says."""

import math

import pytest
import torch

from osmotic import times
from osmotic.denoiser import Denoiser, Rescheduled
from osmotic.noise import generator
from osmotic.oracles import GaussianMixture
from osmotic.samplers import CATALOG, DDIM, DDPM, Euler, RungeKutta, prior, sample
from osmotic.samplers.runge_kutta import RK4, InAngle
from osmotic.schedules import VE, VP, Rectified

PATHS = {"vp": VP, "ve": lambda: VE(80.0), "rectified": Rectified}
COUNTS = (5, 8, 10)


def mixture(name, schedule):
    if name == "two":
        return GaussianMixture(schedule, torch.tensor([[-1.0, 0.3], [1.2, -0.4]]).double(), 0.05)
    if name == "skew":
        means = torch.tensor([[2.0, 2.0], [-1.0, -1.0], [-1.0, -1.5]]).double()
        return GaussianMixture(schedule, means, torch.tensor([0.01, 0.3, 0.002]).double())
    means = 0.7 * torch.randn(10, 6, generator=generator(1)).double()
    return GaussianMixture(schedule, means, 0.1)


def noise(denoiser, n, seed):
    return prior(denoiser, (n, *denoiser.shape), generator(seed)).double()


def truth(denoiser, x):
    """The flow's end by classical fourth-order Runge-Kutta in the angle, which the tuner does not use."""
    grid = times.Cosine()(denoiser.schedule, 120)
    return sample(RungeKutta(RK4, InAngle()), denoiser, x, grid)


def rms(a, b):
    return float((a - b).square().mean().sqrt())


def errors(denoiser, steps, seed=0):
    """RMS endpoint errors of Euler on fresh noise: of the optimized grid, and the best of the three others."""
    teacher = times.Teacher.of(denoiser, noise(denoiser, 128, seed))
    fresh = noise(denoiser, 512, seed + 1000)
    end = truth(denoiser, fresh)
    found = {}
    for n in steps:
        grids = {"optimized": teacher.grid(Euler(), n)}
        grids |= {name: times.GRIDS[name]() for name in ("uniform", "karras", "log-snr")}
        e = {
            name: rms(sample(Euler(), denoiser, fresh, grid(denoiser.schedule, n)), end) for name, grid in grids.items()
        }
        found[n] = e.pop("optimized"), min(e.values())
    return found


@pytest.mark.parametrize("path", ["vp", "ve"])
@pytest.mark.parametrize(("name", "factor"), [("two", 0.5), ("wide", 0.85), ("skew", 1.0)])
def test_it_beats_uniform_karras_and_log_snr_on_fresh_noise(name, factor, path):
    """How much there is to gain depends on the law; a grid that were one of the three would have the factor 1."""
    for n, (optimized, best) in errors(mixture(name, PATHS[path]()), COUNTS).items():
        assert optimized < factor * best, n


def test_where_uniform_is_nearly_best_it_is_as_good():
    for n, (optimized, best) in errors(mixture("two", Rectified()), COUNTS).items():
        assert optimized < 1.05 * best, n


@pytest.mark.parametrize("name", ["dpmpp-2m", "unipc-2", "heun"])
def test_it_is_tuned_to_the_solver(name):
    """A solver with memory, one that corrects, one that looks ahead: better than closed-form grids."""
    oracle = mixture("two", VP())
    levels = 12 if name == "heun" else 32
    teacher = times.Teacher.of(oracle, noise(oracle, 64, 0), levels=levels)
    sampler, fresh = CATALOG[name](), noise(oracle, 512, 7)
    end = truth(oracle, fresh)
    optimized, best = (
        min(rms(sample(sampler, oracle, fresh, grid(oracle.schedule, 6)), end) for grid in grids)
        for grids in (
            [teacher.grid(sampler, 6)],
            [times.Uniform(), times.Karras(), times.LogSNR(), times.LogSNR(0.025, 12.0)],
        )
    )
    assert optimized < 0.7 * best


def test_two_steps_are_the_best_of_all_two_steps():
    """With one stop, dynamic programming is exhaustive: the stop with the smallest mean distance at the end."""
    oracle = mixture("skew", VP())
    x = noise(oracle, 32, 3)
    teacher = times.Teacher.of(oracle, x, levels=20)
    ends = truth(oracle, x)
    assert rms(teacher.points[-1], ends) < 2e-3
    distances = []
    for j in range(1, 20):
        first = oracle(x, torch.tensor(1.0, dtype=torch.float64)).at(*oracle.schedule.scalars(teacher.times[j]))
        last = oracle(first, teacher.times[j]).x0
        distances.append(float((last - teacher.points[-1]).square().mean(1).sqrt().mean()))
    branch = teacher.program(DDIM(), 2)
    assert branch.path == (0, 1 + distances.index(min(distances)), 20)
    assert branch.miss == pytest.approx(min(distances), rel=1e-9)


@pytest.mark.parametrize("name", ["dpmpp-2m", "lms-3", "ddim"])
def test_what_it_carries_is_the_solvers_own_run(name):
    """The distance at the end is that of sampling along the path that was found, memory included."""
    oracle = mixture("skew", VP())
    teacher = times.Teacher.of(oracle, noise(oracle, 16, 3), levels=12)
    branch = teacher.program(CATALOG[name](), 5)
    ends = sample(CATALOG[name](), oracle, teacher.points[0], teacher.times[list(branch.path)])
    assert branch.miss == pytest.approx(float(teacher.misses(ends).mean()), rel=1e-9)
    assert torch.allclose(branch.x, ends, atol=1e-12)


def test_the_teachers_levels_and_the_grid_follow_the_datas_scale():
    """Everything in one unit: data ten times as large under noise ten times as large have the same grid, moved."""
    law, path = mixture("two", Rectified()), Rectified()
    large = GaussianMixture(path, 10 * law.means, 100 * 0.05)
    teachers = [
        times.Teacher.of(o, noise(o, 4, 0), scale=s, levels=10) for o, s in [(law, 1.0), (large, 10.0), (law, 0.3)]
    ]
    for teacher, scale in zip(teachers, (1.0, 10.0, 0.3), strict=True):
        rho = torch.exp(-path.log_snr(teacher.times[1:-1]) / 2)
        assert float(rho[0]) == pytest.approx(80 * scale)
        assert float(rho[-1]) == pytest.approx(0.004 * scale)
    how = {"shape": (32, 2), "levels": 12}
    small = times.optimized(law, 4, generator=generator(4), **how).log_snr
    found = times.optimized(large, 4, scale=10.0, generator=generator(4), **how).log_snr
    assert found == pytest.approx([value - 2 * math.log(10) for value in small], abs=1e-6)


class Counted(Denoiser):
    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, 0

    def forward(self, x, t, cond=None, s=None):
        self.calls += 1
        return self.denoiser(x, t, cond, s)


def test_a_point_is_evaluated_once_however_many_steps_begin_there():
    """1 point at the start, then levels - n + 1 points after each of the other steps; moves cost n each."""
    oracle = Counted(mixture("two", VP()))
    teacher = times.Teacher.of(oracle, noise(oracle.denoiser, 8, 0), levels=16)
    oracle.calls, ticks = 0, []
    teacher.program(CATALOG["dpmpp-2m"](), 5)
    assert oracle.calls == 1 + 4 * (16 - 5 + 1)
    teacher.grid(DDIM(), 5, lambda: ticks.append(0))
    assert len(ticks) == teacher.trials(5)


def test_it_is_a_function_of_the_seed_and_of_the_law_not_of_the_path():
    stops = {}
    for name, path in PATHS.items():
        oracle = mixture("two", path())
        how = {"shape": (64, 2), "generator": generator(4)}
        stops[name] = times.optimized(oracle, 6, **how).log_snr
    again = times.optimized(mixture("two", VP()), 6, shape=(64, 2), generator=generator(4))
    assert again.log_snr == stops["vp"]
    assert times.optimized(mixture("two", VP()), 6, shape=(64, 2), generator=generator(5)).log_snr != stops["vp"]
    # Other paths start elsewhere, but the trajectories are the same: stops agree to a gap of the teacher's levels.
    gap = 2 * math.log(80 / 0.004) / 31
    for name in ("ve", "rectified"):
        assert max(abs(a - b) for a, b in zip(stops[name], stops["vp"], strict=True)) < 1.5 * gap


def test_the_same_grid_serves_on_another_path():
    oracle = mixture("two", VE(80.0))
    grid = times.optimized(oracle, 8, shape=(64, 2), generator=generator(0))
    copy = times.Fixed(list(grid.log_snr))
    moved = Rescheduled(oracle, Rectified())
    x = noise(oracle, 256, 9)
    alpha, sigma = moved.schedule.scalars(moved.start)
    there = x * (math.hypot(alpha, sigma) / math.hypot(1, 80))
    a = sample(DDIM(), oracle, x, grid(oracle.schedule, 8))
    b = sample(DDIM(), moved, there, copy(moved.schedule, 8, moved.start))
    assert torch.allclose(a, b, atol=1e-9)


def test_data_may_be_what_it_begins_from():
    """On a path that ends in little noise the prior is a guess, and data noised to the start are right."""
    path = VE(3.0)
    oracle = mixture("skew", path)
    data = oracle.sample(128, generator(0))
    grid = times.optimized(oracle, 6, data, generator=generator(1))
    x = data + 3.0 * torch.randn(data.shape, generator=generator(1), dtype=torch.float64)
    assert grid.log_snr == times.Teacher.of(oracle, x).grid(DDIM(), 6).log_snr
    fresh = oracle.sample(1024, generator(2))
    x = fresh + 3.0 * torch.randn(fresh.shape, generator=generator(3), dtype=torch.float64)
    end = truth(oracle, x)
    others = [times.Uniform(), times.Karras(), times.LogSNR()]
    best = min(rms(sample(DDIM(), oracle, x, g(path, 6)), end) for g in others)
    assert rms(sample(DDIM(), oracle, x, grid(path, 6)), end) < best


def test_what_cannot_be_tuned_is_refused():
    oracle = mixture("two", VP())
    with pytest.raises(ValueError, match="needs the shape"):
        times.optimized(oracle, 5)
    with pytest.raises(ValueError, match="deterministic solver"):
        times.optimized(oracle, 5, sampler=DDPM(), shape=(4, 2), generator=generator(0))
    with pytest.raises(ValueError, match="take 1 to 32 steps"):
        times.optimized(oracle, 40, shape=(4, 2), generator=generator(0))
    assert times.optimized(oracle, 1, shape=(4, 2), generator=generator(0)).log_snr == ()
