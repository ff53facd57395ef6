"""Every schedule of the catalogue: ends, inverse, rates and SDE, against closed forms and the published
coefficients.
"""

import math

import numpy as np
import pytest
import torch

from osmotic.schedules import (
    CATALOG,
    VE,
    VP,
    Cosine,
    Discrete,
    GeometricVE,
    Rectified,
    Scaled,
    Schedule,
    Shifted,
    SubVP,
)

T = torch.linspace(0.013, 0.987, 41, dtype=torch.float64)
# Beside a discrete schedule's levels the interpolated pair has kinks; derivatives are compared between them.
INSIDE = (torch.arange(1, 1000, 37, dtype=torch.float64) + 0.37) / 1000


UNNAMED = {"cosine-scaled": lambda: Scaled(Cosine(), 0.5), "rectified-scaled": lambda: Scaled(Rectified(), 3.0)}
"""Paths that losses are stated on, without a name on the command line."""


@pytest.fixture(params=[*CATALOG, *UNNAMED])
def schedule(request) -> Schedule:
    return (CATALOG | UNNAMED)[request.param]()


def test_starts_at_clean_data_and_only_loses_signal(schedule):
    alpha, sigma = schedule(0.0)
    assert (float(alpha), float(sigma)) == (1.0, 0.0)
    log_snr = schedule.log_snr(T)
    assert (log_snr.diff() < 0).all()
    assert float(schedule.log_snr(0.0)) == math.inf


def test_any_shape_and_the_dtype_of_time(schedule):
    for shape in [(), (3,), (2, 3)]:
        alpha, sigma = schedule(torch.full(shape, 0.3, dtype=torch.float32))
        assert alpha.shape == sigma.shape == shape
        assert alpha.dtype == sigma.dtype == torch.float32
    assert schedule(0.3)[0].dtype == torch.float64


def test_log_snr_is_that_of_the_pair(schedule):
    alpha, sigma = schedule(T)
    expected = 2 * torch.log(alpha / sigma)
    assert torch.allclose(schedule.log_snr(T), expected, rtol=1e-10, atol=1e-9)


def test_time_inverts_log_snr(schedule):
    assert torch.allclose(schedule.time(schedule.log_snr(T)), T, rtol=0, atol=1e-12)
    assert float(schedule.time(math.inf)) == 0.0
    assert float(schedule.time(schedule.log_snr(1.0))) == pytest.approx(1.0, abs=1e-12)


def test_closed_form_inverse_agrees_with_bisection(schedule):
    log_snr = schedule.log_snr(T)
    assert torch.allclose(Schedule.time(schedule, log_snr), schedule.time(log_snr), rtol=0, atol=2e-12)


@pytest.mark.parametrize("log_snr", [-math.inf, -1500.0, -300.0, 300.0, 1500.0, math.inf])
def test_values_beyond_the_ends_give_the_ends(schedule, log_snr):
    """Also in closed forms: a path read on another asks for levels that it lacks (Sigmoid gave 1 + 4e-16, and NaN)."""
    t = schedule.time(torch.tensor([log_snr], dtype=torch.float64))
    assert 0 <= float(t) <= 1
    assert all(bool(torch.isfinite(part).all()) for part in schedule(t))
    end = float(schedule.log_snr(1.0))
    if log_snr <= end:
        assert float(t) == pytest.approx(1.0, abs=1e-12)


def test_bisection_gives_the_ends():
    rectified = Rectified()
    assert float(Schedule.time(rectified, -math.inf)) == 1.0
    assert float(Schedule.time(rectified, math.inf)) == 0.0


def test_rates_are_the_derivatives(schedule):
    h = 1e-6
    rates = schedule.rates(INSIDE)
    for rate, low, high in zip(rates, schedule(INSIDE - h), schedule(INSIDE + h), strict=True):
        assert torch.allclose(rate, (high - low) / (2 * h), rtol=2e-6, atol=1e-6)


def test_sde_reproduces_the_marginal_moments(schedule):
    """The moment equations of dx = f x dt + g dw: alpha' = f alpha and (sigma^2)' = 2 f sigma^2 + g^2."""
    h = 1e-6
    f, g2 = schedule.sde(INSIDE)
    alpha, sigma = schedule(INSIDE)
    (alpha_low, sigma_low), (alpha_high, sigma_high) = schedule(INSIDE - h), schedule(INSIDE + h)
    assert torch.allclose(f * alpha, (alpha_high - alpha_low) / (2 * h), rtol=1e-5, atol=1e-6)
    variance_rate = (sigma_high**2 - sigma_low**2) / (2 * h)
    assert torch.allclose(2 * f * sigma**2 + g2, variance_rate, rtol=1e-5, atol=1e-6)
    assert (g2 > 0).all()


def test_vp_and_sub_vp_sde_are_the_published_ones():
    """Song et al. 2021: f = -beta/2 for both; g^2 = beta, and beta (1 - exp(-2 int beta)) for sub-VP."""
    beta = 0.1 + T * (20.0 - 0.1)
    integral = 0.1 * T + T**2 * (20.0 - 0.1) / 2
    for schedule, g2_published in [(VP(), beta), (SubVP(), beta * -torch.expm1(-2 * integral))]:
        f, g2 = schedule.sde(T)
        assert torch.allclose(f, -beta / 2, rtol=1e-10)
        assert torch.allclose(g2, g2_published, rtol=1e-8)


def test_vp_and_sub_vp_kernels_are_told_apart():
    """At int beta = B the deviations are sqrt(1 - e^-B) and 1 - e^-B: squares .0952 and .0091 at B = 0.1."""
    t = VP().time_of_log_alpha(torch.tensor(-0.05, dtype=torch.float64))
    assert float(VP()(t)[1] ** 2) == pytest.approx(1 - math.exp(-0.1), rel=1e-12)
    assert float(SubVP()(t)[1] ** 2) == pytest.approx((1 - math.exp(-0.1)) ** 2, rel=1e-12)


def test_ve_sdes_are_the_published_ones():
    """EDM: sigma = t has g^2 = 2 t; Song et al.: g = sigma_min r^t sqrt(2 log r)."""
    _, g2 = VE(80.0).sde(T)
    assert torch.allclose(g2, 2 * 80.0**2 * T, rtol=1e-10)
    _, g2 = GeometricVE(0.01, 50.0).sde(T)
    published = 0.01 * (50 / 0.01) ** T * math.sqrt(2 * math.log(50 / 0.01))
    assert torch.allclose(g2, published**2, rtol=1e-9)


@pytest.mark.parametrize("make", [Discrete.linear, Discrete.scaled_linear, Discrete.cosine, Discrete.sigmoid])
def test_discrete_levels_equal_the_forward_recursion(make):
    """x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z, step by step."""
    schedule = make()
    mean, variance = 1.0, 0.0
    alpha, sigma = schedule(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    for i, beta in enumerate(schedule.betas.tolist()):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert float(alpha[i]) == pytest.approx(mean, rel=1e-11)
        assert float(sigma[i]) == pytest.approx(math.sqrt(variance), rel=1e-11)


def test_discrete_constants_of_the_papers():
    alpha, _ = Discrete.linear()(1.0)
    assert float(alpha**2) == pytest.approx(4.04e-5, rel=2e-3)  # DDPM's remaining signal
    ratios = [float(s / a) for a, s in (Discrete.scaled_linear()(t) for t in (0.001, 1.0))]
    assert ratios == pytest.approx([0.0292, 14.61], rel=2e-3)  # latent diffusion's sigma range
    cosine = Discrete.cosine()
    assert float(cosine.betas[-1]) == 0.999
    assert [float(s / a) for a, s in (cosine(t) for t in (0.001, 1.0))] == pytest.approx([0.0064, 2.0e4], rel=2e-2)


def test_discrete_tends_to_the_exponential_of_its_integral():
    """prod(1 - beta) -> exp(-int beta) as levels are refined, from below, with error of first order (trap T29)."""
    gaps = []
    for levels in (1000, 2000, 4000):
        alpha, _ = Discrete(np.linspace(0.1, 20, levels) / levels)(1.0)
        gaps.append(1 - float(alpha**2) / math.exp(-10.05))
    assert gaps[0] > 0
    assert np.log2(np.divide(gaps[:-1], gaps[1:])) == pytest.approx([1, 1], abs=0.05)


def test_zero_terminal_keeps_the_first_level_and_ends_without_signal():
    before, after = Discrete.linear(), Discrete.linear().zero_terminal()
    assert float(after(1.0)[0]) == 0.0
    assert float(after(0.001)[0]) == pytest.approx(float(before(0.001)[0]), rel=1e-12)
    assert after.betas[-1] == 1.0


def test_shifted_rectified_is_the_published_time_map():
    base, shifted = Rectified(), Shifted(Rectified(), 3.0)
    alpha, sigma = shifted(T)
    assert torch.allclose(sigma, 3 * T / (1 + 2 * T), rtol=1e-12)
    assert torch.allclose(shifted.log_snr(T), base.log_snr(T) - 2 * math.log(3), rtol=1e-10)
    assert [float(v) for v in shifted(1.0)] == [0.0, 1.0]
    assert torch.allclose(sigma / alpha, 3 * T / (1 - T))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VP(1.0, 0.5), "beta_min < beta_max"),
        (lambda: VE(0.0), "positive sigma_max"),
        (lambda: Discrete([0.1, 1.2, 0.1]), "beta 2 of 3 is 1.2"),
        (lambda: Discrete([]), "non-empty"),
        (lambda: Shifted(Discrete.linear(), 4.0), "cannot be shifted"),
    ],
)
def test_impossible_schedules_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_user_schedule_needs_only_its_pair():
    class Power(Schedule):
        def pair(self, t):
            return 1 - t**3, t**3

    schedule = Power()
    assert torch.allclose(schedule.time(schedule.log_snr(T)), T, atol=1e-12)
    f, g2 = schedule.sde(T)
    assert torch.allclose(f, -3 * T**2 / (1 - T**3))
    assert (g2 > 0).all()


def test_a_shifted_user_schedule_has_the_right_rates():
    """Bisection has no derivative of its own; the inverse must still be differentiable."""

    class Straight(Schedule):
        def pair(self, t):
            return 1 - t, t.clone()

    for ours, closed in zip(Shifted(Straight(), 2.0).rates(T), Shifted(Rectified(), 2.0).rates(T), strict=True):
        assert torch.allclose(ours, closed, rtol=1e-6)
