"""The measured order of every sampler beside the declared one: python benchmarks/orders.py

Deterministic samplers: endpoint error on a two-dimensional Gaussian mixture against SciPy's DOP853 (rtol 1e-11).
Stochastic ones: exact error of the variance on Gaussian data (no Monte Carlo). VP path, uniform half log-SNR.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.core.test_samplers import by_log_snr, draws, flow_by_scipy, gaussian, law, mixture

from osmotic.samplers import CATALOG, sample
from osmotic.schedules import VP

STEPS = (16, 32, 64, 128)


def errors(name: str) -> list[float]:
    """The errors of a sampler at the step counts."""
    sampler = CATALOG[name]()
    if math.isinf(sampler.order):
        return []
    if sampler.stochastic:
        oracle = gaussian(VP())
        found = []
        for n in STEPS:
            grid = by_log_snr(VP(), n, -3, 3)
            alpha, sigma = (float(v) for v in VP()(grid[-1]))
            found.append(abs(law(sampler, oracle, grid)[1] - (alpha**2 * 0.3 + sigma**2)))
        return found
    oracle = mixture(VP())
    ends = by_log_snr(VP(), 1)
    alpha, sigma = oracle.schedule(ends[0])
    x = alpha * oracle.sample(32, torch.Generator().manual_seed(2)) + sigma * draws(32, 2)
    truth = flow_by_scipy(oracle, x, ends)
    return [float((sample(sampler, oracle, x, by_log_snr(VP(), n)) - truth).square().mean().sqrt()) for n in STEPS]


def main() -> None:
    """Print and store the table."""
    head = [*(f"error at {n}" for n in STEPS), "measured order", "declared"]
    lines = ["| sampler | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for name in CATALOG:
        found = errors(name)
        if not found:
            continue
        slope = np.log2(found[-2] / found[-1])
        cells = [*(f"{e:.2e}" for e in found), f"{slope:.2f}", f"{CATALOG[name]().order:g}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "results" / "orders.md").write_text(f"`python benchmarks/orders.py`\n\n{text}\n")


if __name__ == "__main__":
    main()
