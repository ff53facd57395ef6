"""What measuring costs: python benchmarks/evaluation.py RUN   (a demo's run, as `make demo` leaves it)

Streaming 50,000 pictures of 32 x 32 through the default features, the Frechet distance of 2,048 features beside
torchmetrics on the same numbers, and `osmotic evaluate RUN` as a whole process.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from osmotic.metrics import Moments, frechet
from osmotic.metrics.features import RandomConv

COUNT, BATCH, WIDTH, ROWS, REPEATS = 50_000, 1_000, 2_048, 10_000, 3


class Same(torch.nn.Module):
    """Features that are given already."""

    num_features = WIDTH

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 0, 0]


def streamed() -> tuple[float, float]:
    """Seconds and MB more at peak for 50,000 pictures, made on the fly."""
    rng, features, moments = np.random.default_rng(0), RandomConv(), Moments()
    moments.update(features(rng.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for _ in range(COUNT // BATCH):
        moments.update(features(rng.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)))
    return time.perf_counter() - begun, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def ours(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    begun = time.perf_counter()
    value = frechet(Moments().update(x), Moments().update(y))
    return time.perf_counter() - begun, value


def theirs(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    begun = time.perf_counter()
    metric = FrechetInceptionDistance(feature=Same(), normalize=True, input_img_size=(WIDTH, 1, 1))
    metric.set_dtype(torch.float64)
    for rows, real in ((x, True), (y, False)):
        for start in range(0, len(rows), BATCH):
            metric.update(torch.from_numpy(rows[start : start + BATCH])[:, :, None, None], real=real)
    value = float(metric.compute())
    return time.perf_counter() - begun, value


def main(run: str) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    x, y = rng.normal(size=(ROWS, WIDTH)) @ mixing, 0.1 + rng.normal(size=(ROWS, WIDTH)) @ mixing
    pairs = [(ours(x, y), theirs(x, y)) for _ in range(REPEATS)]
    seconds, grown = streamed()
    walls = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "osmotic", "evaluate", run], check=True, capture_output=True)
        walls.append(time.perf_counter() - begun)
    rows = [
        ("50,000 pictures of 32 x 32 through the default features and their moments", f"{seconds:.1f} s"),
        ("memory that this adds at its peak", f"{grown:.0f} MB"),
        (f"Frechet distance of {ROWS:,} x {WIDTH:,} features", f"{median(a[0] for a, _ in pairs):.1f} s"),
        ("the same by torchmetrics", f"{median(b[0] for _, b in pairs):.1f} s"),
        ("relative difference of the two", f"{abs(pairs[0][0][1] / pairs[0][1][1] - 1):.1e}"),
        ("`osmotic evaluate` on the demo's run, the whole process", f"{median(walls):.1f} s"),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    day = time.strftime("%Y-%m-%d")
    text = (
        f"`python benchmarks/evaluation.py RUN`, {day}, two cores, medians of {REPEATS}\n\n" + "\n".join(lines) + "\n"
    )
    print(text)
    (Path(__file__).parent / "results" / "evaluation.md").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
