"""Critically damped Langevin diffusion as a path: moments, roots and quadratures against independent truth."""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from phase_truth import PATHS, at, coefficients, draws
from scipy import integrate

from osmotic import times
from osmotic.levels import Level
from osmotic.phase import CLD, Cholesky, Flow, Isotropic, Matrix, Mixed, Noise, Position, VelocityNoise, solve
from osmotic.phase.langevin import moments, turn
from osmotic.phase.matrix import apply
from osmotic.phase.quadrature import adams, point_flow
from osmotic.schedules import VP

SETTINGS = [
    {},
    {"beta": (2.0, 7.0), "mass": 0.5, "gamma": 0.1},
    {"beta": (0.5, 8.0), "mass": 2.0, "gamma": 1.0},
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_mean_and_covariance_solve_the_moment_equations(setting):
    """``A' = F A`` and ``Sigma' = F Sigma + Sigma F^T + G G^T`` from ``I`` and ``diag(0, gamma M)``, by SciPy."""
    path = CLD(**setting)

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        f, g = coefficients(path, t)
        a, c = y.reshape(2, 2, 2)
        return np.stack([f @ a, f @ c + c @ f.T + g]).ravel()

    start = np.stack([np.eye(2), np.diag([0, path.gamma * path.mass])]).ravel()
    stops = [0.003, 0.1, 0.6, 1.0]
    found = integrate.solve_ivp(rate, (0, 1), start, "DOP853", t_eval=stops, rtol=1e-12, atol=1e-14).y.T
    a, r = path(torch.tensor(stops, dtype=torch.float64))
    truth = torch.from_numpy(found.reshape(4, 2, 2, 2))
    assert torch.allclose(a, truth[:, 0], rtol=1e-9, atol=1e-11)
    assert torch.allclose(r @ r.mT, truth[:, 1], rtol=1e-9, atol=1e-11)
    assert torch.allclose(path.covariance(torch.tensor(stops)), truth[:, 1].float(), rtol=1e-5, atol=1e-6)
    f, g = path.sde(0.3)
    for ours, theirs in zip((f, g), coefficients(path, 0.3), strict=True):
        assert torch.allclose(ours, torch.from_numpy(theirs).double())


def test_moments_are_exact_down_to_the_smallest_times():
    """The covariance is nearly singular there, ``det ~ (4/3) gamma zeta^3``; truth with 80 digits."""
    mpmath.mp.dps = 80
    for zeta, position in itertools.product([1e-12, 1e-7, 1e-3, 0.4, 6.0], [0.0, 0.3]):
        z, g, c = mpmath.mpf(zeta), mpmath.mpf("0.04"), mpmath.mpf(position)
        e = mpmath.exp(-z)
        a = mpmath.matrix([[e * (1 + z), e * z], [-e * z, e * (1 - z)]])
        exact = mpmath.eye(2) - a * a.T + a * mpmath.diag([c, g]) * a.T
        found = moments(at(zeta), float(g), position)
        for ours, theirs in [(found.xx, exact[0, 0]), (found.vv, exact[1, 1]), (found.det, mpmath.det(exact))]:
            assert abs(float(ours) / theirs - 1) < 1e-13
        assert abs(float(found.xv) - exact[0, 1]) < 1e-14 * mpmath.sqrt(exact[0, 0] * exact[1, 1])


@pytest.mark.parametrize("setting", [*SETTINGS, {"gamma": 1e-4}, {"beta": (20.0, 20.0)}])
def test_the_series_of_the_angle_is_its_integral(setting):
    path = CLD(**setting)
    t = torch.tensor([0.0, 1e-9, 1e-4, 0.01, 0.3, 1.0], dtype=torch.float64)
    clock = path.clock(t)
    assert torch.allclose(Flow().angle(path, clock), math.pi / 2 + turn(clock, path.gamma, 0.0), atol=1e-10)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_flows_root_solves_its_equation(setting):
    """``R' = F R + (1/2) G G^T R^{-T}`` by SciPy, from a small time to the end."""
    path = CLD(**setting)

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        f, g = coefficients(path, t)
        r = y.reshape(2, 2)
        return (f @ r + g @ np.linalg.inv(r).T / 2).ravel()

    start = path(at(1e-3))[1].numpy().ravel()
    found = integrate.solve_ivp(rate, (1e-3, 1), start, "DOP853", t_eval=[0.02, 0.3, 1], rtol=1e-11, atol=1e-13).y.T
    _, r = path(torch.tensor([0.02, 0.3, 1.0], dtype=torch.float64))
    assert torch.allclose(r, torch.from_numpy(found).reshape(3, 2, 2), atol=1e-9)


def test_the_flows_root_starts_as_its_expansion():
    """At t -> 0: ``[[-(2/3) sqrt(6 G t) t/M, s t/M], [-sqrt(6 G t), s]]`` with ``s^2 = gamma M, G = Gamma beta``.

    Derived by hand from the matrix equation with R_0 = diag(0, s).
    """
    path = CLD(beta=(1.0, 1.0), mass=0.5, gamma=0.3)
    s, friction = math.sqrt(0.3 * 0.5), 2 * math.sqrt(0.5)
    assert torch.allclose(path(at(0.0))[1], torch.tensor([[0.0, 0.0], [0.0, s]], dtype=torch.float64), atol=1e-15)
    t = 1e-9
    lead = math.sqrt(6 * friction * t)
    expected = torch.tensor([[-2 / 3 * lead * t / 0.5, s * t / 0.5], [-lead, s]], dtype=torch.float64)
    # The next terms are smaller by sqrt(t / knee), about 1e-4.
    assert torch.allclose(path(at(t))[1], expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("velocity", [1e-4, 0.04, 1.0])
@pytest.mark.parametrize("position", [0.0, 1e-3, 0.3])
def test_the_angle_is_its_integral(velocity, position):
    """Panels that halve towards 0, by SciPy's adaptive quadrature."""

    def rate(root: float) -> float:
        found = moments(at(root**2), velocity, position)
        return float(found.det.sqrt() / found.xx) * 2 * root

    for zeta in (0.01, 2.0, 8.0):
        edges = [0.0, *(math.sqrt(zeta) * 2.0**-k for k in range(20, -1, -1))]
        truth = sum(integrate.quad(rate, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in itertools.pairwise(edges))
        assert float(turn(at(zeta), velocity, position)) == pytest.approx(truth, rel=1e-9)


def test_the_cholesky_root_is_lower_triangular():
    path = CLD(root=Cholesky())
    t = torch.tensor([0.01, 0.5, 1.0], dtype=torch.float64)
    _, r = path(t)
    assert torch.equal(r[..., 0, 1], torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(r, torch.linalg.cholesky(path.covariance(t)), atol=1e-12)


@pytest.mark.parametrize("name", ["flow", "linear", "isotropic"])
def test_rates_are_the_derivatives_of_the_pair(name):
    path, t, h = PATHS[name](), 0.4, 1e-5
    for rate, before, after in zip(path.rates(at(t)), path(at(t - h)), path(at(t + h)), strict=True):
        assert torch.allclose(rate, (after - before) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", list(PATHS))
def test_log_snr_is_what_the_pair_shows_of_the_position(name):
    path = PATHS[name]()
    t = torch.linspace(0.02, 1, 30, dtype=torch.float64)
    a, r = (m.numpy() for m in path(t))
    shown = np.stack([x[:, 0] @ np.linalg.inv(y @ y.T) @ x[:, 0] for x, y in zip(a, r, strict=True)])
    assert torch.allclose(path.log_snr(t), torch.from_numpy(np.log(shown)), rtol=1e-7, atol=1e-7)
    assert (path.log_snr(t).diff() < 0).all()
    assert torch.allclose(path.time(path.log_snr(t)), t, atol=1e-9)
    grid = times.Karras(rho_min=0.01)(path, 6)
    assert float(grid[0]) == 1
    assert float(grid[-1]) == 0


def test_impossible_parameters_are_refused():
    for wrong in ({"beta": (0.0, 1.0)}, {"mass": -1.0}, {"gamma": 0.0}):
        with pytest.raises(ValueError, match="CLD needs a positive"):
            CLD(**wrong)


def test_matrices_are_the_ring_of_matrices():
    left, right = draws(2, 2), draws(2, 2, seed=1)
    m, n = Matrix.of(left), Matrix.of(right)
    for ours, theirs in [
        (m * n, left @ right),
        (m + n, left + right),
        (m - n, left - right),
        (-m, -left),
        (m * 3.0, 3 * left),
        (0.5 * m, left / 2),
        (m.T, left.T),
        (m.inverse, torch.linalg.inv(left)),
    ]:
        assert torch.allclose(torch.tensor(ours.entries, dtype=torch.float64), theirs.flatten())
    several = Matrix.of(draws(3, 2, 2)) * Matrix.of(draws(3, 2, 2, seed=1)).inverse
    exact = draws(3, 2, 2) @ torch.linalg.inv(draws(3, 2, 2, seed=1))
    assert torch.allclose(torch.stack(several.entries, -1), exact.flatten(1))


def test_a_matrix_acts_on_position_and_velocity():
    u, v = draws(3, 2, 4, 5), draws(3, 2, 4, 5, seed=1)
    m, several = draws(2, 2, seed=2), draws(3, 2, 2, seed=3)
    out = apply([(Matrix.of(m), u), (Matrix.of(several), v)])
    exact = torch.einsum("ij,bjcd->bicd", m, u) + torch.einsum("bij,bjcd->bicd", several, v)
    assert torch.allclose(out, exact)
    assert torch.equal(apply([(Matrix.scalar(0.0), u)]), torch.zeros_like(u))


@pytest.mark.parametrize(
    "target", [Position(), Noise(), VelocityNoise(), Mixed(Noise(), 0.7), Mixed(VelocityNoise(), 0.7)], ids=repr
)
@pytest.mark.parametrize("name", list(PATHS))
def test_a_solve_finds_what_the_two_equations_hide(name, target):
    path, t = PATHS[name](), torch.tensor([0.2, 0.9, 0.05], dtype=torch.float64)
    clean = torch.stack([draws(3, 4), torch.zeros(3, 4, dtype=torch.float64)], 1)
    eps = draws(3, 2, 4, seed=1)
    (a, r), (p, q) = path.matrices(t), target.rows(path, t)
    u, y = apply([(a, clean), (r, eps)]), apply([(p, clean), (q, eps)])
    if name == "isotropic" and "VelocityNoise" in repr(target):
        pytest.skip("without coupling the velocity says nothing of the position")
    found = solve(u, target.full(y[:, : target.outputs]), (a, r), (p, q))
    assert torch.allclose(found.x0, clean, atol=1e-8)
    assert torch.allclose(found.eps, eps, atol=1e-8)
    there = path.matrices(torch.tensor([0.1, 0.5, 0.0], dtype=torch.float64))
    assert torch.allclose(found.at(*there), apply([(there[0], clean), (there[1], eps)]), atol=1e-8)


@pytest.mark.parametrize("target", [Position(), Noise(), VelocityNoise()], ids=repr)
@pytest.mark.parametrize("name", ["flow", "cholesky", "linear"])
def test_a_mixed_target_is_what_u_does_not_say(name, target):
    """On Gaussian data of that deviation: no covariance with u, and unit variance on the mean."""
    path, deviation = PATHS[name](), 0.7
    for t in (0.01, 0.3, 1.0):
        a, r = (m.numpy() for m in path(at(t)))
        p, q = (np.array(m.entries).reshape(2, 2)[: target.outputs] for m in Mixed(target, deviation).rows(path, at(t)))
        prior = np.diag([deviation**2, 1, 1])
        seen, said = np.concatenate([a[:, :1], r], 1), np.concatenate([p[:, :1], q], 1)
        assert np.allclose(said @ prior @ seen.T, 0, atol=1e-7)
        assert np.trace(said @ prior @ said.T) / target.outputs == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="positive sigma_data"):
        Mixed(target, 0.0)


def test_velocity_noise_is_the_velocity_score():
    """``-l_vv grad_v log p(u | x0)``, whatever the root: l_vv the deviation of v given x."""
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    for name in ("flow", "cholesky", "linear"):
        path = PATHS[name]()
        covariance = path.covariance(t)
        eps = draws(2, 2, 3)
        _, r = path(t)
        score = -torch.linalg.solve(covariance, r @ eps)
        deviation = (covariance[:, 1, 1] - covariance[:, 0, 1] ** 2 / covariance[:, 0, 0]).sqrt()
        _, q = VelocityNoise().rows(path, t)
        assert torch.allclose(apply([(q, eps)])[:, 0], -deviation[:, None] * score[:, 1], atol=1e-10)


@pytest.mark.parametrize("name", ["flow", "cholesky", "linear"])
def test_adams_weights_are_their_integrals(name):
    path, t, s, nodes = PATHS[name](), 0.5, 0.3, (0.5, 0.6, 0.75)
    whole, weights = adams(path, at(t), at(s), nodes)
    a_s = path(at(s))[0].numpy()

    def integrand(tau: float, k: int, i: int, j: int) -> float:
        others = [n for m, n in enumerate(nodes) if m != k]
        ell = np.prod([(tau - n) / (nodes[k] - n) for n in others])
        a, r = (m.numpy() for m in path(at(tau)))
        _, g = coefficients(path, tau)
        return float((a_s @ np.linalg.inv(a) @ g @ np.linalg.inv(r).T)[i, j]) / 2 * ell

    assert np.allclose(whole.entries, (a_s @ np.linalg.inv(path(at(t))[0].numpy())).ravel())
    for k in range(3):
        exact = [integrate.quad(integrand, t, s, args=(k, i, j), epsabs=1e-11)[0] for i in (0, 1) for j in (0, 1)]
        assert np.allclose(weights[k].entries, exact, atol=1e-9)


@pytest.mark.parametrize("name", ["flow", "linear", "isotropic"])
def test_adams_weights_add_up_to_the_jump(name):
    """``sum_k C_k = R_s - Psi R_t`` for the flow's root, also down to t = 0, where the integrand is singular."""
    path = PATHS[name]()
    for t, s, nodes in [(0.6, 0.4, (0.6, 0.7)), (0.9, 0.0, (0.9,)), (0.01, 0.0, (0.01, 0.02, 0.05))]:
        whole, weights = adams(path, at(t), at(s), nodes)
        (_, r_t), (_, r_s) = path.matrices(at(t)), path.matrices(at(s))
        total = sum(weights[1:], weights[0]) - (r_s - whole * r_t)
        # Rounding is relative to Psi, which grows as exp(zeta_t - zeta_s).
        assert np.allclose(total.entries, 0, atol=1e-11 * max(1, *np.abs(whole.entries)))


def test_the_point_flow_is_exact_at_its_ends_and_between():
    for name, (t, s) in itertools.product(["flow", "cholesky", "linear"], [(0.9, 0.02), (0.4, 0.39)]):
        path = PATHS[name]()
        covariance_t, covariance_s = (path.covariance(at(v)) for v in (t, s))
        forward = path(at(t))[0] @ torch.linalg.inv(path(at(s))[0])
        posterior = covariance_s @ forward.T @ torch.linalg.inv(covariance_t)
        assert torch.allclose(point_flow(path, at(t), at(s), 1.0), posterior, atol=1e-9)
        same = CLD(path.beta, path.mass, path.gamma, Flow())
        deterministic = same(at(s))[1] @ torch.linalg.inv(same(at(t))[1])
        assert torch.allclose(point_flow(path, at(t), at(s), 0.0), deterministic, atol=1e-9)

        def rate(time: float, y: np.ndarray, path=path) -> np.ndarray:
            f, g = coefficients(path, time)
            inverse = np.linalg.inv(path.covariance(at(time)).numpy())
            return ((f + (1 + 0.6**2) / 2 * g @ inverse) @ y.reshape(2, 2)).ravel()

        exact = integrate.solve_ivp(rate, (t, s), np.eye(2).ravel(), "DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
        assert np.allclose(point_flow(path, at(t), at(s), 0.6).numpy().ravel(), exact, atol=1e-8)


def test_numbers_are_remembered_and_denoisers_refused_at_the_data():
    path = CLD()
    level = Level.of(0.3)
    first = path.numbers(level)
    assert path.numbers(level) is first
    # A batch may take another kernel than a single time, which rounds otherwise on some processors.
    found = path.pairs(torch.tensor([0.3], dtype=torch.float64))[0]
    for a, b in zip(found, first, strict=True):
        assert (a.xx, a.xv, a.vx, a.vv) == pytest.approx((b.xx, b.xv, b.vx, b.vv), rel=1e-12)
    with pytest.raises(ValueError, match="cannot be asked at t = 0"):
        path.noisy(0.0)
    with pytest.raises(ValueError, match="a whole batch at one time"):
        path.scalars(torch.tensor([0.1, 0.2]))


def test_the_isotropic_path_is_the_ordinary_one_twice():
    path, t = Isotropic(VP()), torch.tensor([0.1, 0.8], dtype=torch.float64)
    for matrix, number in zip(path(t), VP()(t), strict=True):
        assert torch.allclose(matrix, number[:, None, None] * torch.eye(2, dtype=torch.float64))
