"""What a grid is, and the grids that are a user's own stops."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.schedules import Schedule


class Grid(ABC):
    """``grid(schedule, steps, start) -> times``: a new grid is one class with one method.

    Attributes:
        steps: the only number of steps that it has; None for grids of any number.
    """

    steps: int | None = None

    @abstractmethod
    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """The ``steps`` noisy times, decreasing, the first of them being the start."""

    def __call__(self, schedule: Schedule, steps: int, start: float = 1.0) -> Tensor:
        """Sampling times.

        Args:
            schedule: the path.
            steps: how many steps, at least 1.
            start: the noisiest time, in (0, 1].

        Returns:
            ``(steps + 1,)`` float64 CPU tensor, strictly decreasing from ``start`` to exactly 0.

        Raises:
            ValueError: for a count below 1 or that the grid does not have, a start outside (0, 1], or times that do not
                decrease.
        """
        if steps < 1 or not 0 < start <= 1:
            raise ValueError(f"A grid needs steps >= 1 and 0 < start <= 1; got steps={steps} and start={start}.")
        if self.steps not in (None, steps):
            raise ValueError(f"This grid has {self.steps} steps and {steps} were asked for; pass steps={self.steps}.")
        inner = self.inner(schedule, steps, start).to(torch.float64).cpu()
        # Inversions of the schedule may round the first time; it is the start by definition.
        times = torch.cat([torch.tensor([start], dtype=torch.float64), inner[1:], torch.zeros(1, dtype=torch.float64)])
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{type(self).__name__} gives no decreasing grid of {steps} steps from t = {start}; start "
                "noisier or take fewer steps."
            )
        return times

    def __repr__(self) -> str:
        return type(self).__name__


class Fixed(Grid):
    """Given levels between start and data, as log-SNRs: the same stops on every path, and a plain list to store.

    ``t_i = schedule.time(l_i)`` for the n - 1 inner stops of n steps; the start is the denoiser's and the end is 0.

    Args:
        log_snr: ``log(alpha^2 / sigma^2)`` of the inner stops, rising and finite; none for a single step.

    Raises:
        ValueError: if they do not rise, or while sampling, if the path starts less noisy than the first.
    """

    def __init__(self, log_snr: Sequence[float]) -> None:
        self.log_snr = tuple(float(value) for value in log_snr)
        for before, after in itertools.pairwise((-math.inf, *self.log_snr, math.inf)):
            if not before < after:
                raise ValueError(
                    f"The stops of a grid rise in log-SNR; {after:.6g} follows {before:.6g}, so sort them and drop "
                    "repetitions."
                )
        self.steps: int | None = len(self.log_snr) + 1

    @classmethod
    def of(cls, schedule: Schedule, times: Tensor) -> Fixed:
        """The stops of times ``(n + 1,)`` on a path, to be used on any."""
        return cls(schedule.log_snr(times[1:-1].to(torch.float64)).tolist())

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        times = schedule.time(torch.tensor(self.log_snr, dtype=torch.float64))
        if len(times) and float(times[0]) >= start:
            raise ValueError(
                f"This grid's first stop has log-SNR {self.log_snr[0]:.4g}, and sampling starts less noisy, at "
                f"{float(schedule.log_snr(start)):.4g}; use a grid made for this start."
            )
        return torch.cat([torch.tensor([start], dtype=torch.float64), times])

    def __repr__(self) -> str:
        return f"Fixed({[round(value, 4) for value in self.log_snr]})"


class Given(Grid):
    """A user's own times; made by :func:`given`."""

    def __init__(self, times: Tensor) -> None:
        self.times = times
        self.steps: int | None = len(times) - 1

    def inner(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        if abs(float(self.times[0]) - start) > 1e-12:
            raise ValueError(
                f"The given times begin at t = {float(self.times[0]):.6g}, and sampling starts at t = {start:.6g}; "
                "begin there."
            )
        return self.times[:-1]


def given(times: Sequence[float] | Tensor) -> Given:
    """The grid of these times, for one's own ladders.

    Args:
        times: ``(n + 1,)``, falling from the start to 0, in [0, 1].

    Raises:
        ValueError: naming the first pair that rises or repeats, the first time outside [0, 1], an end that is not 0.
    """
    found = torch.as_tensor(times, dtype=torch.float64).detach().cpu().reshape(-1)
    if len(found) < 2:
        raise ValueError(f"A grid needs at least two times, the start and 0; got {found.tolist()}.")
    for value in found.tolist():
        if not 0 <= value <= 1:
            raise ValueError(f"Times lie in [0, 1], from data to noise; got {value:.6g}, so scale them.")
    for i, (before, after) in enumerate(itertools.pairwise(found.tolist())):
        if after == before:
            raise ValueError(f"The times {i} and {i + 1} of the grid are both {before:.6g}; drop one.")
        if after > before:
            raise ValueError(
                f"The times of a grid fall from noise to data; {before:.6g} is followed by {after:.6g}, so turn them."
            )
    if float(found[-1]) != 0:
        raise ValueError(f"The last time of a grid is 0, the data; got {float(found[-1]):.6g}, so append 0.")
    return Given(found)
