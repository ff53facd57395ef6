"""A learned codec: any autoencoder, its latents brought to unit variance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from osmotic.codecs.base import Codec, Description, Shape, refuse_shape
from osmotic.codecs.moments import moments


class Autoencoder(Protocol):
    """A module with ``encode(x) -> z`` and ``decode(z) -> x``, both on batches; z is the mean where it is a law."""

    def encode(self, x: Tensor) -> Tensor:
        """``(B, *S)`` to ``(B, C, *P)``."""

    def decode(self, z: Tensor) -> Tensor:
        """``(B, C, *P)`` to ``(B, *S)``."""


class Neural(Codec):
    """``z = (network.encode(x) - shift) / scale`` and ``x = network.decode(shift + scale z)``, channel by channel.

    Rombach et al. 2022 (arXiv 2112.10752) divide by one scale, so that latents have unit variance; here each channel
    has its own, and its mean is taken off.

    Args:
        network: an :class:`Autoencoder`, an ``nn.Module``.
        shift: ``(C,)`` in the latents' units.
        scale: ``(C,)``, positive.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        if not all(callable(getattr(network, name, None)) for name in ("encode", "decode")):
            raise TypeError(f"An autoencoder has encode and decode; {type(network).__name__} has not.")
        if shift.ndim != 1 or shift.shape != scale.shape or not bool((scale > 0).all()):
            raise ValueError(
                f"Latent channels need a shift and a positive scale each, (C,); got {tuple(shift.shape)} and "
                f"{tuple(scale.shape)}."
            )
        self.network = network
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    @classmethod
    @torch.no_grad()
    def fit(cls, network: nn.Module, batches: Iterable[Tensor]) -> Neural:
        """The codec whose latents of these data have mean 0 and variance 1 in every channel.

        Args:
            network: an :class:`Autoencoder`; it is put in evaluation mode, which is how it is used.
            batches: data ``(B, *S)`` each, read once.

        Raises:
            ValueError: as :func:`~osmotic.codecs.moments.moments`.
        """
        network.eval()
        shift, scale = moments(cast(Autoencoder, network).encode(x) for x in batches)
        like = next(network.parameters())
        return cls(network, shift.to(like), scale.to(like))

    def encode(self, x: Tensor) -> Tensor:
        z = cast(Autoencoder, self.network).encode(x)
        return (z - self._wide(self.shift, z)) / self._wide(self.scale, z)

    def decode(self, z: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The samples ``(B, *S)`` of latents ``(B, *Z)``; ``size`` as its network's decode has it."""
        z = z * self._wide(self.scale, z) + self._wide(self.shift, z)
        decode: Callable[..., Tensor] = cast(Autoencoder, self.network).decode
        return decode(z) if size is None else decode(z, size)

    @torch.no_grad()
    def latent(self, shape: Shape) -> Shape:
        modes = {module: module.training for module in self.modules()}
        self.eval()  # a blank sample must not enter the statistics of a network in training
        try:
            return tuple(self.encode(self.shift.new_zeros((1, *shape))).shape[1:])
        except RuntimeError as error:  # what torch says of shapes that a layer does not take
            refuse_shape(self, shape, f"what its network reads ({str(error).splitlines()[0]})")
            raise
        finally:
            for module, mode in modes.items():
                module.training = mode

    def description(self) -> Description:
        kinds = [[name, type(module).__qualname__] for name, module in self.network.named_modules()]
        return {"kind": "neural", "modules": kinds}

    def _wide(self, numbers: Tensor, z: Tensor) -> Tensor:
        if z.shape[1:2] != numbers.shape:
            raise ValueError(f"This codec has {len(numbers)} latent channels; got latents of shape {tuple(z.shape)}.")
        return numbers.to(z).reshape(-1, *[1] * (z.ndim - 2))
