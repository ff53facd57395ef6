"""A mean with its error bar, as a person reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mean:
    """A mean over samples and how far it may be off.

    Args:
        mean: it.
        standard_error: of the mean, from the scatter of the samples; None for a single sample, which has none.
        from_draws: the part of it that more draws would remove, from the scatter of each sample's draws; None for one
            draw. With few samples either estimate is rough, and this one may come out as the larger.
    """

    mean: float
    standard_error: float | None = None
    from_draws: float | None = None

    def __str__(self) -> str:
        if self.standard_error is None:
            known = "" if self.from_draws is None else f"; its draws alone are good to {self.from_draws:.2g}"
            return f"{self.mean:.4f} (one sample has no error bar{known})"
        return f"{self.mean:.4f} +- {self.standard_error:.2g}{self._drawn(self.standard_error)}"

    def __neg__(self) -> Mean:
        return replace(self, mean=-self.mean)

    def _drawn(self, error: float) -> str:
        """The part from draws: never told as more than the whole."""
        if not self.from_draws:
            return ""
        if self.from_draws >= error:
            return " (all of it from draws, as far as so few samples tell)"
        return f" ({self.from_draws:.2g} of it from draws)"


def mean(found: Tensor) -> Mean:
    """The mean of numbers ``(draws, n)`` with its errors: over samples, and over draws where there are several."""
    draws, n = found.shape
    each = found.mean(0)
    error = float(each.std(correction=1)) / math.sqrt(n) if n > 1 else None
    drawn = float(found.var(0, correction=1).mean() / (draws * n)) ** 0.5 if draws > 1 else None
    return Mean(float(each.mean()), error, drawn)


def comparison(saved: Mean) -> str:
    """In words, what a learned dequantisation brought."""
    if saved.standard_error is None:
        return f"whether learned noise helps cannot be told ({saved} saved)"
    if abs(saved.mean) <= 2 * saved.standard_error:
        return f"learned noise makes no difference that can be seen ({saved} saved)"
    return f"learned noise is worse, it costs {-saved}" if saved.mean < 0 else f"learned noise saves {saved}"
