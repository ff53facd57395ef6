"""Means and deviations of latents against numpy, whatever the batches, and codecs that are measured on a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from osmotic.codecs import Neural, load, save
from osmotic.codecs.moments import moments
from osmotic.nn import Autoencoder, Codebook, Gaussian


def test_moments_are_numpys_whatever_the_batches() -> None:
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(50, 3, 4, 5)) * np.array([1.0, 0.01, 7.0])[:, None, None] + 3).astype(np.float32)
    wanted = z.astype(np.float64).mean((0, 2, 3)), z.astype(np.float64).std((0, 2, 3))
    for sizes in ([50], [1] * 50, [7, 0, 13, 30]):
        mean, deviation = moments(torch.from_numpy(z).split(sizes))
        np.testing.assert_allclose(mean.numpy(), wanted[0], rtol=1e-12)
        np.testing.assert_allclose(deviation.numpy(), wanted[1], rtol=1e-12)


def test_moments_keep_their_digits_where_the_mean_is_large() -> None:
    """A sum of squares in float32 finds no deviation at all here; in float64 joined naively, four wrong digits."""
    rng = np.random.default_rng(0)
    z = 1e4 + rng.normal(size=(3000, 1)).astype(np.float32) * np.float32(0.1)
    _, deviation = moments(torch.from_numpy(z).split(100))
    np.testing.assert_allclose(deviation.numpy(), z.astype(np.float64).std(0), rtol=1e-9)


@pytest.mark.parametrize(
    ("batches", "word"),
    [
        ([], "need latents"),
        ([torch.zeros(0, 2)], "need latents"),
        ([torch.tensor([[1.0, 2.0], [3.0, 2.0]])], r"channels \[1\] do not vary"),
        ([torch.tensor([[1.0, torch.nan]])], "not finite"),
    ],
)
def test_latents_that_cannot_be_standardised_are_refused(batches: list[Tensor], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        moments(batches)


def quantised() -> Codebook:
    """A codebook that has begun."""
    codebook = Codebook(16, 2)
    codebook.vectors.data.copy_(torch.randn(16, 2, generator=torch.Generator().manual_seed(9)))
    return codebook


NETWORKS = {
    "kl of pictures": lambda: Autoencoder.convolutional((1, 7, 6), (8, 8), 2, Gaussian(), patch=2),
    "vq of pictures": lambda: Autoencoder.convolutional((1, 7, 6), (8,), 2, quantised(), patch=4),
    "kl of a table": lambda: Autoencoder.dense((1, 7, 6), (8,), (3,), Gaussian()),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_codecs_of_a_stream_have_unit_latents_decode_as_before_and_come_back_to_the_bit(name, tmp_path) -> None:
    torch.manual_seed(0)
    network, x = NETWORKS[name](), torch.randn(64, 1, 7, 6)
    with torch.no_grad():
        before = network.decode(network.encode(x))
        codec = Neural.fit(network, x.split(10))
        z = codec.encode(x)
        flat = z.double().transpose(0, 1).flatten(1)
        assert flat.mean(1).abs().max() < 1e-5
        assert (flat.std(1, correction=0) - 1).abs().max() < 1e-5
        torch.testing.assert_close(codec.decode(z), before, rtol=1e-4, atol=1e-4)
        save(tmp_path / "codec.safetensors", codec)
        torch.manual_seed(1)
        back = load(tmp_path / "codec.safetensors", NETWORKS[name]())
        assert torch.equal(back.encode(x), z)
        assert back.fingerprint() == codec.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["codec.safetensors"]
