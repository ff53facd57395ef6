"""The Fokker-Planck equation in one dimension: how a whole density moves when its samples follow a diffusion."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.linalg import solve_banded
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.schedules import Schedule


@dataclass(frozen=True)
class Cells:
    """``[low, high]`` cut into equal cells, whose walls no mass crosses.

    Args:
        low: the left wall.
        high: the right wall, larger.
        count: of cells, at least 3.
    """

    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        if not (self.low < self.high and self.count >= 3):
            raise ValueError(
                f"Cells need low < high and at least 3 of them; got {self.low}, {self.high}, {self.count}."
            )

    @property
    def width(self) -> float:
        """Of one cell."""
        return (self.high - self.low) / self.count

    @property
    def centres(self) -> Tensor:
        """The middle of each cell, ``(count,)`` float64."""
        return self.low + self.width * (torch.arange(self.count, dtype=torch.float64) + 0.5)

    @property
    def faces(self) -> Tensor:
        """The places between neighbouring cells, ``(count - 1,)`` float64."""
        return self.low + self.width * torch.arange(1, self.count, dtype=torch.float64)

    def mass(self, density: Tensor) -> float:
        """The integral of a density ``(count,)``."""
        return float(density.sum()) * self.width


class Motion(ABC):
    """A diffusion ``dx = drift dt + sqrt(2 diffusion) dw`` along its own clock.

    Attributes:
        direction: +1 where times rise, -1 where they fall; drift is per unit of time passed, whichever way.
    """

    direction: int = 1

    @abstractmethod
    def coefficients(self, x: Tensor, t: float) -> tuple[Tensor, float]:
        """The drift at places x ``(n,)``, and the diffusion: half the squared noise rate, at least 0."""


class Forward(Motion):
    """The noising SDE ``dx = f x dt + g dw`` of any schedule, with :meth:`Schedule.sde`'s coefficients.

    Args:
        schedule: the path.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def coefficients(self, x: Tensor, t: float) -> tuple[Tensor, float]:
        f, g2 = (float(rate) for rate in self.schedule.sde(t))
        return f * x, g2 / 2


class Reverse(Motion):
    """The denoising SDE, times falling: ``dx = (-f x + (1 + tau^2) / 2 g^2 score) du + tau g dw`` with u = -t.

    It undoes :class:`Forward` at every tau if the score is that of its marginals (Anderson 1982; Song et al. 2021,
    arXiv 2011.13456; tau: Karras et al. 2022, arXiv 2206.00364, equation 6). tau = 1 is the reverse SDE, tau = 0 the
    probability-flow ODE.

    Args:
        denoiser: whose score ``-eps / sigma`` is followed, on samples ``(B, 1)``.
        tau: noise level, at least 0.
    """

    direction = -1

    def __init__(self, denoiser: Denoiser, tau: float = 1.0) -> None:
        if not 0 <= tau < math.inf:
            raise ValueError(f"Reverse needs 0 <= tau < infinity; got {tau}.")
        self.denoiser, self.tau = denoiser, tau

    def coefficients(self, x: Tensor, t: float) -> tuple[Tensor, float]:
        f, g2 = (float(rate) for rate in self.denoiser.schedule.sde(t))
        _, sigma = self.denoiser.schedule.scalars(t)
        with torch.no_grad():
            eps = self.denoiser(x[:, None], torch.tensor(t, dtype=torch.float64)).eps[:, 0]
        return -f * x - (1 + self.tau**2) / 2 * g2 / sigma * eps, self.tau**2 * g2 / 2


def evolve(motion: Motion, density: Tensor, cells: Cells, times: Tensor, implicitness: float = 0.5) -> Iterator[Tensor]:
    """Solve ``d rho/dt = -d(drift rho)/dx + diffusion d^2 rho/dx^2`` by finite volumes.

    Between cells flows ``D/h (B(-w) rho_i - B(w) rho_(i+1))`` with ``B(w) = w / (e^w - 1)`` and ``w = drift h / D``
    (Chang & Cooper 1970; Scharfetter & Gummel 1969): second order in the width h, upwind where diffusion is weaker than
    ``|drift| h / 2``. Without any diffusion the flux is centred. Each step is linear and implicit, with the
    coefficients at ``t + implicitness dt``: 1/2 is of second order in time (Crank-Nicolson), 1 of first order
    (implicit Euler).

    The mass is kept to rounding. With diffusion, densities stay positive at implicitness 1 for any step, at 1/2 for
    steps up to ``h^2 / D`` about, and beyond that where the density is smooth; centred fluxes may fall below 0 by
    their error. At 1/2 no coefficient is read at either end of a step, so a grid may begin or end where a schedule's
    rates are infinite (VP's sigma at t = 0); where their integral is infinite too (at alpha = 0) stop short of it.

    Args:
        motion: what the samples do.
        density: at ``times[0]``, ``(count,)``, one value a cell.
        cells: where; wide enough that next to nothing reaches the walls.
        times: ``(m,)``, strictly rising or falling as the motion does.
        implicitness: in [1/2, 1].

    Yields:
        The density ``(count,)`` float64 at each time, the first included.

    Raises:
        ValueError: for times the wrong way, an implicitness out of range, a density that does not fit, or a coefficient
            that is not finite.
    """
    if not 0.5 <= implicitness <= 1:
        raise ValueError(f"implicitness lies in [1/2, 1]; got {implicitness}.")
    if density.shape != (cells.count,):
        raise ValueError(f"A density on {cells.count} cells has shape ({cells.count},); got {tuple(density.shape)}.")
    if not bool((motion.direction * times.diff() > 0).all()):
        way = "rise" if motion.direction > 0 else "fall"
        raise ValueError(f"The times of {type(motion).__name__} must {way} strictly.")
    rho = density.to(torch.float64)
    yield rho
    for before, after in itertools.pairwise(times.tolist()):
        t = before + implicitness * (after - before)
        rho = _step(rho, _rates(motion, cells, t), abs(after - before), implicitness)
        yield rho


def _rates(motion: Motion, cells: Cells, t: float) -> tuple[Tensor, Tensor]:
    """Per unit of time and of density: what goes right across each face, and what comes back left."""
    (drift, diffusion), width = motion.coefficients(cells.faces, t), cells.width
    if not (bool(drift.isfinite().all()) and math.isfinite(diffusion)):
        raise ValueError(f"The coefficients of {type(motion).__name__} are not finite at t = {t:.6g}; stop before it.")
    if diffusion <= 0:
        return drift / (2 * width), -drift / (2 * width)
    w = drift * width / diffusion
    # w / (e^w - 1) is 0/0 at 0; its series is exact to 1e-17 where it is used.
    left = torch.where(w.abs() < 1e-4, 1 - w / 2 + w**2 / 12, w / torch.expm1(torch.where(w == 0, 1.0, w)))
    scale = diffusion / width**2
    return scale * (left + w), scale * left


def _step(rho: Tensor, rates: tuple[Tensor, Tensor], dt: float, implicitness: float) -> Tensor:
    """``(1 - implicitness dt L) rho' = (1 + (1 - implicitness) dt L) rho`` with L the exchange between neighbours."""
    right, left = rates
    zero = torch.zeros(1, dtype=rho.dtype)
    # Column sums of L are 0, term by term: what leaves one cell enters the next.
    back, on = torch.cat([zero, left]), torch.cat([right, zero])
    bands = torch.stack([back, -on - back, on])
    flux = right * rho[:-1] - left * rho[1:]
    known = rho + (1 - implicitness) * dt * (torch.cat([zero, flux]) - torch.cat([flux, zero]))
    matrix = -implicitness * dt * bands
    matrix[1] += 1
    return torch.from_numpy(solve_banded((1, 1), matrix.numpy(), known.numpy(), check_finite=False))


def log_rate(schedule: Schedule, log_density: Callable[[Tensor], Tensor], x: Tensor, t: float) -> Tensor:
    """The Fokker-Planck equation's other form: ``d ln rho/dt`` of :class:`Forward` from the logarithm alone.

    ``-n f - f x . s + g^2 / 2 (s . s + div s)`` with ``s = grad ln rho``, n the dimension; at ``f = -beta / 2, g^2 =
    beta`` it is ``beta / 2 (n + (x + s) . s + div s)``. A model's score satisfies it only if it is the score of one
    diffused density.

    Args:
        schedule: the path.
        log_density: ``(B, n) -> (B,)`` nats at time t, twice differentiable.
        x: places ``(B, n)``.
        t: the time.

    Returns:
        ``(B,)`` nats per unit of time.
    """
    f, g2 = (float(rate) for rate in schedule.sde(t))
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (s,) = torch.autograd.grad(log_density(x).sum(), x, create_graph=True)
        second = [torch.autograd.grad(s[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    s, x = s.detach(), x.detach()
    return -f * (x.shape[1] + (x * s).sum(1)) + g2 / 2 * ((s * s).sum(1) + torch.stack(second).sum(0))
