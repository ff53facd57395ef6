"""What a batch expects of its own noisy samples: of the right mean in any batch, of less variance, by what is told."""

import math

import pytest
import torch

from osmotic.condition import Condition
from osmotic.distill import expected as module
from osmotic.distill.draws import noised
from osmotic.distill.expected import told_alike
from osmotic.estimate import like
from osmotic.schedules import CATALOG, VE
from tests.distill.toys import generator, two_modes

PATHS = sorted(CATALOG)


def expected(schedule, x0, x, t, eps, cond=None):
    return module.expected(schedule, x0, x, t, eps, told_alike(cond, x))


def draws(n: int, d: int, seed: int):
    given = generator(seed)
    return two_modes(d).sample(n, given), torch.randn(n, d, generator=given)


@pytest.mark.parametrize("path", PATHS)
def test_each_is_the_average_over_all_that_it_may_have_been(path):
    schedule = CATALOG[path]()
    x0, eps = draws(8, 2, seed=0)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    x = noised(schedule, x0, t, eps)
    found = expected(schedule, x0, x, t, eps)
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
    rows = zip(x0.split(n), x.split(n), eps.split(n), strict=True)
    parts = [expected(schedule, a, b, t, e).x0 for a, b, e in rows]
    error = (torch.cat(parts) - x0).double()
    for h in (torch.ones_like(x), x, x.square(), (x > 0.2).float()):
        each = (h * error).reshape(batches, n).mean(1)  # samples of a batch depend on each other, batches do not
        assert abs(float(each.mean())) < 4 * float(each.std()) / batches**0.5
    exact = two_modes(1)(x, schedule.time(torch.tensor(-2 * math.log(sigma)).double()).expand(len(x))).x0
    assert float((torch.cat(parts) - exact).square().mean()) < 0.98 * float((x0 - exact).square().mean())


def test_where_samples_are_far_apart_each_is_itself():
    x0, eps = draws(64, 16, seed=2)
    t = VE().time(torch.full((64,), -2 * math.log(0.01), dtype=torch.float64))
    found = expected(VE(), x0, noised(VE(), x0, t, eps), t, eps)
    assert torch.equal(found.x0, x0)
    assert torch.equal(found.eps, eps)


def test_samples_that_are_nearly_one_are_told_apart_by_little_noise():
    """Ten levels of noise apart, and a thousand from 0: in single precision distances would round to nothing."""
    x0, eps = 1 + torch.arange(8.0)[:, None] * 1e-4, torch.randn(8, 1, generator=generator(0))
    t = VE().time(torch.full((8,), -2 * math.log(1e-5), dtype=torch.float64))
    found = expected(VE(), x0, noised(VE(), x0, t, eps), t, eps)
    torch.testing.assert_close(found.x0, x0, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.eps, eps, rtol=0, atol=1e-2)


def test_only_samples_that_are_told_the_same_count():
    x0, eps = draws(6, 2, seed=3)
    t = VE().time(torch.full((6,), -2 * math.log(5.0), dtype=torch.float64))
    x, labels = noised(VE(), x0, t, eps), torch.tensor([0, 1, 0, 2, 1, 0])
    found = expected(VE(), x0, x, t, eps, Condition(vector=labels)).x0
    for label in range(3):
        own = labels == label
        torch.testing.assert_close(found[own], expected(VE(), x0[own], x[own], t[own], eps[own]).x0)
    torch.testing.assert_close(found[3], x0[3])
    everything = expected(VE(), x0, x, t, eps).x0
    assert not torch.allclose(found, everything, atol=1e-2)


def grouped(**ports) -> list[int]:
    """Groups, numbered by their first sample."""
    found = told_alike(Condition(**ports), next(iter(ports.values()))).tolist()
    return [found.index(group) for group in found]


def test_what_is_told_alike_agrees_in_all_that_is_shown():
    labels = torch.tensor([0, 1, 0, 1])
    assert grouped(vector=labels) == [0, 1, 0, 1]
    assert told_alike(labels, labels).tolist() == told_alike(Condition(vector=labels), labels).tolist()
    assert told_alike(None, labels).tolist() == [0, 0, 0, 0]
    assert grouped(vector=labels, keep=torch.tensor([True, False, False, True])) == [0, 1, 1, 3]
    assert grouped(vector=labels, keep=torch.tensor([[True, False], [False, False], [False, False], [True, True]])) == [
        0,
        1,
        1,
        3,
    ]
    gaps = torch.tensor([[0.0, math.nan], [0.0, math.nan], [0.0, 0.0], [0.0, 0.0]])
    assert grouped(vector=gaps) == [0, 0, 2, 2]
    images = torch.arange(8.0).reshape(4, 1, 2)
    assert grouped(vector=labels, image=images) == [0, 1, 2, 3]
    assert grouped(image=images, keep=torch.zeros(4, dtype=torch.bool)) == [0, 0, 0, 0]
    hidden = {"vector": labels, "keep": torch.zeros(4, dtype=torch.bool)}
    assert grouped(scale=torch.tensor([1.0, 1.0, 2.0, 2.0]), **hidden) == [0, 0, 2, 2]  # which is never hidden
