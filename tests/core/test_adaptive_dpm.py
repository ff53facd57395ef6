"""DPM-Solver-12 and -23: a step is the fixed solver's, errors follow the tolerance, samples are alone."""

import math

import pytest
import torch
from tests.core.test_samplers import Watching, by_log_snr, draws, flow_by_scipy, mixture

from osmotic.estimate import Estimate
from osmotic.samplers import CATALOG, RK45, DPMSolverAdaptive, dpm_solver, prior, sample
from osmotic.schedules import VP, Cosine, Rectified


@pytest.mark.parametrize("order", [2, 3])
def test_one_kept_step_is_the_fixed_solvers(order):
    """With any error allowed, one step of the given length: DPM-Solver-2 (r = 1/2) or -3 (r = 1/3, 2/3)."""
    oracle, x = mixture(VP()), draws(3, 2)
    grid = by_log_snr(VP(), 1, -1.0, -0.6)
    ours = sample(DPMSolverAdaptive(order, absolute=1e9, first=1.0), oracle, x, grid)
    assert torch.allclose(ours, sample(dpm_solver(order), oracle, x, grid), atol=1e-12)


@pytest.mark.parametrize("path", [VP, Rectified])
@pytest.mark.parametrize("order", [2, 3])
def test_the_error_follows_the_tolerance(order, path):
    oracle = Watching(mixture(path()))
    ends = by_log_snr(oracle.schedule, 1)
    alpha, sigma = oracle.schedule(ends[0])
    x = alpha * oracle.inner.sample(8, torch.Generator().manual_seed(2)) + sigma * draws(8, 2)
    truth, errors, calls = flow_by_scipy(oracle.inner, x, ends), [], []
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        oracle.calls = 0
        out = sample(DPMSolverAdaptive(order, tolerance, tolerance), oracle, x, ends)
        errors.append(float((out - truth).abs().max()))
        calls.append(oracle.calls)
    assert errors == sorted(errors, reverse=True)
    assert calls == sorted(calls)
    assert errors[-1] < 2e-3


def test_a_sample_does_not_depend_on_its_batch():
    oracle, x, grid = mixture(VP()), draws(6, 2), torch.tensor([1.0, 0.0], dtype=torch.float64)
    for name in ("dpm-solver-12", "dpm-solver-23"):
        together = sample(CATALOG[name](), oracle, x, grid)
        for i in range(6):
            assert torch.equal(sample(CATALOG[name](), oracle, x[i : i + 1], grid), together[i : i + 1])


def test_it_gives_up_in_a_sentence():
    with pytest.raises(ValueError, match="took 3 rounds without reaching the end"):
        sample(DPMSolverAdaptive(most=3), mixture(VP()), draws(2, 2), torch.tensor([1.0, 0.0], dtype=torch.float64))
    for wrong in ({"order": 4}, {"absolute": 0.0}, {"last": -1.0}):
        with pytest.raises(ValueError, match="got"):
            DPMSolverAdaptive(**wrong)


@pytest.mark.parametrize("path", [VP, Rectified, Cosine])
@pytest.mark.parametrize("order", [2, 3])
def test_one_step_from_noise_to_data_meets_the_tolerance(order, path):
    """Also where there is no signal at the start, against RK45 at a tolerance far below."""
    oracle, grid = mixture(path()), torch.tensor([1.0, 0.0], dtype=torch.float64)
    x = prior(oracle, (8, 2), torch.Generator().manual_seed(3)).double()
    truth = sample(RK45(1e-9, 1e-9), oracle, x, grid)
    for tolerance, limit in [(1e-3, 3e-2), (1e-5, 6e-4)]:
        out = sample(DPMSolverAdaptive(order, tolerance, tolerance, last=1e-4), oracle, x, grid)
        assert float((out - truth).abs().max()) < limit


def test_a_broken_denoiser_is_said_at_once():
    class Broken(Watching):
        def forward(self, x, t, cond=None, s=None):
            self.calls += 1
            return Estimate(x, x * math.nan)

    broken = Broken(mixture(VP()))
    with pytest.raises(ValueError, match="not finite"):
        sample(DPMSolverAdaptive(), broken, draws(2, 2), torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert broken.calls <= 3
