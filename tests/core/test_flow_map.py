"""Few-step denoisers: the boundary condition, what they refuse, and every wrapper, sampler and likelihood on them."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import NeuralDenoiser, Rescheduled
from osmotic.estimate import TARGETS, X0, Karras
from osmotic.flow_map import Chain, Consistency, FlowMap
from osmotic.guidance import ClassifierFree, Inpaint
from osmotic.likelihood import log_prob
from osmotic.oracles import Gaussian
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import Gamma, sample
from osmotic.schedules import CATALOG, VE, VP, Rectified
from osmotic.times import Cosine

STOPS = (1.0, 0.5, 0.25)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Any(nn.Module):
    """A random smooth function of everything that a network is told."""

    def __init__(self, d: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.mix, self.shift = nn.Parameter(draws(d, d, seed=seed)), nn.Parameter(draws(3, d, seed=seed + 1))

    def forward(self, x, time, cond=None, aim=None) -> Tensor:
        told = torch.stack([time, time * 0 if aim is None else aim], 1).double() / 500
        y = torch.tanh(x @ self.mix + told @ self.shift[:2])
        if cond is None:
            return y
        return y + self.shift[2] * (cond.vector + 1)[:, None] * (1 if cond.keep is None else cond.keep[:, None])


def cases():
    for path, target in itertools.product(CATALOG, TARGETS):
        schedule, row = CATALOG[path](), TARGETS[target](0.5)
        try:
            NeuralDenoiser(Any(), schedule, row)
        except ValueError:
            continue  # such a target has no start on such a path, for any model
        yield pytest.param(schedule, row, id=f"{path}-{target}")


def flow_map(schedule=None, target=None) -> FlowMap:
    return FlowMap(Any(), schedule or VE(40.0), target or Karras(0.5), sigma_data=0.5)


def jump(model, x: Tensor, t, s, cond=None) -> Tensor:
    return model(x, t, cond, s).at(*model.schedule.numbers(s))


@pytest.mark.parametrize(("schedule", "target"), list(cases()))
def test_no_jump_is_no_change_whatever_the_network_says(schedule, target):
    model, x = flow_map(schedule, target), draws(6, 2)
    t = torch.tensor([0.05, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
    assert torch.allclose(jump(model, x, t, t), x, rtol=1e-9, atol=1e-9)
    elsewhere = jump(model, x, t, t / 2)
    assert bool(((elsewhere - x).abs() > 1e-6).any(1).all())


def test_the_diagonal_is_the_aim_at_the_present():
    model, x = flow_map(), draws(4, 2)
    t = torch.tensor([0.1, 0.3, 0.5, 1.0], dtype=torch.float64)
    assert torch.equal(model(x, t).x0, model(x, t, None, t).x0)
    assert torch.equal(model.output(x, t), model.output(x, t, None, t))
    assert not torch.allclose(model(x, t).x0, model(x, t, None, t / 2).x0)


def test_times_of_each_sample_are_its_own():
    model, x = flow_map(), draws(3, 2)
    t, s = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.6, 1.0], [0.0, 0.5, 0.2]))
    together = jump(model, x, t, s)
    for i in range(3):
        alone = jump(model, x[i : i + 1], t[i], s[i])
        assert torch.allclose(together[i], alone[0], atol=1e-12)


def test_jumps_towards_noise_are_refused():
    model, x = flow_map(), draws(2, 2)
    with pytest.raises(ValueError, match=r"s lies 0\.1 above t; give 0 <= s <= t"):
        model(x, torch.tensor(0.5, dtype=torch.float64), None, 0.6)
    with pytest.raises(ValueError, match="above t"):
        model(x, torch.tensor([0.5, 0.5], dtype=torch.float64), None, torch.tensor([0.5, 0.7], dtype=torch.float64))


def consistency() -> Consistency:
    return Consistency(Any(), VE(40.0), Karras(0.5), sigma_data=0.5)


def test_a_consistency_function_aims_at_the_data_alone():
    model, x, t = consistency(), draws(2, 2), torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(model(x, t, None, 0.0).x0, model(x, t, None, torch.zeros(2, dtype=torch.float64)).x0)
    with pytest.raises(ValueError, match="no posterior mean; sample it with 'consistency'"):
        model(x, t)
    with pytest.raises(ValueError, match="not at a time between"):
        model(x, t, None, 0.1)
    with pytest.raises(ValueError, match="needs the posterior mean"):
        sample(SAMPLERS["ddim"](), model, x, Cosine()(model.schedule, 3))


def test_a_chain_knows_its_own_jumps():
    model, x = Chain(Any(), VE(40.0), Karras(0.5), sigma_data=0.5, stops=STOPS), draws(2, 2)
    grid = torch.tensor([*STOPS, 0.0], dtype=torch.float64)
    assert sample(SAMPLERS["jump"](), model, x, grid).shape == x.shape
    with pytest.raises(ValueError, match="sample it with 'jump' in 3 steps"):
        sample(SAMPLERS["jump"](), model, x, grid[[0, 2, 3]])
    with pytest.raises(ValueError, match="knows jumps and no posterior mean"):
        model(x, grid[0])


@pytest.mark.parametrize("path", list(CATALOG))
def test_a_new_path_keeps_the_jump(path):
    """The same points up to the paths' scale, for flow maps, consistency functions and chains."""
    schedule, base = CATALOG[path](), VP()
    x = draws(2, 2)
    for kind in ("map", "consistency", "chain"):
        if kind == "map":
            model: NeuralDenoiser = FlowMap(Any(), base, Karras(0.5), sigma_data=0.5)
        elif kind == "consistency":
            model = Consistency(Any(), base, Karras(0.5), sigma_data=0.5)
        else:
            model = Chain(Any(), base, Karras(0.5), sigma_data=0.5, stops=(1.0, 0.4))
        moved = Rescheduled(model, schedule)
        pairs = [(0.4, 0.0), (0.7, 0.2)] if kind == "map" else [(0.4, 0.0)]
        for t, s in pairs:
            here, there = (schedule.time(base.log_snr(v)) for v in (t, s))
            (alpha, sigma), (alpha_s, sigma_s) = schedule.scalars(here), schedule.scalars(there)
            scale = math.hypot(*base.scalars(t)) / math.hypot(alpha, sigma)
            scale_s = math.hypot(*base.scalars(s)) / math.hypot(alpha_s, sigma_s)
            found = moved(x, here, None, there).at(alpha_s, sigma_s)
            assert torch.allclose(
                found * scale_s, jump(model, x * scale, torch.tensor(t, dtype=torch.float64), s), atol=1e-6
            )


def test_guidance_mixes_the_aimed_estimates():
    model, x = flow_map(), draws(3, 2)
    cond = Condition(vector=torch.tensor([0, 1, 2]))
    t, s = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.6, 1.0], [0.0, 0.5, 0.2]))
    nothing = cond.drop(torch.zeros(3, dtype=torch.bool))
    with_, without = (jump(model, x, t, s, c) for c in (cond, nothing))
    guided = jump(ClassifierFree(model, 3.0), x, t, s, cond)
    assert torch.allclose(guided, without + 3 * (with_ - without), atol=1e-9)


def test_inpainting_keeps_the_known_and_the_aim():
    model, x, known = flow_map(), draws(3, 2), torch.tensor([0.3, -0.2], dtype=torch.float64)
    painted = Inpaint(model, known, torch.tensor([1, 0]))
    t = torch.tensor(0.6, dtype=torch.float64)
    found = painted(x, t, None, 0.2)
    assert torch.allclose(found.x0[:, 0], known[0].expand(3))
    assert torch.allclose(found.x0[:, 1], model(x, t, None, 0.2).x0[:, 1])
    assert not torch.allclose(found.x0[:, 1], model(x, t).x0[:, 1])


@pytest.mark.parametrize("sampler", ["jump", "consistency"])
@pytest.mark.parametrize("steps", [1, 3])
def test_jump_samplers_run_on_them_and_on_what_is_around_them(sampler, steps):
    model, x = flow_map(), draws(4, 2)
    known = torch.zeros(2, dtype=torch.float64)
    wrapped = [model, Rescheduled(model, Rectified()), Inpaint(model, known, torch.tensor([1, 0]))]
    if sampler == "consistency":
        wrapped += [consistency(), Rescheduled(consistency(), Rectified())]
    for denoiser in wrapped:
        grid = Cosine()(denoiser.schedule, steps) * denoiser.start
        found = sample(SAMPLERS[sampler](), denoiser, x, grid, None, torch.Generator().manual_seed(0))
        assert bool(found.isfinite().all())
    grid = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert torch.equal(sample(SAMPLERS[sampler](), model, x, grid), jump(model, x, grid[0], 0.0))


class Aimless(nn.Module):
    """x0 = 0 on the diagonal, and something else beside it."""

    def forward(self, x, time, cond=None, aim=None) -> Tensor:
        return x * 0 + (aim - time).reshape(-1, 1)


def test_a_flow_map_has_the_likelihood_of_its_diagonal():
    """The data are the point 0, so data plus noise have a normal density."""
    model, x, noise = FlowMap(Aimless(), Rectified(), X0()), draws(5, 2) * 0.3, 0.2
    expected = -0.5 * (x.square() / noise**2 + math.log(2 * math.pi * noise**2)).sum(1)
    assert torch.allclose(log_prob(model, x, noise=noise), expected, atol=1e-5)


def test_a_consistency_function_has_no_likelihood():
    with pytest.raises(ValueError, match="use its teacher where a solver, a likelihood"):
        log_prob(consistency(), draws(3, 2))


@pytest.mark.parametrize("path", list(CATALOG))
def test_two_exact_jumps_are_one(path):
    root = draws(3, 3, seed=4)
    oracle, x = Gaussian(CATALOG[path](), draws(3, seed=3), root @ root.T + torch.eye(3)), draws(4, 3)
    t, u, s = (torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.55, 0.1))
    for aim in (s, torch.tensor(0.0, dtype=torch.float64)):
        assert torch.allclose(jump(oracle, jump(oracle, x, t, u), u, aim), jump(oracle, x, t, aim), atol=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("schedule", [VE(40.0), VP(), Rectified()], ids=["ve", "vp", "rectified"])
def test_gamma_sampling_keeps_the_marginals_of_an_exact_map(gamma, schedule):
    oracle, n = Gaussian(schedule, torch.zeros(1, dtype=torch.float64), 0.3), 40_000
    alpha, sigma = schedule.scalars(1.0)
    x = draws(n, 1) * math.sqrt(alpha**2 * 0.3 + sigma**2)
    found = sample(Gamma(gamma), oracle, x, Cosine()(schedule, 4), None, torch.Generator().manual_seed(1))
    assert float(found.var()) == pytest.approx(0.3, rel=4 * math.sqrt(2 / n))
