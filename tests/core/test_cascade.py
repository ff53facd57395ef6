"""A cascade with exact stages reproduces the joint law of a Gaussian field; its resizes are what they say."""

import math

import pytest
import torch
from torch.nn import functional

from osmotic import times
from osmotic.cascade import Augmented, linear, nearest
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.guidance import Downsample
from osmotic.noise import normal
from osmotic.oracles import Gaussian
from osmotic.samplers import CATALOG, sample
from osmotic.schedules import CATALOG as SCHEDULES
from osmotic.schedules import VP, Cosine, Rectified

SIDE, FACTOR = 4, 2
D, L = SIDE**2, (SIDE // FACTOR) ** 2
SHRINK = Downsample(FACTOR)
A = SHRINK(torch.eye(D).double().reshape(D, 1, SIDE, SIDE)).flatten(1).T  # (L, D)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def field() -> tuple[torch.Tensor, torch.Tensor]:
    """A stationary field of correlation exp(-distance / 1.5) with a mean: ``(D,)`` and ``(D, D)``."""
    places = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    return draws(D, seed=1), 0.8 * torch.exp(-torch.cdist(places, places) / 1.5)


class Super(Denoiser):
    """The exact denoiser of a Gaussian field given ``y = alpha low + sigma z``, with the level that the condition has.

    ``x0 | y`` is normal with gain ``K = alpha C A' S^-1, S = alpha^2 A C A' + sigma^2 I`` and covariance ``C - alpha K
    A C``, one for each sample's own level.
    """

    def __init__(self, schedule, noises):
        super().__init__()
        self.schedule, self.noises, self.read = schedule, noises, None

    def forward(self, x, t, cond=None, s=None):
        if cond is not self.read:  # the law given y is the same at all times of a run
            self.read, (self.told, left) = cond, self._law(cond)
            self.variances, self.axes = torch.linalg.eigh(left)
        a, b = like(self.told, *self.schedule.numbers(t))
        z = torch.einsum("bd,bde->be", x.flatten(1) - a * self.told, self.axes) / (a**2 * self.variances + b**2)
        eps = torch.einsum("be,bde->bd", b * z, self.axes)
        x0 = self.told + torch.einsum("be,bde->bd", a * self.variances * z, self.axes)
        return Estimate(x0.reshape(x.shape), eps.reshape(x.shape))

    def _law(self, cond):
        mean, covariance = field()
        angle = cond.vector[:, -1] * (math.pi / 2)
        alpha, sigma = torch.cos(angle), torch.sin(angle)
        # An angle knows the pair up to a scale, which is the path's own.
        scale = self._scale(alpha, sigma)
        alpha, sigma = (alpha * scale)[:, None, None], (sigma * scale)[:, None, None]
        seen = alpha**2 * (A @ covariance @ A.T) + sigma**2 * torch.eye(L).double()
        gain = alpha * (covariance @ A.T) @ torch.linalg.inv(seen)
        y = SHRINK(cond.image).flatten(1)
        told = mean + torch.einsum("bdl,bl->bd", gain, y - alpha[:, 0] * (A @ mean))
        return told, covariance - alpha * gain @ A @ covariance

    def _scale(self, alpha, sigma):
        if isinstance(self.noises, VP | Cosine):
            return 1.0
        return 1 / (alpha + sigma)  # the rectified path


def stages(path, noises=None) -> tuple[Gaussian, Super, Augmented]:
    mean, covariance = field()
    side = SIDE // FACTOR
    base = Gaussian(path, (A @ mean).reshape(1, side, side), A @ covariance @ A.T)
    noises = noises or path
    return base, Super(path, noises), Augmented(noises, lambda low: nearest(low, FACTOR))


def cascade(path, sampler, steps: int, s, n: int, noise: torch.Tensor, generator=None, noises=None):
    """n draws of (low, y, high) from unit noise ``(n, L + L + D)``: of the base, of the augmentation, of the second."""
    base, upper, augmented = stages(path, noises)
    grid = times.suggested(1.0, D)(path, steps)
    scale = math.hypot(*path.scalars(1.0))
    first, blur, second = noise.split([L, L, D], 1)
    side = SIDE // FACTOR
    low = sample(sampler, base, scale * first.reshape(n, 1, side, side), grid, generator=generator)
    cond = augmented(low, s, blur.reshape(low.shape))
    high = sample(sampler, upper, scale * second.reshape(n, 1, SIDE, SIDE), grid, cond, generator)
    return low.flatten(1), SHRINK(cond.image).flatten(1), high.flatten(1)


def affine(path, steps: int, s: float, sampler: str = "flow-3pc", noises=None):
    """Mean and covariance of (low, y, high) of a deterministic cascade: it is affine in the noise, so without draws."""
    n = 2 * L + D
    noise = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
    out = torch.cat(cascade(path, CATALOG[sampler](), steps, s, n + 1, noise, noises=noises), 1)
    matrix = (out[1:] - out[0]).T
    return out[0], matrix @ matrix.T


def truth(alpha: float, sigma: float, joint: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of (low, y, high): of the data where ``joint``, else with low and high drawn given y."""
    mean, c = field()
    means = torch.cat([A @ mean, alpha * (A @ mean), mean])
    maps = torch.cat([A, alpha * A, torch.eye(D).double()])
    cov = maps @ c @ maps.T
    cov[L : 2 * L, L : 2 * L] += sigma**2 * torch.eye(L).double()
    if not joint:
        y = slice(L, 2 * L)
        cross = cov[:L, y] @ torch.linalg.inv(cov[y, y]) @ cov[y, 2 * L :]
        cov[:L, 2 * L :], cov[2 * L :, :L] = cross, cross.T
    return means, cov


@pytest.mark.parametrize("path", ["vp", "rectified", "cosine"])
def test_without_noise_the_joint_law_is_the_fields(path):
    """Base, then super-resolution of exactly what was drawn: all of (low, high), by a solver's affine map."""
    path = SCHEDULES[path]()
    mean, cov = affine(path, 60, 0.0)
    means, covs = truth(1.0, 0.0, joint=True)
    # VP has signal left at t = 1, 0.0066 of it, that sampling starts without: no number of steps brings it back.
    left, shift = (1e-3, 1e-2) if isinstance(path, VP) else (1e-5, 1e-9)
    assert torch.allclose(cov, covs, atol=left)
    assert torch.allclose(mean, means, atol=shift)
    # Whatever the path, the high resolution's block means are the low one that was drawn.
    assert torch.allclose(A @ cov[2 * L :], cov[:L], atol=1e-9)


@pytest.mark.parametrize("s", [0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("path", ["rectified", "cosine"])
def test_at_any_noise_the_pair_it_was_told_and_drew_has_its_joint_law(path, s):
    """(y, high) is exact and so is high; (low, high) is what two draws given y are, and nothing else."""
    path = SCHEDULES[path]()
    mean, cov = affine(path, 60, s)
    means, covs = truth(*path.scalars(s), joint=False)
    assert torch.allclose(cov, covs, atol=1e-5)
    assert torch.allclose(mean, means, atol=1e-9)
    joint = truth(*path.scalars(s), joint=True)[1]
    assert torch.allclose(covs[L:, L:], joint[L:, L:], atol=1e-12)
    # The price of the noise: high hears of low only as much as y does.
    lost = (joint - covs)[:L, 2 * L :].abs().max()
    assert lost > 0.05 * s


def test_more_steps_come_closer_and_the_noises_path_may_be_another():
    _, covs = truth(*Rectified().scalars(0.3), joint=False)
    errors = [float((affine(Cosine(), n, 0.3, noises=Rectified())[1] - covs).abs().max()) for n in (10, 20, 60)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


@pytest.mark.parametrize("name", ["ddpm", "ddim", "heun"])
def test_by_draws_and_with_a_level_for_each_sample(name):
    """4000 draws with s drawn too: high has the field's moments within five standard errors and the steps' bias."""
    n, generator = 4000, torch.Generator().manual_seed(0)
    s = torch.rand(n, generator=generator, dtype=torch.float64)
    noise = normal((n, 2 * L + D), generator, dtype=torch.float64)
    _, _, high = cascade(Cosine(), CATALOG[name](), 60, s, n, noise, generator)
    mean, covariance = field()
    variances = covariance.diagonal()
    error = ((variances[:, None] * variances + covariance.square()) / n).sqrt()
    assert ((high.mean(0) - mean).abs() < 5 * (variances / n).sqrt()).all()
    assert ((high.T.cov() - covariance).abs() < 5 * error + 0.02).all()
    # They are fine enough to see neighbours that know nothing of each other.
    assert covariance[0, 1] > 4 * (5 * error + 0.02)[0, 1]


def test_a_wrong_low_resolution_misleads_less_the_more_noise_there_is():
    """The reason for the augmentation: an error of the base moves high by the gain ``alpha K``, which falls with s."""
    _, upper, augmented = stages(Cosine())
    x, t, zero = torch.zeros(1, 1, SIDE, SIDE).double(), torch.tensor(1.0).double(), torch.zeros(1, 1, 2, 2).double()
    moved = []
    for s in (0.0, 0.2, 0.5, 0.9):
        right, wrong = (upper(x, t, augmented(zero + shift, s, zero)).x0 for shift in (0.0, 1.0))
        moved.append(float((wrong - right).abs().max()))
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 0.9
    assert moved[-1] < 0.2


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_linear_is_torchs_interpolation_on_any_axes(factor):
    x = draws(2, 3, 4, 5)
    expected = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    assert torch.allclose(linear(x, factor), expected, atol=1e-6)  # torch's weights are float32's
    row = functional.interpolate(x[0], scale_factor=factor, mode="linear", align_corners=False)
    assert torch.allclose(linear(x[0], factor, (-1,)), row, atol=1e-6)
    assert torch.allclose(linear(x.mT, factor, (-2,)), linear(x, factor, (-1,)).mT, atol=1e-12)
    volume = draws(1, 2, 3, 2, 4)
    expected = functional.interpolate(volume, scale_factor=factor, mode="trilinear", align_corners=False)
    assert torch.allclose(linear(volume, factor, (-3, -2, -1)), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_nearest_repeats_and_both_keep_what_they_should(factor):
    x = draws(2, 3, 4, 5)
    assert torch.allclose(nearest(x, factor), functional.interpolate(x, scale_factor=factor, mode="nearest"))
    assert torch.allclose(Downsample(factor)(nearest(x, factor)), x, atol=1e-12)
    ramp = torch.arange(6.0).double().expand(1, 1, 2, 6)
    inner = linear(ramp, factor, (-1,))[..., factor : -factor or None]
    assert torch.allclose(inner.diff(), torch.ones(()).double() / factor, atol=1e-6)  # a slope stays one
    assert torch.allclose(linear(torch.ones_like(x), factor), torch.ones(()).double())


@pytest.mark.parametrize("path", list(SCHEDULES))
def test_the_level_is_a_number_of_the_log_snr_alone(path):
    schedule = SCHEDULES[path]()
    s, low = torch.tensor([0.2, 0.5, 0.8]).double(), draws(3, 1, 2, 2)
    cond = Augmented(schedule, lambda x: nearest(x, 2))(low, s, torch.zeros_like(low))
    expected = torch.atan(torch.exp(-schedule.log_snr(s) / 2)) * 2 / math.pi
    assert torch.allclose(cond.vector[:, 0], expected, atol=1e-9)
    alpha = schedule(s)[0].reshape(3, 1, 1, 1)
    assert torch.allclose(cond.image, nearest(alpha * low, 2), atol=1e-9)
    plain = Augmented(schedule, lambda x: nearest(x, 2))(low, 0.0, draws(3, 1, 2, 2, seed=1))
    assert torch.equal(plain.image, nearest(low, 2))
    assert torch.equal(plain.vector, torch.zeros(3, 1).double())


def test_what_else_is_known_stays():
    low, eps = draws(3, 1, 2, 2), draws(3, 1, 2, 2, seed=1)
    augmented = Augmented(Cosine(), lambda x: linear(x, 2))
    labels = Condition(vector=torch.tensor([2, 0, 1]), tokens=torch.ones(3, 4, dtype=torch.int64))
    told = augmented(low, 0.5, eps, labels)
    assert told.vector[:, 0].tolist() == [2, 0, 1]
    assert told.vector[:, 1].tolist() == pytest.approx([0.5] * 3)
    assert torch.equal(told.tokens, labels.tokens)
    numbers = augmented(low, 0.5, eps, Condition(vector=draws(3, 2)))
    assert numbers.vector.shape == (3, 3)
    with pytest.raises(ValueError, match="has an image already"):
        augmented(low, 0.5, eps, told)
    with pytest.raises(ValueError, match=r"a time in \[0, 1\]"):
        augmented(low, 1.5, eps)
    with pytest.raises(ValueError, match="counted from the end"):
        linear(low, 2, (2, 3))
    with pytest.raises(ValueError, match="factor of at least 1"):
        linear(low, 0)
