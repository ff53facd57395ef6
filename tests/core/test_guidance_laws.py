"""Where guided samples end: closed forms of guided Gaussians, and the law that guidance does not sample."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, special

from osmotic import times
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.guidance import Autoguidance, CFGPlusPlus, ClassifierFree, Interval
from osmotic.levels import as_time
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG, DDIM, DDPM, sample
from osmotic.schedules import VP, Rectified

COND = Condition(vector=torch.zeros(2, dtype=torch.int64))
CONDITIONAL, UNCONDITIONAL = (0.8, 0.3), (-0.4, 1.2)  # (mean, deviation) of two Gaussian laws
PATHS = {"vp": VP, "rectified": Rectified}
# What integrates the flow with one declared order, and does not decide its own steps.
ODE = [n for n, make in CATALOG.items() if not make().stochastic and not make().aims and make().evaluations]


def f64(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


class Pair(Denoiser):
    """A conditional Gaussian where the condition is shown, and an unconditional one where it is hidden."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t, cond=None, s=None):
        shown = torch.ones(len(x), dtype=torch.bool) if cond.keep is None else cond.keep
        (c, deviation), (u, other) = CONDITIONAL, UNCONDITIONAL
        mean, variance = torch.where(shown, c, u)[:, None], torch.where(shown, deviation**2, other**2)[:, None].double()
        alpha, sigma = like(x, *self.schedule.numbers(as_time(t)))
        z = (x - alpha * mean) / (alpha**2 * variance + sigma**2)
        return Estimate(mean + alpha * variance * z, sigma * z)


def end(scale: float, rho: float, low: float = 0.0, high: float = math.inf) -> tuple[float, float]:
    """(mean, slope) of the guided flow from y = x / alpha at rho = sigma / alpha to the data: ``y_0 = mean + slope y``.

    ``dy/drho = sum_i w_i rho (y - m_i) / (v_i + rho^2)``, linear in y. Its factor between two levels is ``prod_i
    ((v_i + low^2) / (v_i + high^2))^(w_i / 2)`` and its mean an integral of it, in
    pieces where the weights change.
    """
    mean, slope = 0.0, 1.0
    decades = (10.0**k for k in range(-2, 6))  # for the quadrature's sake
    cuts = sorted({0.0, rho, *(c for c in (low, high, *decades) if 0 < c < rho)})
    for a, b in pairwise(cuts):
        w = scale if low <= a and b <= high else 1.0
        terms = [(w, *CONDITIONAL), (1 - w, *UNCONDITIONAL)]

        def factor(r: float, terms=terms, a=a) -> float:
            return math.prod(((d * d + a * a) / (d * d + r * r)) ** (k / 2) for k, _, d in terms)

        def push(r: float, terms=terms, factor=factor) -> float:
            return factor(r) * sum(k * r * m / (d * d + r * r) for k, m, d in terms)

        mean += slope * integrate.quad(push, a, b, epsabs=1e-12, epsrel=1e-11, limit=400)[0]
        slope *= factor(b)
    return mean, slope


def found(denoiser: Denoiser, name: str, steps: int, start: float = 1.0) -> tuple[float, float]:
    """(mean, slope) of what a sampler does, from y = 0 and y = 1 at the start: exact, for the estimate is affine."""
    alpha, _ = denoiser.schedule.scalars(start)
    x = torch.tensor([[0.0], [alpha]], dtype=torch.float64)
    zero, one = sample(CATALOG[name](), denoiser, x, times.Span()(denoiser.schedule, steps, start), COND)[:, 0].tolist()
    return zero, one - zero


@pytest.fixture(scope="module")
def truths() -> dict[tuple[str, float], tuple[float, float, float]]:
    """(rho, mean, slope) by path and scale, from a level with rho near 100."""
    made = {}
    for path, make in PATHS.items():
        t = float(make().time(f64(-2 * math.log(100.0))))
        alpha, sigma = make().scalars(t)
        for scale in (0.0, 1.0, 2.5):
            made[path, scale] = t, *end(scale, sigma / alpha)
    return made


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("name", ODE)
def test_every_solver_ends_at_the_known_mean_and_spread(name, path, truths):
    """Spread and mean of guided Gaussians in closed form: the error falls with the steps, to a percent."""
    t, mean, slope = truths[path, 2.5]
    errors = []
    for steps in (100, 400):
        a, b = found(ClassifierFree(Pair(PATHS[path]()), 2.5), name, steps, t)
        errors.append(max(abs(a - mean), abs(math.log(b / slope))))
    assert errors[1] < 0.02
    assert errors[1] < max(0.4 * errors[0], 1e-6)


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_the_closed_form_is_met_to_many_digits(scale, path, truths):
    t, mean, slope = truths[path, scale]
    a, b = found(ClassifierFree(Pair(PATHS[path]()), scale), "rk4", 800, t)
    assert a == pytest.approx(mean, abs=1e-7)
    assert b == pytest.approx(slope, rel=1e-6)


def test_from_pure_noise_the_deviation_is_a_product_of_powers():
    """At rho = infinity the slope times rho is ``s_c^w s_u^(1 - w)``: tutorials.md K3."""
    w, ((_, c), (_, u)) = 2.5, (CONDITIONAL, UNCONDITIONAL)
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    schedule = Rectified()  # alpha = 0 at its start
    zero, one = sample(CATALOG["rk4"](), ClassifierFree(Pair(schedule), w), x, times.Span()(schedule, 800), COND)[:, 0]
    assert float(one - zero) == pytest.approx(c**w * u ** (1 - w), rel=1e-4)
    assert float(zero) == pytest.approx(end(w, 1e5)[0], abs=1e-4)


@pytest.mark.parametrize("path", list(PATHS))
def test_guidance_in_an_interval_ends_where_its_own_flow_does(path):
    """The rate jumps at the interval's ends, so the error falls with the first power of the steps."""
    t = float(PATHS[path]().time(f64(-2 * math.log(100.0))))
    alpha, sigma = PATHS[path]().scalars(t)
    mean, slope = end(4.0, sigma / alpha, 0.2, 1.6)
    a, b = found(Interval(ClassifierFree(Pair(PATHS[path]()), 4.0), 0.2, 1.6), "heun", 4000, t)
    assert a == pytest.approx(mean, abs=4e-3)
    assert math.log(b / slope) == pytest.approx(0, abs=4e-3)
    # Neither guided throughout nor plain: the test tells them apart.
    others = end(4.0, sigma / alpha), end(1.0, sigma / alpha)
    assert all(abs(math.log(slope / other)) > 0.1 for _, other in others)


def test_autoguidance_of_gaussians_ends_where_classifier_free_guidance_does():
    """The same algebra with two denoisers in place of two conditions."""
    schedule = VP()
    good, bad = (Gaussian(schedule, torch.tensor([m]).double(), d**2) for m, d in (CONDITIONAL, UNCONDITIONAL))
    t = float(schedule.time(f64(-2 * math.log(100.0))))
    alpha, sigma = schedule.scalars(t)
    a, b = found(Autoguidance(good, bad, 2.5), "rk4", 400, t)
    mean, slope = end(2.5, sigma / alpha)
    assert a == pytest.approx(mean, abs=1e-6)
    assert b == pytest.approx(slope, rel=1e-5)


# Two components of one dimension, equal weights, at -0.7 and 0.7 with variance 0.2.
CENTRE, VARIANCE = 0.7, 0.2


def tilted(w: float) -> tuple[float, float]:
    """Mean and deviation of ``p(x)^(1 - w) p(x | c)^w``, by quadrature."""
    x = np.linspace(-8, 8, 40001)
    posterior = special.log_expit(2 * CENTRE * x / VARIANCE)  # log p(c | x)
    log_density = -((x - CENTRE) ** 2) / (2 * VARIANCE) + (w - 1) * posterior
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    mean = float((density * x).sum())
    return mean, math.sqrt(float((density * (x - mean) ** 2).sum()))


def guided(w: float, steps: int) -> tuple[float, float]:
    """Mean and deviation of the guided ODE's samples, by the quantiles of the noise: the map is monotone."""
    oracle = GaussianMixture(VP(), torch.tensor([[-CENTRE], [CENTRE]]).double(), VARIANCE)
    shares = (np.arange(1000) + 0.5) / 1000
    x = torch.from_numpy(special.ndtri(shares))[:, None]
    grid = times.suggested(1.0, 1)(oracle.schedule, steps)
    cond = Condition(vector=torch.ones(len(x), dtype=torch.int64))
    out = sample(CATALOG["heun"](), ClassifierFree(oracle, w), x, grid, cond)
    assert bool((out.diff(dim=0) > 0).all())
    return float(out.mean()), float(out.std())


def guided_by_scipy(w: float) -> tuple[float, float]:
    """The same by SciPy's eighth-order solver of ``dy/dlog rho = y - D_w``, with the mixture written out."""
    alpha, sigma = (float(v) for v in VP()(f64(1.0)))
    start = special.ndtri((np.arange(1000) + 0.5) / 1000) / alpha

    def rate(log_rho: float, y: np.ndarray) -> np.ndarray:
        variance = VARIANCE + math.exp(2 * log_rho)
        share = special.expit(2 * CENTRE * y / variance)
        left, right = (m + VARIANCE / variance * (y - m) for m in (-CENTRE, CENTRE))
        plain = share * right + (1 - share) * left
        return y - (plain + w * (right - plain))

    y = integrate.solve_ivp(rate, (math.log(sigma / alpha), -9), start, "DOP853", rtol=1e-8, atol=1e-10).y[:, -1]
    return float(y.mean()), float(y.std())


@pytest.mark.parametrize(
    ("w", "by_flow", "by_tilt"), [(2.0, (0.983, 0.321), (0.767, 0.400)), (4.0, (1.296, 0.255), (0.816, 0.373))]
)
def test_guidance_does_not_sample_the_tilted_density(w, by_flow, by_tilt):
    """The numbers of samplers.md, section 5. It does not say its mixture, which the four numbers of the tilt fix, nor
    where its flow starts or how many samples it drew: the flow's are met to a hundredth, and SciPy's to a thousandth.
    """
    assert tilted(w) == pytest.approx(by_tilt, abs=1e-3)
    flow = guided(w, 400)
    assert flow == pytest.approx(guided_by_scipy(w), abs=1e-3)
    assert flow == pytest.approx(by_flow, abs=1e-2)
    assert abs(flow[0] - tilted(w)[0]) > 0.2


def test_at_scale_one_flow_and_tilt_agree():
    assert tilted(1.0) == pytest.approx((CENTRE, math.sqrt(VARIANCE)), abs=1e-6)
    # VP's noise at t = 1 holds 0.0066 of the mean, which starting at N(0, 1) leaves out.
    assert guided(1.0, 400) == pytest.approx((CENTRE, math.sqrt(VARIANCE)), abs=4e-3)


# CFG++: the second tutorial's literal rule.


def test_cfgplusplus_is_ddim_with_a_scale_that_grows_as_steps_shrink():
    """One step equals classifier-free guidance at ``scale rho_t / (rho_t - rho_s)``: trap T2's exact algebra."""
    for make in PATHS.values():
        schedule, x = make(), torch.tensor([[0.3], [-1.1]], dtype=torch.float64)
        for t, s in [(0.9, 0.2), (0.6, 0.5), (0.6, 0.59), (0.4, 0.0)]:
            (a, b), (c, d) = schedule.scalars(t), schedule.scalars(s)
            effective = 0.6 * (b / a) / (b / a - d / c)
            by_rule, by_cfg = (
                sample(DDIM(), denoiser, x, torch.tensor([t, s]).double(), COND)
                for denoiser in (CFGPlusPlus(Pair(schedule), 0.6), ClassifierFree(Pair(schedule), effective))
            )
            assert torch.allclose(by_rule, by_cfg, atol=1e-9)


def test_cfgplusplus_at_scale_one_is_not_the_conditional_and_worse_with_more_steps():
    """T2's table: the conditional's deviation is 0.3, the literal rule's goes to 0 as the steps grow."""
    spreads = []
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for steps in (5, 10, 20, 40):
        grid = times.Uniform()(VP(), steps)
        by_rule, by_cfg = (
            float(sample(DDIM(), kind(Pair(VP()), 1.0), x, grid, COND).diff(dim=0))
            for kind in (CFGPlusPlus, ClassifierFree)
        )
        spreads.append(by_rule)
    assert by_cfg == pytest.approx(CONDITIONAL[1], rel=0.15)
    assert all(0 <= after < 0.5 * before for before, after in pairwise(spreads))
    assert spreads[-1] < 1e-3 * CONDITIONAL[1]


def test_cfgplusplus_with_noise_keeps_the_rule():
    """DDPM's step is ``alpha_s x0 + b eps + noise``; its noise-free part is the rule at b for sigma_s."""
    schedule, x = VP(), torch.tensor([[0.3], [-1.1]], dtype=torch.float64)
    base, t = Pair(schedule), torch.tensor([0.7, 0.4]).double()
    hidden = COND.drop(torch.zeros(2, dtype=torch.bool))
    x0 = base(x, t[0], hidden).lerp(base(x, t[0], COND), 0.6).x0
    eps = base(x, t[0], hidden).eps
    (a, b), (c, d) = schedule.scalars(0.7), schedule.scalars(0.4)
    noise = torch.randn(2, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fresh = d * math.sqrt(1 - (d * a / (b * c)) ** 2)
    expected = c * x0 + math.sqrt(d**2 - fresh**2) * eps + fresh * noise
    out = sample(DDPM(), CFGPlusPlus(base, 0.6), x, t, COND, torch.Generator().manual_seed(3))
    assert torch.allclose(out, expected, atol=1e-12)
