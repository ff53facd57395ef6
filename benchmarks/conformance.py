"""Every sampler measured against closed-form truth: python benchmarks/conformance.py (writes docs/conformance.md)

"order" is the declared one. "inside": the slopes between 128 and 256 steps (finer where a method comes into its order
late) over two Gaussian mixtures and two paths (VP, rectified), between two noisy levels (log(alpha/sigma) from -2.5 to
2); for stochastic samplers the slope of the exact variance on Gaussian data ("weak"). "to sigma = 0": the same from
log(alpha/sigma) = -2.5 to exactly 0 on the grid Power(4), whose every step shrinks. "from noise": from t = 1 to
exactly 0 on the default grid Span, declared and measured (mean of two doublings to 320 steps): there log-SNR steps do
not shrink at the ends, so of methods in log-SNR, rho or time no more than order 2 is promised, up to a logarithm.
Samplers that are no name of the catalogue (adaptive SDE, plain Langevin) are held to their laws in tests/core/test_sde
and test_langevin. Errors: RMS distance of the endpoint
to the exact flow of a mixture on DDPM's linear betas, grid Span(0.1, 4), as many steps as a number of
evaluations pays for; for stochastic samplers the exact relative error of the variance of N(0.5, 0.3) on the same path
and grid. Calls are counted by a mock. "batch mates": the largest change of a sample by those beside it, in batches of
4 and 1. Order 0: a bias of the method's own does not fall with the steps. No order: the error decides the steps.
"""

import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import conformance_phase
from tests.core.test_conformance import LATE, PATHS, STEPS, flow_in_the_angle, from_noise, problems, second, variance_of
from tests.core.test_samplers import Watching, by_log_snr, draws, gaussian, mixture, slopes

from osmotic import times
from osmotic.noise import generators, normal
from osmotic.samplers import CATALOG, Adams, Flow, prior, sample
from osmotic.schedules import VP, Discrete

BUDGETS = (5, 10, 20, 50)
GRID = times.Span(0.1, 4)


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


def whole() -> list:
    """The problems from pure noise; see tests/core/test_conformance.py."""
    made = []
    for make in PATHS.values():
        oracle = second(make())
        x = prior(oracle, (8, 2), torch.Generator().manual_seed(2)).double()
        made.append((oracle, x, flow_in_the_angle(oracle, x)))
    return made


def spread(name: str, steps: int) -> float:
    """The exact relative error of the variance on Gaussian data after this many steps."""
    return variance_of(CATALOG[name](), gaussian(Discrete.linear()), GRID(Discrete.linear(), steps)) / 0.3 - 1


def span(values: list[float]) -> str:
    """The range of slopes in a cell."""
    if not values:
        return ""
    return f"{min(values):.2f} to {max(values):.2f}"


def row(name: str, made: dict, noise: list, oracle, x: torch.Tensor, truth: torch.Tensor) -> list[str]:
    """One line of the table."""
    sampler = CATALOG[name]()
    own = sampler.evaluations > 0
    found = orders(name, made) if own and sampler.order else {"inside": [], "zero": []}
    errors = []
    for budget in BUDGETS:
        n = steps_for(name, budget) if own else 1
        if sampler.stochastic:
            errors.append(f"{spread(name, n):+.1e}" if n else "")
        else:
            errors.append(f"{endpoint(name, oracle, x, truth, n):.1e}" if n and (own or budget == BUDGETS[-1]) else "")
    ahead = ""
    if own and not sampler.stochastic:
        ahead = f"{sampler.order_from_noise:g}: {span(from_noise(name, noise))}"
    order = f"{sampler.order:g}{' weak' if sampler.stochastic else ''}" if own else ""
    return [name, order, span(found["inside"]), span(found["zero"]), ahead, str(calls(name, 10)), *errors]


def ladder() -> str:
    """A sentence on what annealed Langevin needs."""
    name, found = "annealed-langevin", []
    for levels in (5, 50, 200):
        found.append(f"{spread(name, levels):+.1e} at {calls(name, levels):,}")
    return f"annealed-langevin wants a ladder of many levels: its error is {', '.join(found)} evaluations."


def main() -> None:
    """Print and store the table."""
    made = problems.__pytest_wrapped__.obj() if hasattr(problems, "__pytest_wrapped__") else problems.__wrapped__()
    noise = whole()
    oracle = mixture(Discrete.linear())
    x = prior(oracle, (64, 2), torch.Generator().manual_seed(2)).double()
    truth = sample(Adams(Flow(), 3, correct=True), oracle, x, GRID(oracle.schedule, 3000))
    head = ["sampler", "order", "inside", "to sigma = 0", "from noise", "calls at 10 steps"]
    head += [*(f"error at {n}" for n in BUDGETS), "batch mates"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print(lines[0])
    for name, make in CATALOG.items():
        if not math.isinf(make().order):
            cells = row(name, made, noise, oracle, x, truth)
            lines.append("| " + " | ".join([*cells, f"{beside(name):.0e}"]) + " |")
            print(lines[-1], flush=True)
    text = "# Conformance of the samplers\n\n" + (__doc__ or "").split("\n", 2)[2].strip() + "\n\n"
    text += "`make conformance` prints and writes this table.\n\n" + "\n".join(lines) + "\n\n" + ladder() + "\n\n"
    text += conformance_phase.text()
    (Path(__file__).parent.parent / "docs" / "conformance.md").write_text(text)


if __name__ == "__main__":
    main()
