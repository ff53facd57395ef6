"""Features of images that need neither training nor a download: responses of fixed random filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .base import ROOM, Array, Features, check_images, evenly
from .standard import Standard

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS = (32, 32, 32, 32)
SMALLEST = 4  # pixels


class RandomConv(Features):
    """Means and standard deviations over the maps of a convolution network with fixed random weights.

    Each of four stages convolves with 3 x 3 kernels, takes absolute values and halves the maps by averages; the 32
    means and 32 deviations of each stage before it is halved make 256 numbers. They see colour, texture and forms up to
    about 40 pixels, and prefer no kind of picture: Naeem et al. 2020 (arXiv 2002.09797) found random embeddings to
    serve better than ImageNet's where data are far from photographs. Numbers compare only with numbers of the same
    features. Absolute values of filters without a mean are those of scattering networks (Bruna & Mallat 2013, arXiv
    1203.1513): rectified random networks answer to all images nearly alike.

    Any size from 4 x 4 pixels. Grey is repeated into three channels.

    Args:
        seed: of the weights, which are the same on every machine.
        standard: mean and scale of the features; `RandomConv.fitted` takes them from the training data.
    """

    dimensions = 2 * sum(WIDTHS)

    def __init__(self, seed: int = 0, standard: Standard | None = None) -> None:
        self.seed = seed
        self.standard = standard
        self.kernels = kernels(seed)
        units = "" if standard is None else ", standardised"
        self.name = f"{self.dimensions} random convolution features, seed {seed}{units} (not Inception)"

    @classmethod
    def fitted(cls, training: Array, seed: int = 0) -> RandomConv:
        """Standardised by at most 10,000 training images ``(N, H, W, 1 or 3)`` uint8, spread evenly over them."""
        if len(training) == 0:
            raise ValueError("Standardised features need training images, and there are none: give one at least.")
        # Four digits of float32 are left where a feature hardly varies; a feature that varies less is rounding.
        return cls(seed, Standard.fitted(cls(seed)(evenly(training)), rounding=1e-4))

    def _check(self, x: Array) -> None:
        check_images(x, SMALLEST)

    def _batch(self, shape: tuple[int, ...]) -> int:
        return ROOM // (WIDTHS[0] * shape[0] * shape[1])

    def _block(self, x: Array) -> Array:
        import torch

        from .planes import planes

        with torch.inference_mode():
            found = _pooled(2 * planes(x) - 1, [torch.from_numpy(w) for w in self.kernels])
        features = found.double().numpy()
        return features if self.standard is None else self.standard(features)


def kernels(seed: int) -> list[Array]:
    """The weights of the stages, ``(outputs, inputs, 3, 3)`` float32 with He's variance ``2 / inputs / 9``.

    Uniform numbers from the bits of PCG64, which numpy keeps for ever, where it may change how it makes normal numbers.
    Kernels after the first stage have their mean taken out: the maps they read are positive, and their common mean
    would be all that is seen. The first stage keeps it and sees brightness and colour.
    """
    weights = []
    inputs = 3
    for stage, outputs in enumerate(WIDTHS):
        shape = (outputs, inputs, 3, 3)
        raw = np.random.PCG64([seed, stage]).random_raw(int(np.prod(shape)))
        w = ((raw >> np.uint64(11)) * 2.0**-52 - 1).reshape(shape)
        if stage > 0:
            w -= w.mean((1, 2, 3), keepdims=True)
        weights.append((w * np.sqrt(6 / (inputs * 9))).astype(np.float32))
        inputs = outputs
    return weights


def _pooled(x: Tensor, weights: list[Tensor]) -> Tensor:
    import torch
    from torch.nn import functional as F

    found = []
    for w in weights:
        x = F.conv2d(x, w, padding=1).abs_()
        deviation, mean = torch.std_mean(x, (2, 3), correction=0)
        found += [mean, deviation]
        # A map of one row or column stays whole along it; the last odd row is averaged alone.
        x = F.avg_pool2d(x, 2, ceil_mode=True)
    return torch.cat(found, 1)
