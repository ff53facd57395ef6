"""Differential equations without a model: Euler, Euler-Maruyama, and particles in a well."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from osmotic.noise import generator
from osmotic.oracles import Gaussian
from osmotic.recipes.gallery.numbers import Array, Numbers, histogram, slope
from osmotic.samplers.langevin import langevin
from osmotic.schedules import Cosine

PATHS = 4000


def euler_decay(steps: int, end: float = 3.0) -> Array:
    """Euler's method on ``dx/dt = -x, x(0) = 1``, ``(steps + 1,)``."""
    return np.asarray((1 - end / steps) ** np.arange(steps + 1))


def equations(seed: int) -> Numbers:
    """An ODE with Euler's steps, and an SDE, ``dx = -x dt + sqrt(2) dw``, with Euler-Maruyama's."""
    t, counts, h = np.linspace(0, 3, 151), np.array([20, 40, 80, 160]), 0.02
    rough = np.array([0.02, 0.25, 0.5, 1.0])
    draw = generator(seed, 0)
    x = torch.full((PATHS,), 2.0, dtype=torch.float64)
    rows = [x]
    for _ in range(150):
        x = x * (1 - h) + (2 * h) ** 0.5 * torch.randn(PATHS, generator=draw, dtype=torch.float64)
        rows.append(x)
    paths = torch.stack(rows).numpy()
    errors = np.array([abs(euler_decay(n)[-1] - np.exp(-3)) for n in counts.tolist()])
    return {
        "t": t,
        "exact": np.exp(-t),
        "euler_steps": np.array([3, 6, 12]),
        **{f"euler_{n}": euler_decay(n) for n in (3, 6, 12)},
        "counts": counts,
        "euler_error": errors,
        "euler_slope": -slope(counts, errors),
        "paths": paths[:, :8],
        "sampled_mean": paths.mean(1),
        "sampled_variance": paths.var(1),
        "mean": 2 * np.exp(-t),
        "variance": 1 - np.exp(-2 * t),
        "step": rough,
        "stationary_variance": np.array([_stationary(step, generator(seed, 1)) for step in rough.tolist()]),
        "stationary_variance_exact": 2 / (2 - rough),
    }


def _stationary(h: float, draw: torch.Generator) -> float:
    """The variance at which Euler-Maruyama with steps h settles, measured."""
    x = torch.zeros(5 * PATHS, dtype=torch.float64)
    for _ in range(round(6 / h)):
        x = x * (1 - h) + (2 * h) ** 0.5 * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    return float(x.var())


def particles(seed: int) -> Numbers:
    """Langevin dynamics in the well ``U = x^2 / 2`` at four temperatures; 1/2 is the law without the factor sqrt(2)."""
    well = Gaussian(Cosine(), torch.zeros(1, dtype=torch.float64), 1.0)
    temperatures, step, stops, spread = np.array([0.0, 0.5, 1.0, 2.0]), 0.02, 200, 4.0
    edges, x = np.linspace(-5, 5, 61), np.linspace(-5, 5, 201)
    paths, variances, shares = [], [], []
    for i, temperature in enumerate(temperatures.tolist()):
        draw = generator(seed, i)
        y: Tensor = spread**0.5 * torch.randn(PATHS, 1, generator=draw, dtype=torch.float64)
        rows = [y]
        for _ in range(stops):
            rows.append(langevin(well, rows[-1], 0.5, step, 1, temperature=temperature, generator=draw))
        run = torch.stack(rows)[..., 0].numpy()
        paths.append(run[:, :24])
        variances.append(run.var(1))
        shares.append(histogram(run[-1], edges))
    t = step * np.arange(stops + 1)
    decay = np.exp(-2 * t)
    with np.errstate(divide="ignore", invalid="ignore"):
        end = temperatures[:, None] + (spread - temperatures[:, None]) * decay[-1]
        density = np.exp(-(x**2) / (2 * end)) / np.sqrt(2 * np.pi * end)
    return {
        "t": t,
        "temperature": temperatures,
        "paths": np.stack(paths),
        "variance": np.stack(variances),
        "variance_exact": temperatures[:, None] + (spread - temperatures[:, None]) * decay,
        "edges": edges,
        "histogram": np.stack(shares),
        "x": x,
        "density": density,
    }
