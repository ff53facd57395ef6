"""Windows that agree: exact where the denoiser is local, for every sampler, and without seams; noise by place."""

import pytest
import torch

from osmotic import times
from osmotic.cascade import nearest
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import Estimate, V, like
from osmotic.guidance import ClassifierFree
from osmotic.noise import generators, normal
from osmotic.oracles import Gaussian
from osmotic.samplers import CATALOG, prior, sample
from osmotic.schedules import Cosine, Rectified
from osmotic.tiled import Cells, Tiled, cut, inside, starts

PATH = Rectified()


def local() -> Gaussian:
    """Independent cells with a mean and a variance of their own, the same for all: one cell of it."""
    return Gaussian(PATH, torch.tensor([0.3]).double(), torch.tensor([[0.5]]).double())


class Everywhere(Denoiser):
    """The exact denoiser of independent cells, on samples of any shape; with a learned variance where asked."""

    def __init__(self, variance=False):
        super().__init__()
        self.cell, self.variance, self.calls = local(), variance, []
        self.around(self.cell)

    def forward(self, x, t, cond=None, s=None):
        self.calls.append(tuple(x.shape))
        alpha, sigma = like(x, *self.schedule.numbers(t))
        gain = 0.5 * alpha / (0.5 * alpha**2 + sigma**2)
        x0 = 0.3 + gain * (x - 0.3 * alpha)
        x0 = x0 if cond is None or cond.image is None else x0 + cond.image
        return Estimate(x0, (x - alpha * x0) / sigma, x0 / 2 if self.variance else None)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(7,), (9, 6), (10, 11), (6, 5, 7)])
@pytest.mark.parametrize("stride", [1, 3, 4])
def test_where_cells_do_not_hear_of_each_other_windows_change_nothing(shape, stride):
    window = (5,) * len(shape)
    x, t = draws(3, 2, *shape), torch.tensor([0.2, 0.5, 0.9]).double()
    image = draws(3, 2, *shape, seed=1)
    whole = Everywhere(variance=True)
    tiled = Tiled(whole, window, (stride,) * len(shape), batch=7)
    cond = Condition(image=image, vector=torch.tensor([1, 2, 3]))
    for one, other in zip(
        (*tiled(x, t, cond), tiled(x, t, cond).v), (*whole(x, t, cond), whole(x, t, cond).v), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-12)
    assert max(n for n, *_ in whole.calls if _ != [2, *shape]) <= 7  # two windows of three samples at once, no more


@pytest.mark.parametrize("name", [name for name, make in CATALOG.items() if not make().aims])
def test_with_every_sampler(name):
    """Samples of 8 x 12 cells by windows of 4 x 4 are those of the same denoiser on the whole, noise and all."""
    sampler, grid = CATALOG[name], times.suggested(1.0, 96)(PATH, 4)
    if sampler().order == 0:
        pytest.skip("its steps are of its own")
    found = []
    for denoiser in (Everywhere(), Tiled(Everywhere(), (4, 4), (3, 2))):
        keyed = generators(0, range(2))
        x = prior(denoiser, (2, 1, 8, 12), keyed).double()
        found.append(sample(sampler(), denoiser, x, grid, generator=keyed))
    assert torch.allclose(*found, atol=1e-5)


def test_one_window_is_the_denoiser_itself_and_a_network_too():
    network = NeuralDenoiser(Toy(), Cosine(), V())
    x, t = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor(0.4).double()
    tiled = Tiled(network, (6, 6), (3, 3))
    assert torch.allclose(tiled(x, t).x0, network(x, t).x0, atol=1e-6)
    assert tiled.places((6, 6)) == [(slice(0, 6), slice(0, 6))]
    # On more cells than a window the estimate still meets the path's equation, which solvers read.
    wide = torch.randn(1, 1, 9, 12, generator=torch.Generator().manual_seed(1))
    x0, eps = tiled(wide, t)
    alpha, sigma = Cosine().scalars(t)
    assert torch.allclose(alpha * x0 + sigma * eps, wide, atol=1e-5)


class Toy(torch.nn.Module):
    """A convolution that hears of the rim of its window."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)
        with torch.no_grad():
            self.layer.weight.fill_(0.1)
            self.layer.bias.fill_(0.2)

    def forward(self, x, time, cond=None):
        return self.layer(x) + time.reshape(-1, 1, 1, 1) / 1000


def test_the_weighted_mean_by_hand():
    """Two windows of 4 cells over 6: the middle two lie in both, weighted by their distance from each end."""

    class Named(Denoiser):
        schedule = PATH

        def forward(self, x, t, cond=None, s=None):
            return Estimate(cond.image, torch.zeros_like(x))

    image = torch.tensor([0.0, 0, 0, 0, 0, 0]).reshape(1, 1, 6)

    class Numbered(Named):
        def forward(self, x, t, cond=None, s=None):
            numbers = torch.arange(len(x)).double().reshape(-1, 1, 1).expand_as(x)
            return Estimate(numbers, numbers)

    x0, eps = Tiled(Numbered(), (4,), (2,))(draws(1, 1, 6), torch.tensor(0.5), Condition(image=image))
    # Weights at (0.5, 1.5, 2, 2)... of a ramp over 2 cells: 0.25, 0.75 at the rim, 1 beyond: cells 2, 3 in both.
    first, second = torch.tensor([0.75, 0.25]), torch.tensor([0.25, 0.75])
    assert torch.allclose(x0[0, 0], torch.tensor([0, 0, *(second / (first + second)).tolist(), 1, 1]).double())
    assert torch.equal(x0, eps)


def test_conditions_are_cut_where_they_have_places_and_guidance_goes_around_or_inside():
    cond = Condition(
        vector=torch.tensor([[1.0, 0.2], [2.0, 0.3]]),
        image=draws(2, 1, 6, 8),
        valid=torch.ones(2, 6, 8, dtype=torch.bool),
        keep=torch.tensor([[True, False, True]] * 2),
    )
    places = [(slice(0, 4), slice(0, 4)), (slice(2, 6), slice(4, 8))]
    told = cut(cond, places, 2)
    assert torch.equal(told.image[2:], cond.image[:, :, 2:6, 4:8])
    assert torch.equal(told.vector[2:], cond.vector)
    assert told.valid.shape == (4, 4, 4)
    assert torch.equal(told.keep, cond.keep.repeat(2, 1))
    assert torch.equal(cut(cond[:1], places, 2).vector, cond.vector[:1].repeat(4, 1))
    assert cut(None, places, 2) is None
    with pytest.raises(TypeError, match=r"osmotic\.Condition"):
        cut("a cat", places, 2)
    x, t = draws(2, 1, 6, 8), torch.tensor(0.5)

    class Seen(Everywhere):
        def forward(self, x, t, cond=None, s=None):
            hidden = ~cond.keep[:, 1]
            x0 = x * 0.5 + cond.image * hidden.reshape(-1, 1, 1, 1)
            return Estimate(x0, x0)

    inner = ClassifierFree(Tiled(Seen(), (4, 4), (2, 4)), 3.0)(x, t, cond).x0
    outer = Tiled(ClassifierFree(Seen(), 3.0), (4, 4), (2, 4))(x, t, cond).x0
    assert torch.allclose(inner, outer, atol=1e-12)


def test_no_seams_in_a_field_whose_windows_are_drawn_exactly():
    """A stationary field of waves of period 8 and disturbances, drawn by the exact law of its 16-cell windows on 128
    cells a side, 64 times a window: steps between neighbours across windows' edges are as large as all others.

    The standard error of the difference is estimated from the pictures, which are independent.
    """
    side, large = 16, 128
    window = field(side)
    denoiser = Tiled(Windowed(window, side), (side, side), (12, 12), batch=400)
    n = 3
    x = sample(
        CATALOG["flow-2pc"](),
        denoiser,
        prior(denoiser, (n, 1, large, large), Cells([(0, i) for i in range(n)])),
        times.suggested(1.0, side * side)(PATH, 8),
    )
    assert x.std().item() == pytest.approx(1.0, abs=0.1)
    edges = sorted({e for s in starts(large, side, 12) for e in (s, s + side)} - {0, large})
    seam = torch.zeros(large - 1, dtype=torch.bool)
    seam[[e - 1 for e in edges]] = True
    for steps in (x.diff(dim=3).abs().mean((1, 2)), x.diff(dim=2).abs().mean((1, 3))):
        across, within = steps[:, seam], steps[:, ~seam]
        error = (steps.var() / len(edges) / n).sqrt()
        assert across.mean() < within.mean() + 3 * error
    # A denoiser that cuts the same field into windows that know nothing of each other fails by far.
    apart = Tiled(Windowed(window, side), (side, side), (side, side), batch=400)
    y = sample(
        CATALOG["flow-2pc"](),
        apart,
        prior(apart, (1, 1, large, large), Cells([(0, 0)])),
        times.suggested(1.0, side * side)(PATH, 8),
    )
    steps = y.diff(dim=3).abs().mean((1, 2))[0]
    assert steps[side - 1 :: side].mean() > 1.5 * steps.mean()


def field(side: int) -> torch.Tensor:
    """The covariance of a window of waves of period 8 and smooth disturbances, ``(side^2, side^2)``."""
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double()
    apart = places[:, None] - places[None]
    waves = torch.cos(apart * (2 * torch.pi / 8)).sum(-1) / 2
    return 0.5 * waves + 0.5 * torch.exp(-apart.square().sum(-1) / (2 * 2.0**2)) + 1e-4 * torch.eye(side**2)


class Windowed(Denoiser):
    """The exact denoiser of such windows."""

    def __init__(self, covariance, side):
        super().__init__()
        self.inner = Gaussian(PATH, torch.zeros(1, side, side), covariance.float())
        self.around(self.inner)

    def forward(self, x, t, cond=None, s=None):
        return self.inner(x, t, cond, s)


def test_noise_by_place_is_white_the_same_in_parts_and_new_at_every_draw():
    cells = Cells([(0, 0), (0, 1)], side=5)
    first, second = (normal((2, 3, 12, 17), cells) for _ in range(2))
    assert not torch.equal(first, second)
    part = normal((1, 3, 7, 9), Cells([(0, 1)], side=5))
    assert torch.equal(part, first[1:, :, :7, :9])
    many = normal((1, 1, 300, 300), Cells([(1,)]))
    n = many.numel()
    assert abs(float(many.mean())) < 4 / n**0.5
    assert abs(float(many.var()) - 1) < 4 * (2 / n) ** 0.5
    # Across the borders of the blocks that are drawn together neighbours are as independent as elsewhere.
    assert abs(float((many[..., 63] * many[..., 64]).mean())) < 4 / 300**0.5
    assert torch.equal(normal((2, 3, 12, 17), Cells([(0, 0), (0, 1)], side=5)), first)
    with pytest.raises(ValueError, match="a key for each of 1 samples; 2 were asked for"):
        normal((2, 1, 4), Cells([(0,)]))


def test_windows_cover_everything_and_what_does_not_fit_is_refused():
    assert starts(10, 4, 3) == [0, 3, 6]
    assert starts(11, 4, 3) == [0, 3, 6, 7]
    assert starts(4, 4, 3) == [0]
    assert [p[0].start for p in Tiled(Everywhere(), (4,), (4,)).places((8,))] == [0, 4]
    with pytest.raises(ValueError, match="strides of 1 to that many"):
        Tiled(Everywhere(), (4, 4), (2, 5))
    with pytest.raises(ValueError, match="does not fit a sample"):
        Tiled(Everywhere(), (4, 4), (2, 2))(draws(1, 1, 3, 8), torch.tensor(0.5))
    low = draws(1, 1, 4, 4)
    assert torch.equal(nearest(low, 2)[inside((slice(2, 6), slice(0, 4)))], nearest(low[..., 1:3, :2], 2))
