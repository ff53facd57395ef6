"""Denoisers of positions and velocities: any ordinary denoiser lifted, exact ones, and networks."""

from __future__ import annotations

import math
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from osmotic.clocks import Angle, Clock
from osmotic.denoiser import Denoiser, Rescheduled
from osmotic.estimate import like
from osmotic.noise import Generators, normal
from osmotic.phase.estimate import PhaseEstimate, solve
from osmotic.phase.matrix import Matrix, apply
from osmotic.phase.path import PhasePath, path_of
from osmotic.phase.targets import PhaseTarget, Position, VelocityNoise
from osmotic.samplers.base import numeric
from osmotic.schedules import Number


class Density(Protocol):
    """What :meth:`Lifted.log_prob` and :meth:`Lifted.sample` ask of an oracle."""

    def log_prob(self, x: Tensor, t: Number) -> Tensor:
        """Log-density of the path's marginal, ``(B,)`` nats."""

    def sample(self, n: int, generator: Generators = None) -> Tensor:
        """Exact data, ``(n, *S)``."""


class Lifted(Denoiser):
    """Any ordinary denoiser, oracle or trained, read on a phase path: the same knowledge of the data, no retraining.

    u_t shows x0 through two correlated channels. ``y = a^T Sigma^{-1} u / (a^T Sigma^{-1} a)`` is sufficient for x0 and
    is x0 plus noise of variance ``1 / (a^T Sigma^{-1} a)``, so that ``E[x0 | u_t] = E[x0 | y]`` is the ordinary
    denoiser's at that noise level; ``eps = R^{-1} (u - a x0)``, and ``-R^{-T} eps`` is the phase-space score. With an
    exact denoiser inside it is exact: it is the oracle of the phase path.

    Args:
        denoiser: on any ordinary path, of data ``(B, *S)``.
        path: the phase path.

    Attributes:
        start: the noisiest time that the ordinary denoiser knows.
    """

    def __init__(self, denoiser: Denoiser, path: PhasePath) -> None:
        super().__init__()
        numeric(denoiser)
        self.denoiser = denoiser if denoiser.schedule is path.channel else Rescheduled(denoiser, path.channel)
        self.schedule, self.path = path, path
        self.start, self.diagonal = self.denoiser.start, denoiser.diagonal

    @property
    def ordinary(self) -> Denoiser:
        """The denoiser as it was given, on its own path."""
        inner = self.denoiser
        return inner.denoiser if isinstance(inner, Rescheduled) and inner.schedule is self.path.channel else inner

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> PhaseEstimate:
        if s is not None:
            raise ValueError("A lifted denoiser has no flow map; sample it with a solver such as osmotic.phase.GDDIM.")
        t = self.path.noisy(t)
        x0 = self.denoiser(self.seen(x, t), t, cond).x0
        target = Position()
        return solve(x, target.full(x0[:, None]), self.path.matrices(t), target.rows(self.path, t))

    def seen(self, u: Tensor, t: Number) -> Tensor:
        """The point of the ordinary path that tells as much of x0 as u ``(B, 2, *S)`` does, ``(B, *S)``."""
        (p, q), _, _ = self._channel(t)
        p, q = like(u[:, 0], p, q)
        return u[:, 0] * p + u[:, 1] * q

    def log_prob(self, u: Tensor, t: Number) -> Tensor:
        """The log-density of ``u_t = (x_t, v_t)``, ``(B,)`` nats, if the denoiser inside has a density; t > 0.

        The pair (what is seen of x0, the remainder ``b^T u`` with b orthogonal to a) is independent given x0, and the
        remainder is Gaussian.
        """
        (p, q), (b_x, b_v), variance = self._channel(t)
        (volume,) = like(u[:, 0].flatten(1), _log_abs(p * b_v - q * b_x) - 0.5 * _log_abs(2 * math.pi * variance))
        b_x, b_v, variance = like(u[:, 0], b_x, b_v, variance)
        square = (u[:, 0] * b_x + u[:, 1] * b_v) ** 2 / variance
        return self._log_seen(self.seen(u, t), t) + (volume - 0.5 * square.flatten(1)).sum(1)

    def _log_seen(self, y: Tensor, t: Number) -> Tensor:
        """The log-density of what is seen, ``(B,)``: a point of the channel, which is one of the denoiser's own path in
        another scale.
        """
        own, oracle = self.ordinary.schedule, cast(Density, self.ordinary)
        if own is self.path.channel:
            return oracle.log_prob(y, t)
        base = own.time(self.path.channel.log_snr(t))
        size, base_size = (torch.hypot(*path(time)) for path, time in ((self.path.channel, t), (own, base)))
        scale, volume = like(y, base_size / size)[0], like(y.flatten(1), (base_size / size).log())[0]
        found: Tensor = oracle.log_prob(y * scale, base) + (volume * torch.ones_like(y.flatten(1))).sum(1)
        return found

    def sample(self, n: int, generator: Generators = None) -> Tensor:
        """n exact samples of the data with velocities at t = 0, ``(n, 2, *S)``, if the denoiser inside can."""
        return diffuse(self.path, cast(Density, self.ordinary).sample(n, generator), 0.0, generator)

    def _channel(self, t: Number) -> tuple[tuple[Number, Number], tuple[Number, Number], Number]:
        """What is seen as numbers on (x, v), the orthogonal remainder's, and the variance of the latter."""
        a, r = self.path.matrices(t)
        alpha, _ = self.path.channel.numbers(t)
        white = r.inverse
        whitened = white * a
        # The first column of Sigma^{-1} A, without forming Sigma, which is nearly singular close to the data.
        p, q = (white.T * whitened).xx, (white.T * whitened).vx
        scale = alpha / (p * a.xx + q * a.vx)
        spread = (-a.vx * r.xx + a.xx * r.vx) ** 2 + (-a.vx * r.xv + a.xx * r.vv) ** 2
        return (p * scale, q * scale), (-a.vx, a.xx), spread


def _log_abs(value: Number) -> Number:
    return value.abs().log() if isinstance(value, Tensor) else math.log(abs(value))


class NeuralPhaseDenoiser(Denoiser):
    """A network made a denoiser of positions and velocities by a phase path and a target.

    ``y = network((x, v), clock(t), cond)`` and the estimate solves ``P x0 + Q eps = y`` with ``A x0 + R eps = u``.

    Args:
        network: ``network(u, time, cond) -> y`` with u ``(B, 2 C, *S)``, positions stacked on velocities along the
            first data dimension, and y ``(B, outputs C, *S)``.
        path: the phase path.
        target: what y is: VelocityNoise (CLD) with one output for each datum, Noise (gDDIM) with two.
        clock: how the network is told the time, on the path's channel. Angle by default; Time for a bare Noise on the
            Flow root, which still turns where the log-SNR says no more.
        sigma_data: the data's standard deviation; if given, the network sees positions and velocities of unit variance.
    """

    def __init__(
        self,
        network: nn.Module,
        path: PhasePath,
        target: PhaseTarget | None = None,
        clock: Clock | None = None,
        sigma_data: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.path = network, path, path
        self.output, self.clock, self.sigma_data = target or VelocityNoise(), clock or Angle(), sigma_data

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> PhaseEstimate:
        if s is not None:
            raise ValueError("This model has no flow map; sample it with a solver such as osmotic.phase.GDDIM.")
        t = self.path.noisy(t)
        a, r = self.path.matrices(t)
        clock = self.clock(self.path.channel, t).to(x.device, torch.float32).expand(len(x))
        y = self.network(self._scaled(x, a, r).flatten(1, 2), clock, cond)
        y = self.output.full(y.unflatten(1, (self.output.outputs, -1)))
        return solve(x, y.to(x.dtype), (a, r), self.output.rows(self.path, t))

    def _scaled(self, u: Tensor, a: Matrix, r: Matrix) -> Tensor:
        if self.sigma_data is None:
            return u
        total = a * Matrix(self.sigma_data**2, 0.0, 0.0, 0.0) * a.T + r * r.T
        return apply([(Matrix(total.xx**-0.5, 0.0, 0.0, total.vv**-0.5), u)])


def diffuse(path: PhasePath, x0: Tensor, t: Number, generator: Generators = None) -> Tensor:
    """Noisy positions and velocities at time t, ``A (x0, 0) + R eps``, ``(B, 2, *S)``.

    Args:
        path: the phase path.
        x0: data, ``(B, *S)``.
        t: time in [0, 1], ``()`` or ``(B,)``; at 0 the data with its initial velocities.
        generator: one, or one per sample.
    """
    a, r = path.matrices(t)
    clean = torch.stack([x0, torch.zeros_like(x0)], 1)
    return apply([(a, clean), (r, normal(clean.shape, generator, x0.device, x0.dtype))])


def prior(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    start: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Positions and velocities to start from: the marginal at the start of unit normal data.

    Args:
        denoiser: what is sampled.
        shape: of the data, ``(B, *S)``.
        start: the time; the denoiser's start if None.

    Returns:
        ``(B, 2, *S)``.
    """
    path = path_of(denoiser)
    a, r = path.matrices(denoiser.start if start is None else start)
    eps = normal((shape[0], 3, *shape[1:]), generator, device, dtype)
    x0 = torch.stack([eps[:, 0], torch.zeros_like(eps[:, 0])], 1)
    return apply([(a, x0), (r, eps[:, 1:])])
