"""The probability-flow ODE on the angle between signal and noise, and the adaptive sampler that follows it.

With ``u = x / hypot(alpha, sigma)`` and ``phi = atan2(sigma, alpha)`` the flow of every path is the same equation,
``du/dphi = cos(phi) eps - sin(phi) x0``: of unit scale and finite from the data (phi = 0) to pure noise (phi = pi/2),
without a derivative of a schedule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.levels import as_time
from osmotic.noise import Generators
from osmotic.ode import MOST, integrate, rms
from osmotic.samplers.base import Sampler, State, numeric
from osmotic.schedules import Number, Schedule

# The landing's ladder stops at this angle whatever its error is: there float32 has nothing to add.
SMALLEST_ANGLE = 1e-6

NOISE = 1e-6
"""Where a flow from the data begins, as sigma / alpha: data are read as if they had so much noise, which changes what
is found by O(NOISE^2)."""


def tolerance(dtype: torch.dtype) -> float:
    """Of a flow whose result is used as exact: networks in float32 give their last two digits at random."""
    return 1e-9 if dtype == torch.float64 else 1e-5


class AngleFlow:
    """``flow(phi, u) = du/dphi`` for a denoiser and a condition, at angles of each sample's own.

    Args:
        denoiser: any denoiser of the posterior mean.
        cond: handed to it unread; the whole batch is always asked, so it may hold anything.
    """

    def __init__(self, denoiser: Denoiser, cond: object = None) -> None:
        self.denoiser, self.cond = numeric(denoiser), cond

    def read(self, phi: Tensor, u: Tensor) -> tuple[Estimate, Number, Number]:
        """The estimate at angles ``(B,)`` in (0, pi/2] and points ``(B, *S)``, and the cosine and sine it belongs to.

        The two numbers come from the pair at the time found, so that time, pair and angle agree to the last bit.
        """
        t = time(self.denoiser.schedule, phi).clamp(max=self.denoiser.start)
        alpha, sigma = (as_time(v) for v in self.denoiser.schedule.numbers(t))
        length = torch.hypot(alpha, sigma)
        (scale,) = like(u, length)
        return self.denoiser(u * scale, t, self.cond), alpha / length, sigma / length

    def __call__(self, phi: Tensor, u: Tensor) -> Tensor:
        estimate, cosine, sine = self.read(phi, u)
        return estimate.at(-sine, cosine)

    def clean(self, phi: Tensor, u: Tensor) -> Tensor:
        """The estimated clean samples."""
        return self.read(phi, u)[0].x0


def polar(denoiser: Denoiser, t: Number | None = None) -> tuple[Tensor, Tensor]:
    """``(atan2(sigma, alpha), hypot(alpha, sigma))`` of its path at time t, by default its start: float64, on the CPU,
    of the shape of t.
    """
    schedule = numeric(denoiser).schedule
    alpha, sigma = (as_time(v).to("cpu", torch.float64) for v in schedule.numbers(denoiser.start if t is None else t))
    return torch.atan2(sigma, alpha), torch.hypot(alpha, sigma)


def filled(values: Tensor) -> Tensor:
    """Numbers ``(B,)`` with ones after them up to whole registers.

    Vectorised exponentials may round the tail of a tensor differently; after this, what is made of a sample's number
    has the same bits in every batch.
    """
    return torch.nn.functional.pad(values, (0, -len(values) % 64), value=1.0)


def time(schedule: Schedule, phi: Tensor) -> Tensor:
    """The time at angles ``(B,)`` in (0, pi/2], where ``log_snr = -2 log tan(phi)``."""
    full = filled(phi)
    return schedule.time(2 * (full.cos().log() - full.sin().log()))[: len(phi)]


class RK45(Sampler):
    """Dormand-Prince 5(4) along the angle, every sample with steps of its own (Song et al. 2021, arXiv 2011.13456).

    One step goes from t to s whatever their distance, so a grid of a single step is the usual one. At sigma_s = 0 it
    does not evaluate there, it lands: the estimate ``x0`` at a last angle phi misses the flow's end by ``c phi^2``. The
    landing is taken from two angles, which gives c, and goes on to smaller ones until the miss is below the tolerance.
    The number of evaluations is decided by the error (``evaluations = 0``); a sample does not depend on its batch
    mates.

    Args:
        rtol: relative tolerance of each step, positive.
        atol: absolute tolerance in units of ``x / hypot(alpha, sigma)``, which has the scale of the data and of unit
            noise on every path.
        most: evaluations that a sample may need in one step.

    Raises:
        ValueError: while sampling, if a sample needs more.
    """

    order = 5
    evaluations = 0

    def __init__(self, rtol: float = 1e-5, atol: float = 1e-5, most: int = MOST) -> None:
        if not (rtol > 0 and atol > 0):
            raise ValueError(f"RK45 needs positive tolerances; got rtol={rtol} and atol={atol}.")
        self.rtol, self.atol, self.most = rtol, atol, most

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
        (here, length), (there, length_s) = polar(denoiser, t), polar(denoiser, s)
        here, there = here.expand(len(x)), there.expand(len(x))
        flow = AngleFlow(denoiser, cond)
        u = x / like(x, length)[0]
        if bool((there > 0).all()):
            u = integrate(flow, u, here, there, self.rtol, self.atol, most=self.most).y
        else:
            u = self._land(flow, u, here, there)
        return u * like(x, length_s)[0], None

    def _land(self, flow: AngleFlow, u: Tensor, here: Tensor, there: Tensor) -> Tensor:
        """To each sample's last angle; where that is 0, by the estimate from an angle small enough."""
        lands = there == 0
        # For data of unit variance the estimate at this angle misses by half of rtol.
        phi = torch.where(lands, torch.minimum(torch.full_like(here, math.sqrt(self.rtol)), here / 2), there)
        u = integrate(flow, u, here, phi, self.rtol, self.atol, most=self.most).y
        found, open_ = flow.clean(phi, u), lands.clone()
        landed = found
        while bool(open_.any()):
            lower = torch.where(open_, phi / 2, phi)
            u = integrate(flow, u, phi, lower, self.rtol, self.atol, most=self.most).y
            better = flow.clean(lower, u)
            # c phi^2 at phi and a quarter of it at phi / 2: the difference is three times the miss that is left, and
            # taking that away too leaves c' phi^4.
            miss = (better - found) / 3
            size = rms(miss / (self.atol + self.rtol * better.abs())).to("cpu", torch.float64)
            landed = _keep(open_, better + miss, landed)
            open_ = open_ & (size > 1) & (lower > SMALLEST_ANGLE)
            found, phi = better, lower
        return _keep(lands, landed, u)


def _keep(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.to(new.device).reshape(-1, *[1] * (new.ndim - 1)), new, old)
