"""What the conformance table prints, asserted: orders inside and down to the data, operations, host reads, memory."""

import itertools
import math
import weakref

import numpy as np
import pytest
import torch
from scipy import integrate
from tests.core.test_samplers import by_log_snr, draws, flow_by_scipy, gaussian, law, mixture, slopes
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from osmotic import samplers, times
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import TARGETS, Estimate
from osmotic.levels import Level
from osmotic.noise import Source
from osmotic.oracles import GaussianMixture
from osmotic.samplers import CATALOG, DDIM, Adams, DataLogSNR, Gamma, sample, trajectory
from osmotic.samplers.adams import phi, weights
from osmotic.samplers.lines import Flow, NoiseLogSNR, NoiseRho, NoiseTime
from osmotic.schedules import VP, Discrete, Rectified

FINITE = [n for n in CATALOG if math.isfinite(CATALOG[n]().order) and CATALOG[n]().evaluations]
ODE = [n for n in FINITE if not CATALOG[n]().stochastic]
SDE = [n for n in FINITE if CATALOG[n]().stochastic and CATALOG[n]().order]
PATHS = {"vp": VP, "rectified": Rectified}
STEPS = (128, 256)
# Methods that come into their order late: a cancelling constant, or a defect of the published weights.
LATE = {"dpmpp-3m-published": (256, 512), "sa-solver": (512, 1024)}


def second(schedule) -> GaussianMixture:
    """A mixture unlike the first: other places, full covariances, unequal weights."""
    a = draws(3, 2, 2, seed=11)
    return GaussianMixture(
        schedule, draws(3, 2, seed=12), 0.25 * a @ a.mT + 0.25 * torch.eye(2, dtype=torch.float64), [0.5, 0.3, 0.2]
    )


MIXTURES = {"five": mixture, "three": second}


@pytest.fixture(scope="module")
def problems():
    """(oracle, x, truth inside, truth at the data) by path and mixture; truths by SciPy's eighth-order solver."""
    made = {}
    for (path, schedule), (name, make) in itertools.product(PATHS.items(), MIXTURES.items()):
        oracle = make(schedule())
        ends = by_log_snr(oracle.schedule, 1)
        alpha, sigma = oracle.schedule(ends[0])
        x = alpha * oracle.sample(4, torch.Generator().manual_seed(2)) + sigma * draws(4, 2)
        # The flow ends in the exact estimate at a level whose own noise is below the errors that are measured.
        last = oracle.schedule.time(torch.tensor(2 * 16.0, dtype=torch.float64))
        near = flow_by_scipy(oracle, x, torch.stack([ends[0], last]))
        made[path, name] = oracle, x, flow_by_scipy(oracle, x, ends), oracle(near, last).x0
    return made


@pytest.mark.parametrize("name", ODE)
def test_measured_order_is_the_declared_one(name, problems):
    """Inside the path and, on a grid whose every step shrinks, down to exactly sigma = 0."""
    sampler = CATALOG[name]()
    for oracle, x, inside, data in problems.values():
        schedule = oracle.schedule
        start = float(by_log_snr(schedule, 1)[0])
        found = {}
        for n in LATE.get(name, STEPS):
            grids = {"inside": (by_log_snr(schedule, n), inside), "zero": (times.Power(4)(schedule, n, start), data)}
            for where, (grid, truth) in grids.items():
                error = (sample(sampler, oracle, x, grid) - truth).square().mean().sqrt()
                found.setdefault(where, []).append(float(error))
        for where, errors in found.items():
            assert slopes(errors)[0] == pytest.approx(sampler.order, abs=0.15), where


def from_noise(name: str, problems: list) -> list[float]:
    """Measured orders on the default grid from t = 1 to exactly 0: the mean slope over two doublings."""
    found = []
    for oracle, x, truth in problems:
        errors = [
            float((sample(CATALOG[name](), oracle, x, times.Span()(oracle.schedule, n)) - truth).square().mean().sqrt())
            for n in ((40, 160) if CATALOG[name]().evaluations > 3 else (80, 320))
        ]
        found.append(float(slopes(errors)[0]) / 2)
    return found


def flow_in_the_angle(oracle, x: torch.Tensor) -> torch.Tensor:
    """From t = 1 to the data by SciPy: ``du/dphi = cos(phi) eps - sin(phi) x0``, ``u = x / hypot(alpha, sigma)``."""
    schedule = oracle.schedule

    def at(phi: float) -> tuple[torch.Tensor, float]:
        t = schedule.time(torch.tensor(-2 * math.log(math.tan(phi)), dtype=torch.float64))
        return t, math.hypot(*(float(v) for v in schedule(t)))

    def rate(phi: float, u: np.ndarray) -> np.ndarray:
        t, scale = at(phi)
        estimate = oracle(scale * torch.from_numpy(u).reshape(x.shape), t)
        return (math.cos(phi) * estimate.eps - math.sin(phi) * estimate.x0).flatten().numpy()

    alpha, sigma = (float(v) for v in schedule(1.0))
    start = (x / math.hypot(alpha, sigma)).flatten().numpy()
    span = (math.atan2(sigma, alpha), 1e-8)
    u = torch.from_numpy(integrate.solve_ivp(rate, span, start, "DOP853", rtol=1e-13, atol=1e-14).y[:, -1])
    t, scale = at(span[1])
    return oracle(scale * u.reshape(x.shape), t).x0


@pytest.fixture(scope="module")
def whole():
    """(oracle, x at t = 1, truth at the data) on two paths, of which one starts without any signal."""
    made = []
    for make in PATHS.values():
        oracle = second(make())
        x = samplers.prior(oracle, (8, 2), torch.Generator().manual_seed(2)).double()
        made.append((oracle, x, flow_in_the_angle(oracle, x)))
    return made


@pytest.mark.parametrize("name", ODE)
def test_order_on_the_default_grid_from_pure_noise_is_the_declared_one(name, whole):
    declared = CATALOG[name]().order_from_noise
    for measured in from_noise(name, whole):
        if declared == CATALOG[name]().order and name.startswith(("flow", "ddim", "euler", "heun", "rk4")):
            assert measured == pytest.approx(declared, abs=0.15)
        else:
            assert measured > declared - 0.3  # order 2 up to a logarithm, or better
    # What is promised is no less than that but for explicit steps in log-SNR.
    assert declared >= (0 if name == "rk4-log-snr" else min(CATALOG[name]().order, 2))


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("tau", [0.3, 0.6, 2.0])
@pytest.mark.parametrize("correct", [False, True])
def test_weak_order_holds_at_any_noise_level(tau, correct, path):
    errors = []
    for n in (192, 384):
        oracle = gaussian(PATHS[path]())
        grid = by_log_snr(oracle.schedule, n, -3, 3)
        alpha, sigma = (float(v) for v in oracle.schedule(grid[-1]))
        found = variance_of(samplers.SDEAdams(2, tau, correct), oracle, grid)
        errors.append(abs(found - (alpha**2 * 0.3 + sigma**2)))
    assert slopes(errors)[0] > 1.8
    assert errors[-1] < 1e-3 * 0.3


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_stochastic_solvers_keep_the_law_from_pure_noise(tau):
    """From alpha = 0, on many steps: the variance of the data, exactly computed."""
    oracle = gaussian(Rectified())
    for sampler in (samplers.SDEAdams(1, tau), samplers.SDEAdams(2, tau), samplers.SDEAdams(2, tau, True)):
        assert variance_of(sampler, oracle, times.Span()(Rectified(), 400)) == pytest.approx(0.3, rel=0.02)


def test_noise_free_sde_solvers_are_refused():
    with pytest.raises(ValueError, match="tau = 0 is Adams"):
        samplers.SDEAdams(2, tau=0.0)


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("name", SDE)
def test_measured_weak_order_is_the_declared_one(name, path):
    """The variance on Gaussian data, exactly: deterministic in the state, so no Monte Carlo."""
    sampler, errors = CATALOG[name](), []
    for n in LATE.get(name, STEPS):
        schedule = PATHS[path]()
        oracle = gaussian(schedule)
        grid = by_log_snr(schedule, n, -3, 3)
        alpha, sigma = (float(v) for v in schedule(grid[-1]))
        errors.append(abs(variance_of(sampler, oracle, grid) - (alpha**2 * 0.3 + sigma**2)))
    assert slopes(errors)[0] == pytest.approx(sampler.order, abs=0.15)


def variance_of(sampler, oracle, grid: torch.Tensor) -> float:
    """The exact variance a sampler ends with: on Gaussian data it is affine in x and in every noise.

    One run carries a batch in which sample i has only the i-th noise (x and all draws by superposition), so samplers
    with memory are measured too.
    """
    steps = len(grid) - 1
    alpha, sigma = (float(v) for v in oracle.schedule(grid[0]))
    deviation = math.sqrt(alpha**2 * float(oracle.variances) + sigma**2)
    mean = alpha * float(oracle.mean)
    draws_made = (8 + sampler.evaluations) * steps + 2
    x = torch.full((draws_made, 1), mean, dtype=torch.float64)
    x[1] += deviation
    source = _OneAtATime(draws_made)
    out = sample(sampler, oracle, x, grid, generator=source)[:, 0]
    return float(((out[1:] - out[0]) ** 2).sum())


class _OneAtATime(Source):
    """The k-th draw is 1 for sample k + 2 and 0 for all others."""

    def __init__(self, size: int) -> None:
        self.size, self.drawn = size, 0

    def normal(self, shape, device, dtype):
        out = torch.zeros(*shape, device=device, dtype=dtype)
        out[2 + self.drawn] = 1
        self.drawn += 1
        return out

    def increment(self, x, t, s):
        return self.normal(x.shape, x.device, x.dtype)


def test_the_exact_variance_agrees_with_the_one_step_one_at_a_time():
    oracle = gaussian(VP())
    grid = by_log_snr(VP(), 12, -3, 3)
    for name in ("ddpm", "ddim-half"):
        assert variance_of(CATALOG[name](), oracle, grid) == pytest.approx(
            law(CATALOG[name](), oracle, grid)[1], rel=1e-12
        )


# Orders by definition, from a run of each engine on the test problem x0 = f(log-SNR) that it must integrate exactly.


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_weights_integrate_polynomials_exactly(k):
    nodes = sorted(draws(k, seed=k).tolist())
    moments = [1 / math.factorial(m + 1) for m in range(k)]  # over [0, 1]
    w = weights(nodes, moments)
    for degree in range(k):
        found = sum(a * b**degree for a, b in zip(w, nodes, strict=True))
        assert found == pytest.approx(1 / (degree + 1), abs=1e-10)


@pytest.mark.parametrize("z", [-30.0, -1.0, -0.999, -1e-3, 0.0, 1e-9, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_phi_is_its_integral(k, z):
    from scipy.integrate import quad

    truth = quad(lambda q: math.exp((1 - q) * z) * q ** (k - 1) / math.factorial(k - 1), 0, 1, epsabs=0, epsrel=1e-12)[
        0
    ]
    assert phi(k, z) == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize(
    "line", [DataLogSNR(), NoiseLogSNR(), NoiseRho(), NoiseTime(), Flow()], ids=lambda v: type(v).__name__
)
def test_moments_are_their_integrals(line):
    """Against SciPy's quadrature of the flow's own integral, with a monomial in place of x0 or eps."""
    from scipy.integrate import quad

    schedule = VP()
    t, s = samplers.prepare(gaussian(schedule), torch.tensor([0.6, 0.35], dtype=torch.float64))
    (at, st), (a_s, ss) = schedule.scalars(t), schedule.scalars(s)
    ends = math.log(at / st), math.log(a_s / ss)

    def level(half: float):
        return samplers.prepare(gaussian(schedule), schedule.time(torch.tensor([2 * half], dtype=torch.float64)))[0]

    for (a, b), moments in zip(line.rows, line.moments(schedule, t, s, 3), strict=True):
        for m, moment in enumerate(moments):

            def integrand(half: float, m=m, a=a, b=b) -> float:
                u = (line.node(schedule, level(half)) - line.node(schedule, t)) ** m / math.factorial(m)
                if isinstance(line, Flow):
                    angle = math.atan(math.exp(-half))
                    turn = -math.exp(-half) / (1 + math.exp(-2 * half))  # dangle / dhalf
                    return math.hypot(a_s, ss) * u * turn * (b * math.cos(angle) - a * math.sin(angle))
                if a:
                    return a_s * math.exp(half - ends[1]) * u
                return -a_s * math.exp(-half) * u

            assert moment == pytest.approx(quad(integrand, *ends, epsrel=1e-11)[0], rel=1e-8)


def test_the_multistep_engine_is_the_published_solvers():
    """LMS is SciPy-integrated Lagrange weights on eps in rho; one step of everything is DDIM."""
    oracle, x, grid = mixture(VP()), draws(3, 2), by_log_snr(VP(), 6)
    ddim = sample(DDIM(), oracle, x, grid)
    for line in (DataLogSNR(), NoiseLogSNR(), NoiseRho(), NoiseTime(), Flow()):
        assert torch.allclose(sample(Adams(line, 1), oracle, x, grid), ddim, atol=1e-12)
    y, past = x, []
    for t, s in itertools.pairwise(grid):
        (at, st), (a_s, ss) = oracle.schedule(t), oracle.schedule(s)
        past = [(float(st / at), oracle(y, t).eps), *past][:2]
        y = y * (a_s / at)
        for i, (_, eps) in enumerate(past):
            rest = [r for j, (r, _) in enumerate(past) if j != i]
            basis = np.poly1d(rest, r=True) / np.prod([past[i][0] - r for r in rest]) if rest else np.poly1d([1.0])
            primitive = np.polyint(basis)
            y = y + a_s * (primitive(float(ss / a_s)) - primitive(past[0][0])) * eps
    assert torch.allclose(sample(Adams(NoiseRho(), 2), oracle, x, grid), y, atol=1e-10)


def jumpy(schedule) -> torch.Tensor:
    """An even grid in log-SNR whose last step is five times its predecessor."""
    return schedule.time(2 * torch.tensor([-1.0, -0.8, -0.6, -0.4, 0.6], dtype=torch.float64))


@pytest.mark.parametrize(
    ("high", "low"), [("res-2m", "ddim"), ("dpmpp-2m", "ddim"), ("flow-2m", "ddim"), ("deis-log-rho-2", "ddim")]
)
def test_a_step_too_long_for_its_past_is_taken_at_a_lower_order(high, low):
    """The rule is the ratio of steps: after even steps one of five times the length is the first-order one."""
    oracle, x, grid = mixture(VP()), draws(3, 2), jumpy(VP())
    before = sample(CATALOG[high](), oracle, x, grid[:-1])
    assert torch.allclose(
        sample(CATALOG[high](), oracle, x, grid), sample(CATALOG[low](), oracle, before, grid[-2:]), atol=1e-12
    )
    even = by_log_snr(VP(), 4, -1.0, -0.2)
    before = sample(CATALOG[high](), oracle, x, even[:-1])
    assert not torch.allclose(
        sample(CATALOG[high](), oracle, x, even), sample(CATALOG[low](), oracle, before, even[-2:]), atol=1e-6
    )


def test_a_third_order_method_falls_to_what_the_ratio_bears():
    """Cancellation of plain extrapolation, written out: with ratio r two nodes cost 1 + r, and growth 4 allows r <=
    3.
    """
    adams = Adams(DataLogSNR(), 3)
    for ratio, kept in [(1.0, 3), (2.0, 3), (5.0, 2)]:
        nodes = [0.0, -1.0, -2.0]
        costs = {}
        for k in (2, 3):
            w = np.linalg.solve(np.vander(nodes[:k], increasing=True).T, [ratio ** (m + 1) / (m + 1) for m in range(k)])
            costs[k] = float(np.abs(w).sum() / ratio)
        expected = max([1, *(k for k in (2, 3) if costs[k] <= 4.0 ** (k - 1))])
        assert adams.bearable(nodes, ratio) == expected
        assert expected <= kept


@pytest.mark.parametrize("name", ["flow-2pc", "dpmpp-2m", "dpmpp-3m", "unipc-2", "lms-4", "deis-log-rho-3"])
def test_no_cliff_in_the_number_of_steps(name):
    """No library's switch at 15 steps: the error never jumps as steps are added, on a grid even in time."""
    oracle, x = mixture(VP()), draws(16, 2)
    truth = sample(Adams(Flow(), 2, correct=True), oracle, x, times.Span(0.1, 12)(VP(), 800))
    errors = []
    for n in range(10, 24):
        grid = torch.cat([torch.linspace(1, 1e-3, n, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
        errors.append(float((sample(CATALOG[name](), oracle, x, grid) - truth).square().mean().sqrt()))
    assert max(later / earlier for earlier, later in itertools.pairwise(errors)) < 1.25


class Counter(TorchDispatchMode):
    """Counts tensor operations, and reads of a tensor by the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.reads = 0

    def reading(self, usual):
        """A method that is counted as a read."""

        def read(*args, **kwargs):
            self.reads += 1
            return usual(*args, **kwargs)

        return read

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "item", "is_nonzero", "_to_copy", "nonzero"):
            self.reads += 1
        if name not in ("detach", "alias", "expand", "view"):
            self.operations += 1
        return func(*args, **(kwargs or {}))


class Silent(nn.Module):
    """A network of no tensor operation."""

    def forward(self, x, time, cond=None):
        return x


def counted(name: str, steps: int, grid=None) -> Counter:
    """The operations of a run whose grid was prepared before."""
    denoiser = NeuralDenoiser(Silent(), Discrete.linear(), TARGETS["v"](0.5))
    sampler, x = CATALOG[name](), draws(2, 3).float()
    levels = samplers.prepare(denoiser, (grid or times.Karras())(denoiser.schedule, steps), sampler=sampler)
    generator, state = torch.Generator().manual_seed(0), None
    with torch.no_grad(), Counter() as counter, pytest.MonkeyPatch.context() as patch:
        for way in ("tolist", "numpy"):  # which dispatch nothing on a CPU
            patch.setattr(torch.Tensor, way, counter.reading(getattr(torch.Tensor, way)))
        for t, s in itertools.pairwise(levels):
            x, state = sampler.step(denoiser, x, t, s, None, state, generator)
    return counter


def a_step(name: str) -> tuple[float, float]:
    """(operations, host reads) of a step, start and end apart."""
    long, short = counted(name, 24), counted(name, 12)
    return (long.operations - short.operations) / 12, (long.reads - short.reads) / 12


@pytest.mark.parametrize(
    ("name", "limit"),
    [("ddim", 2), ("euler", 2), ("dpmpp-2m", 5), ("flow-2m", 5), ("lms-2", 5), ("res-2m", 5), ("deis-log-rho-2", 5)],
)
def test_operations_beside_the_network(name, limit):
    assert a_step(name)[0] <= limit


@pytest.mark.parametrize("grid", [times.Karras(), times.LogSNR(), times.Span()], ids=["zero", "levels", "span"])
@pytest.mark.parametrize("name", FINITE)
def test_no_host_read_of_a_tensor_in_the_loop(name, grid):
    """Of none, from the first step to the last, on the device or not."""
    assert counted(name, 12, grid).reads == 0


class OnDevice(TorchDispatchMode):
    """Fails when a tensor derived from the samples is read by the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "item", "is_nonzero"):
            assert not (isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float32), "a sample was read"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", FINITE)
def test_no_sampler_reads_a_sample(name):
    """Samples are float32 here and times float64, so a read of anything made from samples shows."""
    denoiser = NeuralDenoiser(Silent(), Discrete.linear(), TARGETS["v"](0.5))
    with OnDevice():
        sample(
            CATALOG[name](),
            denoiser,
            draws(2, 3).float(),
            times.Karras()(denoiser.schedule, 6),
            generator=torch.Generator().manual_seed(0),
        )


def living(steps: int, name: str) -> int:
    """The most tensors of the samples' shape alive at once over a run."""
    seen: list[weakref.ref] = []
    most = 0

    class Watching(Denoiser):
        def forward(self, x, t, cond=None, s=None):
            nonlocal most
            estimate = Estimate(x * 0.5, x * 0.1)
            seen.extend(weakref.ref(part) for part in (x, estimate._u, estimate._v))
            most = max(most, len({id(part()) for part in seen if part() is not None}))
            return estimate

    denoiser = Watching()
    denoiser.schedule = VP()
    sample(
        CATALOG[name](), denoiser, draws(1, 2), times.LogSNR()(VP(), steps), generator=torch.Generator().manual_seed(0)
    )
    return most


@pytest.mark.parametrize("name", FINITE)
def test_memory_does_not_grow_with_the_number_of_steps(name):
    assert living(60, name) == living(15, name)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([0.5, 0.7, 0.0], "rises to 0.7 after 0.5"),
        ([0.5, 0.5, 0.0], "repeats 0.5"),
        ([1.2, 0.5, 0.0], r"lie in \[0, 1\]"),
        ([1.0, 0.5, -0.1], r"lie in \[0, 1\]"),
        ([1.0], "at least two times"),
        ([1.0, math.nan, 0.0], "must fall"),
    ],
)
def test_impossible_grids_are_refused(grid, words):
    with pytest.raises(ValueError, match=words):
        sample(DDIM(), gaussian(VP()), draws(2, 1), torch.tensor(grid, dtype=torch.float64))


class PureMap(Denoiser):
    """A consistency function: it knows where the flow ends and nothing else."""

    diagonal = False

    def __init__(self, oracle) -> None:
        super().__init__()
        self.oracle, self.schedule = oracle, oracle.schedule

    def forward(self, x, t, cond=None, s=None):
        assert s is not None
        return self.oracle(x, t, cond, s)


@pytest.mark.parametrize("name", FINITE)
def test_a_pure_flow_map_is_refused_by_what_needs_the_diagonal(name):
    with pytest.raises(ValueError, match="leave out the sampler"):
        sample(CATALOG[name](), PureMap(gaussian(VP())), draws(2, 1), times.Uniform()(VP(), 3))


def test_a_pure_flow_map_jumps():
    oracle = gaussian(VP())
    out = sample(Gamma(), PureMap(oracle), draws(4, 1), times.Uniform()(VP(), 2))
    assert torch.allclose(out, oracle.flow(draws(4, 1), 1.0, 0.0), atol=1e-9)


@pytest.mark.parametrize(
    ("budget", "orders"),
    [(1, (1,)), (2, (2,)), (3, (2, 1)), (6, (3, 2, 1)), (7, (3, 3, 1)), (8, (3, 3, 2)), (9, (3, 3, 2, 1))],
)
def test_dpm_solver_fast_spends_its_budget_on_the_published_orders(budget, orders):
    sampler, calls = samplers.DPMSolverFast(budget), 0
    assert (sampler.orders, sampler.steps) == (orders, len(orders))

    class Counting(Denoiser):
        def forward(self, x, t, cond=None, s=None):
            nonlocal calls
            calls += 1
            return oracle(x, t)

    oracle, counting = mixture(VP()), Counting()
    counting.schedule = VP()
    grid = by_log_snr(VP(), len(orders))
    out, x = sample(sampler, counting, draws(2, 2), grid), draws(2, 2)
    assert calls == budget
    for order, t, s in zip(orders, grid[:-1], grid[1:], strict=True):
        x, _ = samplers.dpm_solver(order).step(oracle, x, t, s)
    assert torch.allclose(out, x, atol=1e-12)
    with pytest.raises(ValueError, match="give it a grid of as many"):
        sample(sampler, oracle, draws(2, 2), by_log_snr(VP(), len(orders) + 1))


def test_plms_is_its_published_form():
    """Written out: the Heun-like first step, then Adams-Bashforth's weights for equal steps inside DDIM's transfer."""
    oracle, x, grid = mixture(VP()), draws(3, 2), torch.linspace(0.9, 0.3, 7, dtype=torch.float64)
    rows = [[1], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]

    def move(y, t, s, eps):
        (at, st), (a_s, ss) = oracle.schedule(t), oracle.schedule(s)
        return a_s / at * y + (ss - a_s / at * st) * eps

    y, past = x, []
    for t, s in itertools.pairwise(grid):
        eps = oracle(y, t).eps
        past = [eps, *past][:4]
        if len(past) == 1:
            y = move(y, t, s, (eps + oracle(move(y, t, s, eps), s).eps) / 2)
        else:
            y = move(y, t, s, sum(w * e for w, e in zip(rows[len(past) - 1], past, strict=True)))
    assert torch.allclose(sample(CATALOG["plms"](), oracle, x, grid), y, atol=1e-12)


def test_the_table_in_the_documents_has_every_sampler():
    from pathlib import Path

    text = (Path(__file__).parent.parent.parent / "docs" / "conformance.md").read_text().split("\n## ")[0]
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")} - {"sampler"}
    assert rows == {n for n in CATALOG if math.isfinite(CATALOG[n]().order)}


def test_trajectory_holds_every_point_only_for_who_asks():
    oracle, grid = mixture(VP()), times.Uniform()(VP(), 5)
    assert len(list(trajectory(DDIM(), oracle, draws(2, 2), grid))) == 6


@pytest.mark.parametrize("name", [n for n in FINITE if not CATALOG[n]().stochastic])
def test_levels_found_ahead_are_those_found_one_by_one(name):
    """Preparing only saves time: bare times give the same samples, to the rounding of one inversion or another."""
    oracle, x = mixture(VP()), draws(4, 2)
    grid = times.Karras()(oracle.schedule, 7)
    sampler, y, state = CATALOG[name](), x, None
    for t, s in itertools.pairwise(Level.grid(grid)):
        y, state = sampler.step(oracle, y, t, s, None, state)
    assert torch.allclose(sample(CATALOG[name](), oracle, x, grid), y, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in FINITE if not CATALOG[n]().stochastic])
def test_levels_may_be_used_again(name):
    """By another path, another sampler of the kind and another end of the step, as freshly made levels are."""
    grid = torch.tensor([0.8, 0.6, 0.45, 0.3], dtype=torch.float64)
    levels, x, sampler = Level.grid(grid), draws(4, 2), CATALOG[name]()

    def ran(sampler, schedule, levels):
        oracle, y, state = mixture(schedule), x, None
        for t, s in itertools.pairwise(levels):
            y, state = sampler.step(oracle, y, t, s, None, state)
        return y

    for each, schedule, chosen in [
        (sampler, VP(), [0, 1, 2, 3]),
        (sampler, Rectified(), [0, 1, 2, 3]),
        (CATALOG[name](), Discrete.linear(), [0, 1, 2, 3]),
        (sampler, Rectified(), [0, 2, 3]),
        (sampler, Rectified(), [0, 3]),
    ]:
        fresh = ran(CATALOG[name](), schedule, Level.grid(grid[chosen]))
        assert torch.equal(ran(each, schedule, [levels[i] for i in chosen]), fresh)


@pytest.mark.parametrize("name", list(CATALOG))
def test_what_a_sampler_remembers_is_declared(name):
    sampler = CATALOG[name]()
    if not sampler.aims:
        t, s = Level.grid(torch.tensor([0.6, 0.5], dtype=torch.float64))
        keyed = torch.Generator().manual_seed(0)
        state = sampler.step(mixture(Rectified()), draws(2, 2), t, s, None, None, keyed)[1]
        assert (state is not None) == sampler.remembers
