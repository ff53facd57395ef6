"""Solvers against closed forms: one step seen, orders measured, deterministic beside stochastic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.noise import generator
from osmotic.oracles import Gaussian
from osmotic.recipes.gallery.numbers import Array, Numbers, densities, histogram, moments, slope, two_peaks
from osmotic.samplers import CATALOG, DDIM, DDPM, RK4, Euler, Heun, InRho, RungeKutta, Sampler, sample, trajectory
from osmotic.samplers.base import renewed
from osmotic.schedules import VE, VP, Number, Schedule
from osmotic.times import Uniform

DRAWS = 10_000


def _even(high: float, low: float, steps: int) -> Tensor:
    return torch.linspace(high, low, steps + 1, dtype=torch.float64)


def euler_heun(seed: int) -> Numbers:
    """One step of Euler and of Heun on a curved solution, and the errors of both over the number of steps.

    The data are N(0, 0.5^2) on the VE path, in whose clock sigma the flow is ``x sqrt(0.25 + sigma^2)`` times a
    constant.
    """
    schedule = VE(1.0)
    oracle = Gaussian(schedule, torch.zeros(1, dtype=torch.float64), 0.25)
    x, high, low = torch.ones(1, 1, dtype=torch.float64), 0.5, 0.1
    euler, heun = (float(sample(s, oracle, x, _even(high, low, 1))) for s in (Euler(), Heun()))
    sigma = torch.linspace(low, high, 81, dtype=torch.float64)
    exact = np.array([float(oracle.flow(x, high, s)) for s in sigma])
    counts, errors = np.array([4, 8, 16, 32, 64, 128]), []
    for solver in (Euler(), Heun()):
        ends = [float(sample(solver, oracle, x, _even(high, low, n))) for n in counts.tolist()]
        errors.append(np.abs(np.array(ends) - exact[0]))
    return {
        "sigma": sigma.numpy(),
        "exact": exact,
        "slope_start": np.array(_slope(high, 1.0)),
        "slope_end": np.array(_slope(low, euler)),
        "euler": np.array(euler),
        "heun": np.array(heun),
        "steps": counts,
        "error": np.stack(errors),
        "slope": np.array([-slope(counts[2:], e[2:]) for e in errors]),
    }


def _slope(sigma: float, x: float) -> float:
    """``dx/dsigma`` of that flow: ``sigma x / (0.25 + sigma^2)``."""
    return sigma * x / (0.25 + sigma**2)


def sde_ode(seed: int) -> Numbers:
    """Paths of the reverse SDE and of the ODE from the same noise, with their marginals at five times."""
    oracle, steps, stops = two_peaks(VP()), 200, [0, 100, 150, 175, 200]
    noise = torch.randn(DRAWS, 1, generator=generator(seed, 0), dtype=torch.float64)
    times = Uniform()(oracle.schedule, steps)
    edges, x = np.linspace(-3, 3, 61), torch.linspace(-3, 3, 241, dtype=torch.float64)
    found: dict[str, Array] = {}
    for name, solver in (("sde", DDPM()), ("ode", Heun())):
        with torch.no_grad():
            run = torch.stack(list(trajectory(solver, oracle, noise, times, generator=generator(seed, 1))))[
                ..., 0
            ].numpy()
        found[f"{name}_paths"] = run[::2, :14]
        found[f"{name}_histogram"] = np.stack([histogram(run[i], edges) for i in stops])
        found[f"{name}_mean"], found[f"{name}_variance"] = run[stops].mean(1), run[stops].var(1)
    at = times[stops]
    mean, variance = moments(oracle.schedule, at)
    return {
        "path_t": times[::2].numpy(),
        "t": at.numpy(),
        "edges": edges,
        "x": x.numpy(),
        "density": densities(oracle, x, at),
        "mean": mean,
        "variance": variance,
        **found,
    }


def measurable(make: Callable[[], Sampler]) -> bool:
    """Whether a sampler follows the ODE with a finite order; flow-map jumps and stochastic ones do not."""
    sampler = make()
    return not sampler.stochastic and math.isfinite(sampler.order) and sampler.order > 0 and sampler.evaluations > 0


class Counted(Denoiser):
    """Another denoiser that counts its calls."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.calls = denoiser, denoiser.schedule, 0

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        self.calls += 1
        estimate: Estimate = self.denoiser(x, t, cond, s)
        return estimate


def orders(seed: int) -> Numbers:
    """The error of every deterministic solver of the catalogue over the number of evaluations, and its order.

    On the two peaks along VP, from sigma / alpha = 4 to 0.2, evenly spaced in log-SNR, with 64 fixed starts; the truth
    is RK4 with 500 steps. Evaluations are counted, not declared.
    """
    oracle, counts = two_peaks(VP()), np.array([40, 80, 160])
    x = torch.linspace(-2.2, 2.2, 64, dtype=torch.float64)[:, None]
    truth = sample(RungeKutta(RK4, InRho()), oracle, x, _ladder(oracle.schedule, 500))
    names = [name for name, make in CATALOG.items() if measurable(make)]
    errors, evaluations, found = [], [], []
    for name in names:
        row, calls = [], []
        for n in counts.tolist():
            counted = Counted(oracle)
            end = sample(CATALOG[name](), counted, x, _ladder(oracle.schedule, n))
            row.append(float((end - truth).square().mean().sqrt()))
            calls.append(counted.calls)
        errors.append(row)
        evaluations.append(calls)
        # Rounding ends the fall of the highest orders; only what is well above it is fitted.
        usable = np.array(row) > 1e-11
        found.append(float(-slope(counts[usable], np.array(row)[usable])))
    return {
        "name": np.array(names),
        "declared": np.array([float(CATALOG[name]().order) for name in names]),
        "measured": np.array(found),
        "steps": counts,
        "evaluations": np.array(evaluations),
        "error": np.array(errors),
    }


def _ladder(schedule: Schedule, steps: int) -> Tensor:
    """Times evenly spaced in log-SNR between two interior levels."""
    return schedule.time(_even(-2 * math.log(4.0), -2 * math.log(0.2), steps))


def eta(seed: int) -> Numbers:
    """DDIM at three etas on N(0, 0.5^2): the variance of its samples over the number of steps.

    Every step is linear in x there, so the law at any number of steps is known in closed form (:func:`ddim_variance`);
    beside it stand measured ones.
    """
    oracle = Gaussian(VP(), torch.zeros(1, dtype=torch.float64), 0.25)
    etas, steps = np.array([0.0, 0.5, 1.0]), np.array([2, 4, 8, 16, 32, 64, 128])
    noise = torch.randn(DRAWS, 1, generator=generator(seed, 0), dtype=torch.float64)
    measured, closed = [], []
    for value in etas.tolist():
        grids = [Uniform()(oracle.schedule, n) for n in steps.tolist()]
        draws = [generator(seed, 1, n) for n in steps.tolist()]
        runs = [sample(DDIM(value), oracle, noise, grid, generator=g) for grid, g in zip(grids, draws, strict=True)]
        measured.append([float(x.square().mean()) for x in runs])
        closed.append([ddim_variance(oracle.schedule, 0.25, value, grid) for grid in grids])
    return {
        "eta": etas,
        "steps": steps,
        "variance": np.array(closed),
        "sampled_variance": np.array(measured),
        "data_variance": np.array(0.25),
    }


def ddim_variance(schedule: Schedule, data: float, eta: float, times: Tensor) -> float:
    """The variance that DDIM's steps lead to from a unit normal, for data N(0, ``data``)."""
    variance = 1.0
    for t, s in itertools.pairwise(schedule.pairs(times)):
        (alpha, sigma), (alpha_s, sigma_s) = t, s
        fresh = (eta * sigma_s) ** 2 * renewed(t, s) if sigma_s > 0 else 0.0
        # x0 = alpha data x / V and eps = sigma x / V with V the marginal's variance.
        slope_x = (alpha_s * alpha * data + math.sqrt(sigma_s**2 - fresh) * sigma) / (alpha**2 * data + sigma**2)
        variance = slope_x**2 * variance + fresh
    return variance
