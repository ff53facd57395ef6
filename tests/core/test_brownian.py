"""Noise that is a path: exactly one Brownian motion, the same at any step count, in any batch, in any dtype."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from osmotic import times
from osmotic.brownian import Brownian, Motion
from osmotic.noise import generator, generators, increment, normal, normal_like
from osmotic.oracles import Gaussian
from osmotic.samplers import DDIM, DDPM, Gamma, Heun, prior, sample
from osmotic.samplers.sde import EulerMaruyama, NativeEulerMaruyama, ReverseDiffusion
from osmotic.schedules import VE, VP, Rectified

CLOCKS = [0.0, *np.exp([-30.0, -5.0, -1.0, 0.0, 0.001, 0.5, 3.0, 9.0, 25.0])]
COUNT = 20_000


def test_increments_are_independent_standard_normals():
    motion = Motion(3, 1)
    units = torch.stack([motion.unit((COUNT,), a, b) for a, b in itertools.pairwise(CLOCKS)]).numpy()
    for unit in units:
        assert stats.kstest(unit, "norm").pvalue > 0.001
    off = np.corrcoef(units) - np.eye(len(units))
    assert np.abs(off).max() < 4.5 / math.sqrt(COUNT)


def test_increments_just_above_the_resolution_are_as_good():
    """Steps of 1e-6 in log q: still exactly normal, because the clock is rounded with the value."""
    motion, ends = Motion(0, 0), np.exp(np.arange(6) * 1e-6)
    units = torch.stack([motion.unit((COUNT,), a, b) for a, b in itertools.pairwise(ends)]).numpy()
    assert np.abs(units.var(1) - 1).max() < 5 * math.sqrt(2 / COUNT)
    assert np.abs(np.corrcoef(units) - np.eye(5)).max() < 4.5 / math.sqrt(COUNT)


def test_the_values_have_a_brownian_motions_covariance():
    """Cov(B(p), B(q)) = min(p, q), read as correlation sqrt(p / q)."""
    p, q = 0.3, 2.0
    a, b = (Motion(5, 0).unit((COUNT,), 0.0, end).numpy() for end in (p, q))
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(math.sqrt(p / q), abs=5 * (1 - p / q) / math.sqrt(COUNT))


def test_increments_add_up_in_any_partition_and_order():
    ends = [0.01, 0.02, 0.5, 0.77, 3.0]
    whole = Motion(1).unit((50,), ends[0], ends[-1]) * math.sqrt(ends[-1] - ends[0])
    pieces = list(itertools.pairwise(ends))
    for order in (pieces, pieces[::-1]):
        motion = Motion(1)
        parts = sum(motion.unit((50,), a, b) * math.sqrt(b - a) for a, b in order)
        # The clock is rounded to 1.2e-9 in log q.
        assert torch.allclose(parts, whole, atol=1e-6)
    motion = Motion(1)
    first = motion.unit((50,), 0.02, 0.5)
    motion.unit((50,), 1.0, 2.0)
    assert torch.equal(motion.unit((50,), 0.02, 0.5), first)


def test_levels_that_cannot_be_told_apart_are_refused():
    for a, b in [(1.0, 1.0), (2.0, 1.0), (1.0, 1 + 1e-12), (1e18, 1e19)]:
        with pytest.raises(ValueError, match="apart"):
            Motion(0).unit((1,), a, b)
    with pytest.raises(ValueError, match="2 samples was given for a batch of 3"):
        increment(torch.zeros(3, 1), Brownian(0, [0, 1]), (0.1, 1.0), (0.2, 1.0))


def test_batch_dtype_and_key():
    pairs = (0.3, 0.9), (0.6, 0.8)
    together = increment(torch.zeros(3, 2, 2).double(), Brownian(7, [0, 1, 2]), *pairs)
    assert torch.equal(increment(torch.zeros(1, 2, 2).double(), Brownian(7, [1]), *pairs), together[1:2])
    single = increment(torch.zeros(3, 2, 2), Brownian(7, [0, 1, 2]), *pairs)
    assert single.dtype == torch.float32
    assert torch.equal(single, together.float())
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(increment(torch.zeros(3, 2, 2).double(), Brownian(8, [0, 1, 2]), *pairs), together)


def test_generators_draw_as_before():
    x = torch.zeros(3, 2)
    assert torch.equal(increment(x, generator(4), (0.1, 1.0), (0.2, 1.0)), normal_like(x, generator(4)))
    assert torch.equal(
        increment(x, generators(4, [0, 1, 2]), (0.1, 1.0), (0.2, 1.0)), normal_like(x, generators(4, [0, 1, 2]))
    )


def test_other_noise_is_an_ordinary_stream_per_sample():
    assert torch.equal(normal((2, 3), Brownian(5, [4, 9])), normal((2, 3), generators(5, [4, 9])))
    oracle = gaussian(VP(), 3)
    assert torch.equal(prior(oracle, (2, 3), Brownian(5, [4, 9])), prior(oracle, (2, 3), generators(5, [4, 9])))


def test_a_path_made_from_generators_is_a_function_of_them():
    pairs = (0.3, 0.9), (0.6, 0.8)
    x = torch.zeros(2, 4)
    for make in (lambda: generator(1), lambda: generators(1, [0, 1])):
        a, b = (increment(x, Brownian.of(make(), 2), *pairs) for _ in range(2))
        assert torch.equal(a, b)
        assert not torch.equal(a[0], a[1])
    alone = increment(x[:1], Brownian.of(generators(1, [1]), 1), *pairs)
    assert torch.equal(alone, increment(x, Brownian.of(generators(1, [0, 1]), 2), *pairs)[1:])
    with pytest.raises(ValueError, match="each of 3 samples"):
        Brownian.of(generators(1, [0]), 3)


def gaussian(schedule, size: int) -> Gaussian:
    return Gaussian(schedule, torch.full((size,), 0.5, dtype=torch.float64), 0.3)


def by_log_snr(schedule, steps: int) -> torch.Tensor:
    return schedule.time(2 * torch.linspace(-3, 3, steps + 1, dtype=torch.float64))


STEPS = {
    "euler-maruyama": lambda: EulerMaruyama(),
    "euler-maruyama-half": lambda: EulerMaruyama(tau=0.5),
    "euler-maruyama-native": lambda: NativeEulerMaruyama(),
    "reverse-diffusion": lambda: ReverseDiffusion(),
    "ddim": lambda: DDIM(eta=1.0),
    "ddpm": lambda: DDPM(),
}


def strong_errors(sampler, schedule, counts, finest) -> list[float]:
    """Root mean square distance to the finest run on the same path: one sample of 1000 independent elements."""
    oracle = gaussian(schedule, 1000)
    alpha, sigma = (float(v) for v in schedule(by_log_snr(schedule, 1)[0]))
    x = alpha * oracle.sample(1, generator(0)) + sigma * normal((1, 1000), generator(1), dtype=torch.float64)
    runs = {
        n: sample(sampler, oracle, x, by_log_snr(schedule, n), generator=Brownian(2, [0])) for n in (*counts, finest)
    }
    return [float((runs[n] - runs[finest]).square().mean().sqrt()) for n in counts]


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, VP) for name in STEPS]
    + [(name, path) for name in ("reverse-diffusion", "euler-maruyama-native") for path in (Rectified, VE)],
)
def test_samples_converge_one_by_one(name, path):
    """Additive noise: strong order 1 against the sampler's own refinement on the same path."""
    errors = strong_errors(STEPS[name](), path(), (32, 64), 256)
    # Against 256 steps instead of infinitely many, order 1 reads log2((1/32 - 1/256) / (1/64 - 1/256)) = 1.22.
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1.22, abs=0.2)


def test_without_a_path_they_do_not():
    oracle = gaussian(VP(), 1000)
    x = normal((1, 1000), generator(1), dtype=torch.float64)
    a, b = (sample(DDIM(eta=1.0), oracle, x, by_log_snr(VP(), n), generator=generator(2)) for n in (256, 512))
    assert float((a - b).square().mean().sqrt()) > 0.3


def test_strong_errors_of_the_exact_coupling():
    """N(0, 0.3), VP, half log-SNR -3..3: the errors at 8 and 16 steps, exactly, from the linear recursion in numpy.

    The methods sheet (6a) has .21 and .12 for the ancestral step, and .28 and .13 for Euler-Maruyama with the motion's
    increments taken in half log-SNR; ours are taken in q for all samplers alike.
    """
    fine = 1024

    def weights(n: int, euler: bool, rate: float = 2.0) -> np.ndarray:
        """x at the end as a combination of x at the start and the path's increments over ``fine`` cells."""
        nodes, cells = np.linspace(-3, 3, n + 1), np.linspace(-3, 3, fine + 1)
        clock = np.exp(rate * cells) if rate else cells
        h, share = 6 / n, fine // n
        row = np.zeros(fine + 1)
        row[0] = 1
        for i in range(n):
            (a, s), (a1, s1) = (
                (1 / math.sqrt(1 + math.exp(-2 * v)), 1 / math.sqrt(1 + math.exp(2 * v))) for v in nodes[i : i + 2]
            )
            variance = 0.3 * a**2 + s**2
            x0, eps = 0.3 * a / variance, s / variance  # per x
            if euler:
                factor, noise = 1 + math.log(a1 / a) - 2 * h * s * eps, s * math.sqrt(2 * h)
            else:
                factor = s1 / s * math.exp(-h) + a1 * (1 - math.exp(-2 * h)) * x0
                noise = s1 * math.sqrt(1 - math.exp(-2 * h))
            part = np.sqrt(np.diff(clock[i * share : (i + 1) * share + 1]))
            row *= factor
            row[1 + i * share : 1 + (i + 1) * share] = noise * part / np.linalg.norm(part)
        return row

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return math.hypot((a - b)[0] * start, np.linalg.norm((a - b)[1:]))

    start = math.sqrt((0.3 + math.exp(6)) / (1 + math.exp(6)))
    ancestral = weights(fine, euler=False)
    assert [distance(weights(n, False), ancestral) for n in (8, 16)] == pytest.approx([0.21, 0.12], rel=0.05)
    assert [distance(weights(n, True, 0.0), ancestral) for n in (8, 16)] == pytest.approx([0.28, 0.13], rel=0.05)
    for sampler, euler in [(DDIM(eta=1.0), False), (EulerMaruyama(), True)]:
        exact = [distance(weights(n, euler), weights(fine, euler)) for n in (8, 16)]
        # 1000 elements give a root mean square to 1 / sqrt(2000).
        assert strong_errors(sampler, VP(), (8, 16), fine) == pytest.approx(exact, rel=4 / math.sqrt(2000))


def test_all_first_order_steps_follow_the_same_path():
    oracle, grid = gaussian(VP(), 500), by_log_snr(VP(), 256)
    x = normal((1, 500), generator(1), dtype=torch.float64)
    outs = [
        sample(make(), oracle, x, grid, generator=Brownian(2, [0]))
        for name, make in STEPS.items()
        if "half" not in name
    ]
    for out in outs[1:]:
        assert float((out - outs[0]).square().mean().sqrt()) < 0.04


@pytest.mark.parametrize(
    "make", [*STEPS.values(), lambda: Heun(churn=0.2), lambda: Gamma(0.5)], ids=[*STEPS, "churn", "jump"]
)
def test_every_sampler_takes_brownian_noise_sample_by_sample(make):
    for schedule in (VP(), Rectified(), VE()):
        oracle, grid = gaussian(schedule, 3), times.Karras()(schedule, 6)

        def run(indices, oracle=oracle, grid=grid):
            noise = Brownian(3, indices)
            x = prior(oracle, (len(indices), 3), noise).double()
            return sample(make(), oracle, x, grid, generator=noise)

        together = run([0, 1, 2])
        assert torch.isfinite(together).all()
        assert torch.equal(together[[2, 0]], run([2, 0]))
        assert torch.equal(together, run([0, 1, 2]))
