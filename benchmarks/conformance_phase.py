"""The samplers of positions and velocities, measured as the others: the second table of docs/conformance.md.

"order": declared. "flow's root" and "Cholesky root": the measured one between 64 and 128 even steps from t = 0.8 to
0.1 on critically damped Langevin paths, against SciPy's flow of a Gaussian mixture lifted to phase space; for
stochastic samplers the slope of the exact covariance on Gaussian data between 48 and 96 steps ("weak"). Errors: RMS
distance to SciPy's flow after as many steps as the evaluations pay for, with the flow's root; for stochastic samplers
the norm of the covariance's error, without Monte Carlo.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "phase"))

from phase_truth import PATHS, flow_by_scipy, mixture, slopes
from tests.phase.test_phase_samplers import ALL, CORE, exact, gaussian, law, uniform

from osmotic import phase
from osmotic.samplers import sample

BUDGETS = (5, 10, 20, 50)
ROOTS = {"flow's root": "linear", "Cholesky root": "cholesky"}


def error(name: str, problem: tuple, steps: int) -> float:
    """RMS distance to SciPy's flow, or of the exact covariance from the marginal's."""
    sampler = ALL[name]()
    oracle, u, truth = problem
    if not sampler.stochastic:
        return float((sample(sampler, oracle, u, uniform(0.8, 0.1, steps)) - truth).square().mean().sqrt())
    flat = gaussian(oracle.path)
    with pytest.MonkeyPatch.context() as patch:  # unit vectors in place of noise
        _, covariance = law(sampler, flat, uniform(0.8, 0.15, steps), patch)
    return float((covariance - exact(flat.path, 0.15, 0.5, 0.3)[1]).norm())


def calls(name: str, problem: tuple, steps: int) -> int:
    """Denoiser calls of a run, counted."""
    (oracle, u, _), seen = problem, []
    hook = oracle.register_forward_hook(lambda *_: seen.append(1))
    sample(ALL[name](), oracle, u, uniform(0.8, 0.1, steps), generator=torch.Generator().manual_seed(0))
    hook.remove()
    return len(seen)


def table() -> list[str]:
    """The lines of the table."""
    problems = {}
    for path in ROOTS.values():
        oracle = mixture(PATHS[path]())
        x0 = oracle.denoiser.sample(4, torch.Generator().manual_seed(2))
        u = phase.diffuse(oracle.path, x0, 0.8, torch.Generator().manual_seed(3))
        problems[path] = oracle, u, flow_by_scipy(oracle, u, 0.8, 0.1)
    head = ["sampler", "order", *ROOTS, "calls at 10 steps", *(f"error at {n}" for n in BUDGETS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, make in ALL.items():
        sampler, measured = make(), []
        for path in ROOTS.values():
            steps = (48, 96) if sampler.stochastic else (64, 128)
            found = slopes([error(name, problems[path], n) for n in steps])[-1]
            measured.append("" if path == "cholesky" and name in CORE else f"{found:.2f}")
        problem = problems["linear"]
        errors = []
        for budget in BUDGETS:
            n = max((n for n in range(1, budget + 1) if calls(name, problem, n) <= budget), default=0)
            errors.append(f"{error(name, problem, n):.1e}" if n else "")
        order = f"{sampler.order:g}{' weak' if sampler.stochastic else ''}"
        lines.append("| " + " | ".join([name, order, *measured, str(calls(name, problem, 10)), *errors]) + " |")
    return lines


def text() -> str:
    """The part of docs/conformance.md."""
    told = (__doc__ or "").split("\n", 2)[2].strip()
    return "## Positions and velocities\n\n" + told + "\n\n" + "\n".join(table()) + "\n"


if __name__ == "__main__":
    print(text())
