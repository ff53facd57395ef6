"""Codecs, data to latents and back, and the denoisers that go with them.

To add a codec, write a :class:`Codec` (a linear one is an :class:`Affine`) and enter its kind in ``files.KINDS``.
"""

from osmotic.codecs.base import Affine, Codec
from osmotic.codecs.composed import Composed
from osmotic.codecs.decoded import Decoded
from osmotic.codecs.files import load, save
from osmotic.codecs.fixed import DCT, Haar, Identity
from osmotic.codecs.mixed import Mixed
from osmotic.codecs.neural import Autoencoder, Neural
from osmotic.codecs.principal import PCA, Whitening
from osmotic.codecs.tiled import Tiled

__all__ = [
    "DCT",
    "PCA",
    "Affine",
    "Autoencoder",
    "Codec",
    "Composed",
    "Decoded",
    "Haar",
    "Identity",
    "Mixed",
    "Neural",
    "Tiled",
    "Whitening",
    "load",
    "save",
]
