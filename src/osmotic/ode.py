"""Ordinary differential equations with a step size of its own for every sample: Dormand and Prince's 5(4) pair.

The general libraries (SciPy, torchdiffeq) choose one step for the whole batch, so that a sample changes with its batch
mates. Here error, step and acceptance belong to the sample. This room knows nothing of diffusion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic.estimate import like

Rate = Callable[[Tensor, Tensor], Tensor]
Norm = Callable[[Tensor], Tensor]

# Dormand & Prince 1980 (J. Comput. Appl. Math. 6:19), as in Hairer, Norsett & Wanner, "Solving ODEs I", table II.5.2:
# nodes, the rows of the stages (the last is the fifth-order step itself), and fifth minus fourth order.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ROWS = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

# Step control with a memory of the last error (Gustafsson; Hairer's dopri5 with beta = 0.04) and its limits.
SAFETY, POWER, MEMORY, SMALLEST, LARGEST = 0.9, 0.17, 0.04, 0.2, 10.0
MOST = 10_000


@dataclass(frozen=True)
class Solution:
    """Where the samples arrived, ``(B, *S)``, and how often the rate was evaluated for each, ``(B,)`` int64."""

    y: Tensor
    evaluations: Tensor


def rms(error: Tensor) -> Tensor:
    """The root mean square over each sample, ``(B, *S) -> (B,)``."""
    return error.flatten(1).square().mean(1).sqrt()


def integrate(
    rate: Rate,
    y: Tensor,
    start: Tensor | float,
    end: Tensor | float,
    rtol: float,
    atol: float,
    norm: Norm = rms,
    most: int = MOST,
) -> Solution:
    """Solve ``dy/dt = rate(t, y)`` from each sample's start to its end, in either direction.

    A step is accepted where ``norm(error / (atol + rtol max(|y|, |y_new|))) <= 1``. Samples that have arrived, or start
    at their end, stay exactly as they are: the whole batch is evaluated on (a rate may hold things per sample), but
    they neither change nor count.

    Args:
        rate: ``(t (B,) float64, y (B, *S)) -> (B, *S)``; row i may depend on row i alone.
        y: the values at the start, ``(B, *S)``.
        start: ``(B,)`` or a single time.
        end: likewise; the rate is evaluated at times between the two, both included.
        rtol: relative tolerance of a step, positive.
        atol: absolute tolerance of a step, positive.
        norm: from the scaled error ``(B, *S)`` to one number per sample ``(B,)``.
        most: evaluations that a sample may need.

    Raises:
        ValueError: for tolerances that are not positive, or values that are not finite; if a sample needs more
            evaluations; if its step vanishes.
    """
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"An adaptive solver needs positive tolerances; got rtol={rtol} and atol={atol}.")
    broken = ~torch.isfinite(y).flatten(1).all(1)
    if bool(broken.any()):
        raise ValueError(
            f"Sample {int(broken.nonzero()[0])} holds NaN or infinite values, so there is no flow from it."
        )
    t, goal = (torch.as_tensor(v, dtype=torch.float64).detach().cpu().expand(len(y)).clone() for v in (start, end))
    count = torch.zeros(len(y), dtype=torch.int64)
    if bool((t == goal).all()):
        return Solution(y, count)
    control = _Control(rtol, atol, norm, goal)
    first = rate(t, y)
    step, probes = _first_step(rate, control, t, y, first)
    active = t != goal
    count[active] += 1 + probes
    last = torch.full_like(t, 1e-4)  # the controller's memory
    while bool(active.any()):
        remaining = goal - t
        arrives = step.abs() >= remaining.abs() * (1 - 1e-12)
        step = torch.where(arrives, remaining, step)
        there = torch.where(arrives, goal, t + step)
        new, rates, error = _attempt(rate, t, there, y, first, step)
        size = control.size(error, y, new)
        accepted = active & (size <= 1)
        count[active] += len(NODES) - 1
        t = torch.where(accepted, there, t)
        y, first = _select(accepted, new, y), _select(accepted, rates, first)
        factor = _factor(size, last, accepted)
        last = torch.where(accepted, size.clamp(min=1e-4), last)
        step = torch.where(active, step * factor, step)
        active = active & (t != goal)
        _check(active, t, step, count, rtol, most)
    return Solution(y, count)


class _Control:
    """Errors in units of the tolerance."""

    def __init__(self, rtol: float, atol: float, norm: Norm, goal: Tensor) -> None:
        self.rtol, self.atol, self.norm, self.goal = rtol, atol, norm, goal

    def size(self, error: Tensor, *values: Tensor) -> Tensor:
        """The norm of an error against the values' scale, ``(B,)`` float64 on the CPU; infinite where undefined."""
        scale = self.atol + self.rtol * torch.stack([v.abs() for v in values]).amax(0)
        found: Tensor = self.norm(error / scale).to("cpu", torch.float64)
        return torch.nan_to_num(found, nan=torch.inf)


def _first_step(rate: Rate, control: _Control, t: Tensor, y: Tensor, first: Tensor) -> tuple[Tensor, int]:
    """Hairer's starting step (algorithm II.4): a step whose fifth-order error should be a hundredth of the tolerance.

    Returns:
        Signed steps ``(B,)``, and how many evaluations were spent.
    """
    span = control.goal - t
    value, slope = control.size(y, y), control.size(first, y)
    short = torch.where((value > 1e-5) & (slope > 1e-5), 0.01 * value / slope, torch.full_like(t, 1e-6))
    short = torch.minimum(short, span.abs()) * span.sign()
    (h,) = like(y, short)
    bend = control.size(rate(t + short, y + h * first) - first, y) / short.abs().clamp(min=1e-300)
    steepest = torch.maximum(slope, bend)
    long = torch.where(steepest > 1e-15, (0.01 / steepest) ** 0.2, (short.abs() * 1e-3).clamp(min=1e-6))
    return torch.minimum(torch.minimum(100 * short.abs(), long), span.abs()) * span.sign(), 1


def _attempt(
    rate: Rate, t: Tensor, there: Tensor, y: Tensor, first: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the pair: the new values, the rate there (the next step's first), and the error's estimate."""
    (h,) = like(y, step)
    rates = [first]
    new = y
    for node, row in zip(NODES[1:], ROWS[1:], strict=True):
        new = y + h * _sum(row, rates)
        rates.append(rate(there if node == 1 else t + node * step, new))
    return new, rates[-1], h * _sum(ERROR, rates)


def _sum(weights: tuple[float, ...], rates: list[Tensor]) -> Tensor:
    total = rates[0] * weights[0]
    for weight, each in zip(weights[1:], rates[1:], strict=True):
        if weight:
            total = total.add(each, alpha=weight)
    return total


def _select(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    mask = accepted.to(new.device).reshape(-1, *[1] * (new.ndim - 1))
    return torch.where(mask, new, old)


def _factor(size: Tensor, last: Tensor, accepted: Tensor) -> Tensor:
    """By how much the next step is longer; after a rejection never longer, and without the memory."""
    safe = size.clamp(min=1e-10)
    onward = (SAFETY * safe**-POWER * last**MEMORY).clamp(SMALLEST, LARGEST)
    again = (SAFETY * safe**-POWER).clamp(SMALLEST, 1.0)
    return torch.where(accepted, onward, again)


def _check(active: Tensor, t: Tensor, step: Tensor, count: Tensor, rtol: float, most: int) -> None:
    if not bool(active.any()):
        return
    lost = active & (step.abs() <= 4e-16 * t.abs())
    if bool(lost.any()):
        at = float(t[lost][0])
        raise ValueError(f"The adaptive solver's step vanished at {at:.6g}, where the rate is not finite or jumps.")
    spent = active & (count >= most)
    if bool(spent.any()):
        at = float(t[spent][0])
        raise ValueError(
            f"The adaptive solver spent {most} evaluations and is at {at:.6g}; loosen the tolerance (rtol is {rtol:g}) "
            "or allow more."
        )
