"""The contrastive loss: its closed forms, its symmetry, its negatives, its limit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from osmotic.objectives import info_nce

N, D = 6, 8


def units(n: int = N, seed: int = 0) -> Tensor:
    draws = torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(draws, dim=1)


@pytest.mark.parametrize("scale", [0.5, 3.0, 20.0])
def test_orthonormal_pairs_have_the_closed_form(scale: float) -> None:
    x = torch.eye(D, dtype=torch.float64)[:N]
    expected = math.log1p((N - 1) * math.exp(-scale))
    torch.testing.assert_close(info_nce(x, x, scale), torch.full((N,), expected, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1.0, 14.3])
def test_pairs_that_are_all_alike_say_nothing(scale: float) -> None:
    x = units(1).expand(N, -1)
    torch.testing.assert_close(info_nce(x, x, scale), torch.full((N,), math.log(N), dtype=torch.float64))


def test_it_is_the_mean_of_two_entropies_of_softmaxes() -> None:
    p, t, s = units(), units(seed=1), 4.0
    for i, found in enumerate(info_nce(p, t, s)):
        rows = [math.exp(s * float(p[i] @ t[j])) for j in range(N)]
        columns = [math.exp(s * float(t[i] @ p[j])) for j in range(N)]
        expected = -0.5 * (math.log(rows[i] / sum(rows)) + math.log(columns[i] / sum(columns)))
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_it_is_symmetric_and_follows_permutations() -> None:
    p, t, order = units(), units(seed=1), torch.tensor([3, 1, 5, 0, 2, 4])
    same = torch.zeros(N, N, dtype=torch.bool)
    same[0, 4] = True  # one side is enough
    torch.testing.assert_close(info_nce(p, t, 5.0, same), info_nce(t, p, 5.0, same))
    torch.testing.assert_close(
        info_nce(p, t, 5.0, same)[order], info_nce(p[order], t[order], 5.0, same[order][:, order])
    )


def test_pairs_of_one_text_are_no_negatives_of_each_other() -> None:
    """Sample i's loss is that of the batch without the others of its text."""
    p, t = units(), units(3, seed=1)[torch.tensor([0, 1, 0, 2, 1, 0])]
    texts = torch.tensor([0, 1, 0, 2, 1, 0])
    same = texts[:, None] == texts
    found = info_nce(p, t, 5.0, same)
    for i in range(N):
        rest = [j for j in range(N) if j == i or texts[j] != texts[i]]
        alone = info_nce(p[rest], t[rest], 5.0)[rest.index(i)]
        torch.testing.assert_close(found[i], alone)
    assert not torch.allclose(found, info_nce(p, t, 5.0))
    assert bool((info_nce(p, p, 5.0, torch.ones(N, N, dtype=torch.bool)) == 0).all())  # nothing to tell apart


def test_the_gradient_vanishes_towards_a_perfect_fit() -> None:
    """At orthonormal pairs dL/ds is -(N - 1) e^-s / (1 + (N - 1) e^-s), and all gradients go to zero with it."""
    sizes = []
    for scale in (5.0, 15.0, 30.0):
        x = torch.eye(D, dtype=torch.float64)[:N].clone().requires_grad_()
        s = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
        by_x, by_s = torch.autograd.grad(info_nce(x, x, s).mean(), (x, s))
        share = (N - 1) * math.exp(-scale)
        assert float(by_s) == pytest.approx(-share / (1 + share), rel=1e-9)
        sizes.append(float(by_x.norm()))
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 1e-10


def test_embeddings_of_different_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="one width"):
        info_nce(units(), units()[:, :4], 1.0)
