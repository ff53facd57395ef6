"""Few-step denoisers: networks whose estimate is aimed at a later point of the trajectory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import Estimate
from osmotic.levels import as_time
from osmotic.schedules import Number

CLOSE = 1e-9
"""Times this close are the same stop: what the inversion of a path may round."""


class FlowMap(NeuralDenoiser):
    """A network that is told where to jump to: ``y = network(c x, clock(t), cond, clock(s))``.

    The estimate meets ``alpha_t x0 + sigma_t eps = x`` whatever the network says, so
    ``G(x, t, s) = estimate.at(alpha_s, sigma_s)`` has ``G(x, t, t) = x`` by construction. On EDM's path it is CTM's
    ``(s / t) x + (1 - s / t) g(x, t, s)`` (Kim et al. 2024, arXiv 2310.02279), on the rectified path with the velocity
    target ``x - (t - s) u(x, t, s)``, u being MeanFlow's average velocity (Geng et al. 2025, arXiv 2505.13447). Its
    diagonal, s = t, is the posterior mean.

    Args: those of :class:`~osmotic.denoiser.NeuralDenoiser`; the network takes a fourth argument ``(B,)``.

    Raises:
        ValueError: while sampling, if s lies above t.
    """

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        t = as_time(t)
        aim = t if s is None else as_time(s)
        if s is not None:
            _refuse_rising(t, aim)
        clock = self._clock(aim, x.device)
        reading = self._reading(t, x.device)
        return Estimate.of(x, self._call(x, reading, cond, clock.expand(len(x))), reading.x0, reading.eps)

    def output(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Tensor:
        """The raw network output at noisy samples ``(B, *S)``, aimed at s (t if None)."""
        aim = t if s is None else as_time(s)
        return self._call(x, self._reading(t, x.device), cond, self._clock(aim, x.device).expand(len(x)))

    def _clock(self, s: Tensor, device: torch.device) -> Tensor:
        return self.clock(self.schedule, s).to(device, torch.float32).reshape(-1)


class Consistency(NeuralDenoiser):
    """A consistency function ``f(x, t)``: the estimate is aimed at the data, ``f = estimate.x0 = G(x, t, 0)``.

    ``f(x, 0) = x`` because the estimate meets the path's equation: EDM's preconditioning needs no shift of its own
    (Geng et al. 2024, arXiv 2406.14548). It has no posterior mean. Song et al. 2023 (arXiv 2303.01469).

    Args:
        stops: the times, falling, that it was trained at, where those are a few (knowledge distillation has 1 alone);
            None for all.

    The others are those of :class:`~osmotic.denoiser.NeuralDenoiser`.

    Raises:
        ValueError: while sampling, if it is asked for the posterior mean, or to aim at anything but the data.
    """

    diagonal = False

    def __init__(self, *args: Any, stops: Sequence[float] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.stops = None if stops is None else tuple(stops)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is None:
            raise ValueError(
                "This few-step model aims at the data and has no posterior mean; sample it with 'consistency', and use "
                "its teacher where a solver, a likelihood or another distillation needs one."
            )
        if not _is(as_time(s), 0.0):
            raise ValueError(
                "This few-step model aims at the data alone, not at a time between; sample it with 'consistency'."
            )
        return super().forward(x, t, cond)


class Chain(NeuralDenoiser):
    """A student that knows the jumps between neighbouring stops alone: ``x_{t_i} -> x_{t_{i + 1}}``.

    Progressive distillation trains it (Salimans & Ho 2022, arXiv 2202.00512): each of its DDIM steps equals two of its
    teacher's. Skipping stops is not what it learned, so it is refused.

    Args:
        stops: the times, falling from the start; the last jump ends at 0.

    The others are those of :class:`~osmotic.denoiser.NeuralDenoiser`.

    Raises:
        ValueError: while sampling, for any other jump.
    """

    diagonal = False

    stops: tuple[float, ...]

    def __init__(self, *args: Any, stops: Sequence[float], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.stops = tuple(stops)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is not None and t.ndim == 0 and as_time(s).ndim == 0 and not self._knows(float(t), float(s)):
            raise ValueError(
                f"This student learned the {len(self.stops)} jumps of its own grid, and t = {float(t):.6g} to "
                f"{float(s):.6g} is none of them; sample it with 'jump' in {len(self.stops)} steps."
            )
        if s is None:
            raise ValueError("This student knows jumps and no posterior mean; sample it with 'jump'.")
        return super().forward(x, t, cond)

    def _knows(self, t: float, s: float) -> bool:
        return any(abs(t - a) <= CLOSE and abs(s - b) <= CLOSE for a, b in itertools.pairwise((*self.stops, 0.0)))


class Implicit(NeuralDenoiser):
    """A generator that draws x0 from an implicit ``q(x0 | x_t)``: its network also reads ``cond.latent``.

    Ancestral sampling (``ddpm``) hands it fresh normal numbers at every step and so needs few and large steps (Xiao et
    al. 2022, arXiv 2112.07804). It has no posterior mean.

    Args:
        latents: how many normal numbers, at least 1.
        stops: the times, falling, that it was trained at; None for all.

    The others are those of :class:`~osmotic.denoiser.NeuralDenoiser`.

    Raises:
        ValueError: while sampling, if it is asked for the posterior mean or a flow map.
    """

    diagonal = False

    def __init__(self, *args: Any, latents: int, stops: Sequence[float] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.latents, self.stops = latents, None if stops is None else tuple(stops)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if getattr(cond, "latent", None) is None:
            raise ValueError("This model draws clean samples and has no posterior mean; sample it with 'ddpm'.")
        return super().forward(x, t, cond, s)


def _is(time: Tensor, value: float) -> bool:
    """Whether every time has this value; times on an accelerator are believed, for reading them would stall it."""
    return time.device.type != "cpu" or bool((time == value).all())


def _refuse_rising(t: Tensor, s: Tensor) -> None:
    if t.device.type == "cpu" and s.device.type == "cpu" and bool((s > t + CLOSE).any()):
        late = (s - t).max()
        raise ValueError(f"A flow map jumps towards the data, and s lies {float(late):.3g} above t; give 0 <= s <= t.")
