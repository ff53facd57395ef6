"""Sampling given a measurement of a Gaussian mixture: the oracle's exact answer, and how near each method comes."""

import pytest
import torch

from osmotic import times
from osmotic.guidance import Inpaint, Mask, Matrix
from osmotic.inverse import draw
from osmotic.noise import generator
from osmotic.oracles import GaussianMixture
from osmotic.samplers import CATALOG, DEFAULT, sample
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import Cosine


def mixture(d: int, seed: int, path: str = "cosine") -> GaussianMixture:
    draws = generator(seed, d)
    means = 1.2 * torch.randn(4, d, generator=draws, dtype=torch.float64)
    roots = torch.randn(4, d, d, generator=draws, dtype=torch.float64)
    covariances = 0.15 * roots @ roots.mT / d + 0.02 * torch.eye(d, dtype=torch.float64)
    weights = 0.3 + torch.rand(4, generator=draws, dtype=torch.float64)
    return GaussianMixture(SCHEDULES[path](), means, covariances, weights)


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_oracles_condition_is_bayes_rule_by_quadrature(seed, noise):
    """``p(x | y) = p(x) p(y | x) / p(y)`` on a fine grid: along a line without noise, in the plane with it."""
    base = mixture(2, seed)
    a, y = torch.tensor([[1.0, -0.6]], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    exact = base.condition(a, y, noise)
    line = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    if noise:
        x = torch.cartesian_prod(line[::4], line[::4])
        log = base.log_prob(x) - 0.5 * ((y - x @ a.T)[:, 0] / noise) ** 2
    else:  # all x with A x = y: A^+ y and any step along what A does not see
        along = torch.tensor([0.6, 1.0], dtype=torch.float64)
        x = (torch.linalg.pinv(a) @ y)[None] + line[:, None] * along / along.norm()
        log = base.log_prob(x)
    shares = torch.softmax(log, 0)
    mean = shares @ x
    centred = x - mean
    weights = exact.log_weights.exp()
    covariances = torch.einsum("kcd,kd,ked->kce", exact.axes, exact.variances, exact.axes)
    found = weights @ exact.means
    spread = torch.einsum("k,kcd->cd", weights, covariances) + (exact.means - found).T @ (
        weights[:, None] * (exact.means - found)
    )
    assert torch.allclose(found, mean, atol=1e-6)
    assert torch.allclose(spread, (centred * shares[:, None]).T @ centred, atol=1e-6)
    third = (shares[:, None] * centred**3).sum(0)
    rest = exact.means - found
    variances = covariances.diagonal(dim1=1, dim2=2)
    assert torch.allclose((weights[:, None] * (rest**3 + 3 * rest * variances)).sum(0), third, atol=1e-5)


def test_the_conditions_score_is_that_of_the_joint():
    """At a level, ``grad log p(x_t | y)`` is that of ``log p(x_t, y)``, built from each component's joint Gaussian."""
    base, t, noise = mixture(3, 1), torch.tensor(0.5, dtype=torch.float64), 0.3
    alpha, sigma = base.schedule.scalars(t)
    a = torch.randn(2, 3, generator=generator(2), dtype=torch.float64)
    y = torch.tensor([0.3, -0.2], dtype=torch.float64)
    x = torch.randn(4, 3, generator=generator(3), dtype=torch.float64).requires_grad_()
    both = torch.cat([alpha * torch.eye(3, dtype=torch.float64), a])
    scatter = torch.diag(torch.tensor([sigma**2] * 3 + [noise**2] * 2, dtype=torch.float64))
    covariances = torch.einsum("kcd,kd,ked->kce", base.axes, base.variances, base.axes)
    joint = torch.distributions.MultivariateNormal(base.means @ both.T, both @ covariances @ both.T + scatter)
    log = torch.logsumexp(base.log_weights + joint.log_prob(torch.cat([x, y.expand(4, 2)], 1)[:, None]), 1)
    (score,) = torch.autograd.grad(log.sum(), x)
    assert torch.allclose(base.condition(a, y, noise)(x, t).eps, -sigma * score, atol=1e-9)


def distance(x: torch.Tensor, exact: torch.Tensor) -> float:
    """Mean Wasserstein-1 distance along the axis, or along 100 random directions."""
    if x.shape[1] > 1:
        directions = torch.randn(x.shape[1], 100, generator=generator(9), dtype=x.dtype)
        x, exact = (v @ (directions / directions.norm(dim=0)) for v in (x, exact))
    x = x.repeat_interleave(len(exact) // len(x), 0)
    return float((x.sort(0).values - exact.sort(0).values).abs().mean())


def distances(d: int, seed: int, n: int, counts: tuple[int, ...]) -> tuple[list[float], float, float]:
    """Of the default at these steps, of replacement at 100, and of as many exact draws; half of x is known."""
    base, known = mixture(d, seed), d // 2
    a = torch.eye(d, dtype=torch.float64)[:known]
    seen = a @ base.sample(1, generator(seed, d, 1))[0]
    exact = base.condition(a, seen)
    reference, again = (exact.sample(rows, generator(seed, k))[:, known:] for k, rows in ((2, 8 * n), (3, n)))
    y = torch.zeros(n, d, dtype=torch.float64)
    y[:, :known] = seen
    mask = Mask(torch.arange(d) < known)
    found = []
    for steps in counts:
        out = draw(base, mask, y, steps=steps, generator=generator(seed, 5))
        assert torch.equal(out[:, :known], y[:, :known])
        found.append(distance(out[:, known:], reference))
    x = torch.randn(n, d, generator=generator(seed, 4), dtype=torch.float64)
    replaced = sample(CATALOG[DEFAULT](), Inpaint(base, y, mask.mask), x, times.suggested()(Cosine(), 100))
    return found, distance(replaced[:, known:], reference), distance(again, reference)


def promised(found: list[list[float]], replaced: list[float], floors: list[float]) -> None:
    """At 100 steps at most half of replacement's distance on every mixture, and on the mean of them no growth with the
    steps beyond what exact draws scatter.
    """
    at_100 = [each[1] for each in found]
    assert all(a <= b / 2 for a, b in zip(at_100, replaced, strict=True)), (at_100, replaced)
    means = torch.tensor(found).mean(0)
    floor = sum(floors) / len(floors)
    assert (means.diff() <= floor / 2).all(), means
    assert means[-1] <= 3 * floor


@pytest.mark.parametrize(("d", "seeds"), [(2, (0, 3)), (16, (0,))])
def test_the_default_halves_the_error_of_replacement_and_does_not_grow(d, seeds):
    each = [distances(d, seed, 400, (25, 100)) for seed in seeds]
    promised(*map(list, zip(*each, strict=True)))


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_noisy_measurement_of_several_cells_at_once(seed):
    """Neither a mask nor exact: a weighted sum with noise, both coordinates to be found, against exact draws."""
    base, noise, n = mixture(2, seed), 0.4, 500
    a = torch.tensor([[1.0, -0.6]], dtype=torch.float64)
    seen = a @ base.sample(1, generator(seed, 7))[0] + noise * 0.5
    exact = base.condition(a, seen, noise)
    reference, again = exact.sample(8 * n, generator(seed, 2)), exact.sample(n, generator(seed, 3))
    out = draw(base, Matrix(a), seen.expand(n, 1), noise, steps=64, generator=generator(seed, 5))
    # Exact draws are a floor apart too; the prior shows what a law that does not listen would measure.
    assert distance(out, reference) <= 2 * distance(again, reference) + 0.02
    assert distance(base.sample(n, generator(seed, 6)), reference) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("d", "seeds", "n"), [(2, (0, 1, 2, 3), 1000), (16, (0, 1), 250)])
def test_the_default_tends_to_the_exact_law(d, seeds, n):
    each = [distances(d, seed, n, (25, 100, 400)) for seed in seeds]
    promised(*map(list, zip(*each, strict=True)))
