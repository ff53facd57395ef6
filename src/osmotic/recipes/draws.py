"""Draws of the log-likelihood of held-out samples: by the flow, and by the variational bound."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.data.dataset import Dataset
from osmotic.denoiser import Denoiser, Rescheduled
from osmotic.dequantize import Dequantizer, Uniform, dequantized
from osmotic.divergence import Divergence, Exact, Hutchinson
from osmotic.likelihood import density
from osmotic.noise import generator, normal_like
from osmotic.objectives import Continuous, Discretised, continuous_bound
from osmotic.schedules import GeometricVE
from osmotic.training.model import Model

# The bound begins here at the latest, in deviations of the data: what noise so large still tells is below rounding.
NOISIEST = 1000.0

# Told how many samples more are done, in parts of one, and how many there are.
Progress = Callable[[float, int], None]

# Evaluations that a batch may need before one has been seen.
USUAL_EVALUATIONS = 300


class Ticks:
    """Progress within a batch, which may take minutes: each evaluation is a part of those that the last batch needed.

    Args:
        usual: evaluations of the first batch, a guess.
        tell: called with the samples that are done more, in parts of one; they add up to the batch.
    """

    # An unusually long batch waits here for its end.
    MOST = 0.95

    def __init__(self, usual: int, tell: Callable[[float], None]) -> None:
        self.usual, self.tell = usual, tell

    @contextmanager
    def of(self, denoiser: Denoiser, size: int) -> Iterator[None]:
        """While a batch of this size is measured."""
        calls, told = 0, 0.0

        def tick(*ignored: object) -> None:
            nonlocal calls, told
            calls += 1
            share = min(size / self.usual, max(0.0, self.MOST * size - told))
            told += share
            self.tell(share)

        handle = denoiser.register_forward_hook(tick)
        try:
            yield
        finally:
            handle.remove()
        self.tell(size - told)
        self.usual = max(1, calls)


@dataclass(frozen=True)
class Draws(ABC):
    """Random draws of the log-likelihood of held-out samples, keyed by (seed, draw, sample).

    Args:
        model: the model.
        held: the samples.
        seed: of all draws.
        conditional: given each sample's class.
        spacing: of discrete data's values in the network's units; None for real numbers.
        noise: at which data are read, in the network's units.
    """

    model: Model
    held: Dataset
    seed: int
    conditional: bool
    spacing: float | None
    noise: float

    @abstractmethod
    def nats(self, x: Tensor, cond: object, indices: np.ndarray, draw: int) -> tuple[Tensor, int]:
        """Nats ``(B,)`` in the network's units, of discrete data as probabilities, and evaluations in all."""

    def draw(
        self, chosen: np.ndarray, draws: int, batch_size: int, progress: Progress | None = None
    ) -> tuple[Tensor, float]:
        """Nats ``(draws, n)`` float64 on the CPU, and evaluations per sample and draw, the mean."""
        found, evaluations = torch.empty(draws, len(chosen), dtype=torch.float64), 0
        ticks = Ticks(self.usual, lambda done: progress(done, found.numel()) if progress is not None else None)
        for draw in range(draws):
            for start in range(0, len(chosen), batch_size):
                part = chosen[start : start + batch_size]
                x, _ = self.held.batch(part)
                cond = condition(self.model, self.held, part, self.conditional)
                with torch.no_grad(), ticks.of(self.model.denoiser, len(part)):
                    nats, spent = self.nats(x.to(self.model.device), cond, part, draw)
                found[draw, start : start + len(part)] = nats.cpu()
                evaluations += spent
        return found, evaluations / found.numel()

    @property
    def usual(self) -> int:
        """About how many evaluations a batch needs."""
        return USUAL_EVALUATIONS

    def keyed(self, indices: np.ndarray, draw: int, stream: int) -> Iterator[torch.Generator]:
        """A generator for each sample; streams 0 and 1 are of the flow, 3 and 4 of the bound."""
        return (generator(self.seed, stream, draw, int(i), device=self.model.device) for i in indices)


@dataclass(frozen=True)
class ByFlow(Draws):
    """The density of the probability-flow ODE, of discrete data after dequantising them.

    Args:
        trace: the divergence; probes are drawn for each sample.
        tolerance: of the solver, relative and absolute.
        dequantizer: of discrete data.
    """

    trace: Divergence = field(default_factory=Exact)
    tolerance: float = 1e-4
    dequantizer: Dequantizer = field(default_factory=Uniform)

    @property
    def random(self) -> bool:
        """Whether two draws differ."""
        return self.spacing is not None or not isinstance(self.trace, Exact)

    def nats(self, x: Tensor, cond: object, indices: np.ndarray, draw: int) -> tuple[Tensor, int]:
        trace, spent = self.trace, 0
        if isinstance(trace, Hutchinson):
            trace = Hutchinson(trace.probes, list(self.keyed(indices, draw, 1)), trace.law, trace.rows)

        def log_prob(y: Tensor) -> Tensor:
            nonlocal spent
            denoiser, tol = self.model.denoiser, self.tolerance
            found = density(denoiser, y, cond, divergence=trace, noise=self.noise, rtol=tol, atol=tol)
            spent = int(found.evaluations.sum())
            return found.nats

        if self.spacing is None:
            return log_prob(x), spent
        bound = dequantized(log_prob, self.dequantizer, x, self.spacing, list(self.keyed(indices, draw, 0)))
        return bound, spent


@dataclass(frozen=True)
class ByBound(Draws):
    """The variational bound in continuous time, without dequantisation: minus it is at most the log-likelihood.

    On a path even in log-SNR, to which the model's own is rescheduled (the bound does not depend on the path between
    its two ends), with the levels of each sample spread evenly from a random start.

    Args:
        levels: evaluations of the denoiser per sample and draw.
    """

    levels: int = 64

    @property
    def usual(self) -> int:
        return self.levels + 1

    def nats(self, x: Tensor, cond: object, indices: np.ndarray, draw: int) -> tuple[Tensor, int]:
        denoiser = even(self.model.denoiser, self.noise, NOISIEST * (self.model.recipe.process.sigma_data or 1.0))
        first = float(denoiser.schedule.time(-2 * math.log(self.noise)))
        shifts = [float(torch.rand((), generator=g, device=g.device)) for g in self.keyed(indices, draw, 3)]
        u = (torch.arange(self.levels).double()[:, None] + torch.tensor(shifts, dtype=torch.float64)) / self.levels
        keyed = list(self.keyed(indices, draw, 4))
        first_eps = normal_like(x, keyed)
        eps = (normal_like(x, keyed) for _ in range(self.levels))
        decoder = Continuous() if self.spacing is None else Discretised(round(2 / self.spacing) + 1)
        parts = continuous_bound(denoiser, x, u, eps, first_eps, decoder, first, cond)
        return -parts.total, self.levels * len(x)


def even(denoiser: Denoiser, noise: float, noisiest: float) -> Denoiser:
    """The denoiser on a path nearly even in log-SNR from ``sigma / alpha = noise`` up to its start or the noisiest."""
    last = math.exp(-float(denoiser.schedule.log_snr(denoiser.start)) / 2)
    if not noise < min(last, noisiest):
        raise ValueError(f"The bound's first noise lies below {min(last, noisiest):.6g}; got {noise}.")
    return Rescheduled(denoiser, GeometricVE(noise, min(last, noisiest)))


def condition(model: Model, data: Dataset, indices: np.ndarray, conditional: bool) -> Condition | None:
    """What the model is told of samples: all that is known of them, or nothing."""
    known = data.told(indices) if conditional else {}
    return Condition(**known).to(model.device) if known else None
