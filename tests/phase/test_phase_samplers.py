"""Samplers of positions and velocities: measured order, exact laws, identities and invariances, on exact denoisers."""

import itertools
import math

import numpy as np
import pytest
import torch
from phase_truth import PATHS, at, draws, flow_by_scipy, mixture, slopes
from scipy import integrate
from torch import nn

from osmotic import inversion, likelihood, oracles, phase, samplers, times
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import V
from osmotic.guidance import ClassifierFree
from osmotic.noise import generators
from osmotic.phase import CLD, GDDIM, SSCS, Cholesky, EulerMaruyama, Gaussian, Isotropic, Lifted, StochasticGDDIM
from osmotic.phase import gddim as gddim_module
from osmotic.phase import sde as sde_module
from osmotic.phase.matrix import apply
from osmotic.samplers import DDIM, Midpoint, sample
from osmotic.schedules import VE, VP

ANY_ROOT = {
    "gddim-1": GDDIM,
    "gddim-2": lambda: GDDIM(2),
    "gddim-3": lambda: GDDIM(3),
    "gddim-1-corrected": lambda: GDDIM(1, correct=True),
    "gddim-2-corrected": lambda: GDDIM(2, correct=True),
    "euler": phase.Euler,
    "heun": phase.Heun,
}
# The core's own samplers, as they are: their jump and their flow line are those of the flow's root.
CORE = {"core-ddim": DDIM, "core-euler": samplers.Euler, "core-midpoint": Midpoint}
STOCHASTIC = {
    "euler-maruyama": EulerMaruyama,
    "sscs": SSCS,
    "gddim-0.5": lambda: StochasticGDDIM(0.5),
    "gddim-posterior": StochasticGDDIM,
    "gddim-1.5": lambda: StochasticGDDIM(1.5),
}
ALL = ANY_ROOT | CORE | STOCHASTIC


def uniform(start: float, end: float, steps: int) -> torch.Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


@pytest.fixture(scope="module")
def problem():
    """Per path: a mixture's oracle, points at t = 0.8 and where SciPy's flow takes them at t = 0.1."""

    def make(name: str):
        oracle = mixture(PATHS[name]())
        x0 = oracle.denoiser.sample(4, torch.Generator().manual_seed(2))
        u = phase.diffuse(oracle.path, x0, 0.8, torch.Generator().manual_seed(3))
        return oracle, u, flow_by_scipy(oracle, u, 0.8, 0.1)

    return {name: make(name) for name in ("linear", "cholesky")}


@pytest.mark.parametrize("name", list(ANY_ROOT | CORE))
@pytest.mark.parametrize("path", ["linear", "cholesky"])
def test_measured_order_is_the_declared_one(path, name, problem):
    if path == "cholesky" and name in CORE:
        pytest.skip("a jump by the Cholesky root is not the flow; the next test shows it")
    (oracle, u, truth), sampler = problem[path], ALL[name]()
    errors = [
        float((sample(sampler, oracle, u, uniform(0.8, 0.1, n)) - truth).square().mean().sqrt()) for n in (64, 128)
    ]
    assert slopes(errors)[-1] == pytest.approx(sampler.order, abs=0.15)


def test_jumps_by_the_cholesky_root_do_not_converge(problem):
    """What gDDIM is for: with L the core's DDIM tends to another map, with the flow's root to the right one."""
    oracle, u, truth = problem["cholesky"]
    errors = [float((sample(DDIM(), oracle, u, uniform(0.8, 0.1, n)) - truth).abs().max()) for n in (32, 128)]
    assert min(errors) > 0.1
    oracle, u, truth = problem["linear"]
    assert float((sample(DDIM(), oracle, u, uniform(0.8, 0.1, 256)) - truth).abs().max()) < 0.05


def test_the_core_jump_is_gddim_of_order_one(problem):
    oracle, u, _ = problem["linear"]
    for grid in (uniform(0.8, 0.1, 5), times.Quadratic()(oracle.path, 5, 0.8)):
        assert torch.allclose(sample(GDDIM(), oracle, u, grid), sample(DDIM(), oracle, u, grid), atol=1e-8)
        one_sided = sample(StochasticGDDIM(0.0), oracle, u, grid)
        assert torch.allclose(one_sided, sample(DDIM(), oracle, u, grid), atol=1e-8)


@pytest.mark.parametrize("name", ["gddim-2", "gddim-2-corrected"])
def test_a_quadratic_grid_keeps_the_order_down_to_the_data(name):
    """Close to the data eps is smooth in sqrt(t): evenly spaced there, a grid that ends at 0 keeps the data's order.

    The velocity left over at t = 0, which nobody asks for, is of one order less.
    """
    oracle = Gaussian(CLD(), draws(2), 0.3)
    x0 = oracle.denoiser.sample(6, torch.Generator().manual_seed(0))
    u = phase.diffuse(oracle.path, x0, 1.0, torch.Generator().manual_seed(1))
    truth = oracle.flow(u, 1.0, 0.0)
    errors = [
        float((sample(ALL[name](), oracle, u, times.Quadratic()(oracle.path, n)) - truth)[:, 0].square().mean().sqrt())
        for n in (64, 128)
    ]
    assert slopes(errors)[-1] == pytest.approx(ALL[name]().order, abs=0.15)


class Basis:
    """In place of random noise: unit vectors, each in a sample of its own, for an exact reading of an affine step."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: torch.Tensor, generator: object = None) -> torch.Tensor:
        z, row = torch.zeros_like(x), 3 + 2 * self.calls
        z[row, 0], z[row + 1, 1] = 1, 1
        self.calls += 1
        return z


def affine(sampler, oracle, t, s, monkeypatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(A, B, c) of a step ``u_s = A u + B z + c`` on one-dimensional Gaussian data, exactly, from one run."""
    basis = Basis()
    monkeypatch.setattr(sde_module, "normal_like", basis)
    monkeypatch.setattr(gddim_module, "normal_like", basis)
    u = torch.zeros(7, 2, 1, dtype=torch.float64)
    u[1, 0], u[2, 1] = 1, 1
    out = sampler.step(oracle, u, t, s)[0][..., 0]
    change = (out - out[0])[1:]
    return change[:2].T, change[2:].T, out[0]


def exact(path, t, mean: float, variance: float) -> tuple[torch.Tensor, torch.Tensor]:
    a, r = path(torch.as_tensor(t, dtype=torch.float64))
    return mean * a[:, 0], variance * a[:, :1] @ a[:, :1].T + r @ r.T


def law(sampler, oracle, grid, monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact mean and covariance that a sampler gives on Gaussian data, without Monte Carlo."""
    mean, covariance = exact(oracle.path, grid[0], float(oracle.denoiser.mean), float(oracle.denoiser.variances))
    for t, s in itertools.pairwise(samplers.prepare(oracle, grid)):
        a, b, c = affine(sampler, oracle, t, s, monkeypatch)
        mean, covariance = a @ mean + c, a @ covariance @ a.T + b @ b.T
    return mean, covariance


def gaussian(path, mean: float = 0.5, variance: float = 0.3) -> Gaussian:
    return Gaussian(path, torch.tensor([mean], dtype=torch.float64), variance)


@pytest.mark.parametrize("name", list(STOCHASTIC))
@pytest.mark.parametrize("path", ["linear", "cholesky"])
def test_weak_order_and_marginals_of_stochastic_samplers(path, name, monkeypatch):
    """The law tends to the exact marginal, mean and all of the covariance, at the declared rate."""
    oracle, sampler = gaussian(PATHS[path]()), STOCHASTIC[name]()
    mean, covariance = exact(oracle.path, 0.15, 0.5, 0.3)
    found = [law(sampler, oracle, uniform(0.8, 0.15, n), monkeypatch) for n in (48, 96)]
    errors = [float((c - covariance).norm()) for _, c in found]
    assert slopes(errors)[-1] == pytest.approx(sampler.order, abs=0.15)
    # Without the first-order term what is left is of second order: the limit is the mean itself.
    (m1, _), (m2, _) = found
    assert torch.allclose(2 * m2 - m1, mean, atol=2e-3)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("path", ["flow", "linear"])
def test_gddim_is_exact_for_a_point_at_any_step_count(path, strength, monkeypatch):
    """A single point's law, and its map if deterministic, in 1, 2 or 5 steps: eps is constant along its flow."""
    oracle = gaussian(PATHS[path](), variance=0.0)
    for steps in (1, 2, 5):
        mean, covariance = law(StochasticGDDIM(strength), oracle, uniform(1.0, 0.05, steps), monkeypatch)
        for ours, theirs in zip((mean, covariance), exact(oracle.path, 0.05, 0.5, 0.0), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-8)


def test_eps_is_constant_along_a_points_flow_by_the_flows_root_only():
    for root, constant in [(phase.Flow(), True), (Cholesky(), False)]:
        path = CLD(root=root)
        oracle = Gaussian(path, draws(2), 0.0)
        u = phase.diffuse(path, oracle.denoiser.sample(5), 0.9, torch.Generator().manual_seed(1))
        moved = oracle.flow(u, 0.9, 0.2)
        change = float((oracle(moved, at(0.2)).eps - oracle(u, at(0.9)).eps).abs().max())
        assert change < 1e-8 if constant else change > 0.3
        # So one step, or three of any order, are the flow itself; with L they are not.
        for order, steps in [(1, 1), (2, 3), (3, 3)]:
            error = float((sample(GDDIM(order), oracle, u, uniform(0.9, 0.2, steps)) - moved).abs().max())
            assert error < 1e-8 if constant else error > 1e-3, (order, error)


@pytest.mark.parametrize("name", ["flow", "cholesky", "linear"])
def test_the_posterior_step_is_the_conditional_law(name, monkeypatch):
    """``q(u_s | u_t, x0)`` by conditioning the joint Gaussian of (u_s, u_t) given x0."""
    path, t, s = PATHS[name](), 0.7, 0.3
    oracle = gaussian(path, mean=0.5, variance=0.0)
    (a_t, _), (a_s, _) = path(at(t)), path(at(s))
    sigma_t, sigma_s = path.covariance(at(t)), path.covariance(at(s))
    cross = sigma_s @ (a_t @ torch.linalg.inv(a_s)).T
    gain = cross @ torch.linalg.inv(sigma_t)
    levels = samplers.prepare(oracle, torch.tensor([t, s], dtype=torch.float64))
    keep, fresh, shift = affine(StochasticGDDIM(), oracle, *levels, monkeypatch)
    assert torch.allclose(keep, gain, atol=1e-9)
    assert torch.allclose(shift, 0.5 * (a_s - gain @ a_t)[:, 0], atol=1e-9)
    assert torch.allclose(fresh @ fresh.T, sigma_s - gain @ cross.T, atol=1e-9)


@pytest.mark.parametrize("name", ["flow", "cholesky", "linear"])
def test_lifted_oracles_have_the_exact_score(name):
    """``-R^{-T} eps`` is the gradient of the log-density, and the density is that of a mixture in phase space."""
    oracle = mixture(PATHS[name]())
    path, inner = oracle.path, oracle.denoiser
    for t in (0.02, 0.4, 1.0):
        u = phase.diffuse(path, inner.sample(6, torch.Generator().manual_seed(1)), t).requires_grad_()
        log_prob = oracle.log_prob(u, t)
        (score,) = torch.autograd.grad(log_prob.sum(), u)
        _, r = path.matrices(t)
        estimate = oracle(u.detach(), at(t))
        assert torch.allclose(apply([(-r.inverse.T, estimate.eps)]), score, rtol=1e-6, atol=1e-8)
        assert float(estimate.x0[:, 1].abs().max()) < 1e-6
        # Components of a mixture of 4-dimensional normals, each with covariance a a^T v + Sigma.
        a, big = path(at(t))[0], path.covariance(at(t))
        block = torch.kron(0.15 * a[:, :1] @ a[:, :1].T + big, torch.eye(2, dtype=torch.float64))
        means = torch.cat([a[0, 0] * inner.means, a[1, 0] * inner.means], 1)
        normal = torch.distributions.MultivariateNormal(means, block.expand(5, 4, 4))
        truth = torch.logsumexp(normal.log_prob(u.detach().flatten(1)[:, None]) - math.log(5), 1)
        assert torch.allclose(log_prob, truth, atol=1e-8)


@pytest.mark.parametrize("base", [VP(), VE(400.0)])
def test_a_lifted_oracle_of_another_path_has_the_same_density_and_data(base):
    """The scale between the two paths counts in the density; the data are the same draws."""
    means, path = 1.5 * draws(5, 2, seed=1), CLD()
    direct, other = (Lifted(oracles.GaussianMixture(p, means, 0.15), path) for p in (path.channel, base))
    u = phase.diffuse(path, direct.denoiser.sample(6, torch.Generator().manual_seed(1)), 0.4, generator=None)
    for t in (0.05, 0.4, 0.9):
        assert torch.allclose(direct.log_prob(u, t), other.log_prob(u, t), rtol=1e-7)
    each = torch.tensor([0.05, 0.1, 0.2, 0.4, 0.6, 0.9], dtype=torch.float64)
    assert torch.allclose(direct.log_prob(u, each), other.log_prob(u, each), rtol=1e-7)
    a, b = (o.sample(4, torch.Generator().manual_seed(3)) for o in (direct, other))
    assert torch.equal(a, b)


def test_lifted_samples_are_the_data_with_velocities():
    path = CLD(mass=0.5, gamma=0.2)
    u = gaussian(path).sample(40_000, torch.Generator().manual_seed(0))[..., 0]
    assert float(u[:, 0].mean()) == pytest.approx(0.5, abs=5 * math.sqrt(0.3 / 40_000))
    for column, variance in ((0, 0.3), (1, 0.1)):
        assert float(u[:, column].var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / 40_000))


@pytest.mark.parametrize("base", [VP(), VE(400.0)])
def test_a_denoiser_of_any_ordinary_path_is_lifted(base):
    """The same estimate from the data's oracle on another path: nothing is retrained, nothing lost."""
    means = 1.5 * draws(5, 2, seed=1)
    path = CLD()
    lifted, truth = Lifted(oracles.GaussianMixture(base, means, 0.15), path), mixture(path)
    u, t = draws(3, 2, 2), torch.tensor([0.1, 0.5, 0.97], dtype=torch.float64) * lifted.start
    assert 0.8 < lifted.start <= 1
    for ours, theirs in zip(lifted(u, t), truth(u, t), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_gaussian_flow_is_the_ode():
    for path in (CLD(), CLD(root=Cholesky()), PATHS["linear"]()):
        covariance = torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)
        oracle = Gaussian(path, draws(2), covariance)
        u = phase.diffuse(path, oracle.denoiser.sample(3, torch.Generator().manual_seed(0)), 0.9)
        assert torch.allclose(oracle.flow(u, 0.9, 0.15), flow_by_scipy(oracle, u, 0.9, 0.15), atol=1e-7)
        assert torch.allclose(oracle.flow(oracle.flow(u, 0.9, 0.0), 0.0, 0.9), u, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_on_an_isotropic_path_gddim_is_deis(order):
    """DDIM exactly at order 1; beyond, the weights ``int l_k d(sigma / alpha)`` by SciPy (arXiv 2204.13902, eq. 15)."""
    means = 1.5 * draws(4, 2, seed=1)
    ordinary = oracles.GaussianMixture(VP(), means, 0.15)
    oracle, x = Lifted(ordinary, Isotropic(VP())), draws(3, 2)
    grid = uniform(0.9, 0.2, 6)
    u = torch.stack([x, draws(3, 2, seed=5)], 1)
    ours = sample(GDDIM(order), oracle, u, grid)[:, 0]
    if order == 1:
        assert torch.allclose(ours, sample(DDIM(), ordinary, x, grid), atol=1e-10)
        return

    def step(x, t, s, nodes, eps):
        (alpha_t, _), (alpha_s, _) = VP()(t), VP()(s)
        for k, node in enumerate(nodes):

            def integrand(tau, k=k, node=node):
                (alpha, sigma), (dalpha, dsigma) = VP()(tau), VP().rates(tau)
                ell = np.prod([(tau - float(n)) / float(node - n) for m, n in enumerate(nodes) if m != k])
                return float(dsigma / alpha - sigma * dalpha / alpha**2) * ell

            x = x + alpha_t * integrate.quad(integrand, float(t), float(s), epsabs=1e-12)[0] * eps[k]
        return alpha_s / alpha_t * x

    past: list[tuple[torch.Tensor, torch.Tensor]] = []
    for i, (t, s) in enumerate(itertools.pairwise(grid)):
        past = [(t, ordinary(x, t).eps), *past][:order]
        there = step(x, t, s, *zip(*past, strict=True))
        if i == 0 and order == 3:
            there = step(x, t, s, *zip((s, ordinary(there, s).eps), *past, strict=True))
        x = there
    assert torch.allclose(ours, x, atol=1e-9)


def test_sscs_is_algorithm_1():
    """A re-statement with matrix exponentials: half of the exact part, a kick by the velocity score, half again."""
    path = PATHS["linear"]()
    oracle, u, (t, s) = mixture(path), draws(3, 2, 2), (0.7, 0.6)
    levels = samplers.prepare(oracle, torch.tensor([t, s], dtype=torch.float64))
    ours, _ = SSCS().step(oracle, u, *levels, generator=torch.Generator().manual_seed(3))
    beta = lambda time: path.beta[0] * time + (path.beta[1] - path.beta[0]) * time**2 / 2  # noqa: E731
    length, mass, friction = beta(t) - beta(s), path.mass, 2 * math.sqrt(path.mass)
    middle = np.roots([(path.beta[1] - path.beta[0]) / 2, path.beta[0], -(beta(t) + beta(s)) / 2]).max()
    drift = torch.tensor([[0, -1 / mass], [1, -friction / mass]], dtype=torch.float64)
    # Van Loan's block exponential gives the transition and its covariance.
    block = torch.zeros(4, 4, dtype=torch.float64)
    block[:2, :2], block[2:, 2:], block[1, 3] = -drift, drift.T, 2 * friction
    whole = torch.linalg.matrix_exp(block * length / 2)
    keep = whole[2:, 2:].T
    root = torch.linalg.cholesky(keep @ whole[:2, 2:])
    generator = torch.Generator().manual_seed(3)
    z = [torch.randn(3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2)]
    x = (keep @ u + root @ z[0]).requires_grad_()
    (score,) = torch.autograd.grad(oracle.log_prob(x, float(middle)).sum(), x)
    x = x.detach()
    x[:, 1] += 2 * friction * length * (score[:, 1] + x[:, 1] / mass)
    assert torch.allclose(ours, keep @ x + root @ z[1], atol=1e-8)


class Watching(Denoiser):
    """Counts calls and fails at t = 0."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.schedule, self.calls = inner, inner.schedule, 0

    def forward(self, x, t, cond=None, s=None):
        assert float(t) > 0, "evaluated at the data"
        self.calls += 1
        return self.inner(x, t, cond, s)


@pytest.mark.parametrize("grid", ["uniform", "karras"])
@pytest.mark.parametrize("name", list(ALL))
def test_evaluations_are_as_declared_and_never_at_the_data(name, grid):
    sampler, denoiser = ALL[name](), Watching(gaussian(CLD()))
    u = phase.prior(denoiser, (4, 1), torch.Generator().manual_seed(1), dtype=torch.float64)
    out = sample(sampler, denoiser, u, times.GRIDS[grid]()(denoiser.schedule, 9), generator=torch.Generator())
    assert out.shape == u.shape
    assert torch.isfinite(out).all()
    # No corrector at the data; the first step of order 3 takes one more.
    landing = sampler.evaluations - 1 if name != "core-midpoint" else 0
    assert denoiser.calls == 9 * sampler.evaluations - landing + (name == "gddim-3")


@pytest.mark.parametrize("name", list(ALL))
def test_a_sample_does_not_depend_on_its_batch(name):
    oracle, sampler = mixture(CLD()), ALL[name]()
    u, grid = draws(5, 2, 2), times.Quadratic()(CLD(), 6)
    together = sample(sampler, oracle, u, grid, generator=generators(0, range(5)))
    alone = sample(sampler, oracle, u[3:4], grid, generator=generators(0, [3]))
    assert torch.allclose(together[3:4], alone, atol=1e-10)


@pytest.mark.parametrize("name", list(ALL))
def test_any_shape_gives_the_same_numbers(name):
    mean, u, grid, outs = draws(12, seed=3), draws(2, 2, 12), times.Quadratic()(CLD(), 5), []
    for shape in [(12,), (3, 4), (1, 2, 2, 3)]:
        oracle = Gaussian(CLD(), mean.reshape(shape), 0.2)
        start = u.reshape(2, 2, *shape)
        out = sample(ALL[name](), oracle, start, grid, generator=torch.Generator().manual_seed(1))
        outs.append(out.flatten(2))
    assert torch.allclose(outs[0], outs[1], atol=1e-10)
    assert torch.allclose(outs[0], outs[2], atol=1e-10)


@pytest.mark.parametrize("name", list(ALL))
def test_single_precision_follows_double(name):
    oracle, u, grid = mixture(CLD()), draws(8, 2, 2), times.Quadratic()(CLD(), 20)
    double = sample(ALL[name](), oracle, u, grid, generator=generators(0, range(8)))
    single = sample(ALL[name](), mixture(CLD()).float(), u.float(), grid, generator=generators(0, range(8)))
    assert single.dtype == torch.float32
    if name not in STOCHASTIC and name != "euler":  # whose noise is drawn in x's dtype; explicit Euler amplifies
        assert torch.allclose(single.double()[:, 0], double[:, 0], atol=2e-2)


def test_times_per_sample_are_the_single_steps(problem):
    """One call in which every sample has its own t and s: what training and distillation need of the core's jump."""
    oracle, u, _ = problem["linear"]
    t = torch.tensor([0.9, 0.5, 0.3, 1.0], dtype=torch.float64)
    s = torch.tensor([0.4, 0.0, 0.29, 0.0], dtype=torch.float64)
    for sampler in (DDIM(), Midpoint()):
        together, _ = sampler.step(oracle, u, t, s)
        for i in range(4):
            alone, _ = sampler.step(oracle, u[i : i + 1], t[i], s[i])
            assert torch.allclose(together[i : i + 1], alone, atol=1e-8)
    with pytest.raises(ValueError, match="a whole batch at one time"):
        GDDIM().step(oracle, u, t, s)


def test_guidance_is_the_cores():
    """Classifier-free guidance of a lifted conditional oracle, scale 3, is the extrapolated score in phase space."""
    path = CLD()
    means = 1.5 * draws(2, 2, seed=1)
    oracle = Lifted(oracles.GaussianMixture(path.channel, means, 0.15), path)
    cond = Condition(vector=torch.tensor([0, 1, 1]))
    u, t = draws(3, 2, 2), at(0.4)
    guided = ClassifierFree(oracle, 3.0)(u, t, cond)
    with_class, without = oracle(u, t, cond), oracle(u, t)
    assert torch.allclose(guided.eps, without.eps + 3 * (with_class.eps - without.eps), atol=1e-9)
    out = sample(GDDIM(2), ClassifierFree(oracle, 3.0), u, times.Quadratic()(path, 10), cond)
    assert torch.isfinite(out).all()
    # Half a class's distance at most: guided samples lie with their class.
    assert torch.equal(torch.cdist(out[:, 0], means).argmin(1), cond.vector)


def test_prior_has_the_marginal_of_unit_data():
    """At t = 1 the equilibrium N(0, 1) x N(0, M); earlier ``a a^T + Sigma``."""
    oracle = gaussian(CLD(mass=0.5))
    for start in (1.0, 0.2):
        generator = torch.Generator().manual_seed(0)
        u = phase.prior(oracle, (40_000, 1), generator, start=start, dtype=torch.float64)[..., 0]
        _, covariance = exact(oracle.path, start, 0.0, 1.0)
        if start == 1:
            assert torch.allclose(covariance, torch.diag(torch.tensor([1, 0.5], dtype=torch.float64)), atol=2e-3)
        scale = torch.sqrt(covariance.diag()[:, None] * covariance.diag())
        assert ((u.T @ u / 40_000 - covariance).abs() < 5 * math.sqrt(2 / 40_000) * scale).all()


def test_wrong_use_is_refused_with_what_to_do():
    u, level = draws(2, 2, 2), at(0.5)
    with pytest.raises(ValueError, match=r"lift the denoiser with osmotic\.phase\.Lifted"):
        GDDIM().step(oracles.Gaussian(VP(), draws(2), 0.3), u, level, at(0.4))
    with pytest.raises(ValueError, match="SSCS splits critically damped"):
        SSCS().step(mixture(Isotropic(VP())), u, level, at(0.4))
    for make in (lambda: GDDIM(4), lambda: GDDIM(3, correct=True), lambda: StochasticGDDIM(-1.0)):
        with pytest.raises(ValueError, match="got"):
            make()
    with pytest.raises(ValueError, match="no flow map"):
        mixture(CLD())(u, level, None, at(0.1))
    assert isinstance(mixture(CLD()), nn.Module)


@pytest.mark.parametrize("name", list(samplers.CATALOG))
def test_what_needs_a_path_of_numbers_is_refused_before_it_starts(name):
    """Every sampler of the core either runs on matrices or names what does."""
    sampler, u = samplers.CATALOG[name](), draws(2, 2, 2)
    if sampler.matrix_valued:
        assert torch.isfinite(sample(sampler, mixture(CLD()), u, uniform(1.0, 0.0, 3))).all()
    else:
        with pytest.raises(ValueError, match=r"use a sampler of osmotic\.phase"):
            sample(sampler, mixture(CLD()), u, uniform(1.0, 0.0, 3), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "use",
    [
        lambda oracle, u: samplers.prior(oracle, (2, 2)),
        lambda oracle, u: likelihood.log_prob(oracle, u),
        lambda oracle, u: inversion.encode(oracle, u),
        lambda oracle, u: times.optimized(oracle, 3, shape=(2, 2)),
    ],
)
def test_functions_of_ordinary_denoisers_refuse_lifted_ones(use):
    with pytest.raises(ValueError, match="a path of two numbers"):
        use(mixture(CLD()), draws(2, 2, 2))


@pytest.mark.parametrize("base", [VP(), VE(400.0)])
def test_a_lifted_networks_weights_are_kept_once(base):
    network = nn.Linear(2, 2)
    weights = Lifted(NeuralDenoiser(network, base, V()), CLD()).state_dict()
    assert [name.rsplit(".", 1)[1] for name in weights] == ["weight", "bias"]
