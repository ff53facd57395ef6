"""The four score matching losses and the identities between them, on a mixture whose score is exact."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from osmotic.estimate import Score
from osmotic.laws import Ladder, Rounded, Steps, Stratified, Uniform
from osmotic.objectives import denoising, denoising_score, explicit, implicit, sliced
from osmotic.objectives.score_matching import half_square, score_of
from osmotic.objectives.weights import Noise
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.schedules import CATALOG, VE, VP, GeometricVE
from osmotic.times import LogSNR

T = 0.4


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(schedule) -> GaussianMixture:
    return GaussianMixture(schedule, torch.tensor([[-1.0], [1.5]], dtype=torch.float64), 0.1, weights=[0.3, 0.7])


def wave(frequency: float):
    """A score that is wrong everywhere, as a function of x."""
    return lambda x: torch.sin(frequency * x) - 0.3 * x


MODELS = [wave(0.5), wave(3.0)]


def expectation(oracle, schedule, function) -> float:
    """The exact mean over x ~ q_t of a function of x ``(n, 1)``, by quadrature over the density."""
    nodes, weights = np.polynomial.legendre.leggauss(1500)
    x = torch.from_numpy(12 * nodes)[:, None]
    density = oracle.log_prob(x, T).exp()
    return float((torch.from_numpy(12 * weights) * density * function(x)).sum())


def test_the_exact_score_is_tweedies():
    """F1, D8: -eps / sigma is the derivative of the log-density."""
    oracle, x = mixture(VP()), draws(9, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, T).sum(), x)
    assert torch.allclose(score_of(oracle, T)(x), gradient, atol=1e-9)
    times = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    each = torch.cat([score_of(oracle, float(t))(x[i : i + 1]) for i, t in enumerate(times)])
    assert torch.allclose(score_of(oracle, times)(x), each, atol=1e-12)


def test_hyvarinens_rule_differs_by_what_no_score_can_change():
    """F5, F6: E implicit - E explicit = -E|grad log q|^2 / 2 for two very different scores, by quadrature."""
    oracle = mixture(VP())
    truth = score_of(oracle, T)
    constant = expectation(oracle, VP(), lambda x: half_square(truth(x)))
    assert constant > 0.1
    for model in MODELS:
        fisher = expectation(oracle, VP(), lambda x, s=model: explicit(s, truth, x))
        rule = expectation(oracle, VP(), lambda x, s=model: implicit(s, x).detach())
        assert rule - fisher == pytest.approx(-constant, abs=1e-8)
    assert expectation(oracle, VP(), lambda x: explicit(truth, truth, x)) == 0
    assert expectation(oracle, VP(), lambda x: implicit(truth, x).detach()) == pytest.approx(-constant, abs=1e-8)


def averaged(x0, model) -> tuple[float, float]:
    """Exact means over eps of (denoising, explicit) at given data points with given probabilities, by quadrature."""
    schedule = VP()
    alpha, sigma = (float(n) for n in schedule(T))
    truth = score_of(mixture(schedule), T)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    eps, weights = torch.from_numpy(nodes)[:, None], torch.from_numpy(weights / math.sqrt(2 * math.pi))
    both = []
    for point in x0:
        at = point.expand_as(eps)
        noisy = denoising_score(model, at, alpha, sigma, eps)
        both.append(
            (float((weights * noisy).sum()), float((weights * explicit(model, truth, alpha * at + sigma * eps)).sum()))
        )
    return np.array(both)


def test_denoising_differs_by_a_constant_only_in_the_average_over_the_data():
    """F7 and T17: the gap is the same for two scores once averaged over x0, and not at a fixed x0."""
    oracle = mixture(VP())
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    # Data points by quadrature in each component.
    x0 = torch.cat([m + math.sqrt(0.1) * torch.from_numpy(nodes) for m in (-1.0, 1.5)])
    share = np.concatenate([p * weights / math.sqrt(2 * math.pi) for p in (0.3, 0.7)])
    assert share.sum() == pytest.approx(1)
    gaps = [averaged(x0, model) @ [1, -1] for model in MODELS]
    total = [float(share @ gap) for gap in gaps]
    assert total[0] == pytest.approx(total[1], abs=1e-6)
    # The constant itself: (E|conditional score|^2 - E|score|^2) / 2.
    sigma = float(VP()(T)[1])
    expected = (1 / sigma**2) / 2 - expectation(oracle, VP(), lambda x: half_square(score_of(oracle, T)(x)))
    assert total[0] == pytest.approx(expected, abs=1e-6)
    at_one = [float(gap[5]) for gap in gaps]
    assert abs(at_one[0] - at_one[1]) > 0.01


class Net(nn.Module):
    """A smooth vector field in d dimensions whose Jacobian is not symmetric."""

    def __init__(self, d: int):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.a = nn.Parameter(torch.randn(d, d, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(d, d, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return (torch.tanh(x.flatten(1) @ self.a) @ self.b).reshape(x.shape)


def test_the_divergence_is_the_trace_of_the_jacobian():
    net, x = Net(6), draws(3, 2, 3)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda z: net(z[None])[0].flatten(), x[i]).reshape(6, 6)
        expected = half_square(net(x))[i] + jacobian.trace()
        assert float(implicit(net, x)[i].detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


def test_networks_of_pictures_can_be_matched_exactly():
    """Convolutions and normalisations, in single precision: the Jacobian's trace, and a gradient in the weights."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))
    for p in net.parameters():
        p.data = draws(*p.shape, seed=p.numel()).float() / 3
    x, weight = draws(2, 1, 3, 3).float(), net[0].weight
    found, half = implicit(net, x).detach(), half_square(net(x)).detach()
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda z: net(z[None])[0].flatten(), x[i]).reshape(9, 9)
        assert float(found[i]) == pytest.approx(float(half[i] + jacobian.trace()), rel=1e-5)
    net.double()
    (gradient,) = torch.autograd.grad(implicit(net, x.double()).sum(), weight)
    with torch.no_grad():
        values = []
        for step in (1e-5, -2e-5):
            weight[0, 0, 1, 1] += step
            values.append(float(implicit(net, x.double()).sum()))
    assert float(gradient[0, 0, 1, 1]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("kind", ["rademacher", "normal"])
def test_slices_average_to_the_exact_divergence(projected, kind):
    """All 2^d Rademacher probes give it exactly; normal ones within the error of their mean."""
    net, x, d = Net(4), draws(1, 4), 4
    if kind == "rademacher":
        probes = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * d)
    else:
        probes = draws(40_000, d, seed=3)
    many = sliced(net, x.expand(len(probes), d), probes, projected).detach()
    expected = float(implicit(net, x).detach())
    spread = 1e-12 if kind == "rademacher" else 5 * float(many.std()) / math.sqrt(len(probes))
    assert float(many.mean()) == pytest.approx(expected, abs=spread)
    assert float(many.std()) > 0.1


def test_gradients_reach_the_parameters():
    """d/dtheta of implicit and of the mean over all probes agree, and with a difference quotient."""
    net, x = Net(3), draws(5, 3)
    probes = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    (exact,) = torch.autograd.grad(implicit(net, x).mean(), net.a)
    many = sliced(net, x.repeat_interleave(8, 0), probes.repeat(5, 1)).mean()
    assert torch.allclose(torch.autograd.grad(many, net.a)[0], exact, atol=1e-12)
    with torch.no_grad():
        values = []
        for step in (1e-5, -2e-5):
            net.a[0, 1] += step
            values.append(float(implicit(net, x).mean()))
    assert float(exact[0, 1]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_denoising_score_is_the_weighted_loss_of_eps():
    """F8, F9: sigma^2 times it is the summed squared error of eps / 2, that is d/2 of L_simple; on VE, NCSN's loss."""
    for schedule in (VE(10.0), GeometricVE(), VP()):
        oracle = mixture(schedule)
        x0, eps = draws(20, 1), draws(20, 1, seed=1)
        for t in (0.2, 0.7):
            alpha, sigma = (float(n) for n in schedule(t))
            loss = denoising_score(score_of(oracle, t), x0, alpha, sigma, eps)
            simple = denoising(oracle, x0, t, eps, weight=Noise())
            assert torch.allclose(2 * sigma**2 * loss, simple, rtol=1e-7, atol=1e-12)
            oracle.target = Score()
            assert torch.allclose(denoising(oracle, x0, t, eps), 2 * loss, rtol=1e-7)
            assert float(Noise()(schedule, Score(), torch.tensor(t, dtype=torch.float64))) == pytest.approx(
                sigma**2, rel=1e-9
            )


def test_ncsns_loss_at_the_exact_score_is_its_closed_form():
    """On a ladder, for N(m, s0^2) data: the mean over levels of s0^2 / (s0^2 + sigma^2), from Ladder and Noise."""
    schedule, n = GeometricVE(0.01, 10.0), 60_000
    oracle = Gaussian(schedule, torch.full((1,), 0.5, dtype=torch.float64), 0.3)
    oracle.target = Score()
    levels = LogSNR(0.01, 20.0)(schedule, 10)
    t, importance = Stratified(Ladder(levels)).draw(schedule, n, torch.Generator().manual_seed(0))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    x0, eps = oracle.sample(n, torch.Generator().manual_seed(2)), draws(n, 1, seed=3)
    loss = denoising(oracle, x0, t[order], eps, weight=Noise())
    sigma = schedule(levels[:-1])[1]
    expected = float((0.3 / (0.3 + sigma**2)).mean())
    assert (importance == 1).all()
    assert float(loss.mean()) == pytest.approx(expected, abs=5 * float(loss.std()) / math.sqrt(n))


def test_a_ladder_visits_each_level_equally():
    levels = LogSNR(0.02, 50.0)(VE(50.0), 8)
    assert torch.allclose((50 * levels[:-1]).log().diff(), torch.tensor(-math.log(2500) / 7).double(), atol=1e-7)
    t, _ = Stratified(Ladder(levels)).draw(VE(50.0), 800, torch.Generator().manual_seed(0))
    found, count = t.unique(return_counts=True)
    assert torch.equal(found, levels[:-1].flip(0))
    assert (count == 100).all()
    even = Ladder(torch.arange(11) / 10.0)
    u = torch.rand(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(even.quantile(VP(), u), Steps(10).quantile(VP(), u), atol=1e-7)


@pytest.mark.parametrize("path", list(CATALOG))
def test_rounding_goes_up_to_the_next_level(path):
    schedule, levels = CATALOG[path](), torch.tensor([1.0, 0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    law = Rounded(Uniform(), levels)
    t, importance = law.draw(schedule, 20_000, torch.Generator().manual_seed(0))
    found, count = t.unique(return_counts=True)
    assert torch.equal(found, levels[:-1].flip(0))
    share = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    assert ((count / 20_000 - share).abs() < 5 * (share * (1 - share) / 20_000).sqrt()).all()
    assert (importance == 1).all()
    assert torch.equal(law.quantile(schedule, levels[1:4]), levels[1:4])
    assert law.state_dict() == {}


@pytest.mark.parametrize("levels", [[], [0.0], [0.5, 1.5], [-0.1, 0.5]])
def test_levels_are_times(levels):
    for make in (Ladder, lambda given: Rounded(Uniform(), given)):
        with pytest.raises(ValueError, match="at least one of them noisy"):
            make(torch.tensor(levels))
