"""Every sampler measured against closed-form truth: python benchmarks/conformance.py (writes docs/conformance.md)

Orders: the worst and best slope between 128 and 256 steps (finer where a method comes into its order late) over two
Gaussian mixtures and two paths, on a grid inside the path and on one that ends at exactly sigma = 0 with shrinking
steps; for stochastic samplers the exact variance on Gaussian data. Errors: RMS distance of the endpoint to the exact
flow on DDPM's linear betas, grid Span, as many steps as a number of evaluations pays for. Evaluations are counted.
"""

import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.core.test_conformance import LATE, PATHS, STEPS, problems, variance_of
from tests.core.test_samplers import Watching, by_log_snr, draws, gaussian, mixture, slopes

from osmotic import times
from osmotic.noise import generators, normal
from osmotic.samplers import CATALOG, Adams, Flow, prior, sample
from osmotic.schedules import VP, Discrete

BUDGETS = (5, 10, 20, 50)
GRID = times.Span(0.1, 12)


def orders(name: str, made: dict) -> dict[str, list[float]]:
    """Measured slopes inside the path and down to the data."""
    sampler = CATALOG[name]()
    found: dict[str, list[float]] = {"inside": [], "zero": []}
    steps = LATE.get(name, STEPS)
    if sampler.stochastic:
        for make in PATHS.values():
            oracle, errors = gaussian(make()), []
            for n in steps:
                grid = by_log_snr(oracle.schedule, n, -3, 3)
                alpha, sigma = (float(v) for v in oracle.schedule(grid[-1]))
                errors.append(abs(variance_of(sampler, oracle, grid) - (alpha**2 * 0.3 + sigma**2)))
            found["inside"].append(float(slopes(errors)[0]))
        return found
    for oracle, x, inside, data in made.values():
        schedule = oracle.schedule
        start = float(by_log_snr(schedule, 1)[0])
        for where, grid, truth in (
            ("inside", lambda n, s=schedule: by_log_snr(s, n), inside),
            ("zero", lambda n, s=schedule, start=start: times.Power(4)(s, n, start), data),
        ):
            errors = [float((sample(sampler, oracle, x, grid(n)) - truth).square().mean().sqrt()) for n in steps]
            found[where].append(float(slopes(errors)[0]))
    return found


def calls(name: str, steps: int) -> int:
    """Denoiser calls of a run, counted."""
    denoiser = Watching(mixture(Discrete.linear()))
    generator = torch.Generator().manual_seed(0)
    sample(CATALOG[name](), denoiser, draws(2, 2), GRID(denoiser.schedule, steps), generator=generator)
    return denoiser.calls


def steps_for(name: str, budget: int) -> int:
    """The most steps that a budget pays for, 0 if not even one."""
    return max((n for n in range(1, budget + 1) if calls(name, n) <= budget), default=0)


def endpoint(name: str, oracle, x: torch.Tensor, truth: torch.Tensor, steps: int) -> float:
    """RMS distance of the endpoint to the exact flow's."""
    return float((sample(CATALOG[name](), oracle, x, GRID(oracle.schedule, steps)) - truth).square().mean().sqrt())


def beside(name: str) -> float:
    """The largest difference a sample's batch mates make, with one generator per sample."""
    sampler, oracle, grid = CATALOG[name](), gaussian(VP()), times.Span()(VP(), 8)

    def run(indices: list[int]) -> torch.Tensor:
        keyed = generators(3, indices)
        return sample(sampler, oracle, normal((len(indices), 1), keyed, dtype=torch.float64), grid, generator=keyed)

    return float((run([0, 1, 2, 3])[2] - run([2])[0]).abs().max())


def span(values: list[float]) -> str:
    """The range of slopes in a cell."""
    if not values:
        return ""
    return f"{min(values):.2f} to {max(values):.2f}"


def main() -> None:
    """Print and store the table."""
    made = problems.__pytest_wrapped__.obj() if hasattr(problems, "__pytest_wrapped__") else problems.__wrapped__()
    oracle = mixture(Discrete.linear())
    x = prior(oracle, (64, 2), torch.Generator().manual_seed(2)).double()
    truth = sample(Adams(Flow(), 3, correct=True), oracle, x, GRID(oracle.schedule, 3000))
    head = ["sampler", "order", "inside", "to sigma = 0", "calls at 10 steps", *(f"error at {n}" for n in BUDGETS)]
    head.append("batch mates")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print(lines[0])
    for name, make in CATALOG.items():
        sampler = make()
        if math.isinf(sampler.order):
            continue
        own = sampler.evaluations > 0
        found = orders(name, made) if own and sampler.order else {"inside": [], "zero": []}
        errors = [
            f"{endpoint(name, oracle, x, truth, n):.1e}" if own and not sampler.stochastic and n else ""
            for n in (steps_for(name, budget) if own else 0 for budget in BUDGETS)
        ]
        kind = " weak" if sampler.stochastic else ""
        cells = [name, f"{sampler.order:g}{kind}", span(found["inside"]), span(found["zero"]), str(calls(name, 10))]
        lines.append("| " + " | ".join([*cells, *errors, f"{beside(name):.0e}"]) + " |")
        print(lines[-1], flush=True)
    text = "# Conformance of the samplers\n\n" + (__doc__ or "").split("\n", 2)[2].strip() + "\n\n"
    text += "`make conformance` prints and writes this table.\n\n" + "\n".join(lines) + "\n"
    (Path(__file__).parent.parent / "docs" / "conformance.md").write_text(text)


if __name__ == "__main__":
    main()
