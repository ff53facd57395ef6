"""The Fokker-Planck solver against densities in closed form, with its orders measured."""

import math

import numpy as np
import pytest
import torch

from osmotic import schedules
from osmotic.fokker_planck import Cells, Forward, Motion, Reverse, evolve, log_rate
from osmotic.oracles import GaussianMixture

CELLS = Cells(-7.0, 7.0, 500)
END = 0.9
# Paths whose marginals fit the cells; VE ones with noise of a few units.
PATHS = {
    "rectified": schedules.Rectified(),
    "cosine": schedules.Cosine(),
    "vp": schedules.VP(),
    "sub-vp": schedules.SubVP(),
    "ve": schedules.VE(1.5),
    "geometric-ve": schedules.GeometricVE(0.05, 1.5),
    "sigmoid": schedules.Sigmoid(),
    "ddpm-linear": schedules.Discrete.linear(100, 1e-3, 0.1),
    "shifted": schedules.Shifted(schedules.Cosine(), 2.0),
}


def mixture(schedule):
    means = torch.tensor([[-1.2], [0.9]], dtype=torch.float64)
    return GaussianMixture(schedule, means, torch.tensor([0.09, 0.16], dtype=torch.float64), [0.35, 0.65])


def density(oracle, cells, t):
    return oracle.log_prob(cells.centres[:, None], t).exp()


def last(motion, start, cells, times, implicitness=0.5):
    *_, rho = evolve(motion, start, cells, times, implicitness)
    return rho


def grid(start, end, steps):
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def error(oracle, cells, rho, t):
    """In total variation: half the integral of the absolute difference."""
    return float((rho - density(oracle, cells, t)).abs().sum()) * cells.width / 2


@pytest.mark.parametrize("name", PATHS)
def test_the_solution_is_the_diffused_mixture_on_every_path(name):
    """From t = 0, where some rates are infinite, with no cut-off: second order in both sizes makes this about 1e-5."""
    oracle = mixture(PATHS[name])
    rho = last(Forward(oracle.schedule), density(oracle, CELLS, 0.0), CELLS, grid(0, END, 250))
    assert error(oracle, CELLS, rho, END) < 1e-4
    assert rho.min() > -1e-12


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_the_reverse_drift_undoes_the_forward_diffusion(name, tau):
    oracle, start = mixture(PATHS[name]), 0.02
    there = last(Forward(oracle.schedule), density(oracle, CELLS, start), CELLS, grid(start, END, 250))
    back = last(Reverse(oracle, tau), there, CELLS, grid(END, start, 400))
    assert error(oracle, CELLS, back, start) < 2e-3
    assert error(oracle, CELLS, there, start) > 0.1  # there was something to undo


def test_a_forward_drift_run_backwards_does_not_undo_it():
    """What the score is for: without it the density does not come back."""

    class WithoutScore(Forward):
        direction = -1

        def coefficients(self, x, t):
            drift, diffusion = super().coefficients(x, t)
            return -drift, diffusion

    oracle = mixture(schedules.VP())
    there = density(oracle, CELLS, END)
    back = last(WithoutScore(oracle.schedule), there, CELLS, grid(END, 0.02, 400))
    assert error(oracle, CELLS, back, 0.02) > 0.3


@pytest.mark.parametrize("tau", [None, 0.0, 0.5, 1.0])
def test_mass_is_kept_to_rounding(tau):
    oracle = mixture(schedules.VP())
    motion = Forward(oracle.schedule) if tau is None else Reverse(oracle, tau)
    times = grid(0, END, 200) if tau is None else grid(END, 0.02, 200)
    start = density(oracle, CELLS, float(times[0])) + 0.01  # mass at the walls, too
    masses = [CELLS.mass(rho) for rho in evolve(motion, start, CELLS, times)]
    assert max(abs(m / masses[0] - 1) for m in masses) < 1e-12


def slope(sizes, errors):
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


@pytest.mark.parametrize("tau", [None, 0.0, 1.0])
def test_second_order_in_space(tau):
    oracle, counts, errors = mixture(schedules.VP()), (100, 200, 400), []
    for count in counts:
        cells = Cells(-7, 7, count)
        motion = Forward(oracle.schedule) if tau is None else Reverse(oracle, tau)
        times = grid(0.05, 0.4, 400) if tau is None else grid(0.4, 0.05, 400)
        rho = last(motion, density(oracle, cells, float(times[0])), cells, times)
        errors.append(error(oracle, cells, rho, float(times[-1])))
    assert slope(1 / np.array(counts), errors) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(("implicitness", "order"), [(0.5, 2), (1.0, 1)])
@pytest.mark.parametrize("tau", [None, 0.0, 1.0])
def test_order_in_time(tau, implicitness, order):
    """Against the same cells with very many steps, so that only time's error is seen."""
    oracle, cells = mixture(schedules.VP()), Cells(-7, 7, 200)
    motion = Forward(oracle.schedule) if tau is None else Reverse(oracle, tau)
    ends = (0.05, 0.4) if tau is None else (0.4, 0.05)
    start = density(oracle, cells, ends[0])
    truth = last(motion, start, cells, grid(*ends, 640))
    steps = (20, 40, 80)
    found = [last(motion, start, cells, grid(*ends, n), implicitness) for n in steps]
    errors = [float((rho - truth).abs().sum()) for rho in found]
    assert slope(1 / np.array(steps), errors) == pytest.approx(order, abs=0.15)


def test_implicit_steps_keep_rough_densities_positive_whatever_their_size():
    rough = torch.zeros(CELLS.count, dtype=torch.float64)
    rough[[100, 350, 351]] = 30.0
    for motion in (Forward(schedules.Rectified()), Reverse(mixture(schedules.VP()))):
        times = grid(0.0, 0.9, 3) if motion.direction > 0 else grid(0.9, 0.1, 3)
        assert all(bool((rho >= 0).all()) for rho in evolve(motion, rough, CELLS, times, implicitness=1.0))


def test_a_well_fills_to_the_boltzmann_distribution():
    """Any motion: drift -U' and diffusion kT settle at exp(-U / kT), here for a double well, to second order."""

    class Well(Motion):
        def coefficients(self, x, t):
            return -(x**3 - x), 0.3

    cells = Cells(-3, 3, 600)
    rho = last(Well(), torch.full((600,), 1 / 6, dtype=torch.float64), cells, grid(0, 60, 200), 1.0)
    x = cells.centres
    exact = torch.exp(-(x**4 / 4 - x**2 / 2) / 0.3)
    torch.testing.assert_close(rho, exact / cells.mass(exact), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("dimensions", [1, 3])
def test_the_two_forms_of_the_equation_agree(name, dimensions):
    """The logarithmic form equals the time derivative of the exact log-density, by central differences."""
    schedule, t, h = PATHS[name], 0.4003, 1e-6  # within one level of the discrete path
    generator = torch.Generator().manual_seed(0)
    means, x = (torch.randn(n, dimensions, generator=generator, dtype=torch.float64) for n in (3, 8))
    oracle = GaussianMixture(schedule, means, torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64))
    found = log_rate(schedule, lambda at: oracle.log_prob(at, t), x, t)
    exact = (oracle.log_prob(x, t + h) - oracle.log_prob(x, t - h)) / (2 * h)
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=1e-6)


def test_the_logarithmic_form_is_the_conservative_one_divided_by_the_density():
    """rho (d ln rho/dt) = -d(f x rho)/dx + g^2/2 d2 rho/dx2, differentiated by hand for a unit normal times a scale."""
    schedule, t, v = schedules.VP(), 0.3, 0.4
    beta = 0.1 + t * 19.9
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    found = log_rate(schedule, lambda at: -(at[:, 0] ** 2) / (2 * v) - 0.5 * math.log(2 * math.pi * v), x, t)
    # (x rho)' = rho (1 - x^2/v) and rho'' = rho (x^2/v^2 - 1/v).
    exact = beta / 2 * ((1 - x**2 / v) + (x**2 / v**2 - 1 / v))[:, 0]
    torch.testing.assert_close(found, exact, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rho: evolve(Forward(schedules.VP()), rho, CELLS, grid(1, 0, 4)), "must rise"),
        (lambda rho: evolve(Reverse(mixture(schedules.VP())), rho, CELLS, grid(0, 1, 4)), "must fall"),
        (lambda rho: evolve(Forward(schedules.VP()), rho[1:], CELLS, grid(0, 1, 4)), "shape"),
        (lambda rho: evolve(Forward(schedules.VP()), rho, CELLS, grid(0, 1, 4), 0.4), "implicitness"),
        (lambda rho: evolve(Forward(schedules.Cosine()), rho, CELLS, grid(0, 1, 1), 1.0), "not finite"),
        (lambda rho: [Reverse(mixture(schedules.VP()), -1.0)], "tau"),
        (lambda rho: [Cells(1.0, 0.0, 10)], "low < high"),
    ],
)
def test_misuse_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        list(call(torch.ones(CELLS.count)))
