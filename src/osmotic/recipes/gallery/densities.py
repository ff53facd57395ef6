"""Densities in one dimension: diffused, turned round, and solved for."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from osmotic.fokker_planck import Cells, Forward, Reverse, evolve
from osmotic.noise import generator
from osmotic.oracles import GaussianMixture
from osmotic.recipes.gallery.numbers import Numbers, densities, histogram, moments, slope, two_peaks
from osmotic.samplers import DDPM, Heun, trajectory
from osmotic.schedules import VP, Schedule
from osmotic.times import Uniform

DRAWS = 20_000


def diffusion(seed: int) -> Numbers:
    """The density of the data convolved with ever more noise, and histograms of diffused samples."""
    oracle, times = two_peaks(VP()), torch.tensor([0.0, 0.05, 0.1, 0.2, 0.4, 1.0], dtype=torch.float64)
    x, edges = torch.linspace(-3.5, 3.5, 281, dtype=torch.float64), np.linspace(-3.5, 3.5, 57)
    draw = generator(seed, 0)
    x0 = oracle.sample(DRAWS, draw)[:, 0]
    alpha, sigma = oracle.schedule(times)
    noisy = alpha[:, None] * x0 + sigma[:, None] * torch.randn(len(times), DRAWS, generator=draw, dtype=torch.float64)
    mean, variance = moments(oracle.schedule, times)
    return {
        "t": times.numpy(),
        "x": x.numpy(),
        "density": densities(oracle, x, times),
        "edges": edges,
        "histogram": np.stack([histogram(row, edges) for row in noisy.numpy()]),
        "mean": mean,
        "variance": variance,
        "sampled_mean": noisy.mean(1).numpy(),
        "sampled_variance": noisy.var(1).numpy(),
    }


def forward_path(schedule: Schedule, x0: Tensor, times: Tensor, draw: torch.Generator) -> Tensor:
    """The noising SDE by its exact steps ``x_t = a x_s + b z``, ``(len(times), *x0.shape)``; times rise from 0."""
    alpha, sigma = schedule(times)
    points = [x0]
    for (a0, s0), (a1, s1) in itertools.pairwise(zip(alpha, sigma, strict=True)):
        ratio = a1 / a0
        fresh = (s1**2 - (ratio * s0) ** 2).clamp_min(0).sqrt()
        points.append(ratio * points[-1] + fresh * torch.randn(x0.shape, generator=draw, dtype=x0.dtype))
    return torch.stack(points)


def forward_reverse(seed: int) -> Numbers:
    """The marginals over time with paths of the noising SDE, of its reverse, and of the probability-flow ODE."""
    oracle = two_peaks(VP())
    times, x = torch.linspace(0, 1, 201, dtype=torch.float64), torch.linspace(-3, 3, 181, dtype=torch.float64)
    x0 = torch.tensor([-1.2, -0.9, 0.75, 1.0, 1.3], dtype=torch.float64)[:, None]
    # Evenly spaced quantiles of the noise, so that the flow's order-keeping is seen.
    levels = (torch.arange(9, dtype=torch.float64) + 0.5) / 9
    noise = torch.special.ndtri(levels)[:, None]
    down = Uniform()(oracle.schedule, 200)
    with torch.no_grad():
        sde = torch.stack(list(trajectory(DDPM(), oracle, noise[::2], down, generator=generator(seed, 1))))
        ode = torch.stack(list(trajectory(Heun(), oracle, noise, down)))
    return {
        "t": times.numpy(),
        "x": x.numpy(),
        "density": densities(oracle, x, times),
        "forward": forward_path(oracle.schedule, x0, times, generator(seed, 0))[..., 0].numpy(),
        "reverse_t": down.numpy(),
        "reverse_sde": sde[..., 0].numpy(),
        "reverse_ode": ode[..., 0].numpy(),
    }


def fokker_planck(seed: int) -> Numbers:
    """The solved equation beside the exact marginals, forward and back, and its error over the number of cells."""
    oracle, counts = two_peaks(VP()), np.array([100, 200, 400])
    shown = [0.05, 0.1, 0.2, 0.5]
    start, errors, masses = 0.02, [], []
    for count in counts.tolist():
        cells = Cells(-6, 6, count)
        # From t = 0, where the rate of VP's sigma is infinite: no coefficient is read there.
        times = torch.linspace(0, shown[-1], count + 1, dtype=torch.float64)
        rows = list(evolve(Forward(oracle.schedule), _exact(oracle, cells, 0.0), cells, times))
        errors.append(float((rows[-1] - _exact(oracle, cells, shown[-1])).abs().sum()) * cells.width / 2)
        masses.append(max(abs(cells.mass(row) / cells.mass(rows[0]) - 1) for row in rows))
    picked = [rows[round(t / shown[-1] * count)] for t in shown]
    times = torch.linspace(shown[-1], start, 201, dtype=torch.float64)
    *_, back = evolve(Reverse(oracle), rows[-1], cells, times)
    return {
        "x": cells.centres.numpy(),
        "t": np.array(shown),
        "solved": torch.stack(picked).numpy(),
        "exact": np.stack([_exact(oracle, cells, t).numpy() for t in shown]),
        "start": np.array(start),
        "back": back.numpy(),
        "exact_start": _exact(oracle, cells, start).numpy(),
        "cells": counts,
        "error": np.array(errors),
        "slope": -slope(counts, np.array(errors)),
        "mass_drift": np.array(masses),
    }


def _exact(oracle: GaussianMixture, cells: Cells, t: float) -> Tensor:
    return torch.from_numpy(densities(oracle, cells.centres, torch.tensor([t], dtype=torch.float64))[0])
