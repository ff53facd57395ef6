"""Denoisers given a measurement: closed forms of Gaussian data, and what every method promises."""

import math

import pytest
import torch
from torch import nn

from osmotic import times
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser, Rescheduled
from osmotic.estimate import Estimate, V
from osmotic.flow_map import Consistency
from osmotic.guidance import Blur, ClassifierFree, Downsample, Mask, Matrix, Posterior, PseudoInverse, given
from osmotic.inverse import draw
from osmotic.noise import generators
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.phase import CLD
from osmotic.samplers import CATALOG, DDIM, DDPM, DPS, Particles, RePaint, sample
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VP, Cosine

KNOWN = torch.tensor([1, 0, 1, 0])


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def keyed(n: int, seed: int = 0) -> list[torch.Generator]:
    return generators(seed, range(n), torch.device("cpu"))


def gaussian(path: str = "cosine", d: int = 4) -> GaussianMixture:
    root = draws(d, d, seed=5)
    covariance = root @ root.T / d + 0.05 * torch.eye(d, dtype=torch.float64)
    return GaussianMixture(SCHEDULES[path](), draws(1, d, seed=6), covariance[None])


def mixture(path: str = "cosine") -> GaussianMixture:
    return GaussianMixture(SCHEDULES[path](), draws(3, 4, seed=3), 0.3, classes=[0, 1, 1])


OPERATORS = {
    "mask": lambda: Mask(KNOWN),
    "halves": lambda: Downsample(2, (-1,)),
    "blur": lambda: Blur(torch.tensor([0.2, 0.6, 0.2], dtype=torch.float64), (-1,)),
    "matrix": lambda: Matrix(draws(2, 4, seed=8)),
}


def rows(operator) -> tuple[torch.Tensor, torch.Tensor]:
    """A's matrix without its rows of zeros, and which rows those are not."""
    a = operator(torch.eye(4, dtype=torch.float64)).T
    return a[a.abs().sum(1) > 0], a.abs().sum(1) > 0


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("name", list(OPERATORS))
@pytest.mark.parametrize("path", list(SCHEDULES))
def test_of_gaussian_data_the_posterior_mean_is_exact_at_every_level(path, name, noise):
    base, operator = gaussian(path), OPERATORS[name]()
    a, kept = rows(operator)
    y = operator(base.sample(1, torch.Generator().manual_seed(1)))
    exact = base.condition(a, y[0, kept], noise)
    t = torch.tensor([0.02, 0.3, 0.6, 0.9], dtype=torch.float64)
    alpha, sigma = (v[:, None] for v in base.schedule(t))
    x = alpha * draws(4, 4, seed=2) + sigma * draws(4, 4, seed=3)
    found = Posterior(base, operator, y, noise, iterations=4)(x, t)
    # Beyond sigma / alpha = 100 the denoiser is asked at that level.
    near = (sigma / alpha < 100)[:, 0]
    assert near.sum() >= 2
    assert torch.allclose(found.x0[near], exact(x, t).x0[near], rtol=1e-5, atol=1e-5)
    assert torch.allclose(found.x0, exact(x, t).x0, atol=0.1)
    assert torch.allclose(found.at(alpha[:, 0], sigma[:, 0]), x, atol=1e-9)
    one = Posterior(base, operator, y, noise, iterations=4)(x[1:2], t[1])
    assert torch.allclose(one.x0, found.x0[1:2], atol=1e-10)


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_without_noise_the_estimate_measures_y(name, iterations):
    base, operator = mixture(), OPERATORS[name]()
    y = operator(draws(5, 4, seed=1))
    for t in (0.01, 0.5, 1.0):
        x0 = Posterior(base, operator, y, iterations=iterations)(draws(5, 4), torch.tensor(t)).x0
        assert torch.allclose(operator(x0), y, atol=1e-9)
        if name == "mask":
            assert torch.equal(x0[:, KNOWN == 1], y[:, KNOWN == 1])


def moments_are(x: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor, bias: float) -> None:
    """Sample mean and covariance within 4.5 standard errors and a bias of the method."""
    n = len(x)
    variances = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() <= 4.5 * (variances / n).sqrt() + bias).all()
    spread = ((variances[:, None] * variances + covariance**2) / n).sqrt()
    assert ((x.T.cov() - covariance).abs() <= 4.5 * spread + bias).all()


def law(base: GaussianMixture) -> tuple[torch.Tensor, torch.Tensor]:
    return base.means[0], base.axes[0] @ base.variances[0].diag() @ base.axes[0].T


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_the_sampled_law_of_gaussian_data_is_the_exact_conditional(name, noise):
    base, operator = gaussian(), OPERATORS[name]()
    a, kept = rows(operator)
    y = operator(base.sample(1, torch.Generator().manual_seed(1)))
    exact = law(base.condition(a, y[0, kept], noise))
    n, grid = 2000, times.Span()(base.schedule, 50)
    guided = Posterior(base, operator, y, noise, iterations=4)
    moments_are(sample(CATALOG["flow-2pc"](), guided, draws(n, 4), grid), *exact, bias=0.005)
    generator = torch.Generator().manual_seed(2)
    moments_are(sample(Particles(2), guided, draws(n, 4), grid, generator=generator), *exact, bias=0.03)


def test_weights_repair_a_guidance_that_is_wrong():
    """Replacement, which hears the known part too little, is weighed to the exact law; alone it is far off."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    base = Gaussian(Cosine(), torch.zeros(2, dtype=torch.float64), covariance)
    operator, y = Mask(torch.tensor([1, 0])), torch.tensor([[1.5, 0.0]], dtype=torch.float64)
    guided = Posterior(base, operator, y, iterations=0)
    grid, x = times.Span()(base.schedule, 60), draws(2000, 2)
    many, one = (
        sample(Particles(k), guided, x, grid, generator=torch.Generator().manual_seed(2))[:, 1:] for k in (24, 1)
    )
    moments_are(many, torch.tensor([1.35]).double(), torch.tensor([[0.19]]).double(), bias=0.03)
    assert float(one.mean()) < 1.2


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_draw_keeps_known_cells_to_the_bit_on_every_path_in_both_precisions(path):
    base, known = mixture(path), draws(6, 4, seed=1)
    out = draw(base, Mask(KNOWN), known, steps=16, generator=keyed(6))
    assert torch.isfinite(out).all()
    assert torch.equal(out[:, KNOWN == 1], known[:, KNOWN == 1])
    assert out[:, KNOWN == 0].abs().max() < 6
    single = draw(base.float(), Mask(KNOWN), known.float(), steps=16, generator=keyed(6))
    assert single.dtype == torch.float32
    assert torch.equal(single[:, KNOWN == 1], known.float()[:, KNOWN == 1])


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_draw_of_gaussian_data_has_the_conditional_moments_on_every_path(path):
    base, operator = gaussian(path), OPERATORS["halves"]()
    a, _ = rows(operator)
    y = operator(base.sample(1, torch.Generator().manual_seed(1)))
    out = draw(
        base, operator, y.expand(800, -1), 0.2, steps=60, particles=2, generator=torch.Generator().manual_seed(4)
    )
    moments_are(out, *law(base.condition(a, y[0], 0.2)), bias=0.06)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_a_sample_does_not_depend_on_those_beside_it(name):
    base, operator = mixture(), OPERATORS[name]()
    y = operator(draws(4, 4, seed=1))
    cond = Condition(vector=torch.tensor([0, 1, 1, 0]))
    together = draw(base, operator, y, steps=9, cond=cond, generator=keyed(4))
    for i in range(4):
        alone = draw(base, operator, y[i : i + 1], steps=9, cond=cond[i : i + 1], generator=keyed(4)[i : i + 1])
        assert torch.allclose(alone, together[i : i + 1], atol=1e-9)


def test_rows_of_a_table_miss_cells_of_their_own_and_all_may_be_missing():
    base = gaussian()
    mask = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    table = torch.where(mask, draws(4, 4, seed=1), math.nan)
    out = draw(base, Mask(mask), table, steps=12, generator=keyed(4))
    assert torch.isfinite(out).all()
    assert torch.equal(out[mask], table[mask])
    x, t = draws(4, 4, seed=2), torch.tensor(0.5)
    guided = given(base, Mask(mask), table)(x, t).x0
    assert torch.allclose(guided[2], base(x, t).x0[2], atol=1e-12)  # nothing known: nothing changed


def test_pictures_and_sequences_go_the_same_way():
    """The flattened closed form is the answer."""
    base = Gaussian(Cosine(), torch.zeros(1, 4, 4, dtype=torch.float64), torch.eye(16, dtype=torch.float64) * 0.5 + 0.5)
    flat = GaussianMixture(Cosine(), torch.zeros(1, 16).double(), torch.eye(16, dtype=torch.float64)[None] * 0.5 + 0.5)
    operator = Downsample(2)
    a = operator(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).flatten(1).T
    y = operator(draws(1, 1, 4, 4, seed=1))
    x, t = draws(3, 1, 4, 4, seed=2), torch.tensor(0.4)
    exact = flat.condition(a, y.flatten(), 0.1)(x.flatten(1), t).x0.reshape(x.shape)
    assert torch.allclose(Posterior(base, operator, y, 0.1, iterations=4)(x, t).x0, exact, atol=1e-6)
    assert draw(base, operator, y, 0.1, steps=4).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("make", [Posterior, PseudoInverse])
def test_guidance_composes_inside_and_outside(make):
    cond, x, t = Condition(vector=torch.tensor([0, 1, 1, 0, 0])), draws(5, 4), torch.tensor(0.6, dtype=torch.float64)
    base, operator, y = mixture(), Mask(KNOWN), draws(5, 4, seed=1)
    inside = make(ClassifierFree(base, 1.0), operator, y)(x, t, cond).x0
    assert torch.allclose(inside, make(base, operator, y)(x, t, cond).x0, atol=1e-12)
    outside = ClassifierFree(make(base, operator, y), 2.5)(x, t, cond).x0
    apart = [make(base, operator, y)(x, t, c).x0 for c in (None, cond)]
    assert torch.allclose(outside, torch.lerp(*apart, 2.5), atol=1e-10)
    assert not torch.allclose(make(ClassifierFree(base, 3.0), operator, y)(x, t, cond).x0, inside, atol=1e-3)


def test_guidance_inside_runs_with_particles_and_outside_is_refused():
    cond, y = Condition(vector=torch.tensor([0, 1, 1])), draws(3, 4, seed=1)
    out = draw(ClassifierFree(mixture(), 2.0), Mask(KNOWN), y, steps=9, cond=cond, generator=keyed(3))
    assert torch.equal(out[:, KNOWN == 1], y[:, KNOWN == 1])
    outside, grid = ClassifierFree(given(mixture(), Mask(KNOWN), y), 2.0), times.Uniform()(Cosine(), 4)
    with pytest.raises(TypeError, match="put other guidance inside"):
        sample(Particles(2), outside, draws(3, 4), grid, cond)


def test_pseudoinverse_is_the_score_of_its_gaussian():
    """``x0 + (sigma^2 / alpha) grad_x log N(y; A x0, v A A' + noise^2)`` by automatic differentiation."""
    base, operator, noise = mixture("vp"), OPERATORS["matrix"](), 0.3
    y, x = operator(draws(5, 4, seed=1)), draws(5, 4, seed=2).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = base.schedule.scalars(t)
    a, _ = rows(operator)
    covariance = sigma**2 / (alpha**2 + sigma**2) * a @ a.T + noise**2 * torch.eye(2, dtype=torch.float64)
    log = torch.distributions.MultivariateNormal(operator(base(x, t).x0), covariance).log_prob(y).sum()
    (slope,) = torch.autograd.grad(log, x)
    expected = base(x, t).x0 + sigma**2 / alpha * slope
    found = PseudoInverse(base, operator, y, noise)(x.detach(), t).x0
    assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("make", [Posterior, PseudoInverse])
def test_the_estimate_can_be_differentiated_and_runs_under_inference_mode(make):
    guided = make(mixture(), OPERATORS["matrix"](), OPERATORS["matrix"]()(draws(2, 4, seed=1)), 0.2)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: guided(x, t).x0, (draws(2, 4).requires_grad_(),), atol=1e-6)
    with torch.inference_mode():
        x0 = guided(draws(2, 4), t).x0
    assert torch.allclose(x0, guided(draws(2, 4), t).x0)
    assert not guided(draws(2, 4), t).x0.requires_grad


class Nothing(nn.Module):
    """A network whose v is 0: the posterior mean of standard normal data on a variance-preserving path."""

    def forward(self, x, time, cond=None):
        return 0 * x


@pytest.mark.parametrize("path", ["rectified", "cosine", "ve", "ddpm-linear"])
def test_networks_on_their_own_path_and_read_on_another(path):
    network = Rescheduled(NeuralDenoiser(Nothing(), Cosine(), V()), SCHEDULES[path]())
    exact = GaussianMixture(SCHEDULES[path](), torch.zeros(1, 4).double(), 1.0)
    operator, t = OPERATORS["blur"](), torch.tensor(0.3, dtype=torch.float64)
    y, x = operator(draws(3, 4, seed=1)), draws(3, 4)
    found = Posterior(network, operator, y, 0.2, iterations=4)(x, t).x0
    assert torch.allclose(found, Posterior(exact, operator, y, 0.2, iterations=4)(x, t).x0, atol=1e-9)
    ends = [draw(base, operator, y, 0.2, steps=9, generator=keyed(3)) for base in (network, exact)]
    assert torch.allclose(*ends, atol=1e-4)


class Counted(Denoiser):
    """A standard normal that counts its calls."""

    def __init__(self):
        super().__init__()
        self.schedule, self.calls = VP(), 0

    def forward(self, x, t, cond=None, s=None):
        self.calls += 1
        alpha, sigma = self.schedule.scalars(t)
        return Estimate(alpha * x, sigma * x)


@pytest.mark.parametrize(("steps", "jump", "repeats", "calls"), [(250, 10, 10, 2410), (7, 3, 2, 13), (5, 9, 4, 5)])
def test_repaint_costs_what_it_says_and_keeps_an_unconditional_law(steps, jump, repeats, calls):
    base = Counted()
    grid = times.Span()(base.schedule, steps)
    x = sample(RePaint(repeats, jump), base, draws(400, 5), grid, generator=torch.Generator().manual_seed(1))
    assert base.calls == calls
    if steps == 250:
        moments_are(x, torch.zeros(5).double(), torch.eye(5).double(), bias=0.02)


def test_repaint_once_is_its_base():
    base, grid = mixture(), times.Span()(Cosine(), 12)
    ends = [sample(s, base, draws(3, 4), grid, generator=keyed(3)) for s in (RePaint(1, 4), DDPM())]
    assert torch.equal(*ends)


def test_dps_steps_down_the_norm_of_each_sample():
    base, y, zeta = mixture(), draws(3, 4, seed=1), 0.7
    x, (t, s) = draws(3, 4), torch.tensor([0.6, 0.5], dtype=torch.float64)
    found, _ = DPS(lambda x0: y - x0, zeta, DDIM()).step(base, x, t, s)
    for i in range(3):
        one = x[i : i + 1].clone().requires_grad_()
        (slope,) = torch.autograd.grad((y[i] - base(one, t).x0).norm(), one)
        plain, _ = DDIM().step(base, x[i : i + 1], t, s)
        assert torch.allclose(found[i : i + 1], plain - zeta * slope, atol=1e-12)


def test_wrong_use_is_refused_in_a_sentence():
    base, y = mixture(), draws(2, 4)
    for make, words in [
        (lambda: given(base, Mask(KNOWN), y, noise=-1.0), "noise >= 0"),
        (lambda: given(base, Mask(KNOWN), y, deviation=0.0), "deviation > 0"),
        (lambda: given(base, Mask(KNOWN), y * math.nan), "finite numbers"),
        (lambda: given(base, Mask(KNOWN), draws(2, 5)), "A mask of shape"),
        (lambda: given(base, Mask(KNOWN), torch.ones(2, 4, dtype=torch.int64)), r"got torch.int64, \(2, 4\)"),
        (lambda: given(base, Mask(KNOWN), draws(4)), "the samples first"),
        (lambda: given(Consistency(Nothing(), Cosine(), V()), Mask(KNOWN), y), "Consistency has not"),
        (lambda: Posterior(base, Mask(KNOWN), y, iterations=-1), "iterations >= 0"),
        (lambda: given(base, Mask(KNOWN), y)(draws(3, 4), 0.5), "2 measurements do not fit a batch of 3"),
        (lambda: given(base, Downsample(2, (-1,)), y)(draws(2, 4), 0.5), r"shape \(4,\) has a .* shape \(2,\)"),
        (lambda: given(base, Mask(KNOWN), y)(draws(2, 4), 0.5, None, 0.1), "no flow map"),
        (lambda: PseudoInverse(base, Mask(KNOWN), y)(draws(2, 4), 0.5, None, 0.1), "no flow map"),
        (lambda: Particles(0), "at least 1"),
        (lambda: RePaint(0), "at least 1 repeat"),
        (lambda: DPS(lambda x0: x0, 0.0), "positive zeta"),
        (lambda: base.condition(torch.eye(3).double(), draws(3)), r"given a matrix \(m, 4\)"),
        (lambda: base.condition(torch.ones(2, 4).double(), draws(2)), "no density"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
    phase = mixture()
    phase.schedule = CLD()
    with pytest.raises(ValueError, match="needs a path of two numbers"):
        given(phase, Mask(KNOWN), y)
