"""The log-density of samples under a denoiser: exactly, by the probability-flow ODE, or bounded, by the ELBO.

On the angle phi between signal and noise the flow is ``du/dphi = cos(phi) eps - sin(phi) x0`` with ``u = x /
hypot(alpha, sigma)``, and along it ``d log p(u) / dphi = -div(du/dphi)`` (Chen et al. 2018, arXiv 1806.07366; Song et
al. 2021, arXiv 2011.13456). Going back to x adds d times the logarithm of a scale, in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.divergence import Divergence, Exact, Trace
from osmotic.noise import Generators, normal_like
from osmotic.objectives.bound import Parts, bound
from osmotic.objectives.decoders import Decoder
from osmotic.objectives.score_matching import LogDensity
from osmotic.ode import MOST, integrate, rms
from osmotic.samplers import refuse_no_samples
from osmotic.samplers.adaptive import NOISE, AngleFlow, polar, tolerance


@dataclass(frozen=True)
class Density:
    """What was found on the way to a log-density.

    Args:
        nats: ``log p(x)``, ``(B,)`` float64.
        spread: standard error of each from its random probes, ``(B,)``; 0 for an exact divergence, NaN for one probe.
        latent: where the flow ended, ``(B, *S)``: at the denoiser's start, in units of x.
        evaluations: of the denoiser for each sample, ``(B,)`` int64.
    """

    nats: Tensor
    spread: Tensor
    latent: Tensor
    evaluations: Tensor


def log_prob(
    denoiser: Denoiser,
    x: Tensor,
    cond: object = None,
    *,
    divergence: Divergence | None = None,
    terminal: LogDensity | None = None,
    noise: float = NOISE,
    rtol: float | None = None,
    atol: float | None = None,
    most: int = MOST,
) -> Tensor:
    """The log-density of clean samples, ``(B,)`` float64 nats; see :func:`density`, which takes the same arguments."""
    return density(
        denoiser,
        x,
        cond,
        divergence=divergence,
        terminal=terminal,
        noise=noise,
        rtol=rtol,
        atol=atol,
        most=most,
    ).nats


@torch.no_grad()
def density(
    denoiser: Denoiser,
    x: Tensor,
    cond: object = None,
    *,
    divergence: Divergence | None = None,
    terminal: LogDensity | None = None,
    noise: float = NOISE,
    rtol: float | None = None,
    atol: float | None = None,
    most: int = MOST,
) -> Density:
    """The log-density by the flow from the data to the noise.

    ``log p(x) = log p_1(u_1) + int div(du/dphi) dphi + d log cos(phi_0)`` from ``phi_0 = arctan(noise)``, where ``u =
    x cos(phi_0)``: exactly the density of data plus ``N(0, noise^2)``, on any path. Tolerances are met by each sample
    alone, for the point and for the logarithm, so that a sample does not depend on its batch mates.

    Args:
        denoiser: of the posterior mean; where it is not exact, the density is that of its deterministic sampler.
        x: clean samples ``(B, *S)``; the denoiser sees x's dtype, the integral is float64.
        cond: handed to the denoiser; the density is then conditional.
        divergence: Exact() by default: as many backward passes per evaluation as a sample has entries.
        terminal: the log-density of x at the denoiser's start, ``(B, *S) -> (B,)``; by default that of ``N(0, (alpha^2
            + sigma^2) I)``, from which :func:`~osmotic.samplers.prior` starts. That is the model sampled from, and on
            paths ending in pure noise it is also the marginal; EDM's at sigma = 80 differs from it a little.
        noise: standard deviation added to the data, positive. A network knows nothing below its least noise in
            training, and at noise far below the spacing of discrete data it sees points: give it a level it knows.
        rtol: relative tolerance; 1e-9 for float64 samples, 1e-5 for others by default.
        atol: absolute tolerance, likewise.
        most: evaluations that a sample may need.

    Raises:
        ValueError: for a noise that is not between 0 and the denoiser's start, and for no samples; from the solver.
        TypeError: for things of another kind, such as the name of a divergence.
    """
    refuse_no_samples(x, "Clean samples")
    if not len(x):
        raise ValueError("No samples were given, so there is nothing to find the density of.")
    if not isinstance(divergence, Divergence | None):
        raise TypeError(f"A divergence is Exact() or Hutchinson(probes) of osmotic.divergence; got {divergence!r}.")
    default = tolerance(x.dtype)
    first = math.atan(noise)
    last, length = (float(v) for v in polar(denoiser))
    if not 0 < first < last:
        raise ValueError(f"The noise at which data are read lies in (0, {math.tan(last):.6g}); got {noise}.")
    d = x[0].numel()
    traced = _Traced(AngleFlow(denoiser, cond), (divergence or Exact()).fixed(x), x)
    begin = torch.cat([x.flatten(1).double() * math.cos(first), traced.zeros()], 1)
    relative, absolute = (default if v is None else v for v in (rtol, atol))
    solved = integrate(traced, begin, first, last, relative, absolute, traced.norm, most)
    u, integral = solved.y[:, :d].reshape(x.shape), solved.y[:, d:]
    latent = (u * length).to(x.dtype)
    end = gaussian(u) if terminal is None else terminal(latent).double() + d * math.log(length)
    nats = end + integral.mean(1) + d * math.log(math.cos(first))
    return Density(nats, _standard_error(integral, divergence), latent, solved.evaluations)


class _Traced:
    """The flow with the running integrals of its divergence beside it, packed as rows ``(B, d + columns)``."""

    def __init__(self, flow: AngleFlow, trace: Trace, x: Tensor) -> None:
        self.flow, self.trace, self.like, self.d = flow, trace, x, x[0].numel()

    def zeros(self) -> Tensor:
        """Nothing integrated yet."""
        return self.like.new_zeros(len(self.like), self.trace.columns, dtype=torch.float64)

    def __call__(self, phi: Tensor, packed: Tensor) -> Tensor:
        u = packed[:, : self.d].reshape(self.like.shape).to(self.like.dtype)
        rate, divergence = self.trace.of(lambda u: self.flow(phi, u), u)
        return torch.cat([rate.flatten(1).double(), divergence], 1)

    def norm(self, error: Tensor) -> Tensor:
        """The worse of the two: among a picture's thousands of entries the one logarithm would not count."""
        return torch.maximum(rms(error[:, : self.d]), rms(error[:, self.d :]))


def _standard_error(integral: Tensor, divergence: Divergence | None) -> Tensor:
    """Of the mean over columns ``(B, columns)``: 0 where nothing is random, NaN where nothing is known."""
    if divergence is None or isinstance(divergence, Exact):
        return torch.zeros_like(integral[:, 0])
    columns = integral.shape[1]
    if columns == 1:
        return torch.full_like(integral[:, 0], math.nan)
    return integral.std(1, correction=1) / math.sqrt(columns)


@torch.no_grad()
def score(denoiser: Denoiser, x: Tensor, cond: object = None, noise: float = NOISE) -> Tensor:
    """The gradient in x of the log-density of data plus ``N(0, noise^2)``: ``-eps / noise``, ``(B, *S)``.

    That is the gradient of :func:`log_prob` at the same noise, without the integral, where the denoiser is exact.
    """
    phi = torch.full((len(x),), math.atan(noise), dtype=torch.float64)
    estimate, _, _ = AngleFlow(denoiser, cond).read(phi, x * math.cos(math.atan(noise)))
    return -estimate.eps / noise


def gaussian(u: Tensor) -> Tensor:
    """The log-density of ``N(0, I)`` at points ``(B, *S)``, ``(B,)`` nats."""
    return -0.5 * (u.flatten(1).square() + math.log(2 * math.pi)).sum(1)


def elbo(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    decoder: Decoder,
    cond: object = None,
    generator: Generators = None,
    v: float = 0.0,
) -> Tensor:
    """A lower bound on ``log p(x)`` in expectation, ``(B,)`` nats: minus the discrete variational bound.

    One draw of the noise on every level of a grid; the average over draws is the bound. For discrete data and the
    Discretised decoder it bounds the probability of the data themselves, with no dequantisation.

    Args:
        denoiser: the model.
        x: clean samples ``(B, *S)``.
        times: the grid ``(n + 1,)``, decreasing to 0: n evaluations of the denoiser.
        decoder: of the last step, of :mod:`osmotic.objectives.decoders`.
        cond: handed to the denoiser.
        generator: one, or one per sample.
        v: between the two fixed variances of a step, in [0, 1].
    """
    eps = (normal_like(x, generator) for _ in range(len(times) - 1))
    parts: Parts = bound(denoiser, x, times, eps, decoder, cond, v)
    return -parts.total


def bits_per_dimension(nats: Tensor, dimensions: int, spacing: float = 1.0) -> Tensor:
    """Log-densities in nats as bits per dimension of data on a lattice: ``-nats / (d log 2) - log2(spacing)``.

    The density of dequantised data times the volume of a bin is a probability of the discrete data, and its expectation
    over the dequantising noise is a lower bound of the logarithm (Theis et al. 2016, arXiv 1511.01844): an upper bound
    on bits.

    Args:
        nats: ``log p(x)`` in the units of x.
        dimensions: d, the entries of a sample.
        spacing: between neighbouring values in the units of x, which is ``(high - low) / levels`` of the dequantised
            range: 2/256 (+7 bits) where 256 bins fill [-1, 1], 1/256 (+8 bits) where they fill [0, 1], and 2/255
            (+6.994 bits) for bytes scaled by ``raw / 127.5 - 1``; 1 for real numbers, whose bits are relative to
            their unit.
    """
    if not spacing > 0:
        raise ValueError(f"The spacing of the data's values must be positive; got {spacing}.")
    return -nats / (dimensions * math.log(2)) - math.log2(spacing)
