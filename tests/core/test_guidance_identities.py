"""Exact identities of the pieces of guidance, in every parameterization, and what they cost, counted."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from osmotic import times
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
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
    Interval,
    Lead,
    Rescale,
    Shown,
    Threshold,
    composed,
    everything,
    nothing,
    two_scales,
)
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import sample
from osmotic.schedules import CATALOG, VE, VP, Cosine, Rectified

B, D = 5, 3
COND = Condition(vector=torch.tensor([0, 1, 2, 0, 1]))
T = torch.tensor(0.6, dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def label(k: int, n: int = B) -> Condition:
    return Condition(vector=torch.full((n,), k))


def oracle(path: str = "vp", variance: float = 0.2) -> GaussianMixture:
    return GaussianMixture(CATALOG[path](), draws(6, D, seed=4), variance, classes=[0, 0, 1, 1, 2, 2])


class Output(nn.Module):
    """A network whose output, in any target space, is that of an oracle; it counts its calls and their rows."""

    def __init__(self, base: Denoiser, target) -> None:
        super().__init__()
        self.base, self.target, self.rows = base, target, []

    def forward(self, x, time, cond=None):
        self.rows.append(len(x))
        return self.base(x, self.t, cond).at(*self.target.numbers(self.base.schedule, self.t))


def network(target: str, path: str = "vp") -> tuple[NeuralDenoiser, Output]:
    counted = Output(oracle(path), TARGETS[target](0.5))
    counted.t = T
    return NeuralDenoiser(counted, counted.base.schedule, counted.target), counted


def close(a: Estimate, b: Estimate, tolerance: float = 1e-12) -> bool:
    return all(torch.allclose(u, v, rtol=tolerance, atol=tolerance) for u, v in zip(a, b, strict=True))


def sum_of(*terms: tuple[float, Estimate]) -> Estimate:
    """``sum w_i e_i``, written out."""
    return Estimate(sum(w * e.x0 for w, e in terms), sum(w * e.eps for w, e in terms))


# Targets that are singular at alpha = 0 are refused on a path that starts there.
CASES = [(t, p) for t in TARGETS for p in ("vp", "cosine") if p == "vp" or t not in ("eps", "score")]


@pytest.mark.parametrize(("target", "path"), CASES)
class TestInEveryParameterization:
    """What guidance gives does not depend on what the network outputs: to 1e-12."""

    def test_scale_zero_is_unconditional_and_one_conditional_for_one_single_batch(self, target, path):
        base, counted = network(target, path)
        x, exact = draws(B, D), oracle(path)
        for scale, cond in [(0.0, None), (1.0, COND), (0, None), (1, COND)]:
            counted.rows.clear()
            assert close(ClassifierFree(base, scale)(x, T, COND), exact(x, T, cond))
            assert counted.rows == [B]

    def test_any_other_scale_is_one_call_of_the_doubled_batch(self, target, path):
        base, counted = network(target, path)
        x, exact = draws(B, D), oracle(path)
        for scale in (-1.0, 0.5, 3.0):
            counted.rows.clear()
            expected = sum_of((1 - scale, exact(x, T)), (scale, exact(x, T, COND)))
            assert close(ClassifierFree(base, scale)(x, T, COND), expected)
            assert counted.rows == [2 * B]

    def test_negative_equal_to_positive_is_the_conditional_at_any_scale(self, target, path):
        base, _ = network(target, path)
        x, exact = draws(B, D), oracle(path)
        for scale in (0.0, 0.5, 1.0, 7.0, -3.0):
            assert close(ClassifierFree(base, scale, COND)(x, T, COND), exact(x, T, COND))

    def test_several_conditions_have_their_own_scales_in_one_call(self, target, path):
        base, counted = network(target, path)
        x, exact = draws(B, D), oracle(path)
        found = composed(base, [label(0), label(1, 1), label(2)], [1.5, 0.7, -0.4])(x, T, COND)
        none, each = exact(x, T), [exact(x, T, label(k)) for k in range(3)]
        assert close(found, sum_of((1 - 1.8, none), (1.5, each[0]), (0.7, each[1]), (-0.4, each[2])))
        assert counted.rows == [4 * B]

    def test_a_chain_of_two_scales_is_its_formula(self, target, path):
        """``D(0) + s_I (D(I) - D(0)) + s_T (D(I, T) - D(I))``, a class standing for the image."""
        base, counted = network(target, path)
        x, exact = draws(B, D), oracle(path)
        none, image, both = exact(x, T), exact(x, T, label(0)), exact(x, T, COND)
        for s_i, s_t, rows in [
            (1.5, 7.5, 3),
            (1.5, 1.5, 2),
            (1.0, 3.0, 2),
            (1.0, 1.0, 1),
            (0.0, 0.0, 1),
            (2.0, 0.0, 2),
        ]:
            counted.rows.clear()
            expected = sum_of((1.0, none), (s_i, image), (-s_i, none), (s_t, both), (-s_t, image))
            assert close(two_scales(base, s_i, s_t, Given(label(0, 1)))(x, T, COND), expected)
            assert counted.rows == [rows * B]

    def test_the_exact_classifier_at_scale_one_gives_the_conditional(self, target, path):
        base, counted = network(target, path)
        x, exact = draws(B, D), oracle(path)
        led = Classifier(ClassifierFree(base, 0.0), classifier(exact), 1.0)(x, T, COND)
        assert close(led, exact(x, T, COND))
        assert counted.rows == [B]
        half = Classifier(ClassifierFree(base, 0.0), classifier(exact), 2.5)(x, T, COND)
        assert close(half, ClassifierFree(exact, 2.5)(x, T, COND), 1e-11)

    def test_rescaling_costs_no_further_forward_and_is_its_formula(self, target, path):
        base, counted = network(target, path)
        x, exact = draws(B, D), oracle(path)
        guided, plain = ClassifierFree(exact, 3.0)(x, T, COND), exact(x, T, COND)
        ratio = torch.tensor([np.std(p) / np.std(g) for p, g in zip(plain.x0.numpy(), guided.x0.numpy(), strict=True)])
        found = Rescale(ClassifierFree(base, 3.0), 0.7)(x, T, COND)
        assert counted.rows == [2 * B]
        assert torch.allclose(found.x0, guided.x0 * (0.7 * ratio + 0.3)[:, None], atol=1e-12)
        assert torch.allclose(found.at(*exact.schedule(T)), x, atol=1e-12)


def classifier(exact: GaussianMixture):
    """Its logits by Bayes' rule: ``log p(x_t | c) + log p(c)`` up to a constant, each class of equal weight."""

    def logits(x, t):
        return torch.stack([exact.log_prob(x, t, label(k, len(x))) for k in range(3)], 1)

    return logits


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_exact_classifier_gives_the_conditional_on_every_path_at_each_samples_time(path):
    exact, t = oracle(path), torch.linspace(0.1, 0.95, B, dtype=torch.float64)
    alpha, sigma = (v[:, None] for v in exact.schedule(t))
    x = alpha * draws(B, D, seed=1) + sigma * draws(B, D)
    found = Classifier(ClassifierFree(exact, 0.0), classifier(exact), 1.0)(x, t, COND)
    assert close(found, exact(x, t, COND), 1e-9)


# Views and their weights.


def test_scales_per_sample_are_those_of_each_sample():
    base, x, w = oracle(), draws(B, D), torch.tensor([0.0, 1.0, 2.5, -1.0, 7.0])
    scaled = [
        (ClassifierFree, lambda k: (k,)),
        (CFGPlusPlus, lambda k: (k,)),
        (lambda d, k: Autoguidance(d, oracle(variance=0.5), k), lambda k: (k,)),
        (lambda d, k: Energy(d, lambda x, t: x.square().sum(1), k), lambda k: (k,)),
        (lambda d, k: Classifier(d, classifier(base), k), lambda k: (k,)),
        (lambda d, k: two_scales(d, k, 2.0 * k, Given(label(0, 1))), lambda k: (k,)),
        (lambda d, k: composed(d, [label(0, 1), label(1, 1)], [k, 1.5]), lambda k: (k,)),
    ]
    for make, of in scaled:
        together = make(base, *of(w))(x, T, COND)
        for i in range(B):
            alone = make(base, *of(float(w[i])))(x[i : i + 1], T, COND[i : i + 1])
            for a, b in zip(together, alone, strict=True):
                assert torch.allclose(a[i : i + 1], b, atol=1e-11)


def test_several_conditions_need_no_condition_of_the_batch():
    base, x = oracle(), draws(B, D)
    pair = composed(base, [label(0), label(1)], [1.5, 0.5])
    assert close(pair(x, T), pair(x, T, COND))
    plain, guided = pair.both(x, T)
    assert close(plain, base(x, T))
    assert close(guided, pair(x, T))
    assert close(composed(base, [COND], [3.0])(x, T), ClassifierFree(base, 3.0)(x, T, COND))


def test_a_negative_of_one_serves_the_whole_batch():
    base, x = oracle(), draws(B, D)
    one, whole = (ClassifierFree(base, 3.0, label(2, n))(x, T, COND) for n in (1, B))
    assert close(one, whole)
    assert close(whole, sum_of((-2.0, base(x, T, label(2))), (3.0, base(x, T, COND))))


def test_what_is_no_information_stays_the_batchs_own():
    told = Condition(vector=COND.vector, latent=draws(B, 2), scale=torch.full((B,), 2.0))
    seen = Given(label(2, 1))(told)
    assert torch.equal(seen.vector, label(2).vector)
    assert torch.equal(seen.latent, told.latent)
    assert torch.equal(seen.scale, told.scale)


class Parts(Denoiser):
    """Which parts of the condition are shown, as x0: ``1 + 10 image + 100 text``; eps from the path."""

    def __init__(self):
        super().__init__()
        self.schedule, self.rows = VP(), []

    def forward(self, x, t, cond=None, s=None):
        self.rows.append(len(x))
        keep = torch.ones(len(x), 2, dtype=torch.bool) if cond.keep is None else cond.keep
        keep = keep[:, None].expand(-1, 2) if keep.ndim == 1 else keep
        x0 = (1 + 10.0 * keep[:, 1] + 100.0 * keep[:, 0]).double()[:, None].expand_as(x)
        alpha, sigma = self.schedule.scalars(t)
        return Estimate(x0, (x - alpha * x0) / sigma)


def test_two_scales_over_the_parts_of_a_condition():
    """InstructPix2Pix: a text that is guided to and an image that is kept, of one condition with two parts."""
    base, x = Parts(), draws(B, D)
    cond = Condition(tokens=torch.ones(B, 4, dtype=torch.int64), image=draws(B, 1, 4))
    for s_i, s_t, rows in [(1.5, 7.5, 3), (2.0, 2.0, 2), (1.0, 1.0, 1)]:
        base.rows.clear()
        found = two_scales(base, s_i, s_t, Shown((False, True)))(x, T, cond).x0
        assert torch.allclose(found, torch.full_like(x, 1 + 10 * s_i + 100 * s_t), atol=1e-9)
        assert base.rows == [rows * B]


def test_views_that_are_equal_are_evaluated_once():
    base, x = Parts(), draws(B, D)
    cond = Condition(tokens=torch.ones(B, 4, dtype=torch.int64), image=draws(B, 1, 4))
    text = [Shown((True, False)), Shown((True, False))]
    denoiser = Affine(base, text[0], [Lead(text[1], everything, 2.0), Lead(nothing, text[1], 0.5)])
    assert torch.allclose(denoiser(x, T, cond).x0, torch.full_like(x, 101 + 2 * 10 + 0.5 * 100), atol=1e-9)
    assert base.rows == [3 * B]


def test_wrong_uses_of_views_are_refused_in_one_sentence():
    base, x = oracle(), draws(B, D)
    with pytest.raises(ValueError, match="needs its scale; got 2 conditions and 1 scales"):
        composed(base, [label(0), label(1)], [1.0])
    with pytest.raises(TypeError, match="needs an osmotic Condition to know what 'nothing' is; got Tensor"):
        two_scales(base, 1.5, 2.0, Given(label(0)))(x, T, COND.vector)
    with pytest.raises(TypeError, match="needs an osmotic Condition to know what 'nothing' is; got Tensor"):
        CFGPlusPlus(base, 0.5)(x, T, COND.vector)
    # What is told as it is, is not looked at.
    assert close(ClassifierFree(base, 1.0)(x, T, COND.vector), base(x, T, COND))


# Interval.


class Counted(Denoiser):
    """An oracle that counts its calls' rows."""

    def __init__(self, base):
        super().__init__()
        self.base, self.rows = base, []
        self.around(base)

    def forward(self, x, t, cond=None, s=None):
        self.rows.append(len(x))
        return self.base(x, t, cond, s)


def test_an_interval_saves_the_forwards_outside_of_it():
    base = Counted(oracle())
    grid = times.Karras()(base.schedule, 20)
    rho = [float(s / a) for a, s in (base.schedule(t) for t in grid[:-1])]
    inside = [0.5 < r <= 5.0 for r in rho]
    assert 3 < sum(inside) < 17
    sample(SAMPLERS["ddim"](), Interval(ClassifierFree(base, 3.0), 0.5, 5.0), draws(B, D), grid, COND)
    assert base.rows == [2 * B if i else B for i in inside]


def test_an_interval_is_open_below_and_closed_above_and_may_be_infinite():
    base = Counted(GaussianMixture(VE(64.0), draws(6, D, seed=4), 0.2, classes=[0, 0, 1, 1, 2, 2]))
    denoiser, x = Interval(ClassifierFree(base, 3.0), 1.0, 4.0), draws(B, D)
    t = torch.tensor([1, 1.5, 4, 4.5, 64], dtype=torch.float64) / 64
    for time, guided in zip(t, [False, True, True, False, False], strict=True):
        base.rows.clear()
        found = denoiser(x, time, COND)
        assert base.rows == [2 * B if guided else B]
        assert close(found, (ClassifierFree(base, 3.0) if guided else base)(x, time, COND))
    t = t.clamp(max=5 / 64)
    found, plain, guided = denoiser(x, t, COND), base(x, t, COND), ClassifierFree(base, 3.0)(x, t, COND)
    inside = torch.tensor([False, True, True, False, False])
    assert torch.allclose(found.x0, torch.where(inside[:, None], guided.x0, plain.x0), atol=1e-12)
    assert (guided.x0 - plain.x0).abs().min() > 1e-6
    # alpha = 0: rho is infinite, and within what has no end.
    noise = oracle("rectified")
    assert close(
        Interval(ClassifierFree(noise, 3.0), 1.0)(x, 1.0, COND), ClassifierFree(noise, 3.0)(x, torch.tensor(1.0), COND)
    )


@pytest.mark.parametrize("path", ["vp", "rectified"])
def test_with_times_per_sample_an_interval_is_one_doubled_call(path):
    base, x = Counted(oracle(path)), draws(B, D)
    t = torch.tensor([0.05, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64)
    found = Interval(ClassifierFree(base, 3.0), 0.3, 3.0)(x, t, COND)
    assert base.rows == [2 * B]
    plain, guided = base(x, t, COND), ClassifierFree(base, 3.0)(x, t, COND)
    alpha, sigma = base.schedule(t)
    inside = ((sigma / alpha > 0.3) & (sigma / alpha <= 3.0))[:, None]
    assert 0 < int(inside.sum()) < B
    for a, p, g in zip(found, plain, guided, strict=True):
        assert torch.allclose(a, torch.where(inside, g, p), atol=1e-12)


def test_an_interval_of_a_classifier_does_not_look_at_it_outside():
    exact, looked = oracle(), []

    def logits(x, t):
        looked.append(len(x))
        return classifier(exact)(x, t)

    denoiser, x = Interval(Classifier(ClassifierFree(exact, 0.0), logits), 0.5, 5.0), draws(B, D)
    assert close(denoiser(x, torch.tensor(0.999), COND), exact(x, torch.tensor(0.999)))
    assert not looked
    denoiser(x, torch.tensor(0.3), COND)
    assert looked == [B]


def test_empty_intervals_are_refused():
    for low, high in [(-0.1, 1.0), (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)]:
        with pytest.raises(ValueError, match="An interval of guidance needs 0 <= low < high"):
            Interval(ClassifierFree(oracle(), 2.0), low, high)


# Rescale.


def test_the_whole_share_gives_the_plain_contrast_and_none_changes_nothing():
    base, x = oracle(), draws(B, D)
    guided = ClassifierFree(base, 4.0)
    assert close(Rescale(guided, 0.0)(x, T, COND), guided(x, T, COND))
    whole = Rescale(guided, 1.0)(x, T, COND)
    assert torch.allclose(whole.x0.std(1), base(x, T, COND).x0.std(1), atol=1e-12)
    assert close(Rescale(ClassifierFree(base, 1.0), 0.7)(x, T, COND), base(x, T, COND))


def test_rescaling_takes_all_axes_of_a_sample_at_once():
    means = draws(6, 2, 3, 4, seed=4)
    base, x = GaussianMixture(VP(), means, 0.2, classes=[0, 0, 1, 1, 2, 2]), draws(B, 2, 3, 4)
    guided = ClassifierFree(base, 4.0)
    found, plain = Rescale(guided, 1.0)(x, T, COND), base(x, T, COND)
    assert torch.allclose(found.x0.flatten(1).std(1), plain.x0.flatten(1).std(1), atol=1e-12)
    assert torch.allclose(found.x0 / guided(x, T, COND).x0, (found.x0 / guided(x, T, COND).x0)[:, :1, :1, :1])


def test_rescaling_refuses_what_has_no_contrast_to_compare():
    one = GaussianMixture(VP(), draws(2, 1), 0.2)
    with pytest.raises(ValueError, match="these have one element each"):
        Rescale(ClassifierFree(one, 2.0))(draws(B, 1), T, Condition(vector=torch.tensor([0, 1, 1, 0, 0])))
    with pytest.raises(ValueError, match=r"share lies in \[0, 1\]; got 1.5"):
        Rescale(ClassifierFree(one, 2.0), 1.5)


def test_a_flat_estimate_stays_flat():
    class Flat(Denoiser):
        schedule = VP()

        def forward(self, x, t, cond=None, s=None):
            alpha, sigma = self.schedule.scalars(t)
            x0 = torch.zeros_like(x) if cond.keep is None else torch.where(cond.keep[:, None], draws(*x.shape), 2.0)
            return Estimate(x0, (x - alpha * x0) / sigma)

    cond = label(0).drop(torch.zeros(B, dtype=torch.bool))
    assert torch.allclose(
        Rescale(ClassifierFree(Flat(), 3.0), 1.0)(draws(B, D), T, cond).x0, torch.full((B, D), 2.0).double()
    )


# CFG++ and autoguidance.


def test_cfgplusplus_is_its_formula_and_costs_one_doubled_call():
    base, x = Counted(oracle()), draws(B, D)
    plain, hidden = base(x, T, COND), base(x, T)
    base.rows.clear()
    found = CFGPlusPlus(base, 0.6)(x, T, COND)
    assert base.rows == [2 * B]
    assert torch.allclose(found.x0, 0.4 * hidden.x0 + 0.6 * plain.x0, atol=1e-12)
    assert torch.allclose(found.eps, hidden.eps, atol=1e-12)
    base.rows.clear()
    assert close(CFGPlusPlus(base, 0.0)(x, T, COND), hidden)
    assert base.rows == [B]
    assert close(CFGPlusPlus(base, 0.6)(x, T), hidden)
    away = CFGPlusPlus(base, 0.6, label(2, 1))(x, T, COND)
    assert torch.allclose(away.eps, base(x, T, label(2)).eps, atol=1e-12)


def test_autoguidance_is_its_formula_and_saves_what_is_not_needed():
    good, bad, x = Counted(oracle()), Counted(oracle(variance=0.6)), draws(B, D)
    for scale, rows in [(1.0, ([B], [])), (0.0, ([], [B])), (2.5, ([B], [B]))]:
        good.rows.clear(), bad.rows.clear()
        found = Autoguidance(good, bad, scale)(x, T, COND)
        assert (good.rows, bad.rows) == rows
        assert close(found, sum_of((1 - scale, bad(x, T, COND)), (scale, good(x, T, COND))))


def test_autoguidance_starts_where_both_can_and_means_what_both_do():
    good, bad = oracle(), oracle()
    good.start, bad.start, bad.diagonal = 0.9, 0.8, False
    found = Autoguidance(good, bad, 2.0)
    assert (found.start, found.diagonal) == (0.8, False)


def test_autoguidance_needs_one_path():
    Autoguidance(oracle(), oracle(), 2.0)  # two objects of the same path
    with pytest.raises(ValueError, match="two denoisers on the same path; these are on VP and Cosine"):
        Autoguidance(oracle("vp"), oracle("cosine"), 2.0)
    with pytest.raises(ValueError, match="wrap one in Rescheduled"):
        Autoguidance(Gaussian(VE(50.0), draws(D), 1.0), Gaussian(VE(80.0), draws(D), 1.0), 2.0)


# Classifiers and energies.


def test_hidden_samples_are_not_led_and_scale_zero_is_plain():
    exact, x = oracle(), draws(B, D)
    keep = torch.tensor([True, False, True, False, True])
    led = Classifier(exact, classifier(exact), 2.0)
    found, plain = led(x, T, COND.drop(keep)), exact(x, T, COND.drop(keep))
    assert torch.equal(found.x0[~keep], plain.x0[~keep])
    assert (found.x0 - plain.x0)[keep].abs().min() > 1e-6
    for hidden in (COND.drop(torch.zeros(B, dtype=torch.bool)), COND.drop(torch.zeros(B, 1, dtype=torch.bool))):
        assert close(Classifier(exact, classifier(exact), 2.0)(x, T, hidden), exact(x, T))
    assert close(Classifier(exact, classifier(exact), 0.0)(x, T, COND), exact(x, T, COND))
    assert close(led(x, T), exact(x, T))


def test_classifier_guidance_inside_classifier_free_leads_the_shown_half_alone():
    exact, x = oracle(), draws(B, D)
    outer = ClassifierFree(Classifier(exact, classifier(exact), 0.5), 3.0)(x, T, COND)
    expected = sum_of((-2.0, exact(x, T)), (3.0, Classifier(exact, classifier(exact), 0.5)(x, T, COND)))
    assert close(outer, expected, 1e-11)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_exact_energy_of_a_tilt_gives_the_tilted_data(scale):
    """``p(x0) exp(b x0)`` of a normal law is one with its mean moved by v b; ``log E[exp(b x0) | x_t] = b E[x0 | x_t]``
    up to a constant.
    """
    for make in (VP, Rectified, Cosine, VE):
        schedule, v, b = make(), 0.4, draws(D, seed=7)
        mean = draws(D, seed=8)
        base, moved = Gaussian(schedule, mean, v), Gaussian(schedule, mean + v * scale * b, v)
        denoiser = Energy(base, lambda x, t, base=base, b=b: -(base(x, t).x0 * b).sum(1), scale)
        t = torch.linspace(0.1, 0.9, B, dtype=torch.float64)
        x = draws(B, D)
        assert close(denoiser(x, t), moved(x, t), 1e-11)
        for i in range(B):
            assert close(denoiser(x, t[i]), moved(x, t[i]), 1e-11)
        grid = times.suggested(0.7, D)(schedule, 40)
        ends = [sample(SAMPLERS["flow-2pc"](), d, x * schedule.scalars(1.0)[1], grid) for d in (denoiser, moved)]
        assert torch.allclose(*ends, atol=1e-2)


def test_where_all_is_noise_nothing_is_changed():
    """alpha = 0: the path's equation fixes eps, and the energy is not even looked at where a level says so."""
    exact, x = oracle("rectified"), draws(B, D)

    def steep(y, t):
        return 5 * y.sum(1)

    def never(y, t):
        raise AssertionError

    assert close(Energy(exact, never)(x, torch.tensor(1.0)), exact(x, torch.tensor(1.0)))
    t = torch.tensor([1.0, 0.5, 1.0, 0.9, 1.0], dtype=torch.float64)
    found, plain = Energy(exact, steep)(x, t), exact(x, t)
    assert torch.isfinite(found.x0).all()
    assert torch.equal(found.x0[t == 1], plain.x0[t == 1])
    assert torch.equal(found.eps[t == 1], plain.eps[t == 1])
    assert (found.x0 - plain.x0)[t < 1].abs().min() > 1
    # Elsewhere eps changes by scale sigma grad E, which is finite, and x0 by sigma^2 / alpha of it, which is not.
    for time in (0.9, 0.99, 0.999):
        a, b = (
            Energy(exact, steep)(x, torch.tensor(time, dtype=torch.float64)),
            exact(x, torch.tensor(time, dtype=torch.float64)),
        )
        assert torch.allclose(a.eps - b.eps, torch.full_like(x, 5 * time), atol=1e-9)
        assert torch.allclose(a.x0 - b.x0, torch.full_like(x, -5 * time**2 / (1 - time)), rtol=1e-9)


def test_the_times_an_energy_sees_are_one_per_sample_in_the_samples_precision():
    exact, seen = oracle(), []

    def energy(x, t):
        seen.append((t.shape, t.dtype, t.tolist()))
        return x.sum(1)

    Energy(exact, energy)(draws(B, D), T)
    Energy(exact, energy)(draws(B, D), T.expand(B))
    sample(SAMPLERS["ddim"](), Energy(exact, energy), draws(B, D), torch.tensor([0.6, 0.0], dtype=torch.float64))
    assert seen == [((B,), torch.float64, [0.6] * B)] * 3


def test_wrong_uses_of_classifiers_and_energies_are_refused():
    exact, x = oracle(), draws(B, D)
    for cond, got in [
        (COND.vector, "Tensor"),
        (Condition(vector=draws(B, 2)), "a condition without labels"),
        (Condition(image=draws(B, 1, 3)), "a condition without labels"),
    ]:
        with pytest.raises(TypeError, match=f"leads to a class.*got {got}"):
            Classifier(Gaussian(VP(), draws(D), 1.0), classifier(exact))(x, T, cond)
    with pytest.raises(ValueError, match=r"one number per sample, \(5,\); this one gave \(\)"):
        Energy(exact, lambda y, t: y.sum())(x, T)
    flow = Gaussian(VP(), draws(D), 1.0)
    for denoiser, told in [
        (Energy(flow, lambda y, t: y.sum(1)), None),
        (Classifier(flow, classifier(exact)), COND),
        (CFGPlusPlus(flow, 0.5), COND),
    ]:
        with pytest.raises(ValueError, match="a flow map to a time s"):
            denoiser(x, T, told, 0.2)


def test_what_mixes_estimates_keeps_the_aim_of_a_flow_map():
    """Where both halves are the same map, so is their combination: guidance passes s on."""
    flow, x = Gaussian(VP(), draws(D), 0.5), draws(B, D)
    for denoiser in (
        ClassifierFree(flow, 3.0),
        two_scales(flow, 1.5, 3.0, Given(label(0, 1))),
        Interval(ClassifierFree(flow, 3.0), 0.1, 5.0),
        Rescale(ClassifierFree(flow, 3.0)),
        Autoguidance(flow, flow, 2.0),
        Threshold(flow, Clip(-1e9, 1e9)),
    ):
        for t, s in [(T, 0.2), (torch.linspace(0.5, 0.9, B).double(), torch.linspace(0.1, 0.4, B).double())]:
            found = denoiser(x, t, COND, s).at(*flow.schedule.numbers(s))
            assert torch.allclose(found, flow.flow(x, t, s), atol=1e-9)


# Thresholding.


def test_a_clip_is_numpys_and_eps_follows():
    base, x = oracle(), draws(B, D)
    found, plain = Threshold(base, Clip(-0.5, 0.4))(x, T, COND), base(x, T, COND)
    assert torch.equal(found.x0, torch.from_numpy(np.clip(plain.x0.numpy(), -0.5, 0.4)))
    alpha, sigma = base.schedule.scalars(T)
    assert torch.allclose(found.eps, (x - alpha * found.x0) / sigma, atol=1e-12)
    assert (found.eps - plain.eps).abs().max() > 0.01
    assert close(Threshold(base, Clip(-100, 100))(x, T, COND), plain)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_the_dynamic_threshold_is_the_papers(quantile, bound):
    """Against NumPy's percentile, sample by sample: ``s = max(percentile, bound)``, clip to s, divide by s / bound."""
    x0 = draws(6, 2, 3, 4) * torch.linspace(0.1, 2, 6, dtype=torch.float64)[:, None, None, None]
    found = Dynamic(quantile, bound)(x0)
    untouched = 0
    for a, b in zip(x0.numpy(), found.numpy(), strict=True):
        s = max(np.percentile(np.abs(a), 100 * quantile), bound)
        assert np.allclose(b, np.clip(a, -s, s) / s * bound, atol=1e-12)
        assert np.abs(b).max() <= bound + 1e-12
        untouched += bool(np.array_equal(a, b))
    assert 0 < untouched < 6


def test_thresholds_that_make_no_sense_are_refused():
    for make, match in [
        (lambda: Clip(1.0, -1.0), "Clip needs low < high"),
        (lambda: Dynamic(0.0), r"a quantile in \(0, 1\] and a positive bound"),
        (lambda: Dynamic(99.5), r"a quantile in \(0, 1\] and a positive bound"),
        (lambda: Dynamic(0.9, -1.0), r"a quantile in \(0, 1\] and a positive bound"),
    ]:
        with pytest.raises(ValueError, match=match):
            make()


def test_strong_guidance_leaves_the_range_of_the_data_and_a_threshold_keeps_it():
    """Data at the corners of [-1, 1]^d, scale 12: the guided samples end outside, the thresholded ones do not."""
    corners = torch.tensor([[-0.9, -0.9], [0.9, -0.9], [-0.9, 0.9], [0.9, 0.9]]).double()
    base = GaussianMixture(VP(), corners, 0.01)
    cond, x = Condition(vector=torch.tensor([0, 1, 2, 3] * 8)), draws(32, 2)
    grid = times.suggested(0.9, 2)(base.schedule, 30)
    free, clipped, dynamic = (
        sample(SAMPLERS["ddim"](), d, x, grid, cond).abs().max()
        for d in (
            ClassifierFree(base, 12.0),
            Threshold(ClassifierFree(base, 12.0), Clip()),
            Threshold(ClassifierFree(base, 12.0), Dynamic(0.9)),
        )
    )
    assert free > 1.1
    assert clipped <= 1 + 1e-9
    assert dynamic <= 1 + 1e-9
