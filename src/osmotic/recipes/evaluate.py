"""How well a run's model explains data that it never saw: the held-out log-likelihood, with error bars."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.data.counter import permutation
from osmotic.data.dataset import Dataset
from osmotic.dequantize import Dequantizer, Uniform, dequantized
from osmotic.divergence import Divergence, Exact, Hutchinson
from osmotic.likelihood import bits_per_dimension, density
from osmotic.noise import generator
from osmotic.ode import NODES
from osmotic.recipes.held_out import held_out, lattice, log_jacobian, unit
from osmotic.samplers.adaptive import AngleFlow
from osmotic.training.model import Model, load
from osmotic.training.run import write_json

SECONDS = 60.0
"""How long a measurement takes about, where nobody says how many samples."""

TOLERANCE = 1e-4
"""Of the solver: on networks a tenth of it triples the cost and moves a mean over samples by less than 0.001 nats a
dimension."""

# Larger samples than this are traced by random probes: exactness costs as many backward passes as entries.
FEW = 32
USUAL_EVALUATIONS = 300


@dataclass(frozen=True)
class Mean:
    """A mean over samples, its standard error, and the part of that which more draws would remove (None: unknown)."""

    mean: float
    standard_error: float
    from_draws: float | None

    def __str__(self) -> str:
        drawn = "" if self.from_draws is None else f" ({self.from_draws:.2g} of it from draws)"
        return f"{self.mean:.4f} +- {self.standard_error:.2g}{drawn}"


@dataclass(frozen=True)
class Report:
    """A held-out likelihood.

    Args:
        nats: ``log p`` per sample; of discrete data a lower bound on the logarithm of their probability.
        bits: per dimension; of discrete data an upper bound.
        unit: what the numbers are relative to, for a person.
        count: samples used, of ``held_out``.
        evaluations: of the denoiser per sample and draw, the mean.
        settings: everything that decided the result.
    """

    nats: Mean
    bits: Mean
    unit: str
    count: int
    held_out: int
    dimensions: int
    evaluations: float
    seconds: float
    settings: dict[str, Any]

    def lines(self) -> list[str]:
        """The table that the command prints."""
        rows = [
            ("bits per dimension", str(self.bits)),
            ("nats per sample", str(self.nats)),
            ("held-out samples", f"{self.count:,} of {self.held_out:,}, of {self.dimensions:,} dimensions"),
            ("relative to", self.unit),
            ("evaluations", f"{self.evaluations:.0f} a sample, {self.seconds:.0f} s in all"),
        ]
        rows += [(name.replace("_", " "), str(value)) for name, value in self.settings.items()]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {value}" for name, value in rows]


def likelihood(
    run: str | Path,
    data: Any = None,
    *,
    count: int | None = None,
    divergence: str | None = None,
    probes: int = 1,
    draws: int | None = None,
    noise: float | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    conditional: bool = False,
    weights: str | None = None,
    batch_size: int = 128,
    dequantizer: Dequantizer | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure a run on its held-out data and store the result in ``RUN/evaluation/likelihood.json``.

    Args:
        run: directory that training made; its newest whole checkpoint is used.
        data: what it was trained on, where that is not found again at its own place.
        count: held-out samples, a fixed random part; by default as many as take about a minute on this machine.
        divergence: ``"exact"`` or ``"hutchinson"``; exact up to 32 entries a sample by default.
        probes: of Hutchinson, at least 1.
        draws: of dequantising noise and probes for each sample; 2 by default, 1 where nothing is random.
        noise: at which data are read, in the network's units (see :func:`osmotic.likelihood.density`); half the spacing
            of pictures' values, else 0.004 of the data's deviation.
        tolerance: of the solver, relative and absolute.
        seed: of the part and of all draws; sample i is the same whatever the batch size or count.
        conditional: given each sample's class.
        weights: ``"model"`` or ``"ema-HALFLIFE"``; the first average by default.
        batch_size: samples at a time: memory, not results.
        dequantizer: of pictures; Uniform() by default.
        tell: called with a sentence about what is going to be done.
        progress: called with the samples finished (times draws) and their number.

    Raises:
        ValueError: for a run without held-out data, other data, or settings that mean nothing, in one sentence.
    """
    begun = time.monotonic()
    if draws is not None and draws < 1:
        raise ValueError(f"At least one draw is needed; got {draws}.")
    held = held_out(run, data)
    model = load(run, weights)
    _refuse_unlearned(model, conditional)
    entries = math.prod(model.spec.shape)
    spacing = lattice(model.spec)
    trace = tracing(divergence, entries, probes)
    random = spacing is not None or not isinstance(trace, Exact)
    draws = (draws or 2) if random else 1
    if noise is None:
        noise = spacing / 2 if spacing else 0.004 * (model.recipe.process.sigma_data or 1.0)
    work = _Work(model, held, dequantizer or Uniform(), spacing, trace, noise, tolerance, seed, conditional)
    chosen = permutation(seed, 0, len(held))
    chosen = chosen[: count or affordable(work, chosen[: min(batch_size, len(held))], draws)]
    if tell is not None:
        tell(f"measuring {len(chosen):,} of {len(held):,} held-out samples, {draws} draw{'s' * (draws > 1)} each")
    found, evaluations = work.draw(chosen, draws, batch_size, progress)
    settings = {
        "divergence": "exact" if isinstance(trace, Exact) else f"hutchinson, {probes} probe{'s' * (probes > 1)}",
        "draws": draws,
        "noise": noise,
        "tolerance": tolerance,
        "seed": seed,
        "given": "the class" if conditional else "nothing",
        "weights": weights or "the first average",
        "step": model.step,
    }
    nats = mean(found + log_jacobian(model.spec))
    report = Report(
        nats,
        _bits(nats, entries),
        unit(model.spec, spacing),
        len(chosen),
        len(held),
        entries,
        evaluations / found.numel(),
        time.monotonic() - begun,
        settings,
    )
    store(run, report)
    return report


@dataclass(frozen=True)
class _Work:
    """One draw of the log-likelihood of some held-out samples."""

    model: Model
    held: Dataset
    dequantizer: Dequantizer
    spacing: float | None
    trace: Divergence
    noise: float
    tolerance: float
    seed: int
    conditional: bool

    def draw(
        self, chosen: np.ndarray, draws: int, batch_size: int, progress: Callable[[int, int], None] | None
    ) -> tuple[Tensor, int]:
        """Nats ``(draws, n)`` and evaluations in all."""
        found, evaluations = torch.empty(draws, len(chosen), dtype=torch.float64), 0
        for draw in range(draws):
            for start in range(0, len(chosen), batch_size):
                part = chosen[start : start + batch_size]
                found[draw, start : start + len(part)], spent = self.nats(part, draw)
                evaluations += spent
                if progress is not None:
                    progress(len(part), found.numel())
        return found, evaluations

    def nats(self, indices: np.ndarray, draw: int) -> tuple[Tensor, int]:
        """Nats ``(B,)`` in the network's units, of discrete data as probabilities, and evaluations in all."""
        x, labels = self.held.batch(indices)
        x = x.to(self.model.device)
        cond = Condition(vector=labels.to(self.model.device)) if self.conditional and labels is not None else None
        trace = self.trace
        if isinstance(trace, Hutchinson):
            trace = Hutchinson(trace.probes, list(self._keyed(indices, draw, 1)))
        spent = 0

        def log_prob(y: Tensor) -> Tensor:
            nonlocal spent
            found = density(
                self.model.denoiser,
                y,
                cond,
                divergence=trace,
                noise=self.noise,
                rtol=self.tolerance,
                atol=self.tolerance,
            )
            spent = int(found.evaluations.sum())
            return found.nats

        if self.spacing is None:
            return log_prob(x).cpu(), spent
        with torch.no_grad():
            bound = dequantized(log_prob, self.dequantizer, x, self.spacing, list(self._keyed(indices, draw, 0)))
        return bound.cpu(), spent

    def _keyed(self, indices: np.ndarray, draw: int, stream: int) -> Iterator[torch.Generator]:
        return (generator(self.seed, stream, draw, int(i), device=self.model.device) for i in indices)


def _refuse_unlearned(model: Model, conditional: bool) -> None:
    if conditional and model.spec.classes is None:
        raise ValueError("This model was trained without classes; leave out --conditional.")
    if not conditional and model.spec.classes is not None and model.recipe.process.condition_dropout == 0:
        raise ValueError("This model never saw a sample without its class (--condition-dropout 0); add --conditional.")


def tracing(name: str | None, entries: int, probes: int) -> Divergence:
    """The divergence of this name: where names end and objects begin.

    Raises:
        ValueError: for any other name.
    """
    if name not in (None, "exact", "hutchinson"):
        raise ValueError(f"There is no divergence {name!r}; there are exact and hutchinson.")
    exact = entries <= FEW if name is None else name == "exact"
    return Exact() if exact else Hutchinson(probes)


def mean(found: Tensor) -> Mean:
    """The mean of nats ``(draws, n)`` with its errors: over samples, and over draws where there are several."""
    draws, n = found.shape
    each = found.mean(0)
    error = float(each.std(correction=1)) / math.sqrt(n) if n > 1 else math.inf
    drawn = float(found.var(0, correction=1).mean() / (draws * n)) ** 0.5 if draws > 1 else None
    return Mean(float(each.mean()), error, drawn)


def _bits(nats: Mean, entries: int) -> Mean:
    per = entries * math.log(2)
    drawn = None if nats.from_draws is None else nats.from_draws / per
    value = float(bits_per_dimension(torch.tensor(nats.mean, dtype=torch.float64), entries))
    return Mean(value, nats.standard_error / per, drawn)


def affordable(work: _Work, indices: np.ndarray, draws: int) -> int:
    """How many samples take about a minute, judged by one step of the solver on a batch; whole batches."""
    begun = time.monotonic()
    steps = 0
    while steps == 0 or (time.monotonic() - begun < 1 and steps < 3):
        _one_step(work, indices)
        steps += 1
    seconds = (time.monotonic() - begun) / steps * USUAL_EVALUATIONS / (2 * len(NODES)) * draws
    return len(indices) * max(1, int(SECONDS / seconds))


def _one_step(work: _Work, indices: np.ndarray) -> None:
    """As many evaluations as two steps of the solver have, on the way it will go."""
    x = work.held.batch(indices)[0].to(work.model.device)
    flow, trace = AngleFlow(work.model.denoiser), work.trace.fixed(x)
    phi = torch.full((len(x),), 0.5, dtype=torch.float64)
    for _ in range(2 * len(NODES)):
        trace.of(lambda u: flow(phi, u), x)


def store(run: str | Path, report: Report) -> Path:
    """Write a report into its run, in one piece."""
    path = Path(run) / "evaluation" / "likelihood.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, asdict(report))
    return path
