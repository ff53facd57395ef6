"""Axes of a chart: their range, where their ticks stand, and what is written beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .words import number

ROOM = 0.04
"""Free space beyond the outermost values, as a share of the axis."""
LONGEST = 8
"""Letters of a number beside an axis; a longer one is written with a power of ten."""
SUBDIVISIONS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


@dataclass(frozen=True)
class Axis:
    """A range of numbers on a straight or a logarithmic axis.

    Args:
        low, high: its ends, in the numbers' own unit.
        label: what it counts.
        log: positive numbers by their logarithms.
    """

    low: float
    high: float
    label: str = ""
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], label: str = "", log: bool = False, zero: bool = False) -> Axis:
        """The axis on which all values stand, with a little room; ``zero`` has it begin at 0."""
        known = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0 if log else 0.0]
        low, high = min(known), max(known)
        if log:
            edge = max((high / low) ** ROOM, 1.02)
            return cls(low / edge, high * edge, label, True)
        low = min(low, 0.0) if zero else low
        edge = ROOM * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low if zero and low == 0 else low - edge, high + edge, label)

    def share(self, value: float) -> float:
        """Where a value stands, 0 at the low end and 1 at the high one; beyond them outside [0, 1]."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the axis, at least two of them and about at most ``most``."""
        return self._powers(most) if self.log else self._steps(most)

    def _steps(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.10g}") for i in range(first, last + 1)]

    def _powers(self, most: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        best: list[float] = []
        for part in SUBDIVISIONS:
            inside = [float(f"{m * 10.0**d:.10g}") for d in decades for m in part]
            inside = [v for v in inside if self.low <= v <= self.high]
            if len(inside) > most:
                break
            best = inside
        if len(best) >= 3:
            return best
        if self.high / self.low > 10**most:
            every = -(-len(decades) // most)
            return [10.0**d for d in decades[::every] if self.low <= 10.0**d <= self.high]
        return self._steps(most - 1)


def words(tick: float) -> str:
    """A tick as it is written: short."""
    size = abs(tick)
    if size >= 1e5 or 0 < size < 1e-4:
        whole, _, power = f"{tick:.2g}".partition("e")
        return f"{whole}e{int(power)}" if power else f"{tick:.0e}".replace("e+0", "e")
    text = number(tick)
    return text if len(text) <= LONGEST else f"{tick:.3g}"


def thinned(points: Sequence[tuple[float, float]], most: int = 240) -> tuple[tuple[float, float], ...]:
    """The same curve with no more points than a screen shows: means of neighbours, the ends among them."""
    if len(points) <= most:
        return tuple(points)
    each = -(-len(points) // most)
    groups = [points[i : i + each] for i in range(0, len(points), each)]
    return tuple((sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups)
