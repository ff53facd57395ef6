"""Points in the plane: the score as a field of arrows, why it is annealed, and data near a curve."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from osmotic.data.dataset import open_data
from osmotic.levels import as_time
from osmotic.noise import generator
from osmotic.oracles import Dataset, GaussianMixture
from osmotic.recipes.gallery.numbers import Array, Numbers
from osmotic.samplers import sample
from osmotic.samplers.langevin import AnnealedLangevin, langevin
from osmotic.schedules import VE, Cosine
from osmotic.times import LogSNR

LIMIT, CHAINS = 5.0, 1500
CLOUDS = ("moons", "swiss-roll")


def islands() -> GaussianMixture:
    """Two islands far apart, a small one with a fifth of the mass."""
    means = torch.tensor([[-2.5, -2.5], [2.5, 2.5]], dtype=torch.float64)
    return GaussianMixture(VE(8.0), means, 0.25, [0.2, 0.8])


def score_field(seed: int) -> Numbers:
    """Density and score at a small and a large noise level, and where Langevin chains end without and with annealing.

    A place counts as unseen if a thousand samples put less than one, on average, within a square of side 0.5 there.
    """
    oracle, sigmas = islands(), np.array([0.1, 2.5])
    line, coarse = (torch.linspace(-LIMIT, LIMIT, n, dtype=torch.float64) for n in (81, 16))
    densities, scores, unseen = [], [], []
    for sigma in sigmas.tolist():
        t = oracle.schedule.time(-2 * torch.tensor(sigma, dtype=torch.float64).log())
        at = oracle.log_prob(_plane(line), t).exp().reshape(81, 81)
        densities.append(at.numpy())
        unseen.append(float((1000 * 0.25 * at < 1).double().mean()))
        scores.append((-oracle(_plane(coarse), t).eps / sigma).reshape(16, 16, 2).numpy())
    return {
        "x": line.numpy(),
        "arrows": coarse.numpy(),
        "sigma": sigmas,
        "density": np.stack(densities),
        "score": np.stack(scores),
        "unseen_share": np.array(unseen),
        **_chains(oracle, seed),
    }


def _plane(line: Tensor) -> Tensor:
    """The points of a square lattice, ``(n^2, 2)``, y slowest."""
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def _chains(oracle: GaussianMixture, seed: int) -> dict[str, Array]:
    """The share of chains on each island after as many updates at the small level alone, and annealed down to it."""
    draw = generator(seed, 0)
    start = LIMIT * (2 * torch.rand(CHAINS, 2, generator=draw, dtype=torch.float64) - 1)
    ladder = LogSNR(0.1, 8.0)(oracle.schedule, 12)
    plain = langevin(oracle, start, ladder[-2], 0.002, 12 * 25, generator=draw)
    annealed = sample(AnnealedLangevin(0.2, 25), oracle, start, ladder, generator=draw)
    return {
        "weights": oracle.log_weights.exp().numpy(),
        "plain_shares": _shares(plain),
        "annealed_shares": _shares(annealed),
        "plain_ends": plain[:300].numpy(),
        "annealed_ends": annealed[:300].numpy(),
    }


def _shares(x: Tensor) -> Array:
    """Of points left and right of the middle."""
    left = float((x[:, 0] < 0).double().mean())
    return np.array([left, 1 - left])


def manifold(seed: int) -> Numbers:
    """Two clouds near curves, noised, with the exact posterior mean of each noisy point.

    Distances are to the nearest of the clean points; deviations, kurtoses (3 for a normal) are of the noisy cloud.
    """
    times = Cosine().time(-2 * torch.tensor([0.12, 0.45, 20.0], dtype=torch.float64).log())
    times = torch.cat([torch.zeros(1, dtype=torch.float64), times])
    found: dict[str, list[Array]] = {
        "noisy": [],
        "denoised": [],
        "distance": [],
        "denoised_distance": [],
        "kurtosis": [],
    }
    for number, name in enumerate(CLOUDS):
        data = open_data(name)
        x = data.batch(np.arange(3000))[0].to(torch.float64)
        x = (x - x.mean(0)) / x.std(0)
        oracle, x0 = Dataset(Cosine(), x[700:]), x[:700]
        z = torch.randn(len(times), *x0.shape, generator=generator(seed, number), dtype=torch.float64)
        alpha, sigma = oracle.schedule(times)
        noisy = alpha[:, None, None] * x0 + sigma[:, None, None] * z
        # At t = 0 there is no noise to take away.
        means = torch.stack([noisy[0], *(oracle(y, as_time(t)).x0 for y, t in zip(noisy[1:], times[1:], strict=True))])
        found["noisy"].append(noisy.numpy())
        found["denoised"].append(means.numpy())
        for key, cloud in (("distance", noisy), ("denoised_distance", means)):
            found[key].append(torch.cdist(cloud, x[None, 700:]).amin(-1).mean(1).numpy())
        centred = noisy - noisy.mean(1, keepdim=True)
        found["kurtosis"].append(((centred**4).mean(1) / (centred**2).mean(1) ** 2).mean(1).numpy())
    alpha, sigma = Cosine()(times)
    return {"t": times.numpy(), "sigma": sigma.numpy(), **{key: np.stack(rows) for key, rows in found.items()}}
