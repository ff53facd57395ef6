"""Autoencoders of every kind, in every dimension: sizes restored, laws drawn as stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.nn import Autoencoder, Codebook, Decoder, Dense, Encoder, Gaussian, ResidualBlock
from osmotic.nn.bottleneck import LOUD, Posterior
from osmotic.nn.coder import fold, reduced, unfold
from osmotic.nn.mlp import MLPBlock

CHANNELS, LATENT, BATCH = 3, 4, 3


@dataclass(frozen=True)
class Member:
    name: str
    shape: tuple[int, ...]
    latent: tuple[int, ...]
    build: Callable[[], Autoencoder]

    def __str__(self) -> str:
        return self.name


def book() -> Codebook:
    """A codebook that has begun."""
    codebook = Codebook(16, LATENT)
    codebook.vectors.data.copy_(torch.randn(codebook.vectors.shape, generator=torch.Generator().manual_seed(9)))
    return codebook


def _grid(kind: str, bottleneck: Callable[[], nn.Module], size: tuple[int, ...], latent: tuple[int, ...]) -> Member:
    shape = (CHANNELS, *size)

    def build() -> Autoencoder:
        torch.manual_seed(0)
        return Autoencoder.convolutional(shape, (8, 12, 16), LATENT, bottleneck())

    return Member(f"{kind}-{'x'.join(map(str, size))}", shape, (LATENT, *latent), build)


def _dense(kind: str, bottleneck: Callable[[], nn.Module], shape: tuple[int, ...], latent: tuple[int, ...]) -> Member:
    def build() -> Autoencoder:
        torch.manual_seed(0)
        return Autoencoder.dense(shape, (16, 12), latent, bottleneck())

    return Member(f"{kind}-dense-{'x'.join(map(str, shape))}", shape, latent, build)


KINDS = [("kl", Gaussian), ("vq", book)]
# Sizes that halve evenly, oddly once, oddly twice, and not at all; with what is left after two halvings, by hand.
SIZES = {
    (16,): (4,),
    (13,): (4,),
    (37,): (10,),
    (1,): (1,),
    (8, 8): (2, 2),
    (7, 13): (2, 4),
    (5, 1): (2, 1),
    (4, 6, 5): (1, 2, 2),
}
GRIDS = [_grid(*kind, size, latent) for kind in KINDS for size, latent in SIZES.items()]
TABLES = [
    _dense(*kind, shape, latent)
    for kind in KINDS
    for shape, latent in [((7,), (LATENT,)), ((7,), (LATENT, 2)), ((3, 5), (LATENT,))]
]
every = pytest.mark.parametrize("member", [*GRIDS, *TABLES], ids=str)
grids = pytest.mark.parametrize("member", GRIDS, ids=str)


def data(member: Member, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, *member.shape, generator=torch.Generator().manual_seed(1))


@every
@pytest.mark.parametrize("batch", [1, BATCH])
def test_latents_have_the_shape_that_is_said_and_samples_their_own(member: Member, batch: int) -> None:
    net, x = member.build(), data(member, batch)
    made, law = net(x, torch.zeros(batch, *member.latent))
    assert net.latent_shape == member.latent
    assert made.shape == x.shape
    assert law.drawn().shape == law.latent().shape == (batch, *member.latent)
    z = net.encode(x)
    assert z.shape == (batch, *member.latent)
    # What a diffusion model decodes is what was trained to be decoded.
    torch.testing.assert_close(net.decode(z), net(x)[0], rtol=1e-4, atol=1e-5)


@every
def test_a_sample_does_not_see_its_batch_and_every_entry_of_the_latent_acts(member: Member) -> None:
    net, x = member.build(), data(member)
    z = net.encode(x)
    alone = torch.cat([net.encode(x[i : i + 1]) for i in range(BATCH)])
    torch.testing.assert_close(alone, z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.decode(z)[1:2], net.decode(z[1:2]), rtol=1e-4, atol=1e-5)
    made, _ = net(x)
    made.square().sum().backward()
    trained = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained)
    assert all(bool((p.grad != 0).any()) for name, p in net.named_parameters() if name.startswith("decoder.out"))
    assert bool((net.encoder.out.weight.grad[:LATENT] != 0).any())


@pytest.mark.parametrize("size", range(1, 20))
def test_every_size_comes_back(size: int) -> None:
    """The decoder of four levels restores the odd sizes of every level and of patches, by the sizes it is told."""
    torch.manual_seed(0)
    encoder, decoder = Encoder(1, (4, 4, 4), 2, ndim=1, patch=2), Decoder(1, (4, 4, 4), 2, ndim=1, patch=2)
    z = encoder(torch.randn(2, 1, size))
    assert z.shape[2:] == encoder.positions((size,)) == (int(np.ceil(size / 8)),)
    assert decoder(z, (size,)).shape == (2, 1, size)
    assert decoder(z).shape == (2, 1, 8 * z.shape[2])


def test_other_sizes_than_those_of_the_data_are_coded_too() -> None:
    net = Autoencoder.convolutional((1, 10, 10), (4, 8), 2, Gaussian())
    x = torch.randn(2, 1, 7, 15)
    z = net.encode(x)
    assert z.shape == (2, 2, 4, 8)
    assert net.decode(z, x.shape[2:]).shape == x.shape
    assert net.decode(z).shape == (2, 1, 8, 16)
    assert net.decode(torch.randn(2, 2, 5, 5)).shape == (2, 1, 10, 10)
    with pytest.raises(ValueError, match="do not come from samples of sizes"):
        net.decode(z, (7, 17))


def test_an_odd_row_is_seen_and_made() -> None:
    """The last row of an odd size is neither cut from what is read nor a copy in what is made."""
    torch.manual_seed(0)
    net = Autoencoder.convolutional((1, 9), (8, 8, 8), 4, Gaussian())
    x = torch.randn(1, 1, 9)
    other = x.clone()
    other[..., -1] += 1
    assert not torch.allclose(net.encode(x)[..., -1], net.encode(other)[..., -1], atol=1e-3)
    made = net(x)[0]
    assert (made[..., -1] - made[..., -2]).abs() > 1e-4


def test_sizes_of_levels_do_not_depend_on_the_way() -> None:
    assert reduced((1, 2, 7, 8, 9), 1) == (1, 2, 7, 8, 9)
    assert reduced((1, 2, 7, 8, 9), 8) == (1, 1, 1, 1, 2)
    for n in range(1, 40):
        assert reduced(reduced((n,), 2), 4) == reduced(reduced((n,), 4), 2) == reduced((n,), 8) == (-(-n // 8),)


@pytest.mark.parametrize("size", [(7,), (6, 4), (5, 3), (3, 4, 5)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_folded_patches_are_the_slices_of_numpy(size: tuple[int, ...], factor: int) -> None:
    x = torch.randn(2, 3, *size)
    h = fold(x, factor)
    assert torch.equal(unfold(h, factor, size), x)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), *((0, -n % factor) for n in size)])
    steps = (slice(None, None, factor),) * len(size)
    np.testing.assert_array_equal(h[:, 0].numpy(), padded[:, 0][(slice(None), *steps)], "the patches' first corners")
    assert h.shape[1] == 3 * factor ** len(size)
    assert h.square().sum() == pytest.approx(float(x.square().sum()), rel=1e-5)


@grids
def test_training_begins_with_a_linear_map_of_patches(member: Member) -> None:
    """What the blocks add is zero at first, so encoder and decoder are affine."""
    net, x, y = member.build(), data(member), 2 * data(member)
    zero = torch.zeros_like(x)
    for f, a, b in ((net.encoder, x, y), (net.decoder, net.encoder(x)[:, :LATENT], net.encoder(y)[:, :LATENT])):
        origin = f(torch.zeros_like(a))
        torch.testing.assert_close(f(a + b) - origin, f(a) + f(b) - 2 * origin, rtol=1e-4, atol=1e-5)
    assert not torch.equal(net.encoder(x), net.encoder(zero))


def test_blocks_that_are_told_nothing_have_no_weights_for_it() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6)
    with torch.no_grad():
        for plain, told, y, extra in [
            (ResidualBlock(1, 4, 8, None, 0.0), ResidualBlock(1, 4, 8, 5, 0.0), x, ()),
            (MLPBlock(4, 8, None, 0.0), MLPBlock(4, 8, 5, 0.0), x[:, :, 0], ()),
        ]:
            names = set(dict(told.named_parameters())) - set(dict(plain.named_parameters()))
            assert names == {"adapt.modulate.weight", "adapt.modulate.bias"}
            # A norm with scale 1 and shift 0 is what a silent vector gives.
            told.load_state_dict({**told.state_dict(), **_shared(plain, told)})
            for parameter in told.adapt.parameters():
                parameter.zero_()
            for block in (plain, told):
                nn.init.ones_(block.second.weight)
            torch.testing.assert_close(plain(y, *extra), told(y, torch.randn(2, 5)))


def _shared(plain: nn.Module, told: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in plain.state_dict().items() if name in told.state_dict()}


def test_a_posterior_is_drawn_as_its_law_says() -> None:
    draws = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(1, 2, 3, generator=draws), torch.randn(1, 2, 3, generator=draws)
    n = 40000
    z = Posterior(mean, log_variance).drawn(torch.randn(n, 2, 3, generator=draws))
    std = (log_variance / 2).exp()
    # Five standard errors of a mean and of a deviation.
    assert ((z.mean(0) - mean[0]).abs() < 5 * std[0] / n**0.5).all()
    assert ((z.std(0) / std[0] - 1).abs() < 5 / (2 * n) ** 0.5).all()
    assert torch.equal(Posterior(mean, log_variance).drawn(), mean)


def test_a_gaussian_bottleneck_reads_means_first_and_bounds_log_variances() -> None:
    h = torch.tensor([[1.0, 2.0, 3.0, 1e6]])
    law = Gaussian()(h)
    assert law.mean.tolist() == [[1.0, 2.0]]
    assert law.log_variance.tolist() == [[3.0, LOUD]]
    assert Gaussian()(h.bfloat16()).mean.dtype == torch.float32
    with pytest.raises(ValueError, match="twice as many outputs"):
        Gaussian()(torch.zeros(1, 3))


def test_encoding_draws_by_its_generator_alone() -> None:
    net = Autoencoder.convolutional((1, 8), (8, 8), 2, Gaussian())
    x, state = torch.randn(4, 1, 8), torch.random.get_rng_state()
    z = [net.encode(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(z[0], z[1])
    assert not torch.equal(z[0], z[2])
    assert torch.equal(torch.random.get_rng_state(), state)
    law = net.bottleneck(net.encoder(x))
    eps = torch.randn(law.mean.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(z[2], law.drawn(eps))


def test_a_quantised_latent_is_diffused_as_it_was_encoded_and_snaps_when_decoded() -> None:
    net = Autoencoder.convolutional((1, 8), (8, 8), LATENT, book())
    x = torch.randn(4, 1, 8)
    z = net.encode(x)
    assert torch.equal(z, net.encoder(x))
    near = z + 1e-4 * torch.randn_like(z)
    assert torch.equal(net.bottleneck.indices(near), net.bottleneck.indices(z)), "no code changes by so little"
    assert torch.equal(net.decode(near), net.decode(z))


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: Encoder(1, (4,), 2, ndim=4), "axes, not 4"),
        (lambda: Encoder(1, (), 2), "one level"),
        (lambda: Decoder(1, (4, 0), 2), "one level"),
        (lambda: Dense((3,), (2,), (0,)), "positive widths"),
        (lambda: Dense((), (2,)), "positive widths"),
        (lambda: Autoencoder((3,), Dense((3,), (4,)), Dense((3,), (3,)), Gaussian()), "gives 2 latent channels"),
        (lambda: Autoencoder((3,), Dense((3,), (3,)), Dense((1,), (3,)), Gaussian()), "reads 2 for each"),
        (lambda: Encoder(2, (4,), 2)(torch.zeros(1, 3, 4, 4)), r"takes \(batch, 2"),
        (lambda: Decoder(2, (4,), 2)(torch.zeros(1, 2, 4)), r"takes \(batch, 2"),
        (lambda: Dense((3,), (2,))(torch.zeros(1, 4)), r"samples of shape \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[], object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        build()
