"""Latent denoisers seen in data space: exact on every path and target, and unchanged by what goes around them."""

import itertools
import math

import pytest
import torch
from tests.codecs.test_codecs import WHOLE, Stretch, data, draws
from torch import nn

from osmotic import likelihood, times
from osmotic.codecs import DCT, PCA, Composed, Decoded, Haar, Mixed, Neural, Whitening
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import TARGETS
from osmotic.guidance import ClassifierFree, Downsample, Inpaint, given
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.phase import CLD
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import DDIM, Gamma, prior, sample
from osmotic.schedules import CATALOG, VP, Cosine, Rectified

TURNS = {name: case for name, case in WHOLE.items() if "whitening" not in name}


def law(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A Gaussian of data: mean ``(*S)`` and covariance ``(d, d)``."""
    d = math.prod(shape)
    root = draws(d, d, seed=21) / d**0.5
    return draws(*shape, seed=20), root @ root.T + 0.05 * torch.eye(d).double()


def latent_law(codec, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same Gaussian as one of latents, by the codec's own Jacobian."""
    mean, covariance = law(shape)
    d = math.prod(shape)
    origin = codec.encode(torch.zeros(1, *shape).double())
    matrix = (codec.encode(torch.eye(d).double().reshape(d, *shape)) - origin).flatten(1).T
    return codec.encode(mean[None])[0], matrix @ covariance @ matrix.T


class Known(nn.Module):
    """A network whose output, in any target space, is that of the oracle at its one time."""

    def __init__(self, base: Denoiser, target, t: torch.Tensor):
        super().__init__()
        self.base, self.target, self.t = base, target, t

    def forward(self, x, time, cond=None):
        return self.base(x, self.t).at(*self.target.numbers(self.base.schedule, self.t))


def pairs() -> list[tuple[str, str]]:
    """Every target on every path on which it can be decoded."""
    found = []
    for path, target in itertools.product(CATALOG, TARGETS):
        try:
            NeuralDenoiser(nn.Identity(), CATALOG[path](), TARGETS[target](0.5))
        except ValueError:
            continue
        found.append((path, target))
    return found


@pytest.mark.parametrize(("path", "target"), pairs())
def test_a_network_of_latents_is_the_pixel_denoiser_of_the_gaussian(path, target):
    """Every target and every schedule, three levels, to 1e-10 of the numbers' size."""
    shape = (3, 4, 6)
    schedule, codec = CATALOG[path](), Composed([Haar(), DCT((-3,)), PCA.fit(data(12, 2, 3))])
    pixel = Gaussian(schedule, *law(shape))
    base = Gaussian(schedule, *latent_law(codec, shape))
    for share in (0.2, 0.5, 0.9):
        t = torch.tensor(share, dtype=torch.float64)
        network = Known(base, TARGETS[target](0.5), t)
        decoded = Decoded(NeuralDenoiser(network, schedule, network.target), codec)
        alpha, sigma = schedule.scalars(t)
        x = alpha * pixel.sample(4, torch.Generator().manual_seed(0)) + sigma * draws(4, *shape)
        for found, exact in zip(decoded(x, t), pixel(x, t), strict=True):
            assert torch.allclose(found, exact, rtol=0, atol=1e-10 * max(1.0, float(exact.abs().max())))


@pytest.mark.parametrize("name", list(TURNS))
def test_every_rotation_gives_the_pixel_denoiser_at_each_samples_own_time(name):
    make, shape = TURNS[name]
    codec = make()
    pixel = Gaussian(VP(), *law(shape))
    decoded = Decoded(Gaussian(VP(), *latent_law(codec, shape)), codec)
    x, t = draws(5, *shape), torch.linspace(0.05, 1, 5, dtype=torch.float64)
    for found, exact in zip(decoded(x, t), pixel(x, t), strict=True):
        assert torch.allclose(found, exact, rtol=0, atol=1e-10)
    s = torch.tensor(0.02, dtype=torch.float64)  # a flow map stays one
    aimed = decoded(x, t, None, s).at(*VP().numbers(s))
    assert torch.allclose(aimed, pixel.flow(x, t, s), atol=1e-10)


@pytest.mark.parametrize("name", list(WHOLE))
def test_log_densities_differ_by_the_log_determinant(name):
    make, shape = WHOLE[name]
    codec = make()
    pixel, base = Gaussian(VP(), *law(shape)), Gaussian(VP(), *latent_law(codec, shape))
    x = pixel.sample(6, torch.Generator().manual_seed(3))
    assert torch.allclose(base.log_prob(codec.encode(x)) + codec.log_det(shape), pixel.log_prob(x), atol=1e-8)


def test_the_flows_log_density_is_the_decoded_ones():
    shape, codec = (1, 4), Haar(1, 2)
    base = Gaussian(Cosine(), *latent_law(codec, shape))
    x = Gaussian(Cosine(), *law(shape)).sample(4, torch.Generator().manual_seed(3))
    decoded = likelihood.log_prob(Decoded(base, codec), x)
    assert torch.allclose(decoded, likelihood.log_prob(base, codec.encode(x)), atol=1e-7)
    assert torch.allclose(decoded, Gaussian(Cosine(), *law(shape)).log_prob(x), atol=1e-4)  # data plus noise of 1e-3


FIXED = [name for name, make in SAMPLERS.items() if not make().stochastic and make().evaluations]


@pytest.mark.parametrize("name", FIXED)
def test_samplers_of_fixed_steps_commute_with_a_rotation(name):
    """Where a decoded denoiser is sampled to is where the decoded samples of the latent one are.

    No shift here: a solver in time or angle integrates the shift's own path, ``alpha_t shift``, with its usual error.
    Solvers that choose their steps weigh errors entry by entry, which no rotation keeps.
    """
    codec = Composed([Haar(1), PCA(torch.zeros(2, 3).double(), PCA.fit(data(2, 3)).axes)])
    base = Gaussian(Rectified(), *latent_law(codec, (1, 6)))
    grid = times.suggested(1.0, 6)(base.schedule, 8)
    x = prior(base, (3, 1, 6), torch.Generator().manual_seed(1)).double()
    found = sample(SAMPLERS[name](), Decoded(base, codec), x, grid)
    expected = codec.decode(sample(SAMPLERS[name](), base, codec.encode(x), grid))
    assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("name", list(WHOLE))
def test_decoded_samples_have_the_datas_moments(name):
    """Latents by the exact flow map, decoded: mean and covariance within five standard errors of 4000 samples."""
    make, shape = WHOLE[name]
    codec, n, d = make(), 4000, math.prod(shape)
    base = Gaussian(Rectified(), *latent_law(codec, shape))
    z = prior(base, (n, *codec.latent(shape)), torch.Generator().manual_seed(5)).double()
    grid = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    x = codec.decode(sample(Gamma(0.5), base, z, grid, generator=torch.Generator().manual_seed(6))).flatten(1)
    mean, covariance = law(shape)
    variances = covariance.diagonal()
    assert ((x.mean(0) - mean.flatten()).abs() / (variances / n).sqrt()).max() < 5
    error = (variances[:, None] * variances + covariance.square()).div(n).sqrt()
    assert ((x.T.cov() - covariance).abs() / error).max() < 5 + (d > 50)  # thousands of entries


def test_guidance_gaps_and_measurements_act_in_data_space():
    codec, shape = Composed([Haar(2), DCT((-3,))]), (1, 4, 4)
    means, t = draws(2, 16, seed=4), torch.tensor(0.6, dtype=torch.float64)
    covariance = law(shape)[1].expand(2, -1, -1)
    pixel = GaussianMixture(VP(), means.reshape(2, *shape), covariance)
    turn = codec.encode(torch.eye(16).double().reshape(16, *shape)).flatten(1).T
    latents = (means @ turn.T).reshape(2, 4, 2, 2)
    decoded = Decoded(GaussianMixture(VP(), latents, turn @ covariance @ turn.T), codec)
    x, labels = draws(3, *shape), torch.tensor([0, 1, 1])
    for around in (
        lambda base: ClassifierFree(base, 2.5),
        lambda base: Inpaint(base, draws(*shape, seed=8), torch.arange(4.0) < 2),
        lambda base: given(base, Downsample(2), draws(1, 1, 2, 2, seed=9), 0.1),
    ):
        cond = Condition(vector=labels)
        for found, exact in zip(around(decoded)(x, t, cond), around(pixel)(x, t, cond), strict=True):
            assert torch.allclose(found, exact, atol=1e-9)


def test_it_takes_over_what_describes_the_latent_denoiser():
    base = Gaussian(VP(), *latent_law(Haar(1), (1, 4)))
    base.start, base.stops, base.latents = 0.7, (0.7, 0.3), 2
    decoded = Decoded(base, Haar(1))
    assert (decoded.start, decoded.stops, decoded.latents, decoded.schedule) == (0.7, (0.7, 0.3), 2, base.schedule)


def test_what_is_no_rotation_is_refused_in_one_sentence():
    base = Gaussian(VP(), torch.zeros(6).double(), 1.0)
    for codec in (
        PCA.fit(data(2, 3), 2),
        Whitening.fit(data(2, 3)),
        Composed([DCT((-1,)), Whitening.fit(data(2, 3))]),
        Neural(Stretch(2), torch.zeros(2), torch.ones(2)),
    ):
        with pytest.raises(ValueError, match="white noise stays white"):
            Decoded(base, codec)
    base.schedule = CLD()
    with pytest.raises(ValueError, match="needs a path of two numbers"):
        Decoded(base, PCA.fit(data(2, 3)))
    base.schedule = VP()
    with pytest.raises(ValueError, match="PCA does not fit samples of shape"):
        Decoded(base, PCA.fit(data(2, 3)))(torch.zeros(1, 6).double(), torch.tensor(0.5))


@pytest.mark.parametrize("path", list(CATALOG))
def test_a_mixed_prior_is_the_geometric_mean_of_two_scores(path):
    """A share a of a Gaussian's score and 1 - a of the normal's: by the gradient of their log-densities."""
    base = Gaussian(CATALOG[path](), draws(2, 3), 0.3)
    mixed = Mixed(base, 2).double()
    mixed.logit.data = torch.tensor([-1.0, 0.5]).double()
    a = torch.sigmoid(mixed.logit.detach())[:, None]
    x = draws(4, 2, 3, seed=1).requires_grad_()
    t = torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = base.schedule.scalars(t)
    (learned,) = torch.autograd.grad(base.log_prob(x, t).sum(), x)
    score = (1 - a) * -x / (alpha**2 + sigma**2) + a * learned
    estimate = mixed(x.detach(), t)
    assert torch.allclose(estimate.eps, -sigma * score, atol=1e-9 * max(1, sigma))
    assert torch.allclose(estimate.at(alpha, sigma), x, atol=1e-9)


def test_a_mixed_prior_learns_its_share_and_samples_from_the_normal_without():
    base = Gaussian(VP(), torch.full((2, 3), 4.0).double(), 0.01)
    mixed = Mixed(base, 2, share=1e-9).double()
    z = prior(mixed, (5, 2, 3), torch.Generator().manual_seed(0)).double()
    assert torch.allclose(sample(DDIM(), mixed, z, times.Uniform()(VP(), 2000)), z, atol=1e-2)
    mixed(z, torch.tensor(0.5)).eps.square().sum().backward()
    assert bool((mixed.logit.grad != 0).all())
    for words, wrong in (
        ("channels and a share", lambda: Mixed(base, 0)),
        ("channels and a share", lambda: Mixed(base, 2, 1.0)),
        ("2 channels", lambda: mixed(draws(5, 3, 3), torch.tensor(0.5))),
        ("no flow map", lambda: mixed(z, torch.tensor(0.5), None, 0.2)),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
