"""A codec that works piece by piece: its memory does not grow with the picture, and it gives what the whole gives."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from osmotic.codecs.base import Codec, Description, Shape
from osmotic.codecs.moments import NONE

Run = Callable[[Tensor], Tensor]
MOST = 64
"""The most latent positions along an axis on which reach is looked for."""


class Tiled(Codec):
    """The same codec, applied to overlapping pieces whose rims are thrown away.

    A piece is ``tile`` latent positions along each axis, and as many around it as the network's values depend on: its
    *reach*, which is not guessed but found, once, by a value that is no number and what it spoils. What is left of the
    pieces is then what the whole gives, up to rounding, and is laid side by side: there is nothing to blend.

    Group norms see all positions at once, so pieces that normalise themselves differ from the whole, visibly. Here
    their statistics are the whole's: each norm in turn has its sums taken over all pieces, and is fixed. That costs a
    part of a pass for each norm, and no memory. A codec with attention over all positions cannot be cut up, and is
    refused.

    Gradients are not computed. It is its codec: it has its fingerprint and its latents.

    Args:
        codec: of samples with positions, one latent position for f along each axis.
        tile: latent positions of a piece along each axis, without what lies around; smaller samples are left whole.

    Raises:
        ValueError: when it is used, for a codec that reads all positions at once.
    """

    def __init__(self, codec: Codec, tile: int = 64) -> None:
        super().__init__()
        if tile < 1:
            raise ValueError(f"A piece has at least one latent position along each axis, not {tile}.")
        self.codec, self.tile = codec, tile
        self.orthonormal = codec.orthonormal
        self._found: dict[tuple[object, ...], _Local] = {}

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        return self._pieces("encode", self.codec.encode, x)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        def run(part: Tensor) -> Tensor:
            if part.shape == z.shape:
                return self.codec.decode(part)
            return self._apart(part)

        return self._pieces("decode", run, z)

    def _apart(self, part: Tensor) -> Tensor:
        """A piece, which may have the size of the data that a network was made for, and is no sample of them."""
        found = self._found.get(("decode", part.shape[1], part.dim(), part.dtype, part.device))
        network = getattr(self.codec, "network", None)
        if found is None or network is None or "size" not in inspect.signature(network.decode).parameters:
            return self.codec.decode(part)
        return self.codec.decode(part, [n * found.outer for n in part.shape[2:]])  # type: ignore[call-arg]

    def latent(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            return self.codec.latent(shape)
        some = next((t for t in self.codec.state_dict().values() if t.is_floating_point()), torch.zeros(()))
        each = self._local("encode", self.codec.encode, some.new_zeros(1, *shape[:1], *[1] * len(shape[1:]))).inner
        channels = self.codec.latent((shape[0], *[each] * len(shape[1:])))[0]
        return (channels, *(-(-n // each) for n in shape[1:]))

    def log_det(self, shape: Shape) -> float:
        return self.codec.log_det(shape)

    def description(self) -> Description:
        return {"kind": "tiled", "tile": self.tile, "codec": self.codec.description()}

    def fingerprint(self) -> str:
        return self.codec.fingerprint()

    def reach(self, way: str, like: Tensor) -> int:
        """How many latent positions to each side a value depends on, at most.

        Args:
            way: ``"encode"`` or ``"decode"``.
            like: samples or latents of the kind, ``(B, C, ...)``.
        """
        return self._local(way, getattr(self.codec, way), like).reach

    def _pieces(self, way: str, run: Run, x: Tensor) -> Tensor:
        if x.dim() < 3:
            return run(x)
        local = self._local(way, run, x)
        windows = _windows([-(-n // local.inner) for n in x.shape[2:]], self.tile, local.reach)
        if len(windows) == 1:
            return run(x)
        norms: list[_Moments] = []
        for ratio in local.norms:
            norms.append(_moments(run, x, windows, local, norms, ratio))

        def piece(part: Tensor) -> Tensor:
            with _Norms(norms):
                return run(part)

        return _joined(piece, x, windows, local)

    def _local(self, way: str, run: Run, x: Tensor) -> _Local:
        key = (way, x.shape[1], x.dim(), x.dtype, x.device)
        if key not in self._found:
            self._found[key] = _looked_up(run, x)
        return self._found[key]


class _Local(NamedTuple):
    """A map of positions: ``inner`` inputs and ``outer`` outputs for each latent position, what it reads, its norms.

    ``norms``: for each group norm, in order, how many positions it sees for each latent one.
    """

    inner: int
    outer: int
    reach: int
    norms: tuple[int, ...]


class _Moments(NamedTuple):
    """Mean and variance of each group of each sample, ``(B, G)`` float64."""

    mean: Tensor
    variance: Tensor


class _Window(NamedTuple):
    """A piece along every axis, in latent positions: from ``first`` to ``last`` it is kept, with the rim it is read."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    def read(self, x: Tensor, each: int) -> Tensor:
        """The piece of ``(B, C, ...)`` with ``each`` entries for a position."""
        for axis, (a, b) in enumerate(zip(self.low, self.high, strict=True), start=2):
            x = x.narrow(axis, a * each, min(b * each, x.shape[axis]) - a * each)
        return x

    def kept(self, y: Tensor, each: int) -> Tensor:
        """What is kept of a piece."""
        for axis, (low, a, b) in enumerate(zip(self.low, self.first, self.last, strict=True), start=2):
            start = (a - low) * each
            y = y.narrow(axis, start, min((b - low) * each, y.shape[axis]) - start)
        return y


def _windows(positions: Sequence[int], tile: int, reach: int) -> list[_Window]:
    """Pieces of even sizes, at most ``tile``, that cover all positions once."""
    axes = []
    for n in positions:
        count = -(-n // tile)
        ends = [n * i // count for i in range(count + 1)]
        axes.append([(a, b, max(0, a - reach), min(n, b + reach)) for a, b in itertools.pairwise(ends)])
    return [_Window(*zip(*piece, strict=True)) for piece in itertools.product(*axes)]


def _joined(run: Run, x: Tensor, windows: Sequence[_Window], local: _Local) -> Tensor:
    """The kept parts of all pieces, side by side."""
    whole: Tensor | None = None
    ends = [0] * (x.dim() - 2)
    for window in windows:
        part = window.kept(run(window.read(x, local.inner)), local.outer)
        if whole is None:
            sizes = [local.outer * n for n in windows[-1].last]
            whole = part.new_empty(*part.shape[:2], *sizes)
        place = whole
        for axis, (a, n) in enumerate(zip(window.first, part.shape[2:], strict=True), start=2):
            place = place.narrow(axis, a * local.outer, n)
            ends[axis - 2] = max(ends[axis - 2], a * local.outer + n)
        place.copy_(part)
    assert whole is not None
    for axis, n in enumerate(ends, start=2):  # a last position that stands for less than a whole one
        whole = whole.narrow(axis, 0, n)
    return whole


class _Reached(Exception):
    """The norm whose statistics are wanted was reached."""

    def __init__(self, x: Tensor, groups: int) -> None:
        super().__init__()
        self.x, self.groups = x, groups


class _Norms(TorchFunctionMode):
    """Group norms with given statistics, in the order in which they are met; one beyond the last is an event.

    Args:
        known: of the first norms.
        blind: leave all norms out, and note what sizes they see.
    """

    def __init__(self, known: Sequence[_Moments], blind: bool = False) -> None:
        super().__init__()
        self.known, self.blind, self.met, self.sizes = known, blind, 0, list[tuple[int, ...]]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (F.group_norm, torch.group_norm):
            return func(*args, **(kwargs or {}))
        return self._normal(*args, **(kwargs or {}))

    def _normal(
        self,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *_: Any,
    ) -> Tensor:
        wide = (1, -1, *[1] * (input.dim() - 2))
        if self.blind:
            self.sizes.append(tuple(input.shape[2:]))
            y = input
        else:
            if self.met == len(self.known):
                raise _Reached(input, num_groups)
            mean, variance = self.known[self.met]
            self.met += 1
            grouped = input.reshape(*mean.shape, -1)
            scale = (variance + eps).rsqrt()
            y = ((grouped - mean[..., None].to(input)) * scale[..., None].to(input)).reshape(input.shape)
        y = y if weight is None else y * weight.view(wide)
        return y if bias is None else y + bias.view(wide)


def _moments(
    run: Run, x: Tensor, windows: Sequence[_Window], local: _Local, known: Sequence[_Moments], ratio: int
) -> _Moments:
    """The statistics that the next norm has of the whole: sums over what each piece adds to it."""
    found = NONE
    for window in windows:
        norms = _Norms(known)
        try:
            with norms:
                run(window.read(x, local.inner))
        except _Reached as reached:
            own = window.kept(reached.x, ratio).reshape(len(x), reached.groups, -1).double()
        else:
            raise ValueError("This codec's network does not do the same for every piece; use it whole.")
        found = found.joined(own)
    return _Moments(found.mean, found.variance)


def _looked_up(run: Run, like: Tensor) -> _Local:
    """What a map reads, found by running it on blank samples, norms left out."""
    inner, outer, norms = _strides(run, like)
    n = 8
    while n <= MOST:
        first, second = (_reached(run, like, n, at, inner, outer) for at in (n // 2 - 1, n // 2))
        if (n, n) not in (first, second):
            if first != second:
                raise ValueError("This codec does not do the same at every position, so pieces differ; use it whole.")
            return _Local(inner, outer, max(first), norms)
        n *= 2
    raise ValueError(
        "This codec reads all positions at once (by attention, or a transform of the whole), so it cannot be cut into "
        "pieces; use it whole."
    )


def _reached(run: Run, like: Tensor, n: int, at: int, inner: int, outer: int) -> tuple[int, int]:
    """How many latent positions before and after its own a value reaches, of n; both are n where it reaches the rim."""
    x = like.new_zeros(1, like.shape[1], *[n * inner] * (like.dim() - 2))
    spot = x
    for axis in range(2, x.dim()):
        spot = spot.narrow(axis, at * inner, inner)
    spot.fill_(torch.nan)
    with _Norms((), blind=True):
        spoilt = run(x)[0].isnan().any(0).nonzero().div(outer, rounding_mode="floor")
    if not len(spoilt):
        raise ValueError("What this codec gives does not depend on its input, so there is nothing to cut up.")
    low, high = int(spoilt.min()), int(spoilt.max())
    return (n, n) if low == 0 or high == n - 1 else (at - low, high - at)


def _strides(run: Run, like: Tensor) -> tuple[int, int, tuple[int, ...]]:
    """Inputs and outputs for each latent position, and what norms see for each; from two sizes, as one may be cut."""
    axes = like.dim() - 2
    for n in (8, 16, 32, 64):
        found = []
        for side in (n, 2 * n):
            with _Norms((), blind=True) as norms:
                sizes = set(run(like.new_zeros(1, like.shape[1], *[side] * axes)).shape[2:])
            found.append(sizes.pop() if len(sizes) == 1 else 0)
        one, two = found
        if one < 1 or two != 2 * one or (one % n and n % one):
            continue
        inner, outer = max(1, n // one), max(1, one // n)
        cells = 2 * n // inner
        if any(size % cells for sizes in norms.sizes for size in sizes):
            raise ValueError("This codec's norms see other positions than its latents and samples have; use it whole.")
        return inner, outer, tuple(sizes[0] // cells for sizes in norms.sizes)
    raise ValueError("Pieces need a codec with one latent position for f x f of the sample's; use this one whole.")
