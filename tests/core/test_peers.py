"""The default sampler beside diffusers, on the same closed-form problem and the same number of evaluations."""

import itertools

import pytest
import torch
from benchmarks.peers import BUDGETS, PATHS, best
from tests.core.test_conformance import second

from osmotic.samplers import CATALOG, DEFAULT, Adams, Flow, prior, sample
from osmotic.schedules import VE
from osmotic.times import Span, suggested


@pytest.mark.parametrize("path", list(PATHS))
def test_no_scheduler_of_diffusers_is_nearer_to_the_flow(path):
    schedule, betas = PATHS[path]
    oracle = second(schedule())
    x = prior(oracle, (64, 2), torch.Generator().manual_seed(2)).double()
    truth = sample(Adams(Flow(), 3, correct=True), oracle, x, Span(0.1, 12)(oracle.schedule, 2000))
    grid = suggested(float(oracle.sample(4000, torch.Generator().manual_seed(1)).std()))
    ours = []
    for budget in BUDGETS:
        found = sample(CATALOG[DEFAULT](), oracle, x, grid(oracle.schedule, budget))
        ours.append(float((found - truth).square().mean().sqrt()))
        theirs, name = best(betas, second(VE(200.0)), x, truth, budget)
        assert ours[-1] <= theirs, name
    assert all(later < earlier for earlier, later in itertools.pairwise(ours))
