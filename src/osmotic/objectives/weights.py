"""Loss weights: how much a squared error at each noise level counts.

Every weight is stated on the error of x0 or eps, where the papers state it, and brought to target space by the exact
identities ``d_x0 = -sigma d_y / det`` and ``d_eps = alpha d_y / det`` with ``det = alpha b - sigma a``: errors are
always measured in target space, where they are well conditioned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from osmotic.estimate import Target
from osmotic.levels import as_time
from osmotic.schedules import Number, Schedule


class Weight(ABC):
    """``weight(schedule, target, t) -> (B,)``: the factor of the squared target-space error. A new weight is one
    class.
    """

    @abstractmethod
    def factor(self, schedule: Schedule, target: Target, t: Tensor) -> Tensor:
        """The factor at times t, in t's shape."""

    def __call__(self, schedule: Schedule, target: Target, t: Number) -> Tensor:
        return self.factor(schedule, target, as_time(t))


def _squared(schedule: Schedule, target: Target, t: Tensor) -> Tensor:
    """``(d_x0 / d_y)^2``: the squared error of x0 per squared error of the output."""
    alpha, sigma = schedule(t)
    a, b = target(schedule, t)
    return (sigma / (alpha * b - sigma * a)) ** 2


class Unit(Weight):
    """1 in target space."""

    def factor(self, schedule: Schedule, target: Target, t: Tensor) -> Tensor:
        return torch.ones_like(t)


class MinSNR(Weight):
    """``min(snr, gamma)`` on the squared error of x0 (Hang et al. 2023, arXiv 2303.09556).

    Equal to ``min(snr, gamma) / snr`` on eps and ``min(snr, gamma) / (snr + 1)`` on v.

    Args:
        gamma: 5 in the paper, positive.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"MinSNR needs a positive gamma; got {gamma}.")
        self.gamma = gamma

    def factor(self, schedule: Schedule, target: Target, t: Tensor) -> Tensor:
        per_x0 = _squared(schedule, target, t)
        return schedule.log_snr(t).exp().clamp(max=self.gamma) * per_x0


class Likelihood(Weight):
    """``-1/2 dlog_snr/dt`` on the squared error of eps: the continuous-time variational bound in nats per dimension.

    Equal to ``g^2 / (2 sigma^2)`` (Song et al. 2021, arXiv 2101.09258; Kingma et al. 2021, arXiv 2107.00630). Infinite
    at t = 0; use it with uniform times, or divide by the law's density.
    """

    def factor(self, schedule: Schedule, target: Target, t: Tensor) -> Tensor:
        (alpha, sigma), (dalpha, dsigma) = schedule(t), schedule.rates(t)
        a, b = target(schedule, t)
        det = alpha * b - sigma * a
        # g^2 / (2 sigma^2) alpha^2 / det^2 with g^2 = 2 sigma (sigma' - sigma alpha' / alpha), alpha cancelled: finite
        # at alpha = 0, where the two factors are infinite and zero.
        return (dsigma * alpha - sigma * dalpha) * alpha / (sigma * det**2)


class Noise(Weight):
    """1 on the squared error of eps, which is ``sigma^2`` on that of the score: L_simple and NCSN's loss on any target.

    Song & Ermon 2019 (arXiv 1907.05600, eq. 6, with lambda = sigma^2); Ho et al. 2020 (arXiv 2006.11239).
    """

    def factor(self, schedule: Schedule, target: Target, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        a, b = target(schedule, t)
        return (alpha / (alpha * b - sigma * a)) ** 2


class Karras(Weight):
    """EDM's lambda, ``(sigma^2 + sd^2) / (sigma sd)^2`` on the squared error of x0 for alpha = 1; 1 on the Karras
    target.

    On any path sigma means ``sigma / alpha`` (Karras et al. 2022, arXiv 2206.00364).

    Args:
        sigma_data: sd, the standard deviation of the data, positive.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        if not sigma_data > 0:
            raise ValueError(f"Karras needs a positive sigma_data; got {sigma_data}.")
        self.sigma_data = sigma_data

    def factor(self, schedule: Schedule, target: Target, t: Tensor) -> Tensor:
        per_x0 = _squared(schedule, target, t)
        alpha, sigma = schedule(t)
        # (rho^2 + sd^2) / (rho sd)^2 with rho = sigma / alpha, without dividing by alpha.
        return (sigma**2 + (alpha * self.sigma_data) ** 2) / (sigma * self.sigma_data) ** 2 * per_x0


# Weights by name; Karras takes the data's deviation. Enter a new weight here and the conformance tests pick it up.
WEIGHTS: dict[str, Callable[[float], Weight]] = {
    "unit": lambda sigma_data: Unit(),
    "min-snr": lambda sigma_data: MinSNR(),
    "likelihood": lambda sigma_data: Likelihood(),
    "karras": Karras,
    "noise": lambda sigma_data: Noise(),
}
