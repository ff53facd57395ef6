"""Couplings: exact assignments, and what they leave as it was."""

import itertools

import pytest
import torch

from osmotic.objectives import ClasswiseOT, Independent, MiniBatchOT
from osmotic.objectives.couplings import cost

ALL = [Independent(), MiniBatchOT(), ClasswiseOT()]


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("coupling", ALL, ids=repr)
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_an_order_is_a_permutation_so_marginals_are_kept(coupling, shape):
    x0, eps, labels = draws(40, *shape), draws(40, *shape, seed=1), torch.arange(40) % 3
    order = coupling(x0, eps, labels)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(40))
    assert torch.equal(order, coupling(x0, eps, labels))


def test_in_one_dimension_the_assignment_is_sorting():
    x0, eps = draws(200, 1), draws(200, 1, seed=1)
    order = MiniBatchOT()(x0, eps)
    ranks = x0[:, 0].argsort().argsort()
    assert torch.equal(eps[order, 0], eps[:, 0].sort().values[ranks])


def test_the_assignment_is_the_best_of_all_orders():
    x0, eps = draws(6, 2) + 5, draws(6, 2, seed=1)
    best = min((float(cost(x0, eps, torch.tensor(order)).sum()), order) for order in itertools.permutations(range(6)))
    assert tuple(MiniBatchOT()(x0, eps).tolist()) == best[1]


@pytest.mark.parametrize("coupling", ALL, ids=repr)
def test_a_batch_of_one_is_independent(coupling):
    assert coupling(draws(1, 3), draws(1, 3, seed=1), torch.tensor([2])).tolist() == [0]


def test_the_cost_falls_with_the_batch_towards_the_transport_distance():
    # N(m, diag(lam)) against N(0, I): W2^2 is |m|^2 + sum (sqrt(lam) - 1)^2, the independent cost |m|^2 + sum lam + 3.
    mean, scales = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.04, 0.25, 1.3]).sqrt()
    squared_w2 = 1 + float((scales - 1).square().sum())
    found = []
    for size in (1, 16, 64, 256):
        costs = []
        for seed in range(4096 // size if size < 256 else 8):
            x0, eps = mean + scales * draws(size, 3, seed=2 * seed), draws(size, 3, seed=2 * seed + 1)
            costs.append(float(cost(x0, eps, MiniBatchOT()(x0, eps)).mean()))
        found.append(sum(costs) / len(costs))
    assert abs(found[0] - (4 + float(scales.square().sum()))) < 0.2
    assert found == sorted(found, reverse=True)
    assert squared_w2 < found[-1] < squared_w2 + 0.35


def test_given_a_label_the_noise_stays_normal_only_where_classes_are_kept_apart():
    plain, apart = [], []
    for seed in range(40):
        labels = (torch.arange(64) % 4 == 0).long()
        x0, eps = 3.0 * labels[:, None] + 0.1 * draws(64, 1, seed=2 * seed), draws(64, 1, seed=2 * seed + 1)
        plain.append(eps[MiniBatchOT()(x0, eps, labels)][labels == 1])
        apart.append(eps[ClasswiseOT()(x0, eps, labels)][labels == 1])
    assert float(torch.cat(plain).mean()) > 1  # the class on the right takes the noise on the right
    assert abs(float(torch.cat(apart).mean())) < 0.12
    assert abs(float(torch.cat(apart).std()) - 1) < 0.1


def test_classwise_assignments_are_the_assignments_of_each_class():
    x0, eps, labels = draws(30, 2), draws(30, 2, seed=1), torch.arange(30) % 3
    order = ClasswiseOT()(x0, eps, labels)
    for label in range(3):
        rows = (labels == label).nonzero()[:, 0]
        assert torch.equal(order[rows], rows[MiniBatchOT()(x0[rows], eps[rows])])
    assert torch.equal(ClasswiseOT()(x0, eps), MiniBatchOT()(x0, eps))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"pairs samples \(B, \*S\) with noise of the same shape"):
        MiniBatchOT()(draws(4, 2), draws(3, 2))
    with pytest.raises(ValueError, match="4 samples need as many labels"):
        ClasswiseOT()(draws(4, 2), draws(4, 2), torch.zeros(3))
