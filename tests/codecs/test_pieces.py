"""Codecs piece by piece: as the whole to rounding, group norms included, in the memory of a piece."""

import itertools

import pytest
import torch
from torch import nn

from osmotic.codecs import DCT, PCA, Composed, Haar, Identity, Neural, Tiled, load, save
from osmotic.nn import Autoencoder, Codebook, Gaussian


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """No weight at zero, so that everything acts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.3 if p.dim() == 1 else p[0].numel() ** -0.5))
    return module.eval()


def neural(shape, widths=(8, 8), bottleneck=None, blocks: int = 1) -> Neural:
    network = Autoencoder.convolutional(shape, widths, 4, bottleneck or Gaussian(), blocks)
    return Neural(settled(network), torch.linspace(-1, 1, 4), torch.linspace(0.5, 2, 4))


class Plain(nn.Module):
    """Convolutions alone, whose reach is known: 3 positions down, and 2 and a half up."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 5, 3, padding=1)
        self.halve = nn.Conv2d(5, 4, 3, stride=2, padding=1)
        self.up = nn.Conv2d(4, 6, 5, padding=2)
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def encode(self, x):
        return self.halve(self.down(x).tanh())

    def decode(self, z):
        return self.out(nn.functional.interpolate(self.up(z), scale_factor=2).tanh())


class Attends(Plain):
    """With attention of every position to all."""

    def decode(self, z):
        flat = z.flatten(2)
        mixed = torch.softmax(flat.mT @ flat, -1) @ flat.mT
        return super().decode(mixed.mT.reshape(z.shape))


def noise(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


def test_the_reach_of_convolutions_is_found() -> None:
    """Down: 1 pixel and 1 more at stride 2, hence a latent position to each side. Up: 2, and a pixel, which is of the
    next one.
    """
    tiled = Tiled(Neural(settled(Plain()), torch.zeros(4), torch.ones(4)))
    assert tiled.reach("encode", noise(1, 3, 8, 8)) == 1
    assert tiled.reach("decode", noise(1, 4, 8, 8)) == 3
    assert Tiled(Haar(2, 2)).reach("decode", noise(1, 16, 4, 4)) == 0


CODECS = {
    "no norms": (lambda: Neural(settled(Plain()), torch.zeros(4), torch.ones(4)), (3, 46, 30), 5),
    "kl": (lambda: neural((3, 16, 16)), (3, 50, 38), 7),
    "vq": (lambda: neural((3, 16, 16), bottleneck=Codebook(16, 4)), (3, 36, 24), 6),
    "three levels": (lambda: neural((1, 16, 16), (8, 8, 12)), (1, 88, 64), 8),
    "a line": (lambda: neural((2, 32), (8, 8, 8)), (2, 203), 9),
    "a wavelet and a network": (lambda: Composed([Haar(2), neural((4, 16, 16))]), (1, 64, 48), 6),
}


@pytest.mark.parametrize("name", list(CODECS))
def test_pieces_are_the_whole(name: str) -> None:
    make, shape, tile = CODECS[name]
    codec = make()
    tiled, x = Tiled(codec, tile), noise(2, *shape)
    with torch.no_grad():
        z = codec.encode(x)
        assert off(tiled.encode(x), z) < 1e-5
        decoded = codec.decode(z)
        assert off(tiled.decode(z), decoded) < 1e-5
    assert tiled.latent(shape) == tuple(z.shape[1:])
    assert tiled.fingerprint() == codec.fingerprint()


def test_pieces_that_normalise_themselves_differ() -> None:
    """What this is there for: of a picture light on one side, each piece would have statistics of its own."""
    codec = neural((3, 16, 16))
    z = noise(1, 4, 24, 24) + torch.linspace(-2, 2, 24)
    with torch.no_grad():
        whole = codec.decode(z)
        halves = torch.cat([codec.decode(z[..., :18])[..., :24], codec.decode(z[..., 6:])[..., 12:]], -1)
    assert off(halves[..., 23:25], whole[..., 23:25]) > 5e-3  # beside the seam, 6 positions from any rim
    assert off(Tiled(codec, 12).decode(z), whole) < 1e-5


def test_a_smaller_rim_than_the_reach_would_show() -> None:
    """The reach is no larger than it must be by much: without a position of it, pieces differ."""
    codec = Neural(settled(Plain()), torch.zeros(4), torch.ones(4))
    tiled, z = Tiled(codec, 5), noise(1, 4, 20, 20)
    with torch.no_grad():
        whole = codec.decode(z)
        assert off(tiled.decode(z), whole) < 1e-5
        (key, local), *_ = tiled._found.items()
        tiled._found[key] = local._replace(reach=1)
        assert off(tiled.decode(z), whole) > 1e-4


def test_memory_is_that_of_a_piece() -> None:
    """The largest tensor within does not grow with the picture; of the whole it does."""
    codec = neural((3, 16, 16))

    def largest(run, n: int) -> int:
        seen = [0]
        handles = [
            m.register_forward_hook(lambda m, args, out: seen.append(out.numel()))
            for m in codec.modules()
            if isinstance(m, nn.Conv2d)
        ]
        with torch.no_grad():
            run(noise(1, 4, n, n))
        for handle in handles:
            handle.remove()
        return max(seen)

    tiled = Tiled(codec, 8)
    whole = [largest(codec.decode, n) for n in (32, 64)]
    pieces = [largest(tiled.decode, n) for n in (32, 64)]
    assert whole[1] == 4 * whole[0]
    assert pieces[1] == pieces[0] < whole[0]


def test_every_position_is_kept_once() -> None:
    from osmotic.codecs.tiled import _windows

    for sizes, tile, reach in itertools.product([(7,), (8, 5), (1, 30)], [1, 3, 30], [0, 2, 9]):
        seen = torch.zeros(sizes)
        for window in _windows(sizes, tile, reach):
            assert all(b - a <= tile for a, b in zip(window.first, window.last, strict=True))
            view = seen
            for axis, (a, b) in enumerate(zip(window.first, window.last, strict=True)):
                view = view.narrow(axis, a, b - a)
            view += 1
        assert (seen == 1).all()


def test_small_samples_are_left_whole_to_the_bit() -> None:
    codec = neural((3, 15, 15))
    z = codec.encode(noise(2, 3, 15, 15))
    assert torch.equal(Tiled(codec).decode(z), codec.decode(z))


@pytest.mark.parametrize(
    ("make", "shape", "match"),
    [
        (lambda: Neural(settled(Attends()), torch.zeros(4), torch.ones(4)), (4, 12, 12), "reads all positions at once"),
        (lambda: DCT(), (1, 16, 16), "reads all positions at once"),
        (lambda: DCT((-2, -1), 4), (1, 16, 16), "does not do the same at every position"),
    ],
    ids=["attention", "transform", "blocks"],
)
def test_what_cannot_be_cut_up_is_refused(make, shape, match) -> None:
    with pytest.raises(ValueError, match=match):
        Tiled(make(), 4).decode(noise(1, *shape))


def test_tables_are_left_as_they_are() -> None:
    pca = PCA.fit(noise(20, 5).double())
    z = noise(3, 5).double()
    assert torch.equal(Tiled(pca).decode(z), pca.decode(z))
    with pytest.raises(ValueError, match="at least one latent position"):
        Tiled(Identity(), 0)


def test_a_stored_one_comes_back(tmp_path) -> None:
    tiled = Tiled(Haar(2, 2), 3)
    save(tmp_path / "codec.safetensors", tiled)
    back = load(tmp_path / "codec.safetensors")
    assert isinstance(back, Tiled)
    assert back.tile == 3
    x = noise(1, 1, 32, 28)
    assert torch.equal(back.encode(x), tiled.encode(x))
    assert back.to(torch.float64).fingerprint() == Haar(2, 2).fingerprint()


def test_a_piece_of_the_size_of_the_training_is_no_sample_of_it() -> None:
    """Of an autoencoder for sizes that are no multiples, whose own samples are cut to them."""
    usual = neural((3, 16, 16))
    each = 16 // usual.latent((3, 16, 16))[1]
    side = 2 + 2 * Tiled(usual, 2).reach("decode", noise(1, 4, 8, 8))  # positions that an inner piece reads
    codec = neural((3, side * each - 1, side * each - 1))
    assert codec.latent((3, side * each - 1, side * each - 1))[1:] == (side, side)
    z = noise(1, 4, 3 * side, side)
    with torch.no_grad():
        assert off(Tiled(codec, 2).decode(z), codec.decode(z)) < 1e-5
