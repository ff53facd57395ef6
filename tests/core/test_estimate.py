"""Targets and the 2x2 solve: round trips on every path, the published conversions, and where decoding is refused."""

import pytest
import torch
from torch import nn

from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import TARGETS, Eps, Estimate, Karras, Point, Score, V, Velocity, like, solve
from osmotic.levels import Level
from osmotic.schedules import CATALOG, VE, VP, Cosine, Rectified

TIMES = torch.tensor([0.02, 0.3, 0.71, 0.98], dtype=torch.float64)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, len(TIMES), 3, 5, generator=generator, dtype=torch.float64)
    return x0, eps


@pytest.mark.parametrize("schedule", list(CATALOG))
@pytest.mark.parametrize("target", list(TARGETS))
def test_every_target_round_trips_on_every_path(schedule, target, pair):
    x0, eps = pair
    schedule, target = CATALOG[schedule](), TARGETS[target](0.5)
    path, row = schedule(TIMES), target(schedule, TIMES)
    truth = Estimate(x0, eps)
    decoded = solve(truth.at(*path), truth.at(*row), path, row)
    assert torch.allclose(decoded.x0, x0, atol=1e-9)
    assert torch.allclose(decoded.eps, eps, atol=1e-9)
    assert torch.allclose(decoded.at(*path), truth.at(*path), atol=1e-12)


def test_published_conversions(pair):
    """Section 3 of any paper: x0 from each output, written out independently of the solve."""
    x0, eps = pair
    schedule = VP()
    alpha, sigma = (v[:, None, None] for v in schedule(TIMES))
    x = alpha * x0 + sigma * eps
    v = alpha * eps - sigma * x0
    path = schedule(TIMES)
    formulas = {
        Eps(): (eps, (x - sigma * eps) / alpha),
        Score(): (-eps / sigma, (x + sigma**2 * (-eps / sigma)) / alpha),
        V(): (v, alpha * x - sigma * v),
    }
    for target, (output, expected) in formulas.items():
        assert torch.allclose(solve(x, output, path, target(schedule, TIMES)).x0, expected, atol=1e-10)
    rectified = Rectified()
    t = TIMES[:, None, None]
    x = (1 - t) * x0 + t * eps
    decoded = solve(x, eps - x0, rectified(TIMES), Velocity()(rectified, TIMES))
    assert torch.allclose(decoded.x0, x - t * (eps - x0), atol=1e-12)
    assert torch.allclose(decoded.eps, x + (1 - t) * (eps - x0), atol=1e-12)


def test_karras_is_edms_preconditioning(pair):
    """D = c_skip x + c_out F with c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2)."""
    x0, eps = pair
    schedule, sd = VE(80.0), 0.5
    s = (80.0 * TIMES)[:, None, None]
    x = x0 + s * eps
    output = Estimate(x0, eps).at(*Karras(sd)(schedule, TIMES))
    denoised = sd**2 / (s**2 + sd**2) * x + s * sd / (s**2 + sd**2).sqrt() * output
    assert torch.allclose(denoised, x0, atol=1e-9)
    vp = VP()
    ours, v = (Estimate(x0, eps).at(*target(vp, TIMES)) for target in (Karras(1.0), V()))
    assert torch.allclose(ours, -v, atol=1e-12)


def test_v_is_a_rotation_and_survives_total_noise(pair):
    x0, eps = pair
    at_noise = V()(Cosine(), 1.0)
    decoded = solve(eps, -x0, tuple(float(v) for v in Cosine()(1.0)), tuple(float(v) for v in at_noise))
    assert torch.equal(decoded.x0, x0)


def test_the_point_target_inverts_a_jump(pair):
    x0, eps = pair
    schedule = Rectified()
    truth = Estimate(x0, eps)
    path, row = schedule(TIMES), Point(0.4)(schedule, TIMES)
    decoded = solve(truth.at(*path), truth.at(*row), path, row)
    assert torch.allclose(decoded.x0, x0, atol=1e-9)


def test_lerp_is_affine_and_equal_in_lazy_and_plain_form(pair):
    x0, eps = pair
    schedule = VP()
    path, row = schedule.numbers(0.3), V().numbers(schedule, 0.3)
    x = Estimate(x0, eps).at(*path)
    coefficients = Estimate.of(x, x0, (1.0, 0.0), (0.0, 1.0))
    one, two = solve(x, x0, path, row), solve(x, eps, path, row)
    mixed = one.lerp(two, 2.5)
    for a, b, c in zip(mixed, one, two, strict=True):
        assert torch.allclose(a, b + 2.5 * (c - b), atol=1e-12)
    assert torch.equal(one.lerp(two, 0.0).x0, one.x0)
    assert coefficients.x0 is x


def test_an_estimate_is_a_pair(pair):
    x0, eps = Estimate(*pair)
    assert x0 is pair[0]
    assert eps is pair[1]


def test_split_keeps_per_sample_numbers(pair):
    x0, eps = pair
    schedule = VP()
    path, row = schedule(TIMES), V()(schedule, TIMES)
    truth = Estimate(x0, eps)
    first, rest = solve(truth.at(*path), truth.at(*row), path, row).split(1)
    assert torch.allclose(torch.cat([first.x0, rest.x0]), x0, atol=1e-10)


def test_a_step_costs_two_tensor_operations():
    """Decode and jump fold into one combination of x and y, whatever the target."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Count.operations += 1
            return func(*args, **(kwargs or {}))

    schedule = VP()
    x, y = torch.randn(2, 4, 3)
    for make in TARGETS.values():
        estimate = solve(x, y, schedule.numbers(0.7), make(0.5).numbers(schedule, 0.7))
        there = schedule.numbers(0.5)
        Count.operations = 0
        with Count():
            estimate.at(*there)
        assert Count.operations <= 2


def test_like_broadcasts_per_sample_and_refuses_the_rest():
    x = torch.zeros(4, 2, 3)
    (scale,) = like(x, torch.arange(4.0, dtype=torch.float64))
    assert scale.shape == (4, 1, 1)
    assert scale.dtype == x.dtype
    assert like(x, 2.0) == (2.0,)
    with pytest.raises(ValueError, match=r"use \(\) or \(B,\)"):
        like(x, torch.zeros(2))


class Still(nn.Module):
    def forward(self, x, time, cond=None):
        return torch.zeros_like(x)


@pytest.mark.parametrize("schedule", list(CATALOG))
@pytest.mark.parametrize("target", list(TARGETS))
def test_a_target_is_refused_exactly_where_it_is_singular(schedule, target):
    # A signal power that vanishes linearly has alpha ~ sqrt(1 - t), whose velocity is infinite at t = 1.
    infinite = target == "velocity" and schedule in ("sigmoid", "ddpm-zero-terminal")
    schedule, target = CATALOG[schedule](), TARGETS[target](0.5)
    alpha, _ = schedule.numbers(1.0)
    singular = infinite or (isinstance(target, Eps | Score) and alpha == 0)
    if singular:
        with pytest.raises(ValueError, match="use V, Karras"):
            NeuralDenoiser(Still(), schedule, target)
    else:
        estimate = NeuralDenoiser(Still(), schedule, target)(torch.ones(2, 3), 1.0)
        assert torch.isfinite(estimate.x0).all()


def test_a_level_is_an_ordinary_tensor_that_remembers():
    level = Level.of(0.25)
    assert type(level + 1) is torch.Tensor
    assert float(level) == 0.25
    assert VP().numbers(level) == VP().numbers(0.25)
    schedule = VP()
    assert schedule.numbers(level) is schedule.numbers(level)
