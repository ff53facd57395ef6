"""Linear measurements: every operator against its own dense matrix."""

import math

import pytest
import torch

from osmotic.guidance import Blur, Downsample, Grey, Mask, Matrix


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TWO_TAPS = torch.tensor([0.5, 0.5], dtype=torch.float64)  # kills the highest frequency: a singular matrix
SKEW = torch.tensor([0.1, 0.6, 0.2, 0.1], dtype=torch.float64)

OPERATORS = {
    "mask of a row": (lambda: Mask(torch.tensor([1, 0, 1, 0, 1])), (5,)),
    "mask of a picture": (lambda: Mask(draws(3, 4, 4) > 0), (3, 4, 4)),
    "mask of all channels": (lambda: Mask(draws(1, 4, 4) > 0), (3, 4, 4)),
    "past of a sequence": (lambda: Mask(torch.arange(6)[None] < 4), (2, 6)),
    "picture by 2": (lambda: Downsample(2), (3, 4, 6)),
    "row by 3": (lambda: Downsample(3, (-1,)), (6,)),
    "sequence by 2": (lambda: Downsample(2, (-1,)), (3, 8)),
    "first axis by 2": (lambda: Downsample(2, (-3,)), (4, 3, 5)),
    "gaussian of a row": (lambda: Blur.gaussian(0.6, (-1,)), (9,)),
    "gaussian of a picture": (lambda: Blur.gaussian(0.4), (2, 5, 8)),
    "gaussian longer than its axis": (lambda: Blur.gaussian(0.7, (-1,)), (2, 5)),
    "two taps": (lambda: Blur(TWO_TAPS, (-1,)), (2, 6)),
    "skew, two axes apart": (lambda: Blur(SKEW, (-3, -1)), (6, 2, 4)),
    "luma": (Grey, (3, 2, 2)),
    "pairs of columns": (lambda: Grey((0.5, -2.0), -2), (2, 6)),
    "wide matrix": (lambda: Matrix(draws(3, 6), (2, 3)), (2, 3)),
    "tall matrix": (lambda: Matrix(draws(6, 2)), (2,)),
    "matrix of rank 1": (lambda: Matrix(torch.ones(3, 4, dtype=torch.float64)), (4,)),
}


def dense(apply, shape: tuple[int, ...]) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The matrix of a linear map, and the shape of what comes out."""
    d = math.prod(shape)
    out = apply(torch.eye(d, dtype=torch.float64).reshape(d, *shape))
    return out.flatten(1).T, tuple(out.shape[1:])


@pytest.mark.parametrize("name", list(OPERATORS))
def test_an_operator_and_what_follows_are_its_matrix(name):
    make, shape = OPERATORS[name]
    operator = make()
    a, seen = dense(operator, shape)
    assert a.abs().max() > 0.05
    assert torch.allclose(dense(operator.adjoint, seen)[0], a.T, atol=1e-14)
    inverse = dense(operator.inverse, seen)[0]
    assert torch.allclose(inverse, torch.linalg.pinv(a, rtol=1e-9), atol=1e-9)
    assert torch.allclose(a @ inverse @ a, a, atol=1e-10)
    for noise in (0.3, 0.0):
        exact = torch.linalg.pinv(2 * a @ a.T + noise * torch.eye(len(a), dtype=torch.float64), rtol=1e-9)
        assert torch.allclose(dense(lambda y: operator.solve(y, 2.0, noise), seen)[0], exact, atol=1e-8)  # noqa: B023
    squares = dense(lambda y: operator.spectral(y, lambda v: v), seen)[0]
    assert torch.allclose(squares, a @ a.T, atol=1e-12)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_a_restored_sample_measures_y_and_is_the_nearest_that_does(name):
    make, shape = OPERATORS[name]
    operator = make()
    x, y = draws(4, *shape, seed=1), operator(draws(4, *shape, seed=2))
    restored = operator.restore(x, y)
    assert torch.allclose(operator(restored), y, atol=1e-9)
    # What was changed lies in the range of A': orthogonal to all that A does not see.
    change, unseen = restored - x, draws(4, *shape, seed=3)
    unseen = unseen - operator.inverse(operator(unseen))
    assert (change * unseen).flatten(1).sum(1).abs().max() < 1e-9


@pytest.mark.parametrize("name", list(OPERATORS))
def test_single_precision_and_one_level_a_sample(name):
    make, shape = OPERATORS[name]
    operator, x = make(), draws(3, *shape, seed=4)
    y, signal = operator(x), torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    single = operator(x.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), y, atol=1e-5)
    assert operator.adjoint(single).dtype == operator.solve(single, 1.0, 0.1).dtype == torch.float32
    for noise in (0.0, 0.2):
        each = torch.cat([operator.solve(y[i : i + 1], float(signal[i]), noise) for i in range(3)])
        assert torch.allclose(operator.solve(y, signal, noise), each, atol=1e-12)


def test_masks_of_every_row_of_a_table_and_cells_that_are_nan():
    mask = draws(3, 5) > 0
    table = torch.where(mask, draws(3, 5, seed=1), math.nan)
    operator = Mask(mask)
    y = operator.measured(table)
    assert torch.equal(y, torch.where(mask, table, 0.0))
    x = draws(6, 5, seed=2)  # twice the rows, repeated in turn
    assert torch.equal(operator(x) != 0, torch.cat([mask, mask]))
    assert torch.equal(operator.restore(x[:3], table)[mask], table[mask])


def test_grey_and_blur_keep_what_is_constant():
    x = torch.ones(1, 3, 12, 12, dtype=torch.float64)
    assert torch.allclose(Grey()(x), x[:, :1])
    assert torch.allclose(Blur.gaussian(1.2)(x), x)
    spot = torch.zeros(1, 1, 11, dtype=torch.float64)
    spot[..., 4] = 1
    assert torch.allclose(Blur(SKEW, (-1,))(spot)[0, 0, 2:6], SKEW)  # its centre is entry 2


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: Mask(torch.tensor([0.5])), "other values"),
        (lambda: Mask(torch.ones(3))(draws(2, 4)), r"A mask of shape \(3,\) does not fit samples of shape \(2, 4\)"),
        (lambda: Mask(torch.ones(2, 4))(draws(3, 4)), "2 masks do not fit a batch of 3"),
        (lambda: Downsample(0), "factor of at least 1"),
        (lambda: Downsample(2)(draws(1, 4, 5)), "axis -1 of samples of shape"),
        (lambda: Downsample(2)(draws(2, 4)), "has no axis -2 beside its first"),
        (lambda: Downsample(2, (0,)), "counted from the end"),
        (lambda: Blur(draws(2, 2)), "one row of weights"),
        (lambda: Blur.gaussian(0.0), "positive deviation"),
        (lambda: Grey((0.0, 0.0)), "not all 0"),
        (lambda: Grey()(draws(1, 4, 2, 2)), "Grey has 3 weights"),
        (lambda: Matrix(draws(3, 6), (5,)), "does not map samples"),
        (lambda: Matrix(draws(3, 6))(draws(2, 5)), r"maps samples of shape \(6,\)"),
    ],
)
def test_wrong_use_is_refused_in_a_sentence(use, words):
    with pytest.raises(ValueError, match=words):
        use()
