"""Codecs against dense matrices, SciPy and closed forms: every one of the catalogue."""

import hashlib
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from scipy.fft import dctn
from torch import nn

from osmotic.codecs import DCT, PCA, Composed, Haar, Identity, Neural, Tiled, Whitening, load, save
from osmotic.codecs.files import KINDS
from osmotic.guidance import Downsample


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(*shape: int, n: int = 50) -> torch.Tensor:
    """Correlated data away from 0."""
    d = math.prod(shape)
    return (draws(n, d) @ draws(d, d, seed=1) + 3 * draws(d, seed=2)).reshape(n, *shape)


class Stretch(nn.Module):
    """An autoencoder without loss: a convolution of one pixel, undone."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.matrix = nn.Parameter(draws(channels, channels, seed=9))

    def encode(self, x):
        return torch.einsum("ij,bj...->bi...", self.matrix, x) + 5

    def decode(self, z):
        return torch.einsum("ij,bj...->bi...", torch.linalg.inv(self.matrix), z - 5)


# Of the whole space: (made for data of a shape, that shape).
WHOLE = {
    "identity": (lambda: Identity(), (3, 4)),
    "haar of a sequence": (lambda: Haar(1, 3), (2, 8)),
    "haar of a picture": (lambda: Haar(), (3, 4, 6)),
    "haar of a picture, 2 levels": (lambda: Haar(2, 2), (1, 8, 4)),
    "haar of a volume, 2 levels": (lambda: Haar(3, 2), (1, 4, 4, 8)),
    "dct of a row": (lambda: DCT((-1,)), (7,)),
    "dct of a picture": (lambda: DCT(), (2, 5, 6)),
    "dct by blocks": (lambda: DCT((-2, -1), 4), (2, 8, 4)),
    "dct of channels and rows": (lambda: DCT((-3, -2)), (3, 4, 2)),
    "pca": (lambda: PCA.fit(data(2, 3)), (2, 3)),
    "pca of few samples": (lambda: PCA.fit(data(2, 5, n=4)), (2, 5)),
    "whitening": (lambda: Whitening.fit(data(2, 3)), (2, 3)),
    "haar, then pca": (lambda: Composed([Haar(1), PCA.fit(data(2, 3))]), (1, 6)),
    "pca, then dct, then whitening": (
        lambda: Composed([PCA.fit(data(2, 3)), Composed([DCT((-1,)), Whitening.fit(data(6))])]),
        (2, 3),
    ),
}
CODECS = {
    **WHOLE,
    "pca of 2": (lambda: PCA.fit(data(2, 3), 2), (2, 3)),
    "whitening of 2": (lambda: Whitening.fit(data(2, 3), 2), (2, 3)),
    "dct, then pca of 3": (lambda: Composed([DCT((-1,)), PCA.fit(data(2, 3), 3)]), (2, 3)),
    "neural": (lambda: Neural.fit(Stretch(), [data(3, 2, 2)]), (3, 2, 2)),
    "neural by pieces": (lambda: Tiled(Neural.fit(Stretch(), [data(3, 4, 6)]), 2), (3, 4, 6)),
    "haar, then neural": (lambda: Composed([Haar(2), Neural.fit(Stretch(4), [data(4, 2, 2)])]), (1, 4, 4)),
}


def jacobian(codec, shape: tuple[int, ...]) -> torch.Tensor:
    """dz/dx, for a codec that is affine."""
    d = math.prod(shape)
    units = torch.cat([torch.zeros(1, d), torch.eye(d)]).double().reshape(d + 1, *shape)
    z = codec.encode(units).flatten(1)
    return (z[1:] - z[0]).T


@pytest.mark.parametrize("name", list(CODECS))
def test_latents_decode_to_samples_of_the_same_latents(name):
    make, shape = CODECS[name]
    codec = make()
    latent = codec.latent(shape)
    z = draws(5, *latent, seed=7)
    x = codec.decode(z)
    assert x.shape == (5, *shape)
    assert codec.encode(x).shape == (5, *latent)
    assert torch.allclose(codec.encode(x), z, atol=1e-10)
    # A sample does not depend on its batch mates.
    assert torch.allclose(codec.encode(x[2:3]), z[2:3], atol=1e-10)


@pytest.mark.parametrize("name", list(WHOLE))
def test_a_codec_of_the_whole_space_is_inverted_and_knows_its_determinant(name):
    make, shape = WHOLE[name]
    codec, x = make(), data(*shape, n=5)
    assert torch.allclose(codec.decode(codec.encode(x)), x, atol=1e-9)
    matrix = jacobian(codec, shape)
    assert codec.log_det(shape) == pytest.approx(float(torch.linalg.slogdet(matrix).logabsdet), abs=1e-9)
    turned = matrix @ matrix.T
    assert codec.orthonormal == torch.allclose(turned, torch.eye(len(turned)).double(), atol=1e-10)
    assert codec.orthonormal == ("whitening" not in name)


@pytest.mark.parametrize("name", sorted(set(CODECS) - set(WHOLE)))
def test_a_codec_that_loses_or_bends_is_no_rotation_and_has_no_determinant(name):
    make, shape = CODECS[name]
    codec = make()
    assert not codec.orthonormal
    with pytest.raises(ValueError, match="has no constant determinant"):
        codec.log_det(shape)


@pytest.mark.parametrize("name", list(CODECS))
def test_single_precision_stays_single(name):
    make, shape = CODECS[name]
    codec = make()
    x = codec.decode(draws(3, *codec.latent(shape)))
    if "neural" not in name:
        z = codec.encode(x.float())
        assert z.dtype == torch.float32
        assert torch.allclose(z.double(), codec.encode(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_haars_first_channels_are_block_means(axes, levels):
    x = draws(2, 3, *[8] * axes)
    z = Haar(axes, levels).encode(x)
    means = Downsample(2**levels, tuple(range(-axes, 0)))(x)
    assert torch.allclose(z[:, :3], means * 2 ** (axes * levels / 2), atol=1e-12)
    assert torch.allclose(Haar(axes, levels).encode(torch.ones_like(x))[:, 3:], torch.zeros(()).double(), atol=1e-12)


def test_haar_is_its_matrix():
    """Three levels on eight points, written out (Haar 1910); its fine bands stand by level, then by place."""
    z = Haar(1, 3).encode(torch.eye(8, dtype=torch.float64)[:, None])[:, :, 0].T
    one, two = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1]), torch.tensor([1.0, 1, -1, -1])
    rows = [torch.ones(8) / 8**0.5, one / 8**0.5]
    rows += [torch.cat([two, 0 * two]) / 2, torch.cat([0 * two, two]) / 2]
    rows += [torch.eye(4)[i].repeat_interleave(2) * torch.tensor([1.0, -1] * 4) / 2**0.5 for i in range(4)]
    expected = torch.stack(rows).double()
    assert torch.allclose(z.abs().sort(0).values, expected.abs().sort(0).values, atol=1e-7)
    matches = (z @ expected.T).abs()
    assert torch.allclose(matches.max(1).values, torch.ones(8).double(), atol=1e-7)
    assert sorted(matches.argmax(1).tolist()) == list(range(8))


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_the_cosine_transform_is_scipys(n):
    x = draws(3, n)
    assert torch.allclose(DCT((-1,)).encode(x), torch.from_numpy(dctn(x.numpy(), axes=[1], norm="ortho")), atol=1e-11)
    picture = draws(2, 3, 8, 16)
    blocks = DCT((-2, -1), 8).encode(picture)[..., 8:]
    expected = dctn(picture[..., 8:].numpy(), axes=(-2, -1), norm="ortho")
    assert torch.allclose(blocks, torch.from_numpy(expected), atol=1e-12)


def test_principal_axes_diagonalise_the_covariance_and_lose_least():
    x = data(2, 3, n=400)
    z = PCA.fit(x).encode(x)
    variances = torch.linalg.eigvalsh(x.flatten(1).T.cov()).flip(0)
    assert torch.allclose(z.T.cov(), variances.diag(), atol=1e-9 * float(variances[0]))
    for k in (1, 3, 5):
        codec = PCA.fit(x, k)
        lost = (codec.decode(codec.encode(x)) - x).flatten(1).square().sum() / (len(x) - 1)
        assert float(lost) == pytest.approx(float(variances[k:].sum()), rel=1e-9)


def test_whitened_data_have_unit_covariance():
    x = data(2, 3, n=400)
    for k in (None, 4):
        z = Whitening.fit(x, k).encode(x)
        assert torch.allclose(z.T.cov(), torch.eye(k or 6).double(), atol=1e-10)
        assert z.mean(0).abs().max() < 1e-10


def test_small_variances_are_found_where_a_covariance_would_lose_them():
    """Deviations of 1 and 1e-9: their squares are 1e-18 apart, below the rounding of the covariance."""
    turn = torch.linalg.qr(draws(4, 4, seed=5)).Q
    scales = torch.tensor([1.0, 1e-3, 1e-6, 1e-9], dtype=torch.float64)
    z = draws(1000, 4)
    codec = Whitening.fit((z * scales) @ turn)
    expected = (z - z.mean(0)).std(0) * scales
    assert torch.allclose(codec.deviations.log(), expected.log(), atol=0.1)  # the small axes' own sampling correlation


def test_a_fit_does_not_depend_on_how_the_data_are_factored():
    """More samples than dimensions take a QR decomposition first: the same axes as the data's own."""
    x = data(6, n=40)
    _, _, axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    assert torch.allclose((PCA.fit(x).axes @ axes.T).abs(), torch.eye(6).double(), atol=1e-9)
    assert bool((PCA.fit(x).axes.gather(1, PCA.fit(x).axes.abs().argmax(1, keepdim=True)) > 0).all())


def test_a_learned_codecs_latents_have_unit_variance_by_channel():
    x = data(3, 2, 2, n=100)
    z = Neural.fit(Stretch(), x.split(30)).encode(x).transpose(0, 1).flatten(1)
    assert torch.allclose(z.mean(1), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(z.square().mean(1), torch.ones(3).double(), atol=1e-12)


@pytest.mark.parametrize("name", list(CODECS))
def test_a_stored_codec_comes_back_to_the_bit(name, tmp_path):
    make, shape = CODECS[name]
    codec = make()
    save(tmp_path / "codec.safetensors", codec)
    networks = {"neural": Stretch(), "neural by pieces": Stretch(), "haar, then neural": Stretch(4)}
    back = load(tmp_path / "codec.safetensors", networks.get(name))
    z = draws(2, *codec.latent(shape))
    x = codec.decode(z)
    assert torch.equal(back.decode(z), x)
    assert torch.equal(back.encode(x), codec.encode(x))
    assert back.fingerprint() == codec.fingerprint() == make().fingerprint()
    assert [p.name for p in tmp_path.iterdir()] == ["codec.safetensors"]


def test_every_kind_of_the_table_is_tested():
    kinds = {make().description()["kind"] for make, _ in CODECS.values()}
    assert kinds == set(KINDS)


def test_fingerprints_tell_codecs_apart():
    x = data(2, 3)
    moved = x.clone()
    moved[0, 0, 0] += 1e-6
    codecs = [Identity(), Haar(1), Haar(2), Haar(2, 2), DCT(), DCT((-1,)), DCT(block=8), PCA.fit(x), PCA.fit(x, 2)]
    codecs += [PCA.fit(moved), Whitening.fit(x), Composed([Haar(1)]), Composed([Haar(1), DCT()])]
    codecs += [Composed([DCT(), Haar(1)]), Neural.fit(Stretch(), [data(3, 2)])]
    assert len({codec.fingerprint() for codec in codecs}) == len(codecs)
    # Caches on disk outlive the process, so it is a constant of what the codec is.
    stated = hashlib.sha256(b'{"axes": 2, "kind": "haar", "levels": 2}').hexdigest()
    assert Haar(2, 2).fingerprint() == stated
    code = "from osmotic.codecs import Haar; print(Haar(2, 2).fingerprint())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == stated


def test_wrong_files_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "codec.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load(path)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load(tmp_path / "nothing")
    save_file({"axes": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="does not hold a codec"):
        load(path)
    save(path, PCA.fit(data(2, 3)))
    spoilt = bytearray(path.read_bytes())
    spoilt[-3] ^= 1
    path.write_bytes(bytes(spoilt))
    with pytest.raises(ValueError, match="is damaged"):
        load(path)


def test_a_stored_network_wants_the_same_structure(tmp_path):
    path = tmp_path / "codec.safetensors"
    save(path, Neural.fit(Stretch(), [data(3, 2)]))
    with pytest.raises(ValueError, match="pass network="):
        load(path)
    with pytest.raises(ValueError, match="not of the structure"):
        load(path, Stretch(2))

    class Other(Stretch):
        pass

    with pytest.raises(ValueError, match="not of the structure"):
        load(path, Other())


MISFITS = [
    (lambda: Haar(), (3, 4, 5), r"Haar does not fit samples of shape \(3, 4, 5\).*multiples of 2\."),
    (lambda: Haar(2, 3), (3, 8, 12), r"multiples of 8\."),
    (lambda: Haar(1), (8,), r"needs channels and 1 axes"),
    (lambda: DCT((-1,), 4), (6,), r"DCT does not fit samples of shape \(6,\).*multiples of 4\."),
    (lambda: DCT(), (6,), r"needs axes \(-2, -1\)\."),
    (lambda: PCA.fit(data(2, 3)), (3, 2), r"PCA does not fit samples of shape \(3, 2\).*\(2, 3\)"),
    (lambda: Composed([Haar(1), PCA.fit(data(2, 3))]), (1, 8), r"PCA does not fit samples of shape \(2, 4\)"),
]


@pytest.mark.parametrize("case", range(len(MISFITS)))
def test_samples_that_do_not_fit_are_refused_in_one_sentence(case):
    make, shape, words = MISFITS[case]
    codec = make()
    with pytest.raises(ValueError, match=words):
        codec.latent(shape)
    with pytest.raises(ValueError, match=words):
        codec.encode(torch.zeros(2, *shape, dtype=torch.float64))


class Normed(Stretch):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3).double()

    def encode(self, x):
        return self.norm(super().encode(x))


def test_asking_for_a_learned_codecs_shape_leaves_its_network_alone_and_says_what_does_not_fit():
    codec = Neural.fit(Normed(), [data(3, 2)])
    codec.network.eval()
    codec.network.norm.train()
    before, modes = codec.fingerprint(), [module.training for module in codec.modules()]
    assert codec.latent((3, 7)) == (3, 7)
    assert codec.fingerprint() == before
    assert [module.training for module in codec.modules()] == modes
    with pytest.raises(ValueError, match=r"Neural does not fit samples of shape \(2, 7\)"):
        codec.latent((2, 7))


def test_more_components_than_the_data_have_are_refused():
    flat = data(2, 3)
    flat[:, 1, 2] = flat[:, 0, 0] * 2 - flat[:, 0, 1]
    assert len(PCA.fit(flat, 5).axes) == 5
    assert PCA.fit(flat).orthonormal
    for fit in (lambda: PCA.fit(flat, 6), lambda: Whitening.fit(flat, 6), lambda: Whitening.fit(flat)):
        with pytest.raises(ValueError, match=r"6 components were asked for and the data have rank 5 in 6 dimensions"):
            fit()
    with pytest.raises(ValueError, match="0 components"):
        PCA.fit(flat, 0)
    with pytest.raises(ValueError, match="at least two samples"):
        PCA.fit(flat[:1])
    flat[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="finite"):
        PCA.fit(flat)


def test_other_wrong_uses_are_refused():
    with pytest.raises(ValueError, match="1, 2 or 3 axes"):
        Haar(4)
    with pytest.raises(ValueError, match="at least one level"):
        Haar(2, 0)
    with pytest.raises(ValueError, match="counted from the end"):
        DCT((0, 1))
    with pytest.raises(ValueError, match="at least one codec"):
        Composed([])
    with pytest.raises(ValueError, match="do not fit a mean"):
        PCA(torch.zeros(3), torch.eye(2))
    with pytest.raises(TypeError, match="has encode and decode"):
        Neural(nn.Linear(2, 2), torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="positive scale"):
        Neural(Stretch(), torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"channels \[0, 1, 2\] do not vary"):
        Neural.fit(Stretch(), [torch.ones(4, 3, 2).double()])
    with pytest.raises(ValueError, match="not those of Haar"):
        Haar().decode(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="3 latent channels"):
        Neural(Stretch(), torch.zeros(3), torch.ones(3)).decode(torch.zeros(1, 2, 2))
