"""Counter-based randomness: pure, uniform, independent across streams; permutations are permutations."""

import itertools

import numpy as np
import pytest
from scipy import stats

from osmotic.data.counter import bits, permutation, uniform

STREAMS = [(0, 0), (0, 1), (1, 0), (12345, 7), (-3, -1), (2**63, 2**70)]


def splitmix64(state: int) -> int:
    """The published finalizer, in Python integers."""
    mask = 2**64 - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_bits_equal_the_definition_in_python_integers():
    golden = 0x9E3779B97F4A7C15
    key = (5, -9)
    state = splitmix64(len(key) + golden)
    for part in key:
        state = splitmix64(state + (part % 2**64) * golden)
    positions = [0, 1, 2, 1000, 2**40]
    expected = [splitmix64(splitmix64(p * golden + state) ^ splitmix64(state ^ golden)) for p in positions]
    assert bits(key, positions).tolist() == expected


def test_values_are_fixed_for_ever():
    """Old runs resume only if these never change."""
    np.testing.assert_array_equal(permutation(0, 0, 8), [5, 7, 4, 2, 1, 0, 6, 3])
    assert uniform(0, 0, [0, 1, 2]).tolist() == [0.8917229741468666, 0.22145705904150792, 0.4090676449577746]


@pytest.mark.parametrize(("seed", "stream"), STREAMS)
def test_uniform(seed, stream):
    u = uniform(seed, stream, np.arange(20_000))
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    # The low bits are as random as the high ones.
    counts = np.bincount((u * 2**53).astype(np.int64) % 64, minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_neighbours_are_independent_in_position_stream_and_seed():
    n = 20_000
    u = uniform(3, 4, np.arange(n + 1))
    others = {
        "next position": u[1:],
        "next stream": uniform(3, 5, np.arange(n)),
        "next seed": uniform(4, 4, np.arange(n)),
        "keys swapped": uniform(4, 3, np.arange(n)),
    }
    for name, other in others.items():
        table = np.histogram2d(u[:-1], other, bins=10, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-3, name
        assert abs(np.corrcoef(u[:-1], other)[0, 1]) < 4 / np.sqrt(n), name


def test_a_value_depends_on_its_own_position_only():
    whole = uniform(1, 2, np.arange(100))
    assert uniform(1, 2, 17) == whole[17]
    np.testing.assert_array_equal(uniform(1, 2, [[90, 3], [3, 5]]), whole[[[90, 3], [3, 5]]])
    assert uniform(1, 2, []).shape == (0,)


@pytest.mark.parametrize("n", [0, 1, 2, 10, 1000])
def test_permutation(n):
    first = permutation(7, 0, n)
    np.testing.assert_array_equal(np.sort(first), np.arange(n))
    np.testing.assert_array_equal(first, permutation(7, 0, n))
    if n >= 10:
        assert not np.array_equal(first, permutation(7, 1, n))
        assert not np.array_equal(first, permutation(8, 0, n))


def test_all_orders_are_equally_likely():
    orders = dict.fromkeys(itertools.permutations(range(4)), 0)
    for epoch in range(4800):
        orders[tuple(permutation(0, epoch, 4).tolist())] += 1
    assert stats.chisquare(list(orders.values())).pvalue > 1e-3
