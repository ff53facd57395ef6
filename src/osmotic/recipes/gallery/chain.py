"""Chains of noising steps: why the reverse step must be small, and why many unit steps are one."""

from __future__ import annotations

import math

import numpy as np
import torch

from osmotic.noise import generator
from osmotic.objectives.unit_chain import UnitSteps
from osmotic.recipes.gallery.numbers import Array, Numbers, histogram
from osmotic.samplers.base import renewed
from osmotic.schedules import Discrete, Schedule

SKIPS, FROM, LEVELS = (499, 400, 200, 100), 500, 1000
DRAWS = 20_000


def kernel(schedule: Schedule, j: int) -> tuple[float, float]:
    """Of ``q(x_j | x_500 = 0, x0 = 1)``: mean and variance. For x0 = -1 the mean has the other sign."""
    t, s = schedule.scalars(FROM / LEVELS), schedule.scalars(j / LEVELS)
    share = renewed(t, s)
    return s[0] * share, s[1] ** 2 * share


def modes(density: Array) -> int:
    """How many local maxima a density on a grid has."""
    rises = np.sign(np.diff(density))
    rises = rises[rises != 0]
    return int(((rises[:-1] > 0) & (rises[1:] < 0)).sum())


def skipping(seed: int) -> Numbers:
    """The exact reverse kernel ``q(x_j | x_500 = 0)`` of data at -1 and +1, and the normal with its mean and variance.

    By symmetry both data points are equally likely, so the kernel is the half sum of two normals at ``+-m``: it has two
    peaks as soon as m exceeds their deviation.
    """
    schedule, x = Discrete.linear(LEVELS), np.linspace(-2.2, 2.2, 4401)
    exact, assumed, every = [], [], np.arange(1, FROM)
    for j in SKIPS:
        mean, variance = kernel(schedule, j)
        exact.append((_normal(x, mean, variance) + _normal(x, -mean, variance)) / 2)
        assumed.append(_normal(x, 0.0, mean**2 + variance))
    pairs = np.array([kernel(schedule, int(j)) for j in every])
    return {
        "j": np.array(SKIPS),
        "x": x[::10],
        "density": np.stack(exact)[:, ::10],
        "normal": np.stack(assumed)[:, ::10],
        "modes": np.array([modes(row) for row in exact]),
        "level": every,
        "mean_over_deviation": pairs[:, 0] / np.sqrt(pairs[:, 1]),
    }


def _normal(x: Array, mean: float, variance: float) -> Array:
    return np.asarray(np.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance))


def unit_chain(seed: int) -> Numbers:
    """Four unit steps beside one of variance four, and the posterior of level 3 given both ends."""
    x0, x4 = 0.0, 4.0
    edges, x = np.linspace(-8, 8, 65), np.linspace(-6, 8, 281)
    z = torch.randn(4, DRAWS, generator=generator(seed, 0), dtype=torch.float64).numpy()
    walks = x0 + np.concatenate([np.zeros((1, DRAWS)), np.cumsum(z, 0)])
    once = x0 + 2 * torch.randn(DRAWS, generator=generator(seed, 1), dtype=torch.float64).numpy()
    path = UnitSteps(4)
    share = renewed(path.scalars(1.0), path.scalars(0.75))
    # The jump's algebra for q(x3 | x4, x0): of the noise at level 3 a share is new.
    sigma3, sigma4 = path.scalars(0.75)[1], path.scalars(1.0)[1]
    kept = math.sqrt(1 - share) * sigma3 / sigma4
    mean, variance = kept * x4 + (1 - kept) * x0, sigma3**2 * share
    prior, likelihood = _normal(x, x0, 3.0), _normal(x, x4, 1.0)
    product = prior * likelihood
    return {
        "walks": walks[:, :60],
        "edges": edges,
        "many": histogram(walks[-1], edges),
        "one": histogram(once, edges),
        "variance": walks.var(1),
        "one_variance": np.array(once.var()),
        "x": x,
        "exact": _normal(x, x0, 4.0),
        "prior": prior,
        "likelihood": likelihood,
        "product": product / (product.sum() * (x[1] - x[0])),
        "posterior": _normal(x, mean, variance),
        "posterior_weights": np.array([kept, 1 - kept]),
        "posterior_variance": np.array(variance),
        "x0": np.array(x0),
        "x4": np.array(x4),
    }
