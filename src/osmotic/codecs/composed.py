"""One codec after another."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from osmotic.codecs.base import Codec, Description, Shape


class Composed(Codec):
    """``z = encode_n(... encode_1(x))``: as a wavelet, then principal components of its bands.

    Args:
        codecs: the one that reads the data first, at least one; those that are composed themselves are taken apart.
    """

    def __init__(self, codecs: Sequence[Codec]) -> None:
        super().__init__()
        if not codecs:
            raise ValueError("Composed needs at least one codec; Identity changes nothing.")
        parts = [part for codec in codecs for part in (codec.parts() if isinstance(codec, Composed) else [codec])]
        self.codecs = nn.ModuleList(parts)
        self.orthonormal = all(part.orthonormal for part in parts)

    def parts(self) -> list[Codec]:
        """The codecs, the one that reads the data first."""
        return [codec for codec in self.codecs if isinstance(codec, Codec)]

    def encode(self, x: Tensor) -> Tensor:
        for codec in self.parts():
            x = codec.encode(x)
        return x

    def decode(self, z: Tensor) -> Tensor:
        for codec in reversed(self.parts()):
            z = codec.decode(z)
        return z

    def latent(self, shape: Shape) -> Shape:
        for codec in self.parts():
            shape = codec.latent(shape)
        return shape

    def log_det(self, shape: Shape) -> float:
        total = 0.0
        for codec in self.parts():
            total += codec.log_det(shape)
            shape = codec.latent(shape)
        return total

    def description(self) -> Description:
        return {"kind": "composed", "codecs": [codec.description() for codec in self.parts()]}
