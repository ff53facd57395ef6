"""Conditions as values, and randomness as a function of its keys."""

import pytest
import torch
from scipy import stats

from osmotic.condition import Condition
from osmotic.noise import generator, generators, normal


def test_conditions_slice_join_and_hide():
    cond = Condition(vector=torch.arange(4), image=torch.zeros(4, 1, 2, 2))
    assert len(cond) == 4
    assert cond[1:3].vector.tolist() == [1, 2]
    hidden = cond.drop(torch.tensor([True, False, True, True])).drop(torch.tensor([True, True, False, True]))
    assert hidden.keep.tolist() == [True, False, False, True]
    joined = Condition.cat([cond, hidden])
    assert joined.vector.tolist() == [0, 1, 2, 3] * 2
    assert joined.keep.tolist() == [True] * 4 + [True, False, False, True]


def test_conditions_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="same batch size"):
        Condition(vector=torch.arange(3), image=torch.zeros(4, 1, 2, 2))
    with pytest.raises(ValueError, match="different ports"):
        Condition.cat([Condition(vector=torch.arange(2)), Condition(image=torch.zeros(2, 1))])
    with pytest.raises(ValueError, match="cond=None"):
        len(Condition())


def test_noise_is_a_function_of_its_keys():
    a, b = (torch.randn(8, generator=generator(7, 3, -1)) for _ in range(2))
    assert torch.equal(a, b)
    streams = [torch.randn(4, generator=generator(*key)) for key in [(0, 1), (1, 0), (0, 0, 1), (0,)]]
    assert len({tuple(s.tolist()) for s in streams}) == 4


def test_neighbouring_keys_are_independent():
    first = torch.stack([torch.randn(2, generator=generator(0, i), dtype=torch.float64) for i in range(4000)])
    assert stats.kstest(first[:, 0].numpy(), "norm").pvalue > 0.01
    assert abs(float(torch.corrcoef(torch.stack([first[:-1, 0], first[1:, 0]]))[0, 1])) < 4 / 4000**0.5


def test_one_generator_per_sample():
    together = normal((3, 2, 2), generators(5, [0, 1, 2]))
    assert torch.equal(normal((1, 2, 2), generators(5, [2])), together[2:])
    with pytest.raises(ValueError, match="one per sample"):
        normal((3, 2), generators(5, [0]))


def test_the_library_leaves_the_global_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    normal((2, 2), generator(1))
    normal((2, 2), generators(0, [1, 2]))
    assert torch.equal(torch.rand(1), expected)
