"""One pass over the pairs gives what leaving each block out gives."""

import numpy as np
import pytest

from osmotic.metrics import GaussianKernel, NegativeDistance, Polynomial, jackknife, mmd, mmd_interval


@pytest.mark.parametrize(
    "kernel", [Polynomial(), GaussianKernel(1.5), NegativeDistance()], ids=lambda k: type(k).__name__
)
@pytest.mark.parametrize(("n", "m", "blocks"), [(60, 60, 20), (47, 101, 7), (30, 25, 3)])
def test_of_laws_that_differ_it_is_the_jackknife(kernel, n, m, blocks):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 3)), rng.normal(2, 1.2, size=(m, 3))
    slow = jackknife(lambda a, b: mmd(a, b, kernel), x, y, blocks=blocks, seed=3)
    fast = mmd_interval(x, y, kernel, blocks=blocks, seed=3)
    assert [fast.value, fast.low, fast.high] == pytest.approx([slow.value, slow.low, slow.high], rel=1e-9)


@pytest.mark.parametrize("kernel", [GaussianKernel(1.5), NegativeDistance()], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_it_holds_the_truth(kernel, shift):
    """Of 100 pairs of sets, the intervals of 95 % miss a truth that is known from a far larger set in 1 to 14 (or, at
    equal laws, where they are wide on purpose, in fewer)."""
    rng = np.random.default_rng(1)
    many = rng.normal(size=(4000, 2)), rng.normal(size=(4000, 2)) + np.array([shift, 0])
    truth = 0.0 if shift == 0 else mmd(*many, kernel)
    missed = 0
    for trial in range(100):
        moved = rng.normal(size=(60, 2)) + np.array([shift, 0])
        found = mmd_interval(rng.normal(size=(80, 2)), moved, kernel, seed=trial)
        missed += not found.low <= truth <= found.high
    assert missed <= 14
    assert missed >= 1 or shift == 0


def test_wrong_sets_are_named():
    x = np.zeros((10, 2))
    with pytest.raises(ValueError, match="at least 2 blocks; got 1"):
        mmd_interval(x, x, Polynomial(), blocks=1)
    with pytest.raises(ValueError, match="at least 40 for this score; got 10"):
        mmd_interval(x, x, Polynomial())
