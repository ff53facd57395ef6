"""Scales of their own for parts of a condition: the formula on an exact denoiser, its special cases, its cost."""

import itertools

import pytest
import torch

from osmotic.condition import Condition
from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import TARGETS, Estimate
from osmotic.guidance import (
    ClassifierFree,
    Interval,
    Rescale,
    Shown,
    by_parts,
    composed,
    everything,
    two_scales,
)
from osmotic.oracles import GaussianMixture
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import sample
from osmotic.schedules import VP, Cosine
from osmotic.times import Span

B, D, PARTS = 5, 3, 3  # text, age, image
BITS = torch.tensor(list(itertools.product((0, 1), repeat=PARTS)))
T = torch.tensor(0.4, dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Facts(GaussianMixture):
    """A mixture whose components differ in three facts, each of which may be told or hidden on its own."""

    def __init__(self, schedule):
        super().__init__(schedule, draws(len(BITS), D, seed=4), 0.2)

    def _log_prior(self, cond, n):
        if cond is None or cond.vector is None:
            return self.log_weights.expand(n, -1)
        keep = torch.ones(n, PARTS, dtype=torch.bool) if cond.keep is None else cond.keep
        keep = keep[:, None].expand(-1, PARTS) if keep.ndim == 1 else keep
        fits = (cond.vector[:, None].long() == BITS) | ~keep[:, None]
        return torch.where(fits.all(-1), self.log_weights, -torch.inf)


class Output(torch.nn.Module):
    """A network that gives what the oracle's is in the space of a target, and counts the rows it is asked for."""

    def __init__(self, base, target):
        super().__init__()
        self.base, self.target, self.rows = base, target, []

    def forward(self, x, time, cond=None):
        self.rows.append(len(x))
        return self.base(x, T, cond).at(*self.target.numbers(self.base.schedule, T))


TOLD = Condition(vector=torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]]).double())
X = draws(B, D, seed=1)


def seen(base, *shown: int) -> Estimate:
    """The exact estimate with these parts shown."""
    return base(X, T, TOLD.drop(torch.tensor([i in shown for i in range(PARTS)]).expand(B, -1)))


def close(a: Estimate, b: Estimate, tolerance: float = 1e-12) -> bool:
    return all(torch.allclose(u, v, rtol=tolerance, atol=tolerance) for u, v in zip(a, b, strict=True))


def plus(*terms: tuple[float, Estimate]) -> Estimate:
    """``sum w_i e_i``, written out."""
    return Estimate(sum(w * e.x0 for w, e in terms), sum(w * e.eps for w, e in terms))


SCALES = [
    {chosen: scale for chosen, scale in zip(range(PARTS), row, strict=True) if scale is not None}
    for row in itertools.product((None, 1.5, 7.5), (None, -0.5), (None, 1.0, 2.5))
]


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("rest", [1.0, 1.5, 0.0])
@pytest.mark.parametrize("first", [None, 2])
@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_the_estimate_is_the_formula_by_one_forward(scales, first, rest, target):
    base = Facts(VP())
    network = Output(base, TARGETS[target](0.5))
    guided = by_parts(NeuralDenoiser(network, base.schedule, network.target), [True] * PARTS, scales, rest, first)
    start = () if first is None else (first,)
    given = {*start, *(i for i in range(PARTS) if i not in scales)}
    terms = [(1.0, seen(base))]
    s_f = scales.get(first, rest)
    terms += [(s_f, seen(base, *start)), (-s_f, seen(base)), (rest, seen(base, *given)), (-rest, seen(base, *start))]
    for i, scale in scales.items():
        if i != first:
            terms += [(scale, seen(base, *given, i)), (-scale, seen(base, *given))]
    assert close(guided(X, T, TOLD), plus(*terms), 1e-11)
    assert len(network.rows) == 1
    assert network.rows[0] == len(guided.weights) * B
    assert len(guided.weights) <= 3 + max(len(scales) - 1, 0)


@pytest.mark.parametrize(("image", "text", "rows"), [(1.5, 7.5, 3), (1.0, 3.0, 2), (2.0, 2.0, 2), (1.0, 1.0, 1)])
def test_an_image_and_a_text_are_the_two_scales_of_instruct_pix2pix(image, text, rows):
    base, told = Facts(Cosine()), [True, False, True]
    cond = TOLD.drop(torch.tensor(told).expand(B, -1))  # of the age nothing is said
    network = Output(base, TARGETS["v"](0.5))
    denoiser = NeuralDenoiser(network, base.schedule, network.target)
    found = by_parts(denoiser, told, {0: text, 2: image}, first=2)(X, T, cond)
    none, first, both = seen(base), seen(base, 2), seen(base, 0, 2)
    assert close(found, plus((1.0, none), (image, first), (-image, none), (text, both), (-text, first)))
    assert network.rows == [rows * B]
    assert close(found, two_scales(base, image, text, Shown((False, False, True)))(X, T, cond))


def test_attributes_alone_are_the_sum_of_scores():
    base = Facts(VP())
    cond = TOLD.drop(torch.tensor([True, True, False]).expand(B, -1))
    each = [TOLD.drop(torch.tensor([i == j for j in range(PARTS)]).expand(B, -1)) for i in range(2)]
    found = by_parts(base, [True, True, False], {0: 3.0, 1: -0.7}, first=2)(X, T, cond)
    assert close(found, composed(base, each, [3.0, -0.7])(X, T, cond))


@pytest.mark.parametrize("rest", [0.0, 1.0, 2.5])
def test_without_scales_it_is_classifier_free_guidance(rest):
    base = Facts(VP())
    expected = ClassifierFree(base, rest)(X, T, TOLD)
    assert close(by_parts(base, [True] * PARTS, {}, rest)(X, T, TOLD), expected)
    assert close(by_parts(base, [True] * PARTS, {}, rest, first=2)(X, T, TOLD), expected)
    # One thing that is said, and a scale for it, is the same again.
    only = TOLD.drop(torch.tensor([True, False, False]).expand(B, -1))
    found = by_parts(base, [True, False, False], {0: rest}, first=2)(X, T, only)
    assert close(found, ClassifierFree(base, rest)(X, T, only))


def test_a_scale_of_one_for_a_single_part_is_the_plain_conditional():
    base = Facts(VP())
    for i in range(PARTS):
        guided = by_parts(base, [True] * PARTS, {i: 1.0}, first=2)
        assert list(guided.weights) == [everything]
        assert close(guided(X, T, TOLD), base(X, T, TOLD))


def test_interval_and_rescale_go_around_it():
    base = Facts(VP())
    guided = by_parts(base, [True] * PARTS, {0: 4.0, 1: 2.0}, first=2)
    off = Interval(guided, 1e6)
    assert close(off(X, T, TOLD), base(X, T, TOLD))
    assert close(Interval(guided, 0.0)(X, T, TOLD), guided(X, T, TOLD))
    plain, led = guided.both(X, T, TOLD)
    assert close(plain, base(X, T, TOLD))
    assert close(led, guided(X, T, TOLD))
    again = Rescale(guided, 1.0)(X, T, TOLD).x0
    deviation = plain.x0.std(1, correction=0)
    assert torch.allclose(again.std(1, correction=0), deviation, atol=1e-12)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "flow-2pc", "heun", "dpmpp-2m"])
def test_it_is_sampled_by_any_solver_and_a_sample_does_not_depend_on_its_batch(name):
    base = Facts(VP())
    guided, grid = by_parts(base, [True] * PARTS, {0: 2.0, 1: 1.5}, 1.2, first=2), Span()(VP(), 8)
    draw = [torch.Generator().manual_seed(i) for i in range(B)]
    whole = sample(SAMPLERS[name](), guided, X, grid, TOLD, draw)
    alone = [
        sample(SAMPLERS[name](), guided, X[i : i + 1], grid, TOLD[i : i + 1], [torch.Generator().manual_seed(i)])
        for i in range(B)
    ]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-9)
    assert torch.isfinite(whole).all()


def test_a_scale_for_what_is_not_said_is_refused():
    with pytest.raises(ValueError, match="Nothing is said of part 1, which has a scale; say it"):
        by_parts(Facts(VP()), [True, False, True], {1: 2.0})
