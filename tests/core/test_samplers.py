"""Every sampler of the catalogue: measured order, marginals, identities and invariances, on exact denoisers."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn

from osmotic import inversion, likelihood, phase, samplers, times
from osmotic.denoiser import Denoiser, NeuralDenoiser, Rescheduled
from osmotic.estimate import TARGETS, Estimate
from osmotic.noise import generators, normal
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG, DDIM, DDPM, DPMSolverPP2M, Euler, Gamma, Heun, sample, trajectory
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VE, VP, Cosine, Discrete, Rectified

DETERMINISTIC = [name for name, make in CATALOG.items() if not make().stochastic]
STOCHASTIC = [name for name, make in CATALOG.items() if make().stochastic]
SMOOTH = {"vp": VP, "rectified": Rectified, "ve": VE, "cosine": Cosine}


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(schedule) -> GaussianMixture:
    return GaussianMixture(schedule, 1.5 * draws(5, 2, seed=1), 0.15)


def by_log_snr(schedule, steps: int, noisy: float = -2.5, clean: float = 2.0) -> torch.Tensor:
    """A grid uniform in half log-SNR between two noisy levels."""
    return schedule.time(2 * torch.linspace(noisy, clean, steps + 1, dtype=torch.float64))


def slopes(errors: list[float]) -> np.ndarray:
    return np.log2(np.divide(errors[:-1], errors[1:]))


def flow_by_scipy(oracle, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """The flow of x from time ends[0] to ends[1]; ``dy/dlog rho = rho eps`` with y = x / alpha."""
    schedule = oracle.schedule
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ([float(v) for v in schedule(t)] for t in ends)

    def rate(log_rho: float, y: np.ndarray) -> np.ndarray:
        t = schedule.time(-2 * log_rho)
        alpha = float(schedule(t)[0])
        return math.exp(log_rho) * oracle(alpha * torch.from_numpy(y).reshape(x.shape), t).eps.flatten().numpy()

    span = (math.log(sigma_t / alpha_t), math.log(sigma_s / alpha_s))
    solution = integrate.solve_ivp(rate, span, (x / alpha_t).flatten().numpy(), "DOP853", rtol=1e-13, atol=1e-14)
    return alpha_s * torch.from_numpy(solution.y[:, -1]).reshape(x.shape)


def affine(sampler, oracle, t, s) -> tuple[float, float, float]:
    """(A, B, c) of a step x_s = A x + B z + c on a one-dimensional Gaussian, exactly, from three runs."""

    def run(value: float, seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        x = torch.full((1, 1), value, dtype=torch.float64)
        return float(sampler.step(oracle, x, t, s, generator=generator)[0])

    z = [float(normal((1, 1), torch.Generator().manual_seed(seed), dtype=torch.float64)) for seed in (0, 1)]
    b = (run(0.0, 1) - run(0.0, 0)) / (z[1] - z[0])
    return run(1.0, 0) - run(0.0, 0), b, run(0.0, 0) - b * z[0]


def law(sampler, oracle, grid) -> tuple[float, float]:
    """The exact mean and variance that a sampler gives on Gaussian data, without Monte Carlo."""
    alpha, sigma = (float(v) for v in oracle.schedule(grid[0]))
    mean, variance = alpha * float(oracle.mean), alpha**2 * float(oracle.variances) + sigma**2
    levels = samplers.prepare(oracle, grid)
    for t, s in itertools.pairwise(levels):
        a, b, c = affine(sampler, oracle, t, s)
        mean, variance = a * mean + c, a**2 * variance + b**2
    return mean, variance


def gaussian(schedule, mean: float = 0.5, variance: float = 0.3) -> Gaussian:
    return Gaussian(schedule, torch.tensor([mean], dtype=torch.float64), variance)


def test_churned_heun_keeps_second_order_when_churn_falls_with_the_step():
    oracle = gaussian(VE())
    errors = []
    for n in (64, 128, 256):
        grid = by_log_snr(oracle.schedule, n, -3, 3)
        variance = law(Heun(churn=2.0 / n), oracle, grid)[1]
        errors.append(abs(variance - 0.3 - float(oracle.schedule(grid[-1])[1]) ** 2))
    assert slopes(errors)[-1] == pytest.approx(2, abs=0.15)


def test_variance_errors_of_ancestral_sampling():
    """Exact relative variance error on N(0, 0.3), DDPM's betas, evenly chosen levels: -.54 and -.20 with the small
    variance; with the large one DDPM's algorithm 2 on the sub-chain, written out in numpy (no noise after the last
    step)."""
    oracle = gaussian(Discrete.linear(), 0.0, 0.3)
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for steps, small in [(10, -0.539), (50, -0.200)]:
        grid = times.Levels()(oracle.schedule, steps)
        assert law(DDPM(), oracle, grid)[1] / 0.3 - 1 == pytest.approx(small, abs=0.002)
        chosen = signal[np.arange(steps, 0, -1) * (1000 // steps) - 1]
        variance = chosen[0] * 0.3 + 1 - chosen[0]
        for now, following in zip(chosen, [*chosen[1:], 1.0], strict=True):
            beta = 1 - now / following
            eps = np.sqrt(1 - now) / (now * 0.3 + 1 - now)  # eps_hat per x
            step = (1 - beta / np.sqrt(1 - now) * eps) / np.sqrt(1 - beta)
            variance = step**2 * variance + (beta if following < 1 else 0)
        assert law(DDPM(v=1.0), oracle, grid)[1] == pytest.approx(variance, rel=1e-9)


def test_a_thousand_ancestral_steps_bracket_the_variance():
    """N(0.5, 0.16), T = 1000, linear betas: 0.1570 with the small variance and 0.1607 with the large (traps T1, T8)."""
    oracle = gaussian(Discrete.linear(), 0.5, 0.16)
    grid = times.Levels()(oracle.schedule, 1000)
    found = {v: law(DDPM(v), oracle, grid) for v in (0.0, 0.5, 1.0)}
    assert [round(found[v][1], 4) for v in (0.0, 0.5, 1.0)] == [0.1570, 0.1588, 0.1607]
    assert found[0.0][0] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("path", list(SMOOTH))
@pytest.mark.parametrize("name", list(CATALOG))
def test_marginals_are_kept(name, path):
    """Every sampler reaches the data's mean and variance from the exact noisy law, at enough steps."""
    schedule = SMOOTH[path]()
    oracle, sampler = gaussian(schedule), CATALOG[name]()
    grid = times.LogSNR(rho_min=0.01, rho_max=80)(schedule, 60)
    generator = torch.Generator().manual_seed(5)
    n = 20_000
    alpha, sigma = schedule(grid[0])
    x = alpha * oracle.sample(n, generator) + sigma * draws(n, 1, seed=6)
    out = sample(sampler, oracle, x, grid, generator=generator)
    deviation = math.sqrt(0.3)
    # Monte Carlo: five standard errors; discretisation: a first-order method at 60 steps over 9 units of log sigma.
    bias = 0.0 if math.isinf(sampler.order) else 0.17 if sampler.order <= 1 else 0.05
    assert abs(float(out.mean()) - 0.5) < 5 * deviation / math.sqrt(n) + 0.02 * (bias > 0)
    assert abs(float(out.var()) / 0.3 - 1) < 5 * math.sqrt(2 / n) + bias


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("path", list(SMOOTH))
def test_jumps_along_an_exact_flow_map_are_exact_at_any_step_count(gamma, path):
    schedule = SMOOTH[path]()
    oracle = gaussian(schedule)
    for steps in (1, 2, 5):
        mean, variance = law(Gamma(gamma), oracle, times.LogSNR(rho_min=0.1)(schedule, steps))
        assert mean == pytest.approx(0.5, abs=1e-9)
        assert variance == pytest.approx(0.3, rel=1e-9)


def test_jumps_need_a_flow_map():
    with pytest.raises(ValueError, match="no closed-form flow map"):
        sample(Gamma(), mixture(VP()), draws(2, 2), times.Uniform()(VP(), 2))


def test_full_eta_between_any_levels_is_ddpms_posterior():
    """Mean and variance of q(x_s | x_t, x0) from conditioning the joint Gaussian of (x_s, x_t) given x0."""
    schedule = VP()
    x0, x = draws(6, 3), draws(6, 3, seed=1)
    for t, s in [(0.9, 0.2), (0.5, 0.49)]:
        (at, st), (a_s, ss) = ([float(v) for v in schedule(u)] for u in (t, s))
        covariance = (
            at / a_s * ss**2
        )  # Cov(x_s, x_t | x0): the forward chain from s to t multiplies by alpha_t / alpha_s
        mean = a_s * x0 + covariance / st**2 * (x - at * x0)
        variance = ss**2 - covariance**2 / st**2

        class Known(Denoiser):
            def forward(self, x, t, cond=None, s=None):
                alpha, sigma = self.schedule(t)
                return Estimate(x0, (x - alpha * x0) / sigma)

        known = Known()
        known.schedule = schedule
        levels = samplers.prepare(known, torch.tensor([t, s], dtype=torch.float64))
        z = normal((6, 3), torch.Generator().manual_seed(4), dtype=torch.float64)
        for sampler in (DDIM(eta=1.0), DDPM()):
            out, _ = sampler.step(known, x, *levels, generator=torch.Generator().manual_seed(4))
            assert torch.allclose(out, mean + math.sqrt(variance) * z, atol=1e-12)


def test_identities_between_samplers():
    oracle = mixture(VP())
    x, grid = draws(4, 2), by_log_snr(VP(), 6)
    euler = sample(Euler(), oracle, x, grid)
    assert torch.equal(euler, sample(DDIM(), oracle, x, grid))
    # DPM-Solver-1 in noise form, written out: x_s = alpha_s / alpha_t x - sigma_s (e^h - 1) eps.
    y = x
    for t, s in itertools.pairwise(grid):
        (at, st), (a_s, ss) = oracle.schedule(t), oracle.schedule(s)
        h = torch.log(a_s / ss) - torch.log(at / st)
        y = a_s / at * y - ss * torch.expm1(h) * oracle(y, t).eps
    assert torch.allclose(euler, y, atol=1e-12)


def test_heun_with_churn_is_edms_algorithm_2():
    """An independent re-statement in sigma, with the model evaluated after the noise, on EDM's own path and grid."""
    oracle, churn, low, high, noise = mixture(VE(80.0)), 0.2, 0.05, 50.0, 1.007
    grid = times.Karras()(oracle.schedule, 12)
    x = 80.0 * draws(3, 2)
    ours = sample(Heun(churn, low, high, noise), oracle, x, grid, generator=torch.Generator().manual_seed(7))
    generator, sigmas = torch.Generator().manual_seed(7), (80.0 * grid).tolist()
    for sigma, following in itertools.pairwise(sigmas):
        gamma = churn if low <= sigma <= high else 0.0
        hat = sigma * (1 + gamma)
        if gamma:
            x = x + math.sqrt(hat**2 - sigma**2) * noise * normal(x.shape, generator, dtype=x.dtype)
        d = (x - oracle(x, hat / 80).x0) / hat
        there = x + (following - hat) * d
        if following > 0:
            d = (d + (there - oracle(there, following / 80).x0) / following) / 2
        x = x + (following - hat) * d
    assert torch.allclose(ours, x, atol=1e-9)


def test_2m_is_its_published_form_and_lowers_its_order_by_ratio():
    oracle = mixture(VP())
    grid = by_log_snr(VP(), 7)
    x = draws(3, 2)
    ours, past, h_past = sample(DPMSolverPP2M(), oracle, x, grid), None, None
    for t, s in itertools.pairwise(grid):
        (at, st), (a_s, ss) = oracle.schedule(t), oracle.schedule(s)
        h = torch.log(a_s / ss) - torch.log(at / st)
        x0 = oracle(x, t).x0
        d = x0 if past is None else (1 + h / (2 * h_past)) * x0 - h / (2 * h_past) * past
        x, past, h_past = ss / st * x - a_s * torch.expm1(-h) * d, x0, h
    assert torch.allclose(ours, x, atol=1e-12)


def test_2m_has_no_cliff_in_the_number_of_steps():
    """No library's switch at 15 steps: on a uniform-time grid to a small sigma the error falls with every step (defect
    B).
    """
    oracle = mixture(VP())
    x = draws(16, 2)
    truth = sample(Heun(), oracle, x, times.LogSNR(rho_min=1e-4, rho_max=200)(VP(), 400))
    errors = []
    for n in range(10, 24):
        grid = torch.cat(
            [torch.linspace(1, 1e-3, n + 1, dtype=torch.float64)[:-1], torch.tensor([1e-3, 0.0], dtype=torch.float64)]
        )
        errors.append(float((sample(DPMSolverPP2M(), oracle, x, grid) - truth).square().mean().sqrt()))
    assert max(later / earlier for earlier, later in itertools.pairwise(errors)) < 1.1


class Watching(Denoiser):
    """Counts calls and fails where sigma = 0."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.schedule, self.calls = inner, inner.schedule, 0

    def forward(self, x, t, cond=None, s=None):
        assert (self.schedule(t)[1] > 0).all(), "evaluated where sigma = 0"
        self.calls += 1
        return self.inner(x, t, cond, s)


# Denoiser calls beyond steps times evaluations: a higher-order start, or a last step that must not look at sigma = 0.
BESIDE = {
    "heun": -1,
    "heun-churn": -1,
    "lms-4": 2,
    "flow-3pc": 2,
    "unipc-3": 2,
    "plms": 1,
    "pndm": 9,
    "dpm-solver-fast": -1,
}
BESIDE |= {"restart": -1, "annealed-langevin": 1}
BESIDE |= dict.fromkeys(["rk4", "rk4-rho", "rk4-log-snr", "rk4-time"], -1)


@pytest.mark.parametrize("grid", list(times.GRIDS))
@pytest.mark.parametrize("name", list(CATALOG))
def test_evaluations_are_as_declared_and_never_at_the_data(name, grid):
    sampler, schedule = CATALOG[name](), VP()
    denoiser = Watching(gaussian(schedule))
    out = sample(
        sampler, denoiser, draws(4, 1), times.GRIDS[grid]()(schedule, 9), generator=torch.Generator().manual_seed(0)
    )
    assert torch.isfinite(out).all()
    if sampler.evaluations:
        extra = BESIDE.get(name, 0)
        last = times.GRIDS[grid]()(schedule, 9)[-2]
        if name == "restart" and float(-schedule.log_snr(last) / 2) < math.log(0.30):
            extra += 8  # two repeats of two steps of Heun, unless the grid never comes down to the interval
        assert denoiser.calls == 9 * sampler.evaluations + extra


@pytest.mark.parametrize("path", ["rectified", "cosine", "ve", "sub-vp"])
@pytest.mark.parametrize("name", list(CATALOG))
def test_every_sampler_goes_from_pure_noise_to_the_data(name, path):
    """From alpha = 0, where log-SNR is infinite, to sigma = 0, on a grid whose first step is short."""
    schedule = SCHEDULES[path]()
    denoiser = Watching(gaussian(schedule))
    x = samplers.prior(denoiser, (4, 1), torch.Generator().manual_seed(0)).double()
    grid = times.Span()(schedule, 40)
    out = sample(CATALOG[name](), denoiser, x, grid, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(out).all()
    # In log-SNR itself explicit methods bear no long steps, and the last ones before the data are long.
    if not CATALOG[name]().stochastic and name != "rk4-log-snr":
        # The exact flow of N(0.5, 0.3) from the prior's point at t = 1.
        truth = denoiser.inner.flow(x, 1.0, 0.0)
        assert torch.allclose(out, truth, atol=0.06 if CATALOG[name]().order == 1 else 0.01)


IN_OWN_TIME = {"euler-time", "heun-time", "rk4-time", "deis-time-2", "deis-time-3", "midpoint", "heun", "plms", "pndm"}


@pytest.mark.parametrize("path", ["vp", "rectified", "cosine"])
@pytest.mark.parametrize(
    "name", [n for n in DETERMINISTIC if n not in IN_OWN_TIME | {"jump"} and CATALOG[n]().evaluations]
)
def test_the_schedule_drops_out(name, path):
    """Two paths with the same log-SNR grid and the same y = x / alpha give the same y (section 0, fact 1)."""
    a, b = mixture(VE(80.0)), mixture(SCHEDULES[path]())
    log_snr = torch.linspace(-4.5, 5, 9, dtype=torch.float64)
    y = draws(5, 2)
    out = []
    for oracle in (a, b):
        grid = oracle.schedule.time(log_snr)
        first, last = float(oracle.schedule(grid[0])[0]), float(oracle.schedule(grid[-1])[0])
        out.append(sample(CATALOG[name](), oracle, y * first, grid) / last)
    assert torch.allclose(*out, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_a_rescheduled_denoiser_is_the_oracle_of_the_new_path(path):
    schedule = SCHEDULES[path]()
    for base in (VP(), VE(80.0), Rectified()):
        moved, exact = Rescheduled(mixture(base), schedule), mixture(schedule)
        t = torch.tensor([0.1, 0.5, 0.97], dtype=torch.float64) * moved.start
        x = draws(3, 2)
        for a, b in zip(moved(x, t), exact(x, t), strict=True):
            assert torch.allclose(a, b, rtol=1e-7, atol=1e-8)
        assert 0 < moved.start <= 1


def test_a_rescheduled_denoiser_refuses_levels_it_never_saw():
    moved = Rescheduled(mixture(VP()), Rectified())
    assert moved.start == pytest.approx(float(Rectified().time(VP().log_snr(1.0))))
    with pytest.raises(ValueError, match="noisier than this denoiser's start"):
        sample(DDIM(), moved, draws(2, 2), times.Uniform()(Rectified(), 4))
    with pytest.raises(ValueError, match="noisier than this denoiser was made for"):
        moved(draws(2, 2), 1.0)
    out = sample(DDIM(), moved, draws(2, 2), times.Uniform()(Rectified(), 4, start=moved.start))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", list(CATALOG))
def test_a_sample_does_not_depend_on_its_batch(name):
    """One generator per sample: sample i is the same alone, in another order, and in a larger batch."""
    sampler, oracle = CATALOG[name](), gaussian(VP())
    grid = times.Karras()(VP(), 6)

    def run(indices: list[int]) -> torch.Tensor:
        keyed = generators(3, indices)
        x = normal((len(indices), 1), keyed, dtype=torch.float64)
        return sample(sampler, oracle, x, grid, generator=keyed)

    together = run([0, 1, 2, 3])
    assert torch.equal(together[[2]], run([2]))
    assert torch.equal(together[[3, 1]], run([3, 1]))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", list(CATALOG))
def test_shape_does_not_matter(name):
    sampler = CATALOG[name]()
    mean = draws(12, seed=3)
    x, grid = draws(2, 12), times.Karras()(VP(), 5)
    outs = []
    for shape in [(12,), (3, 4), (1, 2, 2, 3)]:
        oracle = Gaussian(VP(), mean.reshape(shape), 0.2)
        out = sample(sampler, oracle, x.reshape(2, *shape), grid, generator=torch.Generator().manual_seed(1))
        outs.append(out.flatten(1))
    assert torch.allclose(outs[0], outs[1], atol=1e-12)
    assert torch.allclose(outs[0], outs[2], atol=1e-12)


def test_trajectory_yields_every_point_and_sample_the_last():
    oracle, grid, x = mixture(VP()), times.Uniform()(VP(), 5), draws(2, 2)
    points = list(trajectory(Euler(), oracle, x, grid))
    assert len(points) == 6
    assert points[0] is x
    assert torch.equal(points[-1], sample(Euler(), oracle, x, grid))


def test_trajectory_is_differentiable():
    oracle, grid = gaussian(VP()), by_log_snr(VP(), 4)
    x = draws(1, 1).requires_grad_()
    *_, last = trajectory(DPMSolverPP2M(), oracle, x, grid)
    last.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert float(x.grad.abs()) > 0


@pytest.mark.parametrize(
    "make",
    [lambda: DDIM(eta=1.5), lambda: DDPM(v=-1), lambda: Gamma(2), lambda: Heun(churn=0.6), lambda: DPMSolverPP2M(0)],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()


def test_prior_has_the_marginal_scale():
    for schedule, deviation in [(VP(), 1.0), (VE(80.0), math.sqrt(6401)), (Rectified(), 1.0)]:
        x = samplers.prior(gaussian(schedule), (50_000, 1), torch.Generator().manual_seed(0))
        assert float(x.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * 50_000))


@pytest.mark.parametrize("name", ["euler", "ddim", "midpoint", "heun"])
def test_times_per_sample_are_the_single_steps(name):
    """What distillation needs: one call in which every sample has its own t and s, also s = 0."""
    oracle, sampler = Watching(mixture(VP())), CATALOG[name]()
    x = draws(4, 2)
    t = torch.tensor([0.9, 0.5, 0.3, 1.0], dtype=torch.float64)
    s = torch.tensor([0.4, 0.0, 0.29, 0.0], dtype=torch.float64)
    together, _ = sampler.step(oracle, x, t, s)
    for i in range(4):
        alone, _ = sampler.step(oracle, x[i : i + 1], t[i], s[i])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-12)


def test_stochastic_steps_refuse_times_per_sample():
    with pytest.raises(ValueError, match="a whole batch at one time"):
        DDPM().step(mixture(VP()), draws(2, 2), torch.tensor([0.5, 0.6]), torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize("path", list(SCHEDULES))
@pytest.mark.parametrize("target", list(TARGETS))
def test_preparing_a_grid_changes_nothing(target, path):
    """What is computed on the whole grid at once equals what a lone evaluation computes."""

    class Wave(nn.Module):
        def forward(self, x, time, cond=None):
            return torch.sin(x + time[:, None] / 300)

    schedule = SCHEDULES[path]()
    try:
        denoiser = NeuralDenoiser(Wave(), schedule, TARGETS[target](0.5), sigma_data=0.5)
    except ValueError:
        pytest.skip("singular at the start")
    x, grid = draws(3, 2).float(), times.Karras()(schedule, 4)
    for each in (denoiser, Rescheduled(denoiser, VE(60.0))):
        stops = grid if each is denoiser else times.Karras()(each.schedule, 4, start=each.start)
        for level in samplers.prepare(each, stops)[:-1]:
            for a, b in zip(each(x, level), each(x, torch.tensor(float(level), dtype=torch.float64)), strict=True):
                assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampler": "heun"}, "A sampler is an object such as .*; got 'heun'"),
        ({"sampler": CATALOG["heun"]}, "A sampler is an object"),
        ({"denoiser": object()}, "for a loaded model model.denoiser; got object"),
        ({"x": draws(2, 2).long()}, r"floating-point numbers; got a tensor of torch.int64, \(2, 2\)"),
        ({"x": [[0.0, 0.0]]}, "floating-point numbers; got list"),
        ({"times": [1.0, 0.5, 0.0]}, "A grid is a tensor of times.*got list"),
    ],
)
def test_things_of_another_kind_are_named(wrong, message):
    right = {"sampler": DDIM(), "denoiser": mixture(VP()), "x": draws(2, 2), "times": times.LogSNR()(VP(), 3)}
    with pytest.raises(TypeError, match=message):
        sample(**(right | wrong))


def test_a_grid_in_single_precision_may_round_beyond_the_start():
    """It is moved to the start; what lies clearly beyond it is refused."""
    oracle = Rescheduled(mixture(VP()), Rectified())
    start = oracle.start
    assert start < 1
    rounded = torch.tensor([start * (1 + 2e-7), 0.5, 0.0], dtype=torch.float64)
    exact = torch.tensor([start, 0.5, 0.0], dtype=torch.float64)
    x = draws(3, 2)
    assert torch.equal(sample(Heun(), oracle, x, rounded), sample(Heun(), oracle, x, exact))
    with pytest.raises(ValueError, match="noisier than this denoiser's start"):
        sample(Heun(), oracle, x, torch.tensor([start + 1e-4, 0.5, 0.0], dtype=torch.float64))


def test_a_grid_that_a_denoisers_start_folds_together_is_refused():
    oracle = mixture(VP())
    oracle.start = 0.5
    grid = torch.tensor([0.5 + 9e-7, 0.5 + 4e-7, 0.2, 0.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"repeats 0\.5 after 0\.5"):
        sample(Heun(), oracle, draws(2, 2), grid)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: samplers.prior(model, (2, 2)),
        lambda model: likelihood.log_prob(model, draws(2, 2)),
        lambda model: inversion.encode(model, draws(2, 2)),
        lambda model: inversion.decode(model, draws(2, 2)),
        lambda model: times.optimized(model, 3, shape=(2, 2)),
        lambda model: phase.Lifted(model, phase.CLD()),
    ],
)
def test_what_is_no_denoiser_is_named_everywhere(use):
    with pytest.raises(TypeError, match=r"for a loaded model model\.denoiser; got object"):
        use(object())


@pytest.mark.parametrize("use", [likelihood.log_prob, inversion.encode, inversion.decode])
@pytest.mark.parametrize("wrong", [[[0.0, 0.0]], torch.zeros(2, 2).numpy(), torch.zeros(2, 2).long()])
def test_samples_of_another_kind_are_named(use, wrong):
    with pytest.raises(TypeError, match=r"are a tensor \(B, \.\.\.\) of floating-point numbers; got"):
        use(mixture(VP()), wrong)


def test_a_number_in_place_of_a_generator_or_a_name_in_place_of_a_divergence_is_named():
    with pytest.raises(TypeError, match=r"from a torch\.Generator.*got 7"):
        samplers.prior(mixture(VP()), (2, 2), 7)
    with pytest.raises(TypeError, match=r"Exact\(\) or Hutchinson\(probes\).*got 'exact'"):
        likelihood.log_prob(mixture(VP()), draws(2, 2), divergence="exact")
    with pytest.raises(ValueError, match="No samples were given"):
        likelihood.log_prob(mixture(VP()), draws(0, 2))


@pytest.mark.parametrize("use", [likelihood.log_prob, inversion.encode, inversion.decode])
def test_samples_that_are_no_numbers_are_named_by_the_adaptive_solver(use):
    x = draws(3, 2)
    x[1, 0] = math.nan
    with pytest.raises(ValueError, match=r"Sample 1 holds NaN or infinite values"):
        use(mixture(VP()), x)
