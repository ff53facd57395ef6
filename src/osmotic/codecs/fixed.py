"""Codecs that need no data: the identity, the Haar wavelet and the cosine transform, all of them rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.codecs.base import Affine, Description, Shape, refuse_shape


class Identity(Affine):
    """``z = x``: diffusion on the data themselves."""

    orthonormal = True

    def analyse(self, x: Tensor) -> Tensor:
        return x

    def synthesise(self, z: Tensor) -> Tensor:
        return z

    def latent(self, shape: Shape) -> Shape:
        return tuple(shape)

    def description(self) -> Description:
        return {"kind": "identity"}


class Haar(Affine):
    """The orthonormal Haar wavelet, its bands stacked as channels: ``(C, *S)`` to ``(C 2^(a L), *S / 2^L)``.

    One level turns neighbours (u, v) along each of a axes into ``((u + v), (u - v)) / sqrt 2``; the next one does so
    with the coarse band alone (Mallat 1989). Finer bands are laid out by position, so every latent channel is a picture
    of the same size. The first C channels are block means, times ``2^(a L / 2)``.

    Args:
        axes: a, how many axes follow the channels: 1 for sequences, 2 for pictures, 3 for volumes.
        levels: L, at least 1; the axes' lengths are multiples of 2^L.
    """

    orthonormal = True

    def __init__(self, axes: int = 2, levels: int = 1) -> None:
        super().__init__()
        if axes not in (1, 2, 3) or levels < 1:
            raise ValueError(f"Haar has 1, 2 or 3 axes and at least one level; got {axes} axes and {levels} levels.")
        self.axes, self.levels = axes, levels

    def analyse(self, x: Tensor) -> Tensor:
        return self._down(x, self.levels)

    def synthesise(self, z: Tensor) -> Tensor:
        if z.ndim != self.axes + 2 or z.shape[1] % 2 ** (self.axes * self.levels):
            raise ValueError(
                f"Latents of shape {tuple(z.shape[1:])} are not those of Haar({self.axes}, {self.levels}); it makes a "
                f"multiple of {2 ** (self.axes * self.levels)} channels."
            )
        return self._up(z, self.levels)

    def latent(self, shape: Shape) -> Shape:
        size = 2**self.levels
        if len(shape) != self.axes + 1 or any(n % size or not n for n in shape[1:]):
            refuse_shape(self, shape, f"channels and {self.axes} axes whose lengths are multiples of {size}")
        return shape[0] * size**self.axes, *(n // size for n in shape[1:])

    def description(self) -> Description:
        return {"kind": "haar", "axes": self.axes, "levels": self.levels}

    def _down(self, x: Tensor, levels: int) -> Tensor:
        channels = x.shape[1]
        for axis in range(2, x.ndim):
            x = torch.cat(_turned(*_halves(x, axis)), 1)
        if levels == 1:
            return x
        fine = x[:, channels:]
        for _ in range(levels - 1):
            for axis in range(2, x.ndim):
                fine = torch.cat(_halves(fine, axis), 1)
        return torch.cat([self._down(x[:, :channels], levels - 1), fine], 1)

    def _up(self, z: Tensor, levels: int) -> Tensor:
        if levels > 1:
            coarse = z.shape[1] // 2**self.axes
            fine = z[:, coarse:]
            for _ in range(levels - 1):
                for axis in reversed(range(2, z.ndim)):
                    fine = _merged(fine, axis)
            z = torch.cat([self._up(z[:, :coarse], levels - 1), fine], 1)
        for axis in reversed(range(2, z.ndim)):
            z = _merged(torch.cat(_turned(*z.chunk(2, 1)), 1), axis)
        return z


def _halves(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """What stands at even and at odd places along an axis."""
    even, odd = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :]).unbind(axis + 1)
    return even, odd


def _merged(x: Tensor, axis: int) -> Tensor:
    """The inverse of :func:`_halves` and of joining the two as channels."""
    return torch.stack(x.chunk(2, 1), axis + 1).flatten(axis, axis + 1)


def _turned(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``((u + v), (u - v)) / sqrt 2``, its own inverse."""
    return (u + v) * math.sqrt(0.5), (u - v) * math.sqrt(0.5)


class DCT(Affine):
    """The orthonormal cosine transform (DCT-II) along some axes, whole or by blocks, in place.

    ``z_k = c_k sum_i x_i cos(pi (2 i + 1) k / (2 n))`` with ``c_0 = sqrt(1/n)`` and ``c_k = sqrt(2/n)`` (Ahmed et
    al. 1974); with blocks of 8 it is JPEG's.

    Args:
        axes: of x, counted from the end, as -1 for the last; both sides of a picture are (-2, -1).
        block: n, of which the axes' lengths are multiples; None for the whole axis.
    """

    orthonormal = True

    def __init__(self, axes: Sequence[int] = (-2, -1), block: int | None = None) -> None:
        super().__init__()
        if not axes or any(axis >= 0 for axis in axes) or len(set(axes)) < len(axes):
            raise ValueError(f"Axes are counted from the end, each once, such as (-2, -1); got {tuple(axes)}.")
        if block is not None and block < 1:
            raise ValueError(f"Blocks of the cosine transform have at least one entry; got {block}.")
        self.axes, self.block = tuple(axes), block

    def analyse(self, x: Tensor) -> Tensor:
        return self._along(x, inverse=False)

    def synthesise(self, z: Tensor) -> Tensor:
        self.latent(tuple(z.shape[1:]))
        return self._along(z, inverse=True)

    def latent(self, shape: Shape) -> Shape:
        if -min(self.axes) > len(shape) or any(shape[axis] % (self.block or 1) for axis in self.axes):
            sizes = "" if self.block is None else f" whose lengths are multiples of {self.block}"
            refuse_shape(self, shape, f"axes {self.axes}{sizes}")
        return tuple(shape)

    def description(self) -> Description:
        return {"kind": "dct", "axes": list(self.axes), "block": self.block}

    def _along(self, x: Tensor, inverse: bool) -> Tensor:
        for axis in self.axes:
            n = self.block or x.shape[axis]
            matrix = cosines(n).to(x)
            rows = x.movedim(axis, -1)
            turned = rows.reshape(*rows.shape[:-1], -1, n) @ (matrix if inverse else matrix.T)
            x = turned.flatten(-2).movedim(-1, axis)
        return x


def cosines(n: int) -> Tensor:
    """The orthonormal matrix of the DCT-II, ``(n, n)`` float64, one frequency a row."""
    i = torch.arange(n)
    # The angle's whole turns are left out as integers, where they cost no digits.
    angles = ((2 * i + 1) * i[:, None] % (4 * n)).double() * (math.pi / (2 * n))
    scale = torch.full((n, 1), math.sqrt(2 / n), dtype=torch.float64)
    scale[0] = math.sqrt(1 / n)
    return scale * torch.cos(angles)
