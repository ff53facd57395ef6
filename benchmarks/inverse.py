"""Every way to sample given a measurement, on mixtures whose answer is known: python benchmarks/inverse.py [DATA SEED]

Known coordinates of a Gaussian mixture of 2 dimensions (one known) or 16 (eight known), without noise; the exact
denoiser. The Wasserstein-1 distance of the others to the exact conditional, along the axis or over 200 random
directions, against the passes through the denoiser that a sample costs: forward ones, and backward ones for
derivatives. With DATA and SEED one part of the table is measured anew, without them what is missing; then
docs/inverse.md is written.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from osmotic import times
from osmotic.denoiser import Denoiser
from osmotic.guidance import Inpaint, Mask, Posterior, PseudoInverse
from osmotic.noise import generator
from osmotic.oracles import GaussianMixture
from osmotic.samplers import CATALOG, DEFAULT, DPS, Particles, RePaint, Sampler, sample
from osmotic.schedules import Cosine

PARTS = [("2-D", 0), ("2-D", 1), ("2-D", 2), ("2-D", 3), ("16-D", 0), ("16-D", 1), ("16-D", 2)]
SIZES = {"2-D": (2, 1, 1000), "16-D": (16, 8, 250)}  # dimensions, how many are known, samples
STEPS = (25, 100, 400)
HERE = Path(__file__).parent
KEPT, DOC = HERE / "results" / "inverse.json", HERE.parent / "docs" / "inverse.md"


class Counted(Denoiser):
    """A denoiser that counts the rows that pass, forward and backward."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.forwards, self.backwards = denoiser, 0, 0
        self.around(denoiser)

    def forward(self, x, t, cond=None, s=None):
        self.forwards += len(x)
        if x.requires_grad:
            x.register_hook(self._back)
        return self.denoiser(x, t, cond, s)

    def _back(self, gradient):
        self.backwards += len(gradient)


def mixture(d: int, seed: int) -> GaussianMixture:
    """Four components with full covariances."""
    draws = generator(seed, d)
    means = 1.2 * torch.randn(4, d, generator=draws, dtype=torch.float64)
    roots = torch.randn(4, d, d, generator=draws, dtype=torch.float64)
    covariances = 0.15 * roots @ roots.mT / d + 0.02 * torch.eye(d, dtype=torch.float64)
    return GaussianMixture(Cosine(), means, covariances, 0.3 + torch.rand(4, generator=draws, dtype=torch.float64))


def distance(x: Tensor, exact: Tensor) -> float:
    """Mean Wasserstein-1 distance along the axis, or 200 random directions; exact has a multiple of x's rows."""
    if x.shape[1] > 1:
        directions = torch.randn(x.shape[1], 200, generator=generator(9), dtype=x.dtype)
        x, exact = (v @ (directions / directions.norm(dim=0)) for v in (x, exact))
    x = x.repeat_interleave(len(exact) // len(x), 0)
    return float((x.sort(0).values - exact.sort(0).values).abs().mean())


Way = Callable[[Denoiser, Denoiser, Mask, Tensor, int], tuple[Denoiser, Sampler] | None]

WAYS: dict[str, Way] = {
    "exact conditional score": lambda base, exact, mask, y, n: (exact, CATALOG[DEFAULT]()),
    "replacement": lambda base, exact, mask, y, n: (Inpaint(base, y, mask.mask), CATALOG[DEFAULT]()),
    "RePaint, r = 5, j = 1": lambda base, exact, mask, y, n: (Inpaint(base, y, mask.mask), RePaint(5, 1)),
    "RePaint, r = 10, j = 10": lambda base, exact, mask, y, n: (Inpaint(base, y, mask.mask), RePaint(10, 10)),
    "DPS, zeta = 0.5": lambda base, exact, mask, y, n: (base, DPS(lambda x0: mask(y - x0), 0.5)),
    "PiGDM": lambda base, exact, mask, y, n: (PseudoInverse(base, mask, y), CATALOG[DEFAULT]()),
    "posterior mean, 1 iteration": lambda base, exact, mask, y, n: (
        Posterior(base, mask, y, iterations=1),
        CATALOG[DEFAULT](),
    ),
    "posterior mean, 3 iterations": lambda base, exact, mask, y, n: (
        Posterior(base, mask, y, iterations=3),
        CATALOG[DEFAULT](),
    ),
    "particles, no derivatives": lambda base, exact, mask, y, n: (
        Posterior(base, mask, y, iterations=0),
        Particles(count(n)),
    ),
    "particles, twice as many, no derivatives": lambda base, exact, mask, y, n: (
        (Posterior(base, mask, y, iterations=0), Particles(2 * count(n))) if n < 400 else None
    ),
    "particles, 1 iteration": lambda base, exact, mask, y, n: (
        Posterior(base, mask, y, iterations=1),
        Particles(count(n)),
    ),
    "particles, 3 iterations": lambda base, exact, mask, y, n: (
        (Posterior(base, mask, y, iterations=3), Particles(count(n))) if n < 400 and len(y.T) > 2 else None
    ),
}


CHOSEN = "particles, 1 iteration"


def count(steps: int) -> int:
    """The particles of ``osmotic.inverse.draw``."""
    return round(steps**0.5)


def part(data: str, seed: int) -> list[dict[str, object]]:
    """All ways on one mixture."""
    d, known, n = SIZES[data]
    base = mixture(d, seed)
    matrix = torch.eye(d, dtype=torch.float64)[:known]
    seen = matrix @ base.sample(1, generator(seed, d, 1))[0]
    exact = base.condition(matrix, seen)
    reference, again = (exact.sample(rows, generator(seed, k))[:, known:] for k, rows in ((2, 8 * n), (3, n)))
    mask, y = Mask(torch.arange(d) < known), torch.zeros(1, d, dtype=torch.float64)
    y[0, :known] = seen
    rows = [{"data": data, "seed": seed, "way": "exact draws", "steps": 0, "distance": distance(again, reference)}]
    for steps in STEPS:
        grid = times.suggested()(base.schedule, steps)
        x = torch.randn(n, d, generator=generator(seed, 4), dtype=torch.float64)
        for name, way in WAYS.items():
            counted, counted_exact = Counted(base), Counted(exact)
            made = way(counted, counted_exact, mask, y, steps)
            if made is None:
                continue
            began = time.process_time()
            out = sample(made[1], made[0], x, grid, generator=generator(seed, 5))
            rows.append(
                {
                    "data": data,
                    "seed": seed,
                    "way": name,
                    "steps": steps,
                    "distance": distance(out[:, known:], reference),
                    "off": float((out[:, :known] - seen).abs().max()),
                    "forward": (counted.forwards + counted_exact.forwards) / n,
                    "backward": counted.backwards / n,
                    "seconds": round(time.process_time() - began, 2),
                }
            )
            print(data, seed, name, steps, f"{rows[-1]['distance']:.3f}", flush=True)
    return rows


def document(rows: list[dict[str, object]]) -> str:
    """docs/inverse.md."""
    lines = [
        "# Sampling given a measurement",
        "",
        "`python benchmarks/inverse.py`. Known coordinates of a Gaussian mixture, exact denoiser, no noise: one of 2, "
        "or eight of 16. The distance of the unknown ones to the exact conditional (Wasserstein-1; mean over 200 "
        "directions in 16-D), its mean over mixtures, at 25, 100 and 400 steps; *passes*: forward + backward through "
        "the denoiser that a sample costs at 100 steps. Particles are as many as the root of the steps: 5, 10, 20.",
        "",
    ]
    for data, (_, _, n) in SIZES.items():
        mine = [row for row in rows if row["data"] == data]
        seeds = sorted({row["seed"] for row in mine})
        if not seeds:
            continue
        floor = mean(row["distance"] for row in mine if row["way"] == "exact draws")
        lines += [
            f"{data}, {len(seeds)} mixtures, {n} samples; exact draws are at {floor:.3f}.",
            "",
            "| way | 25 | 100 | 400 | worst at 100, over replacement's | passes |",
            "|---|---|---|---|---|---|",
        ]
        for way in WAYS:
            found = [row for row in mine if row["way"] == way]
            by = {k: [row["distance"] for row in found if row["steps"] == k] for k in STEPS}
            cells = [f"{mean(by[k]):.3f}" if by[k] else "" for k in STEPS]
            at = {row["seed"]: row for row in found if row["steps"] == 100}
            if not at:
                continue
            there = {row["seed"]: row for row in mine if row["way"] == "replacement" and row["steps"] == 100}
            worst = max(at[seed]["distance"] / there[seed]["distance"] for seed in at)
            passes = f"{mean(r['forward'] for r in at.values()):.0f} + {mean(r['backward'] for r in at.values()):.0f}"
            name = f"**{way}**" if way == CHOSEN else way
            lines.append(f"| {name} | {' | '.join(cells)} | {worst:.2f} | {passes} |")
        lines.append("")
    return "\n".join([*lines, TEXT, ""])


TEXT = """The row in bold is the default, `osmotic.inverse.draw`: `guidance.given` sampled by `samplers.Particles`. \
Its distance falls with the steps because the particles grow with them; an estimate of the posterior mean without \
particles to compare keeps a bias that no number of steps removes, and where p(x0 | x_t) has several modes it may \
choose the wrong one nearly always, as replacement does. Without noise known cells are copied to the bit.

```python
from osmotic import inverse
from osmotic.guidance import Blur, Downsample, Grey, Mask

inverse.draw(denoiser, Mask(mask), pictures)              # inpainting: 1 is known; what is not known may be NaN
inverse.draw(denoiser, Mask(~table.isnan()), table)       # missing cells, each row its own
inverse.draw(denoiser, Mask(torch.arange(length) < now), series)  # a forecast
inverse.draw(denoiser, Downsample(4), small, noise=0.05)  # super-resolution; Blur.gaussian(2.0), Grey() likewise
```"""


def mean(values) -> float:
    """Of an iterable."""
    values = list(values)
    return sum(values) / len(values)


def main(words: list[str]) -> None:
    """One part, or all that is missing, then the page."""
    rows = json.loads(KEPT.read_text()) if KEPT.exists() else []
    done = {(row["data"], row["seed"]) for row in rows}
    torch.set_num_threads(1)
    for data, seed in [(words[0], int(words[1]))] if words else [key for key in PARTS if key not in done]:
        rows = [row for row in rows if (row["data"], row["seed"]) != (data, seed)] + part(data, seed)
        rows.sort(key=lambda row: PARTS.index((row["data"], row["seed"])))
        KEPT.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    DOC.write_text(document(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
