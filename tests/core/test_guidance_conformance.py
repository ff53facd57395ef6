"""Every piece of guidance alone, around every other, and under every sampler: what all of them must hold.

To add a guidance, enter it in the catalogue.
"""

import itertools
import math

import pytest
import torch
from tests.core.test_conformance import Counter
from torch import nn

from osmotic import times
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser, Rescheduled
from osmotic.estimate import TARGETS, Estimate
from osmotic.guidance import (
    Affine,
    Autoguidance,
    CFGPlusPlus,
    Classifier,
    ClassifierFree,
    Clip,
    Dynamic,
    Energy,
    Given,
    Guidance,
    Inpaint,
    Interval,
    Rescale,
    Scaled,
    Threshold,
    by_parts,
    composed,
    nothing,
    two_scales,
)
from osmotic.oracles import GaussianMixture
from osmotic.phase import CLD
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import prepare, prior, sample, trajectory
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VE, VP, Cosine, Rectified

COND = Condition(vector=torch.tensor([0, 1, 1, 0, 1]))
B, D = 5, 3


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def only(label: int) -> Condition:
    """One class, for all samples of a batch."""
    return Condition(vector=torch.tensor([label]))


class Exact:
    """Oracles: a mixture of two classes, a worse one, its classifier, and an energy that is of no path."""

    dtype = torch.float64

    def __init__(self, means=None) -> None:
        self.means = draws(4, D, seed=4) if means is None else means

    def base(self, schedule, variance: float = 0.2) -> Denoiser:
        return GaussianMixture(schedule, self.means, variance, classes=[0, 0, 1, 1])

    def bad(self, schedule) -> Denoiser:
        return self.base(schedule, 0.6)

    def classifier(self, schedule):
        oracle = self.base(schedule)
        return lambda x, t: oracle.posterior(x, t).reshape(len(x), 2, 2).sum(2).log()

    def energy(self, schedule):
        def energy(x, t):
            alpha, sigma = schedule(t)
            size = torch.where(sigma < math.inf, torch.hypot(alpha, sigma), 1.0)
            return (alpha / size) * 0.3 * ((x / size[:, None]) - 0.5).square().sum(1)

        return energy


class Net(nn.Module):
    """A small network of the condition port that guidance knows: labels, hidden or not."""

    def __init__(self, seed: int, doubled: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.calls: list[int] = []
        width = D * (1 + doubled)
        for name, shape in {"x": (D, width), "label": (3, width), "time": (width,)}.items():
            setattr(self, f"of_{name}", nn.Parameter(0.5 * torch.randn(*shape, generator=generator)))

    def forward(self, x, time, cond=None):
        self.calls.append(len(x))
        index = torch.full((len(x),), 2) if cond is None else cond.vector
        if cond is not None and cond.keep is not None:
            index = torch.where(cond.keep, index, 2)
        return torch.tanh(x @ self.of_x + self.of_label[index] + time[:, None] / 1000 * self.of_time)


class Neural(Exact):
    """Networks in float32, which look at nothing on the host."""

    dtype = torch.float32

    def base(self, schedule, seed: int = 0, learned_variance: bool = False) -> Denoiser:
        net = Net(seed, learned_variance)
        return NeuralDenoiser(net, schedule, TARGETS["v"](0.5), learned_variance=learned_variance)

    def bad(self, schedule) -> Denoiser:
        return self.base(schedule, 1)

    def classifier(self, schedule):
        return lambda x, t: torch.stack([x.sum(1), x.square().sum(1) * t], 1).tanh()


def leading(d: Denoiser) -> Denoiser:
    """The denoiser itself where it is a guidance, guided where it is none."""
    return d if isinstance(d, Guidance) and d.plain is not None else ClassifierFree(d, 2.0)


EXACT, NEURAL = Exact(), Neural()
# (denoiser, world) -> denoiser. The conformance tests run over all, and over all pairs.
CATALOG = {
    "classifier-free": lambda d, w: ClassifierFree(d, 2.5),
    "negative": lambda d, w: ClassifierFree(d, 2.5, only(0)),
    "composed": lambda d, w: composed(d, [only(0), only(1)], [1.5, -0.5]),
    "two-scales": lambda d, w: two_scales(d, 1.5, 3.0, Given(only(0))),
    "by-parts": lambda d, w: by_parts(d, [True], {0: 1.8}),
    "nothing": lambda d, w: Affine(d, nothing),
    "scaled": lambda d, w: Scaled(d, 2.0),
    "interval": lambda d, w: Interval(leading(d), 0.3, 3.0),
    "rescale": lambda d, w: Rescale(leading(d), 0.7),
    "autoguidance": lambda d, w: Autoguidance(d, w.bad(d.schedule), 2.0),
    "classifier": lambda d, w: Classifier(d, w.classifier(d.schedule), 1.5),
    "energy": lambda d, w: Energy(d, w.energy(d.schedule), 0.7),
    "clip": lambda d, w: Threshold(d, Clip(-0.9, 0.9)),
    "dynamic": lambda d, w: Threshold(d, Dynamic(0.7, 0.9)),
    "inpaint": lambda d, w: Inpaint(d, torch.tensor([0.4, 0.0, 0.0], dtype=w.dtype), torch.tensor([1, 0, 0])),
    "cfg++": lambda d, w: CFGPlusPlus(d, 0.6),
}
# What solves for eps from the path's equation does not go around CFG++.
INSIDE = {"rescale", "clip", "dynamic"}
UNPAIRED = {(outer, "cfg++") for outer in [*INSIDE, "inpaint"]}
TOWERS = [(name,) for name in CATALOG]
PAIRS = [pair for pair in itertools.product(CATALOG, CATALOG) if pair not in UNPAIRED]
DEAF = {("cfg++", "composed"), ("cfg++", "nothing"), ("nothing", "cfg++")}
PATHS = {"vp": VP, "rectified": Rectified, "ve": VE}


def build(names, schedule, world=EXACT, base: Denoiser | None = None) -> Denoiser:
    """The pieces around each other, the first outermost."""
    d = world.base(schedule) if base is None else base
    for name in reversed(names):
        d = CATALOG[name](d, world)
    return d


def close(a: Estimate, b: Estimate, tolerance: float = 1e-10) -> bool:
    return all(torch.allclose(u, v, rtol=tolerance, atol=tolerance) for u, v in zip(a, b, strict=True))


def at_levels(schedule, n: int = B) -> torch.Tensor:
    """Each sample's own time, with ends of an interval and the noisiest level among them."""
    return torch.linspace(0.05, 1.0, n, dtype=torch.float64)


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("names", PAIRS, ids="-in-".join)
def test_in_any_order_the_estimate_is_finite_and_meets_the_paths_equation(names, path):
    """At each sample's own time, t = 1 among them, where a path may have alpha = 0."""
    schedule = PATHS[path]()
    t = at_levels(schedule)
    alpha, sigma = (v[:, None] for v in schedule(t))
    x = sigma * draws(B, D) + alpha * draws(B, D, seed=1)
    estimate = build(names, schedule)(x, t, COND)
    assert all(torch.isfinite(part).all() for part in estimate)
    miss = estimate.at(*schedule(t)) - x
    if "cfg++" in names:
        # It is what CFG++ says of itself, where the condition is heard and the level is within the interval.
        assert path != "vp" or names in DEAF or miss.abs().max() > 1e-3
        assert not build(names, schedule).consistent
    else:
        assert (miss / torch.hypot(alpha, sigma)).abs().max() < 1e-9
        assert build(names, schedule).consistent


@pytest.mark.parametrize("names", PAIRS, ids="-in-".join)
def test_a_sample_does_not_depend_on_its_batch_nor_on_the_others_times(names):
    denoiser, x, t = build(names, VP()), draws(B, D), torch.linspace(0.1, 0.9, B, dtype=torch.float64)
    together = denoiser(x, t, COND)
    for i in range(B):
        alone = denoiser(x[i : i + 1], t[i], COND[i : i + 1])
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[i : i + 1], b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("outer", list(CATALOG))
def test_three_in_any_order(outer):
    schedule, x, t = Cosine(), draws(B, D), torch.linspace(0.1, 0.9, B, dtype=torch.float64)
    for rest in itertools.permutations([n for n in CATALOG if n != "cfg++"], 2):
        names = (outer, *rest)
        estimate = build(names, schedule)(x, t, COND)
        assert all(torch.isfinite(part).all() for part in estimate), names
        assert outer == "cfg++" or torch.allclose(estimate.at(*schedule(t)), x, atol=1e-8), names


@pytest.mark.parametrize("names", PAIRS, ids="-in-".join)
def test_rescheduled_outside_is_rescheduled_inside(names):
    """Guidance does not see the path: its levels are noise-to-signal ratios."""
    base, x, t = VP(), draws(B, D), torch.linspace(0.1, 0.9, B, dtype=torch.float64)
    outside = Rescheduled(build(names, base), Rectified())(x, t, COND)
    inside = build(names, Rectified(), base=Rescheduled(EXACT.base(base), Rectified()))(x, t, COND)
    assert close(outside, inside, 1e-7)


@pytest.mark.parametrize("names", PAIRS, ids="-in-".join)
def test_prepared_levels_give_the_same_estimates(names):
    denoiser, x = build(names, Cosine(), NEURAL), draws(B, D).float()
    grid = times.Uniform()(denoiser.schedule, 6)
    with torch.no_grad():
        for level, t in zip(prepare(denoiser, grid)[:-1], grid, strict=False):
            assert close(denoiser(x, level, COND), denoiser(x, t.clone(), COND), 1e-5)


@pytest.mark.parametrize("names", PAIRS, ids="-in-".join)
def test_no_host_read_in_the_loop(names):
    denoiser, x = build(names, Cosine(), NEURAL), draws(B, D).float()
    levels = prepare(denoiser, times.Uniform()(denoiser.schedule, 6))
    sampler = SAMPLERS["ddim"]()
    with torch.no_grad(), Counter() as counter, pytest.MonkeyPatch.context() as patch:
        for way in ("tolist", "numpy"):  # which dispatch nothing on a CPU
            patch.setattr(torch.Tensor, way, counter.reading(getattr(torch.Tensor, way)))
        for t, s in itertools.pairwise(levels):
            x, _ = sampler.step(denoiser, x, t, s, COND)
    assert counter.operations > 0
    assert counter.reads == 0


@pytest.mark.parametrize("names", TOWERS, ids="-".join)
def test_gradients_flow_to_the_samples(names):
    """Against central differences, through the gradient of a classifier or an energy too."""
    denoiser, t = build(names, VP()), torch.tensor([0.3, 0.6], dtype=torch.float64)
    x = draws(2, D, seed=5).requires_grad_()
    torch.autograd.gradcheck(lambda y: tuple(denoiser(y, t, COND[:2])), (x,), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("names", TOWERS, ids="-".join)
def test_gradients_flow_to_the_network(names):
    denoiser, x, t = build(names, Cosine(), NEURAL), draws(B, D).float(), torch.tensor(0.5)
    denoiser(x, t, COND).at(0.6, 0.8).square().sum().backward()
    found = [p.grad for p in denoiser.parameters() if p.grad is not None]
    assert found
    assert all(torch.isfinite(g).all() for g in found)
    assert any(g.abs().max() > 0 for g in found)


@pytest.mark.parametrize("names", [pair for pair in PAIRS if {"classifier", "energy"} & {*pair}], ids="-in-".join)
def test_without_gradients_and_in_inference_mode_the_estimate_is_the_same(names):
    denoiser, x, t = build(names, VP()), draws(B, D), torch.linspace(0.1, 0.9, B, dtype=torch.float64)
    usual = denoiser(x, t, COND)
    with torch.no_grad():
        assert close(denoiser(x, t, COND), usual)
    with torch.inference_mode():
        inside = denoiser(x + 0.0, t + 0.0, COND)
        assert close(inside, usual)
    assert not x.requires_grad


@pytest.mark.parametrize("names", TOWERS, ids="-".join)
def test_the_learned_variance_is_that_of_what_is_led_to(names):
    base, x = NEURAL.base(Cosine(), learned_variance=True), draws(B, D).float()
    t = torch.tensor(0.5)
    expected = {
        "composed": base(x, t, Condition(vector=torch.ones(B, dtype=torch.int64))).v,
        "nothing": base(x, t).v,
    }.get(names[0], base(x, t, COND).v)
    found = build(names, Cosine(), NEURAL, base)(x, t, COND).v
    assert found is not None
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("names", TOWERS, ids="-".join)
def test_what_describes_the_denoiser_is_taken_over(names):
    base = NEURAL.base(Cosine())
    base.start, base.target, base.diagonal = 0.9, TARGETS["eps"](0.5), True
    found = build(names, Cosine(), NEURAL, base)
    assert (found.schedule, found.target, found.start, found.diagonal) == (base.schedule, base.target, 0.9, True)
    # One set of weights is saved once under each name that holds it.
    assert len({id(p) for p in found.parameters()}) == len(list(found.parameters()))


TALL = ("dynamic", "rescale", "interval", "classifier", "energy", "autoguidance", "classifier-free")


@pytest.mark.parametrize("name", [n for n, make in SAMPLERS.items() if not make().aims])
def test_every_sampler_takes_a_tower_of_guidances(name):
    denoiser, sampler = build(TALL, VP()), SAMPLERS[name]()
    x = prior(denoiser, (B, D), torch.Generator().manual_seed(0)).double()
    out = sample(sampler, denoiser, x, times.Span()(VP(), 12), COND, torch.Generator().manual_seed(1))
    assert torch.isfinite(out).all()
    plain = sample(sampler, EXACT.base(VP()), x, times.Span()(VP(), 12), COND, torch.Generator().manual_seed(1))
    assert (out - plain).abs().max() > 1e-3
    assert out.abs().max() < 3  # the dynamic threshold bounds x0


@pytest.mark.parametrize("names", TOWERS, ids="-".join)
@pytest.mark.parametrize("path", ["vp", "rectified"])
def test_every_guidance_runs_under_the_samplers_that_take_it(names, path):
    denoiser = build(names, SCHEDULES[path]())
    x = prior(denoiser, (B, D), torch.Generator().manual_seed(0)).double()
    for name in ("ddim", "ddpm") if names == ("cfg++",) else ("ddim", "ddpm", "flow-2pc", "heun", "dpmpp-2m"):
        out = sample(SAMPLERS[name](), denoiser, x, times.Span()(denoiser.schedule, 10), COND, torch.Generator())
        assert torch.isfinite(out).all(), name


# CFG++ and the samplers.


class Told(Denoiser):
    """The same estimate whatever x is."""

    def __init__(self, x0, eps):
        super().__init__()
        self.schedule, self.x0, self.eps = VP(), x0, eps

    def forward(self, x, t, cond=None, s=None):
        return Estimate(self.x0, self.eps)


@pytest.mark.parametrize("name", [n for n, make in SAMPLERS.items() if not make().aims])
def test_what_renoises_is_what_does_not_read_x(name):
    """The mark is right for every sampler of the catalogue: a step from another x, under the same estimate."""
    sampler, denoiser = SAMPLERS[name](), Told(draws(2, D), draws(2, D, seed=1))
    grid = torch.tensor([0.6, 0.3], dtype=torch.float64)
    ends = []
    for seed in (2, 3):
        x = draws(2, D, seed=seed)
        ends.append(sample(sampler, denoiser, x, grid, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(*ends) == sampler.renoises


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_that_read_x_refuse_cfgplusplus(name):
    denoiser = Rescheduled(Interval(CFGPlusPlus(EXACT.base(VP()), 0.6), 0.3, 3.0), Cosine())
    x, grid = draws(B, D), times.Uniform()(Cosine(), 8)[2:]
    if SAMPLERS[name]().renoises:
        assert torch.isfinite(sample(SAMPLERS[name](), denoiser, x, grid, COND, torch.Generator())).all()
        return
    with pytest.raises(ValueError, match="renoises with does not belong to x; use the sampler 'ddim'"):
        next(trajectory(SAMPLERS[name](), denoiser, x, grid, COND))


@pytest.mark.parametrize("name", sorted(INSIDE))
def test_what_solves_for_eps_refuses_cfgplusplus(name):
    with pytest.raises(ValueError, match="which would undo CFGPlusPlus; put"):
        CATALOG[name](CFGPlusPlus(EXACT.base(VP()), 0.6), EXACT)


# Refusals.

AFFINE = {"classifier-free", "negative", "composed", "two-scales", "by-parts", "nothing", "scaled", "autoguidance"}


@pytest.mark.parametrize("name", [name for name in CATALOG if name not in AFFINE])
def test_paths_of_matrices_are_refused_where_numbers_are_needed(name):
    base = EXACT.base(VP())
    led = ClassifierFree(base, 2.0)
    base.schedule = led.schedule = CLD()
    with pytest.raises(ValueError, match="needs a path of two numbers, and on CLD they are matrices"):
        CATALOG[name](led, EXACT)


@pytest.mark.parametrize("name", ["interval", "rescale"])
def test_what_goes_around_a_guidance_refuses_what_is_none(name):
    make = {"interval": lambda d: Interval(d, 0.1), "rescale": Rescale}[name]
    base = EXACT.base(VP())
    for nothing_led in (base, Threshold(base, Clip()), Rescheduled(ClassifierFree(base, 2.0), Rectified())):
        with pytest.raises(TypeError, match="goes around a guidance such as ClassifierFree, and"):
            make(nothing_led)
