"""What a codec is: a map from data to latents and back, that says what it is and how it changes a density."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from osmotic.contents import contents

Shape = tuple[int, ...]
Description = dict[str, Any]


class Codec(nn.Module, ABC):
    """``z = encode(x)`` and ``x = decode(z)``, sample by sample, with ``encode(decode(z)) = z`` for the exact ones.

    A new codec writes these two, :meth:`latent` and :meth:`description`; a linear one is an :class:`Affine`.

    Attributes:
        orthonormal: whether it is a rotation of the whole space, and a shift: white noise stays white both ways.
        home: the folder that says how a learned one's network is made; None where its own file says it all.
    """

    orthonormal: bool = False
    home: Path | None = None

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The latents ``(B, *Z)`` of samples ``(B, *S)``."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The samples ``(B, *S)`` of latents ``(B, *Z)``."""

    @abstractmethod
    def latent(self, shape: Shape) -> Shape:
        """The shape Z of the latents of samples of shape S.

        Raises:
            ValueError: where the codec does not fit such samples.
        """

    @abstractmethod
    def description(self) -> Description:
        """What it is besides its tensors, in JSON's own types; ``kind`` is its name in files."""

    def log_det(self, shape: Shape) -> float:
        """``log |det dz/dx|`` in nats for samples of shape S, so that ``log p(x) = log p(z) + log_det``.

        Raises:
            ValueError: for a codec that is no bijection with a constant determinant.
        """
        self.latent(shape)
        if self.orthonormal:
            return 0.0
        raise ValueError(
            f"{type(self).__name__} of samples of shape {shape} has no constant determinant, so a log-density of "
            "latents says nothing of the samples'; use a codec that keeps all dimensions."
        )

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of what it is, its tensors to the bit: equal wherever and whenever it is asked."""
        digest = hashlib.sha256(json.dumps(self.description(), sort_keys=True).encode())
        for title, data in contents(self.state_dict()):
            digest.update(title.encode())
            digest.update(data)
        return digest.hexdigest()


class Affine(Codec):
    """``z = A (x - shift)`` and ``x = shift + A^+ z``, with rows of A that do not depend on each other.

    Args:
        shift: ``(*S)``, or None for 0.
    """

    shift: Tensor | None

    def __init__(self, shift: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    @abstractmethod
    def analyse(self, x: Tensor) -> Tensor:
        """``A x``: ``(B, *S)`` to ``(B, *Z)``; what happens to noise."""

    @abstractmethod
    def synthesise(self, z: Tensor) -> Tensor:
        """``A^+ z``: ``(B, *Z)`` to ``(B, *S)``."""

    def encode(self, x: Tensor) -> Tensor:
        self.latent(tuple(x.shape[1:]))
        return self.analyse(x if self.shift is None else x - self.shift.to(x))

    def decode(self, z: Tensor) -> Tensor:
        x = self.synthesise(z)
        return x if self.shift is None else x + self.shift.to(x)


def refuse_shape(codec: Codec, shape: Shape, expected: str) -> None:
    """Refuse samples that a codec does not fit, in one sentence."""
    raise ValueError(f"{type(codec).__name__} does not fit samples of shape {tuple(shape)}; it needs {expected}.")
