"""What a sampler is, and the one loop that runs it."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import Level
from osmotic.noise import Generators, normal

State = Any

ROUNDING = 1e-6
"""How far beyond a denoiser's start a grid may begin; it is then moved there. A grid in float32 is so far off."""


class Sampler(ABC):
    """One step of a sampler, from time t to a less noisy time s. State is explicit: passed in and handed out.

    Attributes:
        order: the global order of convergence: of the sample for a deterministic sampler, of its law (weak) for a
            stochastic one; infinite where every step is exact for an exact flow map, 0 where a bias of the method's own
            does not fall with the number of steps.
        stochastic: whether a step draws noise.
        evaluations: denoiser calls per step; a first step may take more and one to sigma = 0 fewer. 0 where the error
            decides.
        aims: whether the denoiser is asked for a flow map (with s) and not for the posterior mean.
        remembers: whether a step hands on what the next one needs.
        draws: whether it hands latents to a denoiser that draws x0 instead of estimating its mean.
        renoises: whether x_s is made of the estimate (and new noise) alone, ``alpha_s x0 + b eps``, without x.
        matrix_valued: whether a step only adds and multiplies alpha and sigma, and so runs where they are matrices
            (:mod:`osmotic.phase`) too.
    """

    order: float
    stochastic: bool = False
    aims: bool = False
    remembers: bool = False
    draws: bool = False
    renoises: bool = False
    matrix_valued: bool = False
    evaluations: int = 1

    @property
    def order_from_noise(self) -> float:
        """The order on a grid that is even in rho near the data and starts where alpha = 0, as ``times.Span`` is.

        There the steps of log-SNR do not shrink at either end, so of methods that are polynomials in log-SNR, rho or
        time no more than order 2 is promised, up to a logarithm; those in the angle keep their own.
        """
        return min(self.order, 2)

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        """The levels that steps along a grid look at besides its own; found at once, before the loop.

        It only saves time: a sampler that does nothing here finds them one by one.

        Args:
            denoiser: what is going to be sampled.
            steps: the pairs (t, s) of the grid, each with the schedule's pair in its memo.

        Returns:
            The levels, which the loop then prepares as it does the grid's.
        """
        return []

    @abstractmethod
    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: State = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        """Move x from time t to time s < t.

        Args:
            denoiser: what is sampled; its schedule is the path.
            x: noisy samples at t, ``(B, *S)``.
            t: the time of x, with sigma_t > 0.
            s: the time to reach; at sigma_s = 0 the result is the estimated clean sample, and no denoiser is called
                there.
            cond: handed to the denoiser unread.
            state: what the previous step returned; None at the first.
            generator: for the noise of stochastic samplers: one, or one per sample.

        Returns:
            ``(x_s, state)``.
        """


def trajectory(
    sampler: Sampler,
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    cond: object = None,
    generator: Generators = None,
) -> Iterator[Tensor]:
    """Run a sampler along a grid; the only sampling loop.

    Args:
        sampler: the solver.
        denoiser: what is sampled.
        x: samples at ``times[0]``, ``(B, *S)``; see :func:`prior`.
        times: ``(n + 1,)``, decreasing, as a grid of :mod:`osmotic.times` makes them.
        cond: handed to the denoiser.
        generator: one, or one per sample (then sample i does not depend on the batch).

    Yields:
        The n + 1 points of the trajectory, x itself first.

    Raises:
        TypeError: for things of another kind, such as a sampler's name in place of a sampler.
        ValueError: if the times do not fall strictly within [0, 1], start where the denoiser cannot be evaluated, or
            the sampler needs a posterior mean, or a path of numbers, that the denoiser has not.
    """
    _refuse_kinds(sampler, denoiser, x, times)
    refuse(sampler, denoiser, times)
    levels = prepare(denoiser, times, x.device, sampler)
    state: State = None
    yield x
    for t, s in itertools.pairwise(levels):
        x, state = sampler.step(denoiser, x, t, s, cond, state, generator)
        yield x


def refuse(sampler: Sampler, denoiser: Denoiser, times: Tensor) -> None:
    """Refuse a grid or a pairing that cannot be run; see :func:`trajectory`."""
    listed = times.tolist() if times.ndim == 1 else []
    if listed and denoiser.start < listed[0] <= denoiser.start + ROUNDING:
        listed = [min(t, denoiser.start) for t in listed]  # as prepare moves them
    if len(listed) < 2:
        raise ValueError(
            f"A grid is one row of at least two times; got shape {tuple(times.shape)}. osmotic.times makes grids."
        )
    if not (listed[0] <= 1 and listed[-1] >= 0):
        raise ValueError(f"Times lie in [0, 1], 0 being data; the grid goes from {listed[0]:.6g} to {listed[-1]:.6g}.")
    for i, (t, s) in enumerate(itertools.pairwise(listed)):
        if not s < t:
            what = "repeats" if s == t else "rises to"
            raise ValueError(f"Sampling times must fall, and entry {i + 1} of the grid {what} {s:.6g} after {t:.6g}.")
    if listed[0] > denoiser.start:
        raise ValueError(
            f"The grid starts at t = {listed[0]:.6g}, noisier than this denoiser's start {denoiser.start:.6g}."
        )
    _refuse_stops(denoiser, listed)
    if denoiser.latents and not sampler.draws:
        raise ValueError(
            f"{type(sampler).__name__} hands no draws to {type(denoiser).__name__}, which reads some in place of a "
            "posterior mean; use the sampler 'ddpm'."
        )
    if not (sampler.aims or denoiser.diagonal or denoiser.latents):
        raise ValueError(
            f"{type(sampler).__name__} needs the posterior mean, which {type(denoiser).__name__}, a few-step model, "
            "has not; leave out the sampler to take the model's own."
        )
    if not (denoiser.consistent or sampler.renoises):
        raise ValueError(
            f"{type(sampler).__name__} reads x beside the estimate, and the eps that CFG++ renoises with does not "
            "belong to x; use the sampler 'ddim' or 'ddpm', or guide by ClassifierFree."
        )
    if denoiser.schedule.matrix_valued and not sampler.matrix_valued:
        raise ValueError(
            f"{type(sampler).__name__} needs a path of two numbers, and on {type(denoiser.schedule).__name__} they are "
            "matrices; use a sampler of osmotic.phase, such as GDDIM, or the deterministic DDIM, Euler or Midpoint."
        )


def _refuse_stops(denoiser: Denoiser, times: Sequence[float]) -> None:
    """Refuse a grid that stops where a few-step student cannot be evaluated."""
    stops = denoiser.stops
    if stops is None:
        return
    for t in times[:-1]:
        if min(abs(t - stop) for stop in stops) > ROUNDING:
            known = ", ".join(f"{stop:.4g}" for stop in stops)
            raise ValueError(
                f"This few-step model was trained at t = {known} alone, and the grid stops at {t:.4g}; leave out the "
                "grid, and take as many steps as the model has."
            )


def _refuse_kinds(sampler: Sampler, denoiser: Denoiser, x: Tensor, times: Tensor) -> None:
    """Refuse what is no sampler, no denoiser, no noisy sample or no grid, and say what is."""
    if not isinstance(sampler, Sampler):
        raise TypeError(f"A sampler is an object such as samplers.CATALOG['heun'](); got {sampler!r}.")
    _refuse_no_denoiser(denoiser)
    refuse_no_samples(x, "Noisy samples")
    if not isinstance(times, Tensor):
        raise TypeError(
            "A grid is a tensor of times, as those of osmotic.times make when called, grid(schedule, steps); got "
            f"{type(times).__name__}."
        )


def refuse_no_samples(x: object, what: str) -> None:
    """Refuse, by the name ``what``, anything but a tensor ``(B, ...)`` of floating-point numbers."""
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 0):
        got = f"a tensor of {x.dtype}, {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{what} are a tensor (B, ...) of floating-point numbers; got {got}.")


def _refuse_no_denoiser(thing: object) -> None:
    if not isinstance(thing, Denoiser):
        raise TypeError(
            f"A denoiser is an osmotic.Denoiser, for a loaded model model.denoiser; got {type(thing).__name__}."
        )


def numeric(denoiser: Denoiser) -> Denoiser:
    """The denoiser, if its path is one of two numbers.

    Raises:
        TypeError: for no denoiser.
        ValueError: where they are matrices.
    """
    _refuse_no_denoiser(denoiser)
    if denoiser.schedule.matrix_valued:
        raise ValueError(
            f"This needs a path of two numbers, and on {type(denoiser.schedule).__name__} they are matrices; give it "
            "the ordinary denoiser, or use what osmotic.phase has in its place."
        )
    return denoiser


def prepare(
    denoiser: Denoiser, times: Tensor, device: torch.device | None = None, sampler: Sampler | None = None
) -> list[Level]:
    """The grid as levels, with the schedule and all else that depends on time evaluated once on all of it, and on what
    lies between where a sampler is named that looks there.
    """
    times = times.detach().to("cpu", torch.float64).clamp(max=denoiser.start)
    levels, schedule = Level.grid(times), denoiser.schedule
    for level, pair in zip(levels, schedule.pairs(times), strict=True):
        level.memo[schedule] = pair
    between = [] if sampler is None else sampler.ahead(denoiser, list(itertools.pairwise(levels)))
    denoiser.prepare([*levels, *between], device or torch.device("cpu"))
    return levels


@torch.no_grad()
def sample(
    sampler: Sampler,
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    cond: object = None,
    generator: Generators = None,
) -> Tensor:
    """The last point of :func:`trajectory`, without gradients; same arguments.

    Returns:
        Clean samples, ``(B, *S)``.
    """
    last = x
    for last in trajectory(sampler, denoiser, x, times, cond, generator):  # noqa: B007
        pass
    return last


def prior(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    start: float | None = None,
) -> Tensor:
    """Noise to start from: ``N(0, (alpha^2 + sigma^2) I)`` at the start, the marginal of data with zero mean and unit
    variance.

    That is N(0, I) on variance-preserving paths and at the end of the rectified one, and N(0, sigma_max^2 + 1) on
    EDM's.

    Args:
        shape: ``(B, *S)``.
        start: the time; the denoiser's start if None.
    """
    alpha, sigma = numeric(denoiser).schedule.scalars(denoiser.start if start is None else start)
    return normal(shape, generator, device) * math.hypot(alpha, sigma)


def half_log_snr_step(t_pair: tuple[float, float], s_pair: tuple[float, float]) -> float:
    """``h = log(alpha_s / sigma_s) - log(alpha_t / sigma_t)``, infinite at either end of the path."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = t_pair, s_pair
    if sigma_s == 0 or alpha_t == 0:
        return math.inf
    return math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)


def renewed(t_pair: tuple[float, float], s_pair: tuple[float, float]) -> float:
    """``1 - exp(-2h)``: the share of the noise variance at s that is new in the posterior ``q(x_s | x_t, x0)``.

    Computed as ``1 - (rho_s / rho_t)^2``, hence in [0, 1] and exact at both ends of the path.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = t_pair, s_pair
    return 1 - (sigma_s * alpha_t / (alpha_s * sigma_t)) ** 2
