"""Linear measurements ``y = A x0``: what is known of a sample, on any number of axes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from osmotic.estimate import like
from osmotic.schedules import Number


class Operator(nn.Module, ABC):
    """A linear map A from samples ``(B, *S)`` to measurements ``(B, *M)``, row by row.

    A new operator writes the map, its adjoint and :meth:`spectral`; pseudo-inverse and regularised solves follow.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A x``: ``(B, *S)`` to ``(B, *M)``."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """``A' y``, with ``<A x, y> = <x, A' y>``: ``(B, *M)`` to ``(B, *S)``."""

    @abstractmethod
    def spectral(self, y: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """``f(A A') y``, with f applied to the eigenvalues (the squared singular values of A); ``(B, *M)``."""

    def solve(self, y: Tensor, signal: Number, noise: float) -> Tensor:
        """``(signal A A' + noise I)^-1 y``, and 0 along what A does not reach where noise = 0.

        Args:
            y: ``(B, *M)``.
            signal: positive, one number or one per sample ``(B,)``.
            noise: a variance, at least 0.
        """
        (signal,) = like(y, signal)
        if noise > 0:
            return self.spectral(y, lambda squares: 1 / (signal * squares + noise))
        return self.spectral(y, _inverted) / signal

    def inverse(self, y: Tensor) -> Tensor:
        """``A^+ y``, the shortest x with A x nearest to y (Moore and Penrose): ``(B, *M)`` to ``(B, *S)``."""
        return self.adjoint(self.spectral(y, _inverted))

    def restore(self, x: Tensor, y: Tensor) -> Tensor:
        """The sample nearest to x that measures y: ``x + A^+ (y - A x)``."""
        return x + self.inverse(y - self(x))

    def measured(self, y: Tensor) -> Tensor:
        """y as it will be read: what no measurement looks at, which may be NaN, is made 0."""
        return y


def _inverted(squares: Tensor) -> Tensor:
    """The inverse of what is not 0 but for rounding: singular values below ``sqrt(eps)`` of the largest count as 0."""
    kept = squares > torch.finfo(squares.dtype).eps * squares.max()
    return torch.where(kept, 1 / torch.where(kept, squares, 1.0), 0.0)


def tiled(rows: Tensor, n: int, what: str) -> Tensor:
    """One row for all, or a row per sample and the whole repeated for a batch of n that repeats its samples.

    Raises:
        ValueError: where n is no multiple of the rows.
    """
    if len(rows) in (1, n):
        return rows
    if n % len(rows):
        raise ValueError(f"{len(rows)} {what} do not fit a batch of {n} samples; give one, or one per sample.")
    return rows.repeat(n // len(rows), *[1] * (rows.ndim - 1))


class Mask(Operator):
    """``A x = mask x``: the known cells of a picture, a table's row or a sequence's past; y keeps the sample's shape.

    Args:
        mask: ``(*S)``, the same for all, or ``(B, *S)``, one per sample; 1 or True where known, 0 where not. An axis
            of length 1 stands for all of that axis.

    Raises:
        ValueError: for other values than 0 and 1; when used, for a shape that does not fit.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("A mask of known cells has 1 where known and 0 where not; this one has other values.")
        self.register_buffer("mask", mask.bool())

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self._known(x), x, 0.0)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.where(self._known(y), y, 0.0)

    def spectral(self, y: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        return y * f(self._known(y).to(y.dtype))

    def restore(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(self._known(x), y, x)

    def measured(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def _known(self, x: Tensor) -> Tensor:
        mask = self.mask[None] if self.mask.ndim == x.ndim - 1 else self.mask
        fits = mask.ndim == x.ndim and all(m in (1, n) for m, n in zip(mask.shape[1:], x.shape[1:], strict=True))
        if not fits:
            raise ValueError(
                f"A mask of shape {tuple(self.mask.shape)} does not fit samples of shape {tuple(x.shape)}; give it "
                "that shape, or that of one sample."
            )
        return tiled(mask, len(x), "masks")


class Downsample(Operator):
    """The mean over blocks of ``factor`` cells along each of some axes: super-resolution's low resolution.

    ``A A' = I / factor^(number of axes)``, and A^+ repeats every cell.

    Args:
        factor: at least 1; the axes' lengths are its multiples.
        axes: of x, counted from the end, as -1 for the last; both sides of a picture are (-2, -1).
    """

    def __init__(self, factor: int, axes: Sequence[int] = (-2, -1)) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"Downsample needs a factor of at least 1; got {factor}.")
        self.factor, self.axes = factor, _from_the_end(axes)

    def forward(self, x: Tensor) -> Tensor:
        _refuse_missing(x, self.axes)
        for axis in self.axes:
            if x.shape[axis] % self.factor:
                raise ValueError(
                    f"Downsample by {self.factor} needs axes of a multiple of {self.factor}; axis {axis} of samples of "
                    f"shape {tuple(x.shape)} is {x.shape[axis]} long."
                )
            lengths = list(x.shape)
            lengths[axis : axis + 1 or None] = [x.shape[axis] // self.factor, self.factor]
            x = x.reshape(lengths).mean(axis)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        _refuse_missing(y, self.axes)
        for axis in self.axes:
            y = y.repeat_interleave(self.factor, axis) / self.factor
        return y

    def spectral(self, y: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        return y * f(y.new_full((), float(self.factor) ** -len(self.axes)))


class Blur(Operator):
    """Circular convolution with one kernel along each of some axes: ``(A x)_i = sum_j k_j x_(i - j + centre)``.

    The discrete Fourier transform diagonalises it: its singular values are the magnitudes of the kernel's transform.

    Args:
        kernel: ``(n,)``; its entry ``n // 2`` is the centre.
        axes: of x, counted from the end; both sides of a picture are (-2, -1).
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor, axes: Sequence[int] = (-2, -1)) -> None:
        super().__init__()
        if kernel.ndim != 1:
            raise ValueError(f"A blur has one row of weights, (n,); got a kernel of shape {tuple(kernel.shape)}.")
        self.register_buffer("kernel", kernel.double())
        self.axes = _from_the_end(axes)

    @classmethod
    def gaussian(cls, deviation: float, axes: Sequence[int] = (-2, -1)) -> Blur:
        """A Gaussian kernel cut off at 4 deviations, with sum 1.

        Args:
            deviation: in cells, positive.
            axes: as for the class.
        """
        if not deviation > 0:
            raise ValueError(f"A Gaussian blur needs a positive deviation in cells; got {deviation}.")
        reach = math.ceil(4 * deviation)
        weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / deviation) ** 2)
        return cls(weights / weights.sum(), axes)

    def forward(self, x: Tensor) -> Tensor:
        return self._filtered(x, self._transfer(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filtered(y, self._transfer(y).conj())

    def spectral(self, y: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        return self._filtered(y, f(self._transfer(y).abs().square()))

    def _filtered(self, x: Tensor, transfer: Tensor) -> Tensor:
        lengths = [x.shape[axis] for axis in self.axes]
        found: Tensor = torch.fft.irfftn(torch.fft.rfftn(x, dim=self.axes) * transfer, lengths, self.axes)
        return found

    def _transfer(self, x: Tensor) -> Tensor:
        """The kernel's transform on rfftn's half of the frequencies, broadcasting against x's."""
        _refuse_missing(x, self.axes)
        whole: Tensor | float = 1.0
        for axis in self.axes:
            n, taps = x.shape[axis], len(self.kernel)
            places = (torch.arange(taps, device=x.device) - taps // 2) % n  # a kernel longer than the axis wraps around
            around = torch.zeros(n, dtype=self.kernel.dtype, device=x.device)
            around = around.index_add(0, places, self.kernel.to(x.device)).to(x.dtype)
            along = torch.fft.rfft(around) if axis == self.axes[-1] else torch.fft.fft(around)
            whole = whole * along.reshape(-1, *[1] * (-axis - 1))
        assert isinstance(whole, Tensor)
        return whole


class Grey(Operator):
    """The weighted sum over an axis: colour to grey for colourisation, or any one mixture of channels.

    ``A A' = |weights|^2 I``.

    Args:
        weights: ``(C,)``; by default the luma of red, green and blue, ITU-R BT.601.
        axis: of x, counted from the end; -3 is the channels of a picture (C, H, W).
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float] | Tensor = (0.299, 0.587, 0.114), axis: int = -3) -> None:
        super().__init__()
        weights = torch.as_tensor(weights, dtype=torch.float64)
        if weights.ndim != 1 or not bool((weights != 0).any()):
            raise ValueError(f"Grey needs one weight per channel, not all 0; got {weights.tolist()}.")
        self.register_buffer("weights", weights)
        (self.axis,) = _from_the_end([axis])

    def forward(self, x: Tensor) -> Tensor:
        weights = self._along(x)
        if x.shape[self.axis] != len(self.weights):
            raise ValueError(
                f"Grey has {len(self.weights)} weights and axis {self.axis} of samples of shape {tuple(x.shape)} is "
                f"{x.shape[self.axis]} long; give one weight per channel."
            )
        return (x * weights).sum(self.axis, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self._along(y)

    def spectral(self, y: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        return y * f(self.weights.square().sum().to(y))

    def _along(self, x: Tensor) -> Tensor:
        _refuse_missing(x, (self.axis,))
        return self.weights.to(x).reshape(-1, *[1] * (-self.axis - 1))


class Matrix(Operator):
    """Any matrix on the flattened sample: sums of columns, single readings, a tomograph.

    Args:
        matrix: ``(m, d)``, with d the number of elements of a sample.
        shape: S, where samples are no vectors.
    """

    matrix: Tensor
    axes: Tensor
    squares: Tensor

    def __init__(self, matrix: Tensor, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.shape = tuple(matrix.shape[1:] if shape is None else shape)
        if matrix.ndim != 2 or math.prod(self.shape) != matrix.shape[1]:
            raise ValueError(
                f"A matrix of shape {tuple(matrix.shape)} does not map samples of shape {self.shape}; give (m, d) with "
                "d elements a sample."
            )
        axes, values, _ = torch.linalg.svd(matrix.double(), full_matrices=True)
        squares = torch.zeros(len(matrix), dtype=torch.float64)
        squares[: len(values)] = values.square()
        self.register_buffer("matrix", matrix)
        self.register_buffer("axes", axes)
        self.register_buffer("squares", squares)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"This matrix maps samples of shape {self.shape}; got a batch of shape {tuple(x.shape)}.")
        return x.flatten(1) @ self.matrix.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.to(y)).reshape(len(y), *self.shape)

    def spectral(self, y: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        axes = self.axes.to(y)
        return ((y @ axes) * f(self.squares.to(y))) @ axes.T


def _from_the_end(axes: Sequence[int]) -> tuple[int, ...]:
    if not axes or any(axis >= 0 for axis in axes) or len(set(axes)) < len(axes):
        raise ValueError(f"Axes are counted from the end, each once, such as (-2, -1); got {tuple(axes)}.")
    return tuple(sorted(axes))


def _refuse_missing(x: Tensor, axes: Sequence[int]) -> None:
    if -min(axes) >= x.ndim:
        raise ValueError(f"A batch of shape {tuple(x.shape)} has no axis {min(axes)} beside its first, the samples.")
