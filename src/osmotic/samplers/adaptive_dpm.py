"""DPM-Solver with steps chosen by the error, for each sample by itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import like
from osmotic.noise import Generators
from osmotic.samplers.base import Sampler, State
from osmotic.samplers.lines import at_log_snr, half_log_snr
from osmotic.samplers.nodes import as_level
from osmotic.schedules import Schedule


class DPMSolverAdaptive(Sampler):
    """DPM-Solver-12 or -23: a singlestep solver and the one of an order less inside it give the error of a step.

    ``E = rms((x_high - x_low) / max(absolute, relative max(|x_low|, |x_before|)))``; a step with ``E <= 1`` is kept,
    and the next is ``0.9 h E^{-1/order}`` (Lu et al. 2022, arXiv 2206.00927, appendix C), h in log(alpha / sigma). The
    norm is of each sample, so that none depends on those beside it; a finished sample waits unchanged. One step to
    sigma = 0 goes to ``rho = last`` and lands there by the estimate.

    Args:
        order: 2 or 3, of the higher solver.
        absolute: error allowed on its own, in units of the data.
        relative: error allowed relative to the sample.
        first: the first step tried, in log(alpha / sigma).
        last: the noise-to-signal ratio from which the estimate is taken, positive.
        most: rounds after which it gives up.
    """

    evaluations = 0
    remembers = True

    def __init__(
        self,
        order: int = 3,
        absolute: float = 0.0078,
        relative: float = 0.05,
        first: float = 0.05,
        last: float = 0.002,
        most: int = 10_000,
    ) -> None:
        if order not in (2, 3):
            raise ValueError(f"DPMSolverAdaptive has order 2 or 3; got {order}.")
        if not min(absolute, relative, first, last) > 0:
            raise ValueError(
                "DPMSolverAdaptive's absolute, relative, first and last are positive; got "
                f"{absolute}, {relative}, {first} and {last}."
            )
        self.order, self.absolute, self.relative = order, absolute, relative
        self.first, self.last, self.most = first, last, most

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: Tensor | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        schedule = denoiser.schedule
        pairs = schedule.scalars(t), schedule.scalars(s)
        if pairs[0][0] == 0:
            x, t = self._leave(denoiser, x, t, s, cond)
            pairs = schedule.scalars(t), pairs[1]
        start, end = half_log_snr(pairs[0]), min(half_log_snr(pairs[1]), -math.log(self.last))
        if end > start:
            x, state = self._integrate(denoiser, x, start, end, cond, state)
        if pairs[1][1] == 0:
            x = denoiser(x, schedule.time(2 * max(start, end)), cond).at(1.0, 0.0)
        return x, state

    def _leave(self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: object) -> tuple[Tensor, Tensor]:
        """From alpha = 0 to the first level whose log-SNR is finite enough: a jump by an angle so small that its error,
        of its square, is a hundredth of what is allowed.
        """
        schedule = denoiser.schedule
        turn = 0.1 * math.sqrt(min(self.absolute, self.relative))
        (level,) = at_log_snr(schedule, [math.log(math.tan(turn))])
        if level.number <= float(s):
            level = as_level(s)
        return denoiser(x, t, cond).at(*schedule.scalars(level)), level

    def _integrate(
        self, denoiser: Denoiser, x: Tensor, start: float, end: float, cond: object, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """From log-SNR start to end; the state is the step that each sample would take next."""
        at = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
        h = torch.full_like(at, self.first) if state is None else state
        before = x
        for _ in range(self.most):
            left = end - at
            going = left > 1e-12
            if not bool(going.any()):
                return x, h
            trial = torch.where(going, torch.minimum(h, left), 0)
            low, high = self._pair(denoiser, x, at, torch.where(going, trial, self.first), cond)
            allowed = torch.maximum(low.abs(), before.abs()) * self.relative
            ratio = (high - low) / allowed.clamp(min=self.absolute)
            error = ratio.flatten(1).square().mean(1).sqrt().double().clamp(min=1e-10)
            if not bool(torch.isfinite(error).all()):
                raise ValueError(
                    "The denoiser's estimate is not finite, so no step of DPMSolverAdaptive can be judged."
                )
            kept = going & (error <= 1)
            wide = kept.reshape(kept.shape + (1,) * (x.ndim - 1))
            x, before = torch.where(wide, high, x), torch.where(wide, low, before)
            at = torch.where(kept, torch.where(trial >= left, end, at + trial), at)
            h = torch.where(going, 0.9 * trial * error ** (-1 / self.order), h)
        raise ValueError(
            f"DPMSolverAdaptive took {self.most} rounds without reaching the end; allow a larger error or more rounds."
        )

    def _pair(self, denoiser: Denoiser, x: Tensor, at: Tensor, h: Tensor, cond: object) -> tuple[Tensor, Tensor]:
        """The steps of the lower and of the higher order, which share their evaluations."""
        schedule = denoiser.schedule
        here: Tensor = denoiser(x, schedule.time(2 * at), cond).eps
        shares = (0.5, 1.0) if self.order == 2 else (1 / 3, 2 / 3)
        middle = _noise_step(schedule, x, at, shares[0] * h, [(here, 1.0)])
        second: Tensor = denoiser(middle, schedule.time(2 * (at + shares[0] * h)), cond).eps
        if self.order == 2:
            low = _noise_step(schedule, x, at, h, [(here, 1.0)])
            return low, _noise_step(schedule, x, at, h, [(second, 1.0)])
        low = _noise_step(schedule, x, at, h, [(here, -0.5), (second, 1.5)])  # 1 / (2 r) with r = 1 / 3
        slope = (second - here) / shares[0]
        bend = _bend(shares[1] * h) / (shares[1] * h).expm1() * shares[1]
        two_thirds = _noise_step(schedule, x, at, shares[1] * h, [(here, 1.0), (slope, bend)])
        third: Tensor = denoiser(two_thirds, schedule.time(2 * (at + shares[1] * h)), cond).eps
        last = (third - here) / shares[1]
        return low, _noise_step(schedule, x, at, h, [(here, 1.0), (last, _bend(h) / h.expm1())])


def _bend(h: Tensor) -> Tensor:
    """``(e^h - 1) / h - 1``, the weight of a slope in eps over a step."""
    return h.expm1() / h - 1


def _noise_step(
    schedule: Schedule, x: Tensor, at: Tensor, h: Tensor, parts: list[tuple[Tensor, float | Tensor]]
) -> Tensor:
    """``(alpha_s / alpha_t) x - sigma_s (e^h - 1) sum_j w_j eps_j``, with numbers for each sample."""
    (alpha_t, _), (alpha_s, sigma_s) = schedule(schedule.time(2 * at)), schedule(schedule.time(2 * (at + h)))
    keep, whole = like(x, alpha_s / alpha_t, -sigma_s * h.expm1())
    total = x * keep
    for eps, weight in parts:
        (w,) = like(x, weight) if isinstance(weight, Tensor) else (weight,)
        total = total + whole * w * eps
    return total
