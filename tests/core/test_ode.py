"""The adaptive solver: SciPy and closed forms as witnesses, every sample on its own, and the sampler made of it."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate as scipy_integrate

from osmotic.denoiser import Denoiser
from osmotic.noise import generators, normal
from osmotic.ode import ERROR, NODES, ROWS, integrate, rms
from osmotic.oracles import Dataset, Gaussian, GaussianMixture
from osmotic.samplers import sample
from osmotic.samplers.adaptive import RK45, AngleFlow
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VE, VP, Cosine, Rectified
from osmotic.times import Karras


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_tableau_is_scipys():
    pair = scipy_integrate.RK45
    for row, node, theirs in zip(ROWS[1:6], NODES[1:6], pair.A[1:], strict=True):
        assert row == pytest.approx(theirs[: len(row)], abs=1e-15)
        assert sum(row) == pytest.approx(node, abs=1e-14)
    assert ROWS[6] == pytest.approx(pair.B, abs=1e-15)
    # SciPy's is fourth minus fifth order, ours fifth minus fourth.
    assert pytest.approx(-np.asarray(pair.E), abs=1e-15) == ERROR


def test_one_step_of_the_pair_is_of_fifth_order_and_its_error_of_the_fifth_power():
    """Local errors of y' = cos(t) y from a step and from half of it: 2^6, and 2^5 for the estimate."""
    found = []
    for h in (0.2, 0.1):
        rates, y = [], 1.0
        for node, row in zip(NODES, ROWS, strict=True):
            y = 1.0 + h * sum(w * k for w, k in zip(row, rates, strict=True))
            rates.append(math.cos(0.3 + node * h) * y)
        truth = math.exp(math.sin(0.3 + h) - math.sin(0.3))
        found.append((abs(y - truth), abs(h * sum(w * k for w, k in zip(ERROR, rates, strict=True)))))
    assert math.log2(found[0][0] / found[1][0]) == pytest.approx(6, abs=0.3)
    assert math.log2(found[0][1] / found[1][1]) == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("backwards", [False, True])
def test_error_follows_the_tolerance(backwards):
    """y' = -y^2 with a closed form, in both directions and with ends of each sample's own."""
    y = numbers(1.0, 2.0, 0.5)[:, None]
    start, end = numbers(0.0, 0.0, 0.5), numbers(3.0, 0.1, 0.5)
    if backwards:
        start, end, y = end, start, y / (1 + y * (end - start)[:, None])
    errors, spent = [], []
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        solved = integrate(lambda t, y: -y * y, y, start, end, tolerance, tolerance)
        truth = y / (1 + y * (end - start)[:, None])
        errors.append(float((solved.y - truth).abs().max()))
        spent.append(solved.evaluations.tolist())
        assert errors[-1] < 20 * tolerance
    # Where start and end agree, nothing was asked and nothing changed.
    assert torch.equal(solved.y[2], y[2])
    assert all(counts[2] == 0 for counts in spent)
    # Cheaper on a shorter way, dearer at a tighter tolerance: about 10^(1/5) per decade.
    assert spent[-1][0] > spent[-1][1]
    assert 2 < spent[-1][0] / spent[1][0] < 10


def test_evaluations_are_counted():
    calls = []

    def rate(t, y):
        calls.append(t)
        return torch.sin(3 * t)[:, None] * y

    solved = integrate(rate, draws(1, 2), 0.0, 2.0, 1e-6, 1e-6)
    assert solved.evaluations.tolist() == [len(calls)]
    # First same as last: two for the first step, then six an attempt.
    assert (len(calls) - 2) % 6 == 0
    assert all(0 <= float(t) <= 2 for t in calls)


def test_a_sample_does_not_depend_on_its_batch_mates():
    """An easy, a hard and a very hard sample, together and alone: the same bits, the same evaluations."""
    y, speed = draws(3, 4), numbers(1.0, 10.0, 100.0)

    def solve(rows):
        def rate(t, y):
            return torch.cos(speed[rows] * t)[:, None] * speed[rows][:, None] * y

        return integrate(rate, y[rows], 0.0, 1.0, 1e-7, 1e-7)

    together = solve([0, 1, 2])
    for i in range(3):
        alone = solve([i])
        assert torch.equal(alone.y[0], together.y[i])
        assert int(alone.evaluations) == int(together.evaluations[i])
    assert together.evaluations[0] < together.evaluations[1] < together.evaluations[2]


def test_the_norm_decides_what_counts():
    """A norm that sees the smooth half alone lets the other half go wrong."""
    y = torch.ones(1, 2, dtype=torch.float64)

    def rate(t, y):
        return torch.stack([-y[:, 0], 20 * torch.cos(20 * t)], 1)

    def first(error):
        return rms(error[:, :1])

    blind, whole = (integrate(rate, y, 0.0, 2.0, 1e-6, 1e-6, norm).y[0] for norm in (first, rms))
    truth = numbers(math.exp(-2), 1 + math.sin(40))
    assert float((whole - truth).abs().max()) < 1e-4
    assert float((blind - truth).abs()[0]) < 1e-5
    assert float((blind - truth).abs()[1]) > 1e-3


def test_what_cannot_be_solved_is_refused():
    y = draws(1, 1)
    with pytest.raises(ValueError, match="positive tolerances"):
        integrate(lambda t, y: y, y, 0.0, 1.0, 0.0, 1e-6)
    with pytest.raises(ValueError, match="spent 50 evaluations"):
        integrate(lambda t, y: torch.cos(300 * t)[:, None] * y, y, 0.0, 10.0, 1e-9, 1e-9, most=50)
    with pytest.raises(ValueError, match=r"step vanished at 0\.5"):
        integrate(lambda t, y: torch.where(t[:, None] > 0.5, math.nan, 1.0) * y, y, 0.0, 1.0, 1e-6, 1e-6)


def gaussian(schedule) -> Gaussian:
    return Gaussian(schedule, numbers(0.5, -1.0, 2.0), numbers(0.3, 0.05, 2.0))


def noisy(oracle, n: int) -> torch.Tensor:
    alpha, sigma = oracle.schedule(numbers(1.0)[0])
    return alpha * oracle.sample(n, torch.Generator().manual_seed(1)) + sigma * draws(n, *oracle.shape, seed=2)


ONE = numbers(1.0, 0.0)


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_one_step_from_noise_to_data_meets_its_tolerance_on_the_closed_form_map(path):
    oracle = gaussian(SCHEDULES[path]())
    x = noisy(oracle, 6)
    truth = oracle.flow(x, 1.0, 0.0)
    errors = [float((sample(RK45(tol, tol), oracle, x, ONE) - truth).abs().max()) for tol in (1e-4, 1e-6, 1e-8)]
    # A local tolerance is not a global one: a few dozen steps add up.
    assert all(error < 100 * tol for error, tol in zip(errors, (1e-4, 1e-6, 1e-8), strict=True))
    # Any grid will do, and a grid that ends at noise ends there.
    grid = Karras()(oracle.schedule, 5)
    assert torch.allclose(sample(RK45(1e-8, 1e-8), oracle, x, grid), truth, atol=1e-6)
    early = sample(RK45(1e-8, 1e-8), oracle, x, grid[:-1])
    assert torch.allclose(early, oracle.flow(x, 1.0, grid[-2]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", [VP(), VE(), Rectified(), Cosine()], ids=lambda s: type(s).__name__)
def test_a_mixtures_flow_is_scipys(schedule):
    """dy/drho = eps in the VE picture, by SciPy's eighth-order solver, down to a tiny rho."""
    oracle = GaussianMixture(schedule, 1.5 * draws(4, 2, seed=1), 0.1)
    start = schedule.time(numbers(-6.0))[0]
    alpha, sigma = schedule(start)
    x = alpha * oracle.sample(3, torch.Generator().manual_seed(3)) + sigma * draws(3, 2, seed=4)

    def rate(log_rho, y):
        t = schedule.time(torch.tensor(-2 * log_rho, dtype=torch.float64))
        here = float(schedule(t)[0]) * torch.from_numpy(y).reshape(x.shape)
        return math.exp(log_rho) * oracle(here, t).eps.flatten().numpy()

    span = (3.0, math.log(1e-6))
    begin = (x / alpha).flatten().numpy()
    truth = scipy_integrate.solve_ivp(rate, span, begin, "DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        out = sample(RK45(tolerance, tolerance), oracle, x, torch.stack([start, numbers(0.0)[0]]))
        errors.append(float(np.abs(out.flatten().numpy() - truth).max()))
    assert errors[2] < 1e-6
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


class Watching(Denoiser):
    """Counts calls and fails where sigma = 0 or beyond the start."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.schedule, self.calls = inner, inner.schedule, 0

    def forward(self, x, t, cond=None, s=None):
        assert (self.schedule(t)[1] > 0).all(), "evaluated where sigma = 0"
        assert (t <= 1).all()
        self.calls += 1
        return self.inner(x, t, cond, s)


def test_the_landing_is_controlled():
    """Where the data are sharp the estimate at the usual last angle is far off; the landing goes on until it is not."""
    sharp = Watching(Gaussian(Cosine(), numbers(0.3), numbers(1e-4)))
    wide = Watching(Gaussian(Cosine(), numbers(0.3), numbers(1.0)))
    x = numbers(-1.5)[:, None]
    for watched in (sharp, wide):
        out = sample(RK45(1e-6, 1e-6), watched, x, ONE)
        truth = watched.inner.flow(x, 1.0, 0.0)
        assert float((out - truth).abs()) < 1e-5
        first = math.sqrt(1e-6)  # where a landing without control would have been
        there = watched.inner.flow(x, 1.0, 2 / math.pi * first)
        missed = float((AngleFlow(watched.inner).clean(numbers(first), there) - truth).abs())
        assert missed > 5e-5 if watched is sharp else missed < 1e-6
    assert sharp.calls > wide.calls


def test_points_are_reached_where_the_density_is_no_function():
    """On a finite data set eps does not vanish at the data; the flow still ends on a point."""
    points = draws(4, 2, seed=5)
    out = sample(RK45(), Dataset(VP(), points), draws(5, 2), ONE)
    assert float((out[:, None] - points).norm(dim=2).amin(1).max()) < 1e-4


def test_times_per_sample_and_batch_independence():
    oracle, schedule = gaussian(Rectified()), Rectified()
    t, s = numbers(1.0, 0.7, 0.9, 0.2), numbers(0.0, 0.1, 0.3, 0.0)
    x = draws(4, 3, seed=6)
    out, state = RK45(1e-8, 1e-8).step(oracle, x, t, s)
    assert state is None
    assert torch.allclose(out, oracle.flow(x, t, s), atol=1e-6)
    for i in range(4):
        alone, _ = RK45(1e-8, 1e-8).step(oracle, x[[i]], t[[i]], s[[i]])
        assert torch.equal(alone[0], out[i])

    def run(indices):
        keyed = generators(3, indices)
        return sample(RK45(), oracle, normal((len(indices), 3), keyed, dtype=torch.float64), ONE)

    together = run(range(9))
    assert all(torch.equal(run([i])[0], together[i]) for i in range(9))
    assert float(schedule(t)[1][0]) == 1.0


def test_single_precision_samples_stay_single():
    oracle = Gaussian(VP(), torch.zeros(3), 0.5)
    out = sample(RK45(), oracle, draws(2, 3).float(), ONE)
    assert out.dtype == torch.float32
    assert torch.allclose(out, oracle.flow(draws(2, 3).float(), 1.0, 0.0), atol=1e-3)


def test_impossible_tolerances_are_refused():
    with pytest.raises(ValueError, match="got rtol=0"):
        RK45(rtol=0.0)
