"""Classifier-free guidance: exact identities on conditional oracles."""

import math

import pytest
import torch
from torch import nn

from osmotic import times
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import TARGETS, Estimate
from osmotic.guidance import ClassifierFree
from osmotic.oracles import GaussianMixture
from osmotic.samplers import DDIM, sample
from osmotic.schedules import CATALOG, VP


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(path: str = "vp") -> GaussianMixture:
    return GaussianMixture(CATALOG[path](), draws(4, 2, seed=4), 0.2, classes=[0, 0, 1, 1])


COND = Condition(vector=torch.tensor([0, 1, 1, 0, 0]))


@pytest.mark.parametrize("path", list(CATALOG))
def test_scale_one_is_conditional_and_zero_unconditional(path):
    base, x, t = oracle(path), draws(5, 2), torch.tensor(0.4, dtype=torch.float64)
    for scale, cond in [(1.0, COND), (0.0, None)]:
        for a, b in zip(ClassifierFree(base, scale)(x, t, COND), base(x, t, cond), strict=True):
            assert torch.allclose(a, b, atol=1e-12)


def test_any_scale_is_the_papers_formula_and_per_sample_times_work():
    base, x = oracle(), draws(5, 2)
    t = torch.linspace(0.2, 0.9, 5, dtype=torch.float64)
    guided, with_, without = ClassifierFree(base, 3.0)(x, t, COND), base(x, t, COND), base(x, t)
    w = 2.0  # Ho & Salimans: (1 + w) eps_c - w eps_u
    assert torch.allclose(guided.eps, (1 + w) * with_.eps - w * without.eps, atol=1e-12)
    assert torch.allclose(guided.x0, (1 + w) * with_.x0 - w * without.x0, atol=1e-12)


def test_hidden_conditions_stay_hidden_under_guidance():
    base, x = oracle(), draws(5, 2)
    hidden = COND.drop(torch.zeros(5, dtype=torch.bool))
    assert torch.allclose(ClassifierFree(base, 4.0)(x, 0.5, hidden).x0, base(x, 0.5).x0, atol=1e-12)


def test_negative_equal_to_positive_is_conditional_at_any_scale():
    base, x = oracle(), draws(5, 2)
    for scale in (0.0, 0.5, 7.0):
        guided = ClassifierFree(base, scale, negative=COND)(x, 0.5, COND)
        assert torch.allclose(guided.x0, base(x, 0.5, COND).x0, atol=1e-11)


class Linear(nn.Module):
    """A network whose output, in any target space, is that of the oracle."""

    def __init__(self, base, target):
        super().__init__()
        self.base, self.target, self.calls = base, target, 0

    def forward(self, x, time, cond=None):
        self.calls += 1
        t = self.base.schedule.time(self.base.schedule.log_snr(self.t))
        return self.base(x, t, cond).at(*self.target.numbers(self.base.schedule, t))


@pytest.mark.parametrize("target", list(TARGETS))
def test_guidance_is_the_same_in_every_parameterization_and_one_call(target):
    base, x = oracle(), draws(5, 2)
    network = Linear(base, TARGETS[target](0.5))
    network.t = torch.tensor(0.6, dtype=torch.float64)
    guided = ClassifierFree(NeuralDenoiser(network, base.schedule, network.target), 2.5)(x, network.t, COND)
    expected = ClassifierFree(base, 2.5)(x, network.t, COND)
    assert torch.allclose(guided.x0, expected.x0, atol=1e-9)
    assert torch.allclose(guided.eps, expected.eps, atol=1e-9)
    assert network.calls == 1


def test_guided_gaussians_end_at_the_known_spread():
    """Unconditional N(0, 1), conditional N(0, s_c^2): the guided flow's deviation tends to s_c^w (tutorial: s_c^w
    s_u^(1-w)).
    """

    class Pair(Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = VP()

        def forward(self, x, t, cond=None, s=None):
            alpha, sigma = (v.reshape(-1, 1) for v in self.schedule(torch.as_tensor(t)))
            variance = torch.where(cond.keep, 0.3**2, 1.0)[:, None] if cond.keep is not None else torch.tensor(0.3**2)
            total = alpha**2 * variance + sigma**2
            return Estimate(alpha * variance / total * x, sigma / total * x)

    cond = Condition(vector=torch.zeros(1, dtype=torch.int64))
    grid = times.LogSNR(rho_min=1e-3, rho_max=150)(VP(), 2000)
    out = sample(DDIM(), ClassifierFree(Pair(), 2.0), torch.ones(1, 1, dtype=torch.float64), grid, cond)
    assert math.log(float(out)) == pytest.approx(2 * math.log(0.3), abs=0.03)


def test_guidance_needs_to_know_nothing():
    with pytest.raises(TypeError, match="needs an osmotic Condition"):
        ClassifierFree(oracle(), 2.0)(draws(5, 2), torch.tensor(0.5), "cat")
