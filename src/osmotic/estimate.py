"""The common currency: what a network output says about the clean sample and the noise.

A network output is one linear equation ``y = a x0 + b eps``; the noisy sample is the other, ``x = alpha x0 + sigma
eps``. Decoding any parameterization is one 2x2 solve, done on the scalars in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from osmotic.levels import as_time, once
from osmotic.schedules import Number, Schedule, numbers

Pair: TypeAlias = tuple[Number, Number]


def like(x: Tensor, *scales: Number) -> tuple[Number, ...]:
    """Scales ready to multiply x: plain numbers pass, ``(B,)`` tensors become x's dtype and shape ``(B, 1, ..., 1)``.

    Raises:
        ValueError: if a scale is neither a single number nor one number per sample.
    """
    return tuple(_like(x, s) for s in scales)


def _like(x: Tensor, scale: Number) -> Number:
    if not isinstance(scale, Tensor):
        return scale
    if scale.ndim and scale.shape != x.shape[:1]:
        raise ValueError(
            f"A scale of shape {tuple(scale.shape)} does not fit a batch of shape {tuple(x.shape)}; use () or (B,)."
        )
    return scale.to(x).reshape(scale.shape + (1,) * (x.ndim - scale.ndim))


def combine(u: Tensor, v: Tensor, p: Number, q: Number) -> Tensor:
    """``p u + q v`` in as few tensor operations as the numbers allow."""
    if type(p) is float and type(q) is float:  # a sampling loop's usual case, first
        if q == 0:
            return u if p == 1 else u * p
        if p == 0:
            return v if q == 1 else v * q
        return torch.add(v if q == 1 else v * q, u, alpha=p)
    if not isinstance(p, Tensor) and not isinstance(q, Tensor):
        return combine(u, v, float(p), float(q))
    p, q = like(u, p, q)
    return torch.addcmul(u * p, v, q) if isinstance(q, Tensor) else u * p + v * q


def gather(x: Tensor, keep: float, terms: Iterable[tuple[Estimate, float, float]]) -> Tensor:
    """``keep x + sum (a x0 + b eps)`` over several estimates, each tensor touched once.

    Args:
        x: ``(B, *S)``.
        keep: its coefficient.
        terms: (estimate, a, b), with the coefficients of its x0 and eps.
    """
    rest: list[tuple[Tensor, Number]] = []
    for estimate, a, b in terms:
        u, v, p, q = estimate.row(a, b)
        if u is x:
            keep = keep + p  # type: ignore[assignment]
        else:
            rest.append((u, p))
        rest.append((v, q))
    total = x * keep if keep != 0 else None
    for tensor, number in rest:
        if number != 0:
            total = tensor * number if total is None else torch.add(total, tensor, alpha=number)  # type: ignore[arg-type]
    return torch.zeros_like(x) if total is None else total


class Estimate:
    """An estimate of the clean sample x0 and the noise eps.

    It behaves as the pair ``(x0, eps)`` and unpacks as one. Inside it keeps two tensors (u, v) and two pairs of numbers
    with ``x0 = p u + q v`` and ``eps = r u + s v``, so that :meth:`at` folds everything into a single combination.

    Args:
        x0: the clean sample, ``(B, *S)``.
        eps: the unit noise, ``(B, *S)``.

    Attributes:
        v: the learned variance of the reverse step as a fraction, ``log V = v log V_large + (1 - v) log V_small``,
            ``(B, *S)``; None where none was learned.
    """

    __slots__ = ("_eps", "_u", "_v", "_x0", "v")

    def __init__(self, x0: Tensor, eps: Tensor, v: Tensor | None = None) -> None:
        self._u, self._v, self.v = x0, eps, v
        self._x0: Pair = (1.0, 0.0)
        self._eps: Pair = (0.0, 1.0)

    @staticmethod
    def of(u: Tensor, v: Tensor, x0: Pair, eps: Pair, fraction: Tensor | None = None) -> Estimate:
        """The estimate with ``x0 = x0[0] u + x0[1] v``, ``eps = eps[0] u + eps[1] v`` and this learned variance."""
        self = object.__new__(Estimate)
        self._u, self._v, self._x0, self._eps, self.v = u, v, x0, eps, fraction
        return self

    def row(self, a: Number, b: Number) -> tuple[Tensor, Tensor, Number, Number]:
        """``a x0 + b eps`` as ``p u + q v``, unformed: (u, v, p, q). For solvers that join several estimates."""
        (p, q), (r, s) = self._x0, self._eps
        return self._u, self._v, a * p + b * r, a * q + b * s

    @property
    def x0(self) -> Tensor:
        """The estimated clean sample."""
        return combine(self._u, self._v, *self._x0)

    @property
    def eps(self) -> Tensor:
        """The estimated unit noise."""
        return combine(self._u, self._v, *self._eps)

    def __iter__(self) -> Iterator[Tensor]:
        yield self.x0
        yield self.eps

    def at(self, alpha: Number, sigma: Number) -> Tensor:
        """``alpha x0 + sigma eps``: the estimated point of the path at another level, or any other combination."""
        (p, q), (r, s) = self._x0, self._eps
        a, b = alpha * p + sigma * r, alpha * q + sigma * s
        if type(a) is float and type(b) is float and a and b:  # a sampling loop's usual case, without a further call
            return torch.add(self._v * b, self._u, alpha=a)
        return combine(self._u, self._v, a, b)

    def lerp(self, other: Estimate, weight: Number) -> Estimate:
        """``self + weight (other - self)``: guidance; weight 0 is self, 1 is other, above 1 extrapolates.

        A learned variance is other's: that of what is led to.
        """
        if self._x0 is other._x0 and self._eps is other._eps:
            # The same combination of their tensors: mix those, and x only where it is not shared.
            u = self._u if self._u is other._u else _mix(self._u, other._u, weight)
            return Estimate.of(u, _mix(self._v, other._v, weight), self._x0, self._eps, other.v)
        return Estimate(_mix(self.x0, other.x0, weight), _mix(self.eps, other.eps, weight), other.v)

    def split(self, first: int) -> tuple[Estimate, Estimate]:
        """The estimates of the first samples and of the rest."""
        return self._part(slice(None, first)), self._part(slice(first, None))

    def _part(self, index: slice) -> Estimate:
        def part(pair: Pair) -> Pair:
            p, q = (n[index] if isinstance(n, Tensor) and n.ndim else n for n in pair)
            return p, q

        shared = all(not isinstance(n, Tensor) or n.ndim == 0 for n in (*self._x0, *self._eps))
        x0, eps = (self._x0, self._eps) if shared else (part(self._x0), part(self._eps))
        return Estimate.of(self._u[index], self._v[index], x0, eps, None if self.v is None else self.v[index])

    def __repr__(self) -> str:
        return f"Estimate(x0={tuple(self._u.shape)}, eps={tuple(self._u.shape)})"


def _mix(a: Tensor, b: Tensor, weight: Number) -> Tensor:
    (weight,) = like(a, weight)
    return torch.lerp(a, b, weight)


class Target(ABC):
    """What a network outputs: the row ``(a, b)`` of ``y = a x0 + b eps``. A new target is one class with one method."""

    @abstractmethod
    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(a, b)`` at time t, tensors of t's shape."""

    def __call__(self, schedule: Schedule, t: Number) -> tuple[Tensor, Tensor]:
        """``(a, b)`` of ``y = a x0 + b eps`` at time t, in t's shape."""
        return self.row(schedule, as_time(t))

    def numbers(self, schedule: Schedule, t: Number) -> Pair:
        """The row as plain floats at a single CPU time, as ``(B,)`` tensors where times differ per sample."""
        t = as_time(t)
        a, b = once(t, (self, schedule), lambda: numbers(*self(schedule, t)))
        return a, b

    def __repr__(self) -> str:
        return type(self).__name__


class X0(Target):
    """The clean sample. Singular at sigma = 0."""

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), torch.zeros_like(t)


class Eps(Target):
    """The unit noise (Ho et al. 2020, arXiv 2006.11239). Singular at alpha = 0."""

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)


class Score(Target):
    """The score ``-eps / sigma`` (Song & Ermon 2019, arXiv 1907.05600). Singular at alpha = 0, infinite at sigma =
    0.
    """

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        _, sigma = schedule(t)
        return torch.zeros_like(t), -1 / sigma


class V(Target):
    """``v = alpha eps - sigma x0`` (Salimans & Ho 2022, arXiv 2202.00512). Singular nowhere, on any path."""

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(t)
        return -sigma, alpha


class Velocity(Target):
    """``u = alpha' x0 + sigma' eps``, the path's velocity (Lipman et al. 2022, arXiv 2210.02747); eps - x0 on the
    rectified path.
    """

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        return schedule.rates(t)


class Karras(Target):
    """EDM's F: ``(sigma / sd x0 - alpha sd eps) / sqrt(sigma^2 + alpha^2 sd^2)``, unit variance for data of deviation
    sd.

    Karras et al. 2022 (arXiv 2206.00364), written without division by alpha. Singular nowhere; with sd = 1 on a
    variance-preserving path it is -v.

    Args:
        sigma_data: sd, the standard deviation of the data, positive.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        if not sigma_data > 0:
            raise ValueError(f"Karras needs a positive sigma_data; got {sigma_data}.")
        self.sigma_data = sigma_data

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(t)
        deviation = torch.hypot(sigma, alpha * self.sigma_data)
        return sigma / (self.sigma_data * deviation), -alpha * self.sigma_data / deviation


class Point(Target):
    """The path's point at another time s: ``alpha_s x0 + sigma_s eps``. Singular at t = s.

    A network that outputs x_s, an exact flow map, and the inversion of a DDIM step (progressive distillation's target)
    are all this row.

    Args:
        s: the time aimed at, one number or one per sample.
    """

    def __init__(self, s: Number) -> None:
        self.s = s

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(self.s)
        return alpha.to(t).expand_as(t), sigma.to(t).expand_as(t)


def solve(x: Tensor, y: Tensor, path: Pair, row: Pair) -> Estimate:
    """The estimate with ``alpha x0 + sigma eps = x`` and ``a x0 + b eps = y``.

    ``x0 = (b x - sigma y) / det`` and ``eps = (alpha y - a x) / det`` with ``det = alpha b - sigma a``.

    Args:
        x: the noisy sample, ``(B, *S)``.
        y: the network output, ``(B, *S)``.
        path: ``(alpha, sigma)``, floats or ``(B,)`` float64 tensors.
        row: ``(a, b)``, likewise.
    """
    return Estimate.of(x, y, *inverse(path, row))


def inverse(path: Pair, row: Pair) -> tuple[Pair, Pair]:
    """The coefficients of (x, y) in x0 and in eps: the inverse of ``[[alpha, sigma], [a, b]]``."""
    (alpha, sigma), (a, b) = path, row
    det = alpha * b - sigma * a
    return (b / det, -sigma / det), (-a / det, alpha / det)


# Targets by name; Karras takes the data's deviation. Enter a new target here and the conformance tests pick it up.
TARGETS: dict[str, Callable[[float], Target]] = {
    "x0": lambda sigma_data: X0(),
    "eps": lambda sigma_data: Eps(),
    "score": lambda sigma_data: Score(),
    "v": lambda sigma_data: V(),
    "velocity": lambda sigma_data: Velocity(),
    "karras": Karras,
}
