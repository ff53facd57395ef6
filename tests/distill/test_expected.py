"""What a batch expects of its own noisy samples: of the right mean in any batch, of less variance, by what is told."""

import math

import pytest
import torch

from osmotic.condition import Condition
from osmotic.distill.draws import noised
from osmotic.distill.expected import expected, told_alike
from osmotic.estimate import like
from osmotic.schedules import CATALOG, VE
from tests.distill.toys import generator, two_modes

PATHS = sorted(CATALOG)


def draws(n: int, d: int, seed: int):
    given = generator(seed)
    return two_modes(d).sample(n, given), torch.randn(n, d, generator=given)


@pytest.mark.parametrize("path", PATHS)
def test_each_is_the_average_over_all_that_it_may_have_been(path):
    schedule = CATALOG[path]()
    x0, eps = draws(8, 2, seed=0)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    x = noised(schedule, x0, t, eps)
    found = expected(schedule, x0, x, t)
    for i in range(8):
        alpha, sigma = (float(v) for v in schedule(t[i]))
        away = [math.exp(-float((x[i] - alpha * x0[j]).square().sum() / (2 * sigma**2))) for j in range(8)]
        mean = sum(w * x0[j] for j, w in enumerate(away)) / sum(away)
        torch.testing.assert_close(found.x0[i], mean, rtol=1e-4, atol=1e-5)
    alpha, sigma = like(x, *schedule(t))
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "sigma"), [(2, 0.4), (5, 0.1), (3, 2.0)])
def test_its_mean_given_a_noisy_sample_is_that_of_the_sample_in_any_batch(n, sigma):
    """``E[h(x_t) (expected - x0)] = 0`` for functions h, over batches as small as two; and it varies less."""
    schedule, batches = VE(), 3000
    x0, eps = draws(n * batches, 1, seed=1)
    t = schedule.time(torch.tensor(-2 * math.log(sigma), dtype=torch.float64)).expand(n)
    x = noised(schedule, x0, t.repeat(batches), eps)
    parts = [expected(schedule, a, b, t).x0 for a, b in zip(x0.split(n), x.split(n), strict=True)]
    error = (torch.cat(parts) - x0).double()
    for h in (torch.ones_like(x), x, x.square(), (x > 0.2).float()):
        each = (h * error).reshape(batches, n).mean(1)  # samples of a batch depend on each other, batches do not
        assert abs(float(each.mean())) < 4 * float(each.std()) / batches**0.5
    exact = two_modes(1)(x, schedule.time(torch.tensor(-2 * math.log(sigma)).double()).expand(len(x))).x0
    assert float((torch.cat(parts) - exact).square().mean()) < 0.98 * float((x0 - exact).square().mean())


def test_where_samples_are_far_apart_each_is_itself():
    x0, eps = draws(64, 16, seed=2)
    t = VE().time(torch.full((64,), -2 * math.log(0.01), dtype=torch.float64))
    found = expected(VE(), x0, noised(VE(), x0, t, eps), t)
    torch.testing.assert_close(found.x0, x0, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.eps, eps, rtol=1e-3, atol=1e-3)


def test_only_samples_that_are_told_the_same_count():
    x0, eps = draws(6, 2, seed=3)
    t = VE().time(torch.full((6,), -2 * math.log(5.0), dtype=torch.float64))
    x, labels = noised(VE(), x0, t, eps), torch.tensor([0, 1, 0, 2, 1, 0])
    found = expected(VE(), x0, x, t, Condition(vector=labels)).x0
    for label in range(3):
        own = labels == label
        torch.testing.assert_close(found[own], expected(VE(), x0[own], x[own], t[own]).x0)
    torch.testing.assert_close(found[3], x0[3])
    everything = expected(VE(), x0, x, t).x0
    assert not torch.allclose(found, everything, atol=1e-2)


def test_what_is_told_alike_agrees_in_all_ports():
    labels = torch.tensor([0, 0, 1, 0])
    groups = told_alike(Condition(vector=labels), labels)
    assert groups.tolist() == [0, 0, 1, 0]
    kept = Condition(vector=labels, keep=torch.tensor([True, False, True, True]))
    first, second, third, last = told_alike(kept, labels).tolist()
    assert first == last
    assert len({first, second, third}) == 3
    images = torch.arange(8.0).reshape(4, 1, 2)
    assert len(set(told_alike(Condition(vector=labels, image=images), labels).tolist())) == 4
