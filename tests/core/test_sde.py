"""Stochastic samplers on exact denoisers: laws propagated exactly, published numbers, tolerances, restarts."""

import itertools
import math

import numpy as np
import pytest
import torch

from osmotic import times
from osmotic.brownian import Brownian
from osmotic.denoiser import Denoiser
from osmotic.noise import Source, generator, generators, normal
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import DDIM, DDPM, Euler, Gamma, Heun, prepare, sample
from osmotic.samplers.adaptive_sde import AdaptiveSDE
from osmotic.samplers.corrector import LevelRatio, NormRatio, PredictorCorrector
from osmotic.samplers.langevin import AnnealedLangevin
from osmotic.samplers.restart import Interval, Restart
from osmotic.samplers.sde import EulerMaruyama, NativeEulerMaruyama, ReverseDiffusion
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VE, VP, Cosine, Discrete, Rectified

SMOOTH = {"vp": VP, "rectified": Rectified, "ve": VE, "cosine": Cosine}
STEPS = {
    "em": EulerMaruyama,
    "em-half": lambda: EulerMaruyama(tau=0.5),
    "em-twice": lambda: EulerMaruyama(tau=2.0),
    "native": NativeEulerMaruyama,
    "native-half": lambda: NativeEulerMaruyama(tau=0.5),
    "reverse-diffusion": ReverseDiffusion,
}
ALL = {
    **STEPS,
    "em-ode": lambda: EulerMaruyama(tau=0.0),
    "pc": lambda: PredictorCorrector(rule=LevelRatio(0.1)),
    "pc-norm": PredictorCorrector,
    "pc-heun": lambda: PredictorCorrector(Heun(), LevelRatio(0.1), updates=2),
    "restart": lambda: Restart([Interval(0.1, 0.4, 2), Interval(1.0, 5.0, 3, 2)]),
    "annealed": lambda: AnnealedLangevin(updates=3),
    "adaptive": lambda: AdaptiveSDE(absolute=0.05, relative=0.05),
}


def gaussian(schedule, mean: float = 0.5, variance: float = 0.3, size: int = 1) -> Gaussian:
    return Gaussian(schedule, torch.full((size,), mean, dtype=torch.float64), variance)


def mixture(schedule) -> GaussianMixture:
    return GaussianMixture(schedule, 1.5 * normal((5, 2), generator(1), dtype=torch.float64), 0.15)


def by_log_snr(schedule, steps: int, noisy: float = -3, clean: float = 3) -> torch.Tensor:
    return schedule.time(2 * torch.linspace(noisy, clean, steps + 1, dtype=torch.float64))


class Script(Source):
    """Noise that is written down: the k-th draw is 1 where k is asked for, 0 elsewhere."""

    def __init__(self, chosen: int = -1) -> None:
        self.chosen, self.drawn = chosen, 0

    def normal(self, shape, device, dtype):
        self.drawn += 1
        return torch.full(tuple(shape), float(self.drawn - 1 == self.chosen), dtype=dtype)

    def increment(self, x, t, s):
        return self.normal(x.shape, x.device, x.dtype)


def law_of_step(step, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance after a step that is affine in x and in every noise it draws, exactly: no Monte Carlo."""

    def run(value: float, chosen: int = -1) -> tuple[float, int]:
        script = Script(chosen)
        return float(step(torch.full((1, 1), value, dtype=torch.float64), script)), script.drawn

    (zero, draws), (one, _) = run(0.0), run(1.0)
    noise = sum((run(0.0, k)[0] - zero) ** 2 for k in range(draws))
    return (one - zero) * mean + zero, (one - zero) ** 2 * variance + noise


def law(sampler, oracle, grid, start: tuple[float, float] | None = None) -> tuple[float, float]:
    """The exact mean and variance at the end of a grid, from the exact law at its start."""
    alpha, sigma = (float(v) for v in oracle.schedule(grid[0]))
    mean, variance = start or (alpha * float(oracle.mean), alpha**2 * float(oracle.variances) + sigma**2)
    for t, s in itertools.pairwise(prepare(oracle, grid)):

        def step(x, noise, t=t, s=s):
            return sampler.step(oracle, x, t, s, generator=noise)[0]

        mean, variance = law_of_step(step, mean, variance)
    return mean, variance


@pytest.mark.parametrize("path", list(SMOOTH))
@pytest.mark.parametrize("name", list(STEPS))
def test_measured_weak_order_is_the_declared_one(name, path):
    oracle, errors = gaussian(SMOOTH[path]()), []
    for n in (256, 512):
        grid = by_log_snr(oracle.schedule, n)
        alpha, sigma = (float(v) for v in oracle.schedule(grid[-1]))
        errors.append(abs(law(STEPS[name](), oracle, grid)[1] - (alpha**2 * 0.3 + sigma**2)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(STEPS[name]().order, abs=0.15)


def test_variance_errors_of_euler_maruyama_are_the_published():
    """N(0, 0.3), VP, half log-SNR -3..3, the methods sheet's table 6a at 8 to 256 steps, to its two digits."""
    oracle = gaussian(VP(), 0.0)
    for n, published in zip(
        (8, 16, 32, 64, 128, 256), ("2.4e-02", "1.1e-03", "3.1e-03", "2.2e-03", "1.2e-03", "6.5e-04"), strict=True
    ):
        grid = by_log_snr(VP(), n)
        alpha, sigma = (float(v) for v in VP()(grid[-1]))
        error = abs(law(EulerMaruyama(), oracle, grid)[1] - (alpha**2 * 0.3 + sigma**2))
        assert f"{error:.1e}" == published


def native_by_hand(steps: int, noisy_end: bool) -> float:
    """The variance of ``x + beta (x / 2 + score) dt + sqrt(beta dt) z`` on N(0.5, 0.16), beta from 0.1 to 20, in numpy.

    Args:
        steps: uniform in time from 1 to 0.
        noisy_end: take the last step like the others; otherwise to E[x0 | x].
    """
    variance = 1.0
    for i in range(steps):
        t, dt = 1 - i / steps, 1 / steps
        signal = math.exp(-t * t * 19.9 / 2 - t * 0.1)  # alpha^2
        beta, total = 0.1 + 19.9 * t, signal * 0.16 + 1 - signal
        if i == steps - 1 and not noisy_end:
            return signal * 0.16**2 / total**2 * variance
        variance = (1 + beta * dt * (0.5 - 1 / total)) ** 2 * variance + beta * dt
    return variance


@pytest.mark.parametrize(
    ("steps", "published"),
    [(100, 0.16250), (1000, 0.16023), pytest.param(10_000, 0.16002, marks=pytest.mark.slow)],
)
def test_native_euler_maruyama_has_the_published_variance(steps, published):
    """Rows G2 and H2 of the tutorials, which add noise in the last step too; we end with the denoised mean."""
    oracle, grid = gaussian(VP(), 0.5, 0.16), times.Uniform()(VP(), steps)
    assert round(native_by_hand(steps, noisy_end=True), 5) == published
    mean, variance = law(NativeEulerMaruyama(), oracle, grid, (0.0, 1.0))
    assert variance == pytest.approx(native_by_hand(steps, noisy_end=False), rel=1e-9)
    assert mean == pytest.approx(0.5, abs=0.2 / math.sqrt(steps))
    # Up to the last noisy level, and from there as published: one plain step more.
    variance = law(NativeEulerMaruyama(), oracle, grid[:-1], (0.0, 1.0))[1]
    dt = 1 / steps
    beta, signal = 0.1 + 19.9 * dt, math.exp(-dt * dt * 19.9 / 2 - dt * 0.1)
    last = (1 + beta * dt * (0.5 - 1 / (signal * 0.16 + 1 - signal))) ** 2 * variance + beta * dt
    assert round(last, 5) == published


def test_without_noise_it_is_euler_on_the_flow():
    """0.15731 at 100 steps (row G3), whose last step to 0 is Euler's too; a first-order solver on a mixture."""
    oracle, grid = gaussian(VP(), 0.5, 0.16), times.Uniform()(VP(), 100)
    variance = law(NativeEulerMaruyama(tau=0.0), oracle, grid[:-1], (0.0, 1.0))[1]
    dt = 0.01
    beta, signal = 0.1 + 19.9 * dt, math.exp(-dt * dt * 19.9 / 2 - dt * 0.1)
    assert round((1 + beta * dt / 2 * (1 - 1 / (signal * 0.16 + 1 - signal))) ** 2 * variance, 5) == 0.15731
    oracle, x = mixture(VP()), normal((8, 2), generator(2), dtype=torch.float64)
    truth = sample(Heun(), oracle, x, by_log_snr(VP(), 2048, -2.5, 2))
    for make in (EulerMaruyama, NativeEulerMaruyama):
        sampler = make(tau=0.0)
        assert not sampler.stochastic
        errors = [
            float((sample(sampler, oracle, x, by_log_snr(VP(), n, -2.5, 2)) - truth).square().mean().sqrt())
            for n in (64, 128)
        ]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_the_schedule_drops_out_of_euler_maruyama(path):
    """On the same log-SNR grid and Brownian path every schedule gives the same x / alpha."""
    log_snr, outs = torch.linspace(-4.5, 5, 9, dtype=torch.float64), []
    y = normal((5, 2), generator(0), dtype=torch.float64)
    for oracle in (mixture(VE(80.0)), mixture(SCHEDULES[path]())):
        grid = oracle.schedule.time(log_snr)
        first, last = float(oracle.schedule(grid[0])[0]), float(oracle.schedule(grid[-1])[0])
        outs.append(sample(EulerMaruyama(), oracle, y * first, grid, generator=Brownian(1, range(5))) / last)
    # The clock of the noise is rounded to 1e-9 in log-SNR.
    assert torch.allclose(*outs, atol=1e-4)


def test_euler_maruyama_is_its_formula_on_the_vp_path():
    """``x += f x + h (1 + tau^2) sigma^2 score + tau sqrt(2h) sigma xi``, f being VP's own -beta/2 integrated."""
    oracle, grid = mixture(VP()), by_log_snr(VP(), 20)
    x = normal((3, 2), generator(0), dtype=torch.float64)
    ours = sample(EulerMaruyama(tau=0.7), oracle, x, grid, generator=generator(5))
    draws = generator(5)
    for t, s in itertools.pairwise(grid):
        h = float(VP().log_snr(s) - VP().log_snr(t)) / 2
        f = float(t - s) / 2 * (0.1 + 19.9 * float(t + s) / 2)
        sigma = VP()(t)[1]
        score = -oracle(x, t).eps / sigma
        x = x + f * x + h * (1 + 0.7**2) * sigma**2 * score
        x = x + 0.7 * math.sqrt(2 * h) * sigma * normal(x.shape, draws, dtype=x.dtype)
    assert torch.allclose(ours, x, atol=1e-9)


def test_long_steps_are_the_ancestral_ones():
    """Beyond its stability, and from alpha = 0, the step is DDPM's posterior (tau = 1) or DDIM's jump (tau = 0)."""
    for schedule in (Rectified(), Cosine(), VP()):
        oracle, x = mixture(schedule), normal((3, 2), generator(0), dtype=torch.float64)
        grid = torch.tensor([1.0, 0.6], dtype=torch.float64)
        for sampler, known in [(EulerMaruyama(), DDPM()), (EulerMaruyama(0.0), DDIM())]:
            ours, theirs = (sample(s, oracle, x, grid, generator=generator(1)) for s in (sampler, known))
            assert torch.allclose(ours, theirs, atol=1e-12)
        if float(schedule(1.0)[0]) == 0:
            for sampler in (NativeEulerMaruyama(), ReverseDiffusion()):
                ours, theirs = (sample(s, oracle, x, grid, generator=generator(1)) for s in (sampler, DDPM()))
                assert torch.allclose(ours, theirs, atol=1e-12)


def test_reverse_diffusion_is_its_published_forms():
    """VP: ``(2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z`` on DDPM's chain; VE with differences of sigma^2."""
    chain = Discrete.linear()
    oracle, x = mixture(chain), normal((3, 2), generator(0), dtype=torch.float64)
    for index in (1000, 400, 2):
        beta = float(np.linspace(1e-4, 0.02, 1000)[index - 1])
        grid = torch.tensor([index / 1000, (index - 1) / 1000], dtype=torch.float64)
        score = -oracle(x, grid[0]).eps / chain(grid[0])[1]
        z = normal(x.shape, generator(1), dtype=x.dtype)
        expected = (2 - math.sqrt(1 - beta)) * x + beta * score + math.sqrt(beta) * z
        assert torch.allclose(sample(ReverseDiffusion(), oracle, x, grid, generator=generator(1)), expected, atol=1e-6)
    path = VE(10.0)
    oracle, grid = mixture(path), torch.tensor([0.5, 0.3], dtype=torch.float64)
    gap = 5.0**2 - 3.0**2
    expected = x - gap * oracle(x, 0.5).eps / 5.0 + math.sqrt(gap) * normal(x.shape, generator(1), dtype=x.dtype)
    assert torch.allclose(sample(ReverseDiffusion(), oracle, x, grid, generator=generator(1)), expected, atol=1e-12)


def test_a_thousand_reverse_diffusion_steps():
    """N(0, 0.3) on DDPM's chain: the recursion in numpy, which ends half a percent too wide, with the mean last."""
    oracle = gaussian(Discrete.linear(), 0.0)
    betas = np.linspace(1e-4, 0.02, 1000)
    signal = np.cumprod(1 - betas)
    variance = signal[-1] * 0.3 + 1 - signal[-1]
    for i in range(999, -1, -1):
        factor = 2 - np.sqrt(1 - betas[i]) - betas[i] / (signal[i] * 0.3 + 1 - signal[i])
        variance = factor**2 * variance + (betas[i] if i else 0)
    assert variance / 0.3 - 1 == pytest.approx(0.0051, abs=0.0001)
    # Our last step is the estimate of x0, theirs the predictor's mean: at beta = 1e-4 they differ by less than that.
    assert law(ReverseDiffusion(), oracle, times.Levels()(oracle.schedule, 1000))[1] == pytest.approx(
        variance, rel=1e-4
    )


class Watching(Denoiser):
    """Counts calls and fails where sigma = 0."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.schedule, self.calls, self.times = inner, inner.schedule, 0, []

    def forward(self, x, t, cond=None, s=None):
        assert (self.schedule(t)[1] > 0).all(), "evaluated where sigma = 0"
        self.calls, self.times = self.calls + 1, [*self.times, t]
        return self.inner(x, t, cond, s)


@pytest.mark.parametrize("path", list(SCHEDULES))
@pytest.mark.parametrize("name", list(ALL))
def test_every_path_is_sampled_from_its_start_to_the_data(name, path):
    """Also from alpha = 0, on every grid; the denoiser is never called at the data."""
    schedule = SCHEDULES[path]()
    for grid in ("uniform", "karras", "log-snr"):
        denoiser = Watching(gaussian(schedule, size=3))
        x = normal((2, 3), generator(1), dtype=torch.float64) * math.hypot(*schedule.scalars(1.0))
        out = sample(ALL[name](), denoiser, x, times.GRIDS[grid]()(schedule, 7), generator=generator(0))
        assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("name", "path"),
    [(n, path) for n in ALL if n not in ("annealed", "pc-norm", "em-ode", "adaptive") for path in SMOOTH]
    + [("adaptive", "rectified")],
)
def test_marginals_are_kept(name, path):
    """From the exact noisy law to the data's mean and variance, to sampling error and the first order's bias."""
    schedule, n = SMOOTH[path](), 40_000
    oracle, grid = gaussian(schedule, size=n // 4), times.LogSNR(0.01, 80)(schedule, 60)
    alpha, sigma = (float(v) for v in schedule(grid[0]))
    x = alpha * oracle.sample(4, generator(1)) + sigma * normal((4, n // 4), generator(2), dtype=torch.float64)
    out = sample(ALL[name](), oracle, x, grid, generator=generator(3))
    assert abs(float(out.mean()) - 0.5) < 5 * math.sqrt(0.3 / n) + 0.02
    assert abs(float(out.var()) / 0.3 - 1) < 5 * math.sqrt(2 / n) + 0.17


@pytest.mark.parametrize("name", list(ALL))
def test_a_sample_does_not_depend_on_its_batch_and_shape_does_not_matter(name):
    grid = times.Karras()(VP(), 6)

    def run(indices, shape=(2, 2)):
        oracle = Gaussian(VP(), torch.tensor([0.5, -1.0, 0.2, 0.0], dtype=torch.float64).reshape(shape), 0.3)
        keyed = generators(3, indices)
        x = normal((len(indices), *shape), keyed, dtype=torch.float64)
        return sample(ALL[name](), oracle, x, grid, generator=keyed)

    together = run([0, 1, 2, 3])
    assert torch.equal(together[[2]], run([2]))
    assert torch.equal(together[[3, 1]], run([3, 1]))
    assert not torch.equal(together[0], together[1])
    for shape in [(4,), (1, 2, 2, 1)]:
        assert torch.allclose(together.flatten(1), run([0, 1, 2, 3], shape).flatten(1), atol=1e-12)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("restart", "adaptive", "annealed")])
def test_evaluations_are_as_declared(name):
    for schedule in (VE(), VP()):
        sampler, denoiser = ALL[name](), Watching(gaussian(schedule))
        x = normal((2, 1), generator(1), dtype=torch.float64)
        sample(sampler, denoiser, x, times.Karras()(schedule, 6), generator=generator(0))
        assert denoiser.calls == 6 * sampler.evaluations - (name == "pc-heun")


@pytest.mark.parametrize(
    "make",
    [
        lambda: EulerMaruyama(tau=-1),
        lambda: EulerMaruyama(longest=0),
        lambda: NativeEulerMaruyama(math.inf),
        lambda: AdaptiveSDE(absolute=0),
        lambda: Restart([]),
        lambda: Restart([Interval(0.1, 0.3, 2)], noise=0.0),
        lambda: Restart([Interval(0.1, 0.3, 2)], solver=DDPM()),
        lambda: Interval(0.3, 0.1, 2),
        lambda: Interval(0.1, 0.3, 0),
        lambda: NormRatio(0),
        lambda: PredictorCorrector(updates=0),
        lambda: AnnealedLangevin(share=2.0),
        lambda: AnnealedLangevin.ncsnv2(1.0),
    ],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(ValueError, match=r"got|given"):
        make()


@pytest.mark.parametrize("path", list(SMOOTH))
def test_restarts_of_an_exact_solver_are_exact(path):
    """With the Gaussian's flow map as solver every marginal is kept, wherever the intervals lie; with another noise
    it is not."""
    oracle = gaussian(SMOOTH[path]())
    intervals = [Interval(0.003, 0.2, 2, 2), Interval(0.14, 0.30, 2, 3), Interval(2.0, 1000.0, 1)]
    for steps in (1, 4, 9):
        grid = times.Karras(0.05, 80)(oracle.schedule, steps)
        mean, variance = law(Restart(intervals, Gamma()), oracle, grid)
        assert mean == pytest.approx(0.5, abs=1e-9)
        assert variance == pytest.approx(0.3, rel=1e-9)
    assert law(Restart(intervals, Gamma(), noise=0.9), oracle, grid)[1] < 0.299


def test_restarts_cost_what_the_paper_says_and_help():
    """EDM's 18 steps with [N = 3, K = 2, 0.14, 0.30]: 43 evaluations; more in the middle mends a coarse solver."""
    path = VE(80.0)
    denoiser = Watching(gaussian(path))
    x = 80 * normal((2, 1), generator(0), dtype=torch.float64)
    sample(Restart([Interval(0.14, 0.30, 2, 2)]), denoiser, x, times.Karras()(path, 18), generator=generator(1))
    assert denoiser.calls == 43
    # Ten repeats forget what a coarse Euler did above, up to their own error with twenty steps.
    oracle, grid = gaussian(path), times.Karras()(path, 8)
    coarse, mended = (law(s, oracle, grid)[1] for s in (Euler(), Restart([Interval(0.1, 4.0, 40, 10)], Euler())))
    assert abs(mended - 0.3) < 0.4 * abs(coarse - 0.3)


def adaptive_run(tolerance: float, noise, oracle, x, **kwargs) -> tuple[torch.Tensor, int]:
    denoiser = Watching(oracle)
    grid = torch.tensor([1.0, 0.0], dtype=torch.float64)
    sampler = AdaptiveSDE(absolute=tolerance, relative=tolerance, **kwargs)
    return sample(sampler, denoiser, x, grid, generator=noise), denoiser.calls


def test_half_the_tolerance_costs_more_and_errs_less():
    """On one Brownian path per sample, against a tolerance of 0.004."""
    oracle = gaussian(VP(), size=100)
    x = normal((4, 100), generator(0), dtype=torch.float64)
    truth, _ = adaptive_run(0.004, Brownian(1, range(4)), oracle, x)
    runs = [adaptive_run(tolerance, Brownian(1, range(4)), oracle, x) for tolerance in (0.2, 0.1, 0.05)]
    errors = [float((out - truth).square().mean().sqrt()) for out, _ in runs]
    calls = [calls for _, calls in runs]
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2]
    assert calls[0] < calls[1] < calls[2]


def test_adaptive_steps_are_per_sample_and_rejections_do_not_bias():
    """A first step that is always rejected: the law stays the data's, and samples keep different times."""
    oracle, n = gaussian(VP(), size=2500), 10_000
    denoiser = Watching(oracle)
    x = normal((4, 2500), generator(0), dtype=torch.float64)
    grid = torch.tensor([1.0, 0.0], dtype=torch.float64)
    out = sample(AdaptiveSDE(0.05, 0.05, first=50.0), denoiser, x, grid, generator=generator(1))
    assert abs(float(out.var()) / 0.3 - 1) < 5 * math.sqrt(2 / n) + 0.01
    assert abs(float(out.mean()) - 0.5) < 5 * math.sqrt(0.3 / n) + 0.01
    spread = [float(t.max() - t.min()) for t in denoiser.times if t.ndim]
    assert max(spread) > 0


def adaptive_by_hand(x, motion, lam, end, tau, absolute, relative, h):
    """One sample of N(0.5, 0.3) data by the written algorithm, in half log-SNR and numpy; counts what is rejected."""

    def noise(lam):
        return 1 / math.sqrt(1 + math.exp(2 * lam))

    def drift(u, lam):
        c = noise(lam)
        signal = math.sqrt(1 - c**2)
        eps = c * (u - signal * 0.5) / (signal**2 * 0.3 + c**2)
        return c**2 * u - (1 + tau**2) * c * eps

    u, before, rejected = x, x, 0
    while end - lam > 1e-8:
        h = min(h, end - lam)
        dw = math.sqrt(h) * motion.unit(x.shape, math.exp(2 * lam), math.exp(2 * (lam + h))).numpy()
        k1 = h * drift(u, lam) + tau * math.sqrt(2) * noise(lam) * dw
        k2 = h * drift(u + k1, lam + h) + tau * math.sqrt(2) * noise(lam + h) * dw
        scale = np.maximum(absolute, relative * np.maximum(np.abs(u + k1), np.abs(before)))
        error = math.sqrt(np.mean(((k2 - k1) / 2 / scale) ** 2))
        if error <= 1:
            u, before, lam = u + (k1 + k2) / 2, u + k1, lam + h
        else:
            rejected += 1
        h *= 0.9 * error**-0.9
    return u, rejected


@pytest.mark.parametrize("tau", [0.4, 1.0, 1.7])
def test_adaptive_is_its_written_algorithm(tau):
    oracle, grid = gaussian(VP(), size=3), by_log_snr(VP(), 1, -3, 2)
    x, rejected = normal((4, 3), generator(3), dtype=torch.float64), 0
    sampler = AdaptiveSDE(absolute=1e-3, relative=0.1, tau=tau, first=1.0)
    found = sample(sampler, oracle, x, grid, generator=Brownian(7, range(4)))
    for i in range(4):
        motion = Brownian(7, [i]).motions[0]
        expected, again = adaptive_by_hand(x[i].numpy(), motion, -3.0, 2.0, tau, 1e-3, 0.1, 1.0)
        rejected += again
        # The clock of the noise is rounded to 1e-9 in log-SNR.
        assert np.allclose(found[i], expected, atol=1e-5)
    assert rejected > 4


@pytest.mark.parametrize("tau", [0.5, 1.5])
def test_adaptive_keeps_the_law_at_any_noise_level(tau):
    oracle, n = gaussian(VP(), size=2500), 10_000
    x = normal((4, 2500), generator(0), dtype=torch.float64)
    grid = torch.tensor([1.0, 0.0], dtype=torch.float64)
    out = sample(AdaptiveSDE(0.03, 0.03, tau=tau), oracle, x, grid, generator=generator(1))
    assert abs(float(out.var()) / 0.3 - 1) < 5 * math.sqrt(2 / n) + 0.01
    assert abs(float(out.mean()) - 0.5) < 5 * math.sqrt(0.3 / n) + 0.01


def test_adaptive_gives_the_same_bits_in_a_batch_of_any_size():
    """37 is no multiple of a register's width: the tail of a vectorised function may round differently."""
    oracle, grid = mixture(VP()), torch.tensor([1.0, 0.0], dtype=torch.float64)

    def run(indices):
        keyed = generators(3, indices)
        x = normal((len(indices), 2), keyed, dtype=torch.float64)
        return sample(AdaptiveSDE(0.05, 0.05), oracle, x, grid, generator=keyed)

    together = run(range(37))
    for i in (0, 17, 32, 33, 34, 35, 36):
        assert torch.equal(run([i])[0], together[i])


def test_adaptive_goes_between_any_levels_and_gives_up_in_words():
    oracle, x = gaussian(Rectified(), size=4), normal((2, 4), generator(0), dtype=torch.float64)
    grid = torch.tensor([1.0, 0.7, 0.699, 0.001, 0.0005, 0.0], dtype=torch.float64)
    assert torch.isfinite(sample(AdaptiveSDE(), oracle, x, grid, generator=generator(0))).all()
    with pytest.raises(ValueError, match="took 10 evaluations"):
        sample(AdaptiveSDE(most=10), oracle, x, grid, generator=generator(0))

    class Broken(Watching):
        def forward(self, x, t, cond=None, s=None):
            estimate = self.inner(x, t, cond, s)
            return type(estimate)(estimate.x0, estimate.eps * math.nan)

    with pytest.raises(ValueError, match="not finite"):
        sample(AdaptiveSDE(), Broken(oracle), x, grid[1:], generator=generator(0))
