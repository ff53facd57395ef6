"""A held-out likelihood as it is printed, stored in a run and read back (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from osmotic.data.errors import plural
from osmotic.recipes.error_bars import Mean, comparison


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
        uniform: bits per dimension by uniform noise, where the dequantisation was learned.
        saved: bits per dimension that the learned one saves, on the same samples and draws; negative if it costs.
        bound: bits per dimension by the variational bound, where that was asked for.
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
    uniform: Mean | None = None
    saved: Mean | None = None
    bound: Mean | None = None

    def lines(self) -> list[str]:
        """The table that the command prints."""
        rows = [("bits per dimension", str(self.bits))]
        if self.uniform is not None and self.saved is not None:
            rows.append(("by uniform noise", f"{self.uniform}; {comparison(self.saved)}"))
        if self.bound is not None:
            rows.append(("by the variational bound", str(self.bound)))
        rows += [
            ("nats per sample", str(self.nats)),
            ("held-out samples", f"{self.count:,} of {self.held_out:,}, of {plural(self.dimensions, 'dimension')}"),
            ("relative to", self.unit),
            ("evaluations", f"{self.evaluations:.0f} a sample, {self.seconds:.0f} s in all"),
        ]
        rows += [(name.replace("_", " "), str(value)) for name, value in self.settings.items()]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {value}" for name, value in rows]
