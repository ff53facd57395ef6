"""The default sampler beside diffusers, on the same closed-form problem and the same number of evaluations."""

import itertools

import pytest
import torch
from benchmarks.peers import BUDGETS, PATHS, best
from tests.core.test_conformance import second

from osmotic.samplers import CATALOG, DEFAULT, Adams, Flow, prior, sample
from osmotic.schedules import VE
from osmotic.times import Span, suggested

# Those that were best somewhere when all were tried (docs/peers.md), and the usual ones.
STRONGEST = (
    *(
        "UniPC 4 eps, karras, to sigma_min",
        "UniPC 4 eps, exponential, to sigma_min",
        "UniPC 4 x0, karras, to sigma_min",
    ),
    *(
        "DEIS 3, karras, full order to the end",
        "dpmsolver 3 heun, karras, to sigma_min",
        "dpmsolver++ 3 heun, karras, to zero",
    ),
    *("dpmsolver 2 heun, leading, to sigma_min, full order to the end", "dpmsolver++ 2 midpoint, karras, to zero"),
    *("DDIM, linspace", "LMS, karras", "PNDM, leading", "Heun, karras", "UniPC 2 x0, karras, to zero"),
)


def compare(path: str, only) -> None:
    schedule, betas = PATHS[path]
    oracle = second(schedule())
    x = prior(oracle, (64, 2), torch.Generator().manual_seed(2)).double()
    truth = sample(Adams(Flow(), 3, correct=True), oracle, x, Span(0.1, 4)(oracle.schedule, 2000))
    grid = suggested(float(oracle.sample(4000, torch.Generator().manual_seed(1)).std()))
    ours = []
    for budget in BUDGETS:
        found = sample(CATALOG[DEFAULT](), oracle, x, grid(oracle.schedule, budget))
        ours.append(float((found - truth).square().mean().sqrt()))
        theirs, name, ran, _ = best(betas, second(VE(200.0)), x, truth, budget, only)
        assert ours[-1] <= theirs, name
        assert ran >= 10
    assert all(later < earlier for earlier, later in itertools.pairwise(ours))


@pytest.mark.parametrize("path", list(PATHS))
def test_no_strong_scheduler_of_diffusers_is_nearer_to_the_flow(path):
    compare(path, lambda name: name in STRONGEST)


@pytest.mark.slow
@pytest.mark.parametrize("path", list(PATHS))
def test_no_scheduler_of_diffusers_is_nearer_to_the_flow(path):
    compare(path, lambda name: True)
