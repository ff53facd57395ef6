"""Time features: a number of order 0..1000 as a vector that a linear layer can read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """Cosines and sines of time at geometric frequencies.

    ``phi(t) = [cos(w_i t), sin(w_i t)]`` with ``w_i = 10000^(-i / n)``, ``i = 0..n-1``, ``n = features / 2``; the
    inner product of two feature vectors, ``sum_i cos(w_i (t - t'))``, depends only on ``|t - t'|``.
    Vaswani et al. 2017 (arXiv 1706.03762); Ho et al. 2020 (arXiv 2006.11239).

    Args:
        features: number of outputs, even.

    Shapes: ``(B,) -> (B, features)``, float32.
    """

    def __init__(self, features: int = 128) -> None:
        super().__init__()
        self.features = _even(features)

    def forward(self, time: Tensor) -> Tensor:
        # Not a buffer: a network turned to bfloat16 would round the frequencies, and angles by whole radians.
        return waves(time, geometric(self.features // 2, time.device))


class Fourier(nn.Module):
    """Cosines and sines of time at random frequencies that stay as they were drawn.

    ``phi(t) = [cos(2 pi f_i t), sin(2 pi f_i t)]`` with ``f_i ~ N(0, (bandwidth / 1000)^2)``.
    Tancik et al. 2020 (arXiv 2006.10739); Song et al. 2021 (arXiv 2011.13456).

    Args:
        features: number of outputs, even.
        bandwidth: standard deviation of the frequencies in cycles over the whole range 0..1000 of time.
        seed: of the frequencies, which are stored with the weights.

    Shapes: ``(B,) -> (B, features)``, float32.
    """

    frequencies: Tensor

    def __init__(self, features: int = 128, bandwidth: float = 16.0, seed: int = 0) -> None:
        super().__init__()
        self.features = _even(features)
        draws = torch.randn(features // 2, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("frequencies", draws * (2 * math.pi * bandwidth / 1000))

    def forward(self, time: Tensor) -> Tensor:
        return waves(time, self.frequencies)


class TimeEmbedding(nn.Module):
    """Time features through two linear layers: ``W2 silu(W1 phi(t))``, ``(B,) -> (B, width)``."""

    def __init__(self, width: int, features: Sinusoidal | Fourier) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(nn.Linear(features.features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        # The layers may hold bfloat16 weights; the angles need float32.
        features = self.features(time)
        embedded: Tensor = self.layers(features.to(self.layers[0].weight.dtype))
        return embedded


class AimEmbedding(nn.Module):
    """The time aimed at, seen beside the time itself: ``W2 silu(W1 [phi(s), phi(t)])``, zero at initialisation.

    A network that is given one then answers as before, so a student starts as its teacher (Kim et al. 2024, arXiv
    2310.02279). Two times ``(B,)`` to ``(B, width)``.
    """

    def __init__(self, width: int, features: Sinusoidal | Fourier) -> None:
        super().__init__()
        self.features = features
        self.first, self.last = nn.Linear(2 * features.features, width), nn.Linear(width, width)
        _zero(self.last)

    def forward(self, time: Tensor, aim: Tensor) -> Tensor:
        features = torch.cat([self.features(aim), self.features(time)], dim=-1)
        embedded: Tensor = self.last(nn.functional.silu(self.first(features.to(self.first.weight.dtype))))
        return embedded


class ScaleEmbedding(nn.Module):
    """A guidance scale ``(B,)`` to ``(B, width)``, zero at initialisation (Meng et al. 2023, arXiv 2210.03142)."""

    UNITS = 25.0  # scales of 1 to 20 as times of order 25 to 500, so that a sinusoidal embedding tells them apart

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = TimeEmbedding(width, Sinusoidal())
        _zero(self.layers.layers[2])

    def forward(self, scale: Tensor) -> Tensor:
        embedded: Tensor = self.layers(self.UNITS * scale)
        return embedded


class SizeEmbedding(nn.Module):
    """The numbers of positions ``(n_1, ..., n_d)`` to ``(width,)``, zero at initialisation.

    What Podell et al. 2023 (arXiv 2307.01952, sections 2.2 and 2.3) tell beside the picture is read here from the
    tensor itself, so that it is always right: a network without attention sees no further than its kernels reach, and
    would not know how large the picture is.
    """

    def __init__(self, width: int, ndim: int) -> None:
        super().__init__()
        self.features = Sinusoidal()
        self.first, self.last = nn.Linear(ndim * self.features.features, width), nn.Linear(width, width)
        _zero(self.last)

    def forward(self, size: Sequence[int]) -> Tensor:
        weight = self.first.weight
        told = self.features(torch.tensor(size, dtype=torch.float32, device=weight.device)).flatten()
        embedded: Tensor = self.last(nn.functional.silu(self.first(told.to(weight.dtype))))
        return embedded


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def geometric(count: int, device: torch.device) -> Tensor:
    """Frequencies ``10000^(-i / count)``, ``i = 0..count-1``, in float32."""
    return torch.exp(torch.arange(count, device=device) * (-math.log(10_000) / count))


def waves(positions: Tensor, frequencies: Tensor) -> Tensor:
    """``[cos(p w_i), sin(p w_i)]`` in float32: ``(*N,)`` and ``(n,)`` to ``(*N, 2 n)``."""
    angles = positions.float().unsqueeze(-1) * frequencies.float()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _even(features: int) -> int:
    if features < 2 or features % 2:
        raise ValueError(f"Time features come in cosine and sine pairs: {features} is not a positive even number.")
    return features
