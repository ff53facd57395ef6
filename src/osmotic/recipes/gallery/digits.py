"""Real digits: noised, and drawn by the exact denoiser of the set itself."""

from __future__ import annotations

import numpy as np
import torch

from osmotic.data.dataset import open_data
from osmotic.noise import generator
from osmotic.oracles import Dataset
from osmotic.recipes.gallery.numbers import Array, Numbers
from osmotic.samplers import DDPM, trajectory
from osmotic.schedules import Cosine
from osmotic.times import Uniform

SHOWN, COLUMNS = 4, 9


def digits(seed: int) -> Numbers:
    """Digits at nine noise levels, and ancestral sampling with the exact denoiser of all 1,797, one row each.

    The exact denoiser of a finite set can only bring back its
    members: the distance of each sample to the nearest of them is among the numbers.
    """
    data = open_data("digits")
    x, labels = data.batch(np.arange(len(data)))
    assert labels is not None
    x = x.to(torch.float64)
    schedule = Cosine()
    times = torch.linspace(0, 1, COLUMNS, dtype=torch.float64)
    chosen = torch.stack([x[labels == c][seed % 100] for c in (0, 3, 5, 8)])
    z = torch.randn(chosen.shape, generator=generator(seed, 0), dtype=torch.float64)
    alpha, sigma = schedule(times)
    noisy = torch.stack([a * chosen + s * z for a, s in zip(alpha, sigma, strict=True)])
    steps = 8 * (COLUMNS - 1)
    grid = Uniform()(schedule, steps)
    start = torch.randn(chosen.shape, generator=generator(seed, 2), dtype=torch.float64)
    with torch.no_grad():
        run = list(trajectory(DDPM(), Dataset(schedule, x), start, grid, generator=generator(seed, 3)))
    back = torch.stack(run[:: steps // (COLUMNS - 1)])
    nearest = torch.cdist(back.flatten(2), x.flatten(1)[None]).amin(-1)
    return {
        "t": times.numpy(),
        "alpha": alpha.numpy(),
        "sigma": sigma.numpy(),
        "forward": _shown(noisy.numpy()),
        "reverse_t": grid[:: steps // (COLUMNS - 1)].numpy(),
        "reverse": _shown(back.numpy()),
        "nearest": nearest.numpy(),
    }


def _shown(x: Array) -> Array:
    """Frames ``(levels, N, 1, H, W)`` in [-1, 1] as bytes ``(N, levels, H, W)``."""
    return np.asarray(np.clip(np.rint(127.5 * (x[:, :, 0] + 1)), 0, 255), np.uint8).swapaxes(0, 1)
