"""What a measure is, and how its value and its interval are found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from osmotic.data.columns import Categorical, Columns
from osmotic.metrics import Interval, Kernel, jackknife, mmd, mmd_interval
from osmotic.recipes.quality.sets import Context, Set
from osmotic.recipes.scores import Score

BLOCKS = 20
"""Parts of a set of which one is left out at a time, for the interval."""

LEAST_BLOCKS = 5
"""Where the sets are too small for so many, there is no interval."""

MOST = 10_000
"""Samples that any measure looks at."""

PAIRS = 2000
"""Samples that a measure of pairs looks at: what it costs grows with the square."""

SEARCHED = 1000
"""Samples whose nearest training samples are looked for."""

JUDGED = 5000
"""Samples that a classifier learns from, at most."""

Value = Callable[[Set, Set, Context], "float | Interval"]


def in_place(context: Context) -> Set:
    """Training data in place of samples."""
    return context.real


@dataclass(frozen=True)
class Measure:
    """One score; a new one is an entry of a catalogue.

    Args:
        name: the field's own.
        better: which way is good; "real" as near as possible to what real data give.
        about: what it tells, in one sentence for a person.
        of: the score of a set beside held-out data, with its interval where leaving out blocks does not find it.
        fits: whether it can be measured there.
        real: what stands in place of samples for the value of real data; None where there is none.
        most: samples that are looked at.
        blocks: of the interval; 0 for none, where the score costs too much to be found so often.
        every: the score of all samples, those that were too many to be kept among them; None where it takes the kept
            ones to find it.
        trials: how many things the score is a share of, where it is one.
        least: that the score can be, as no interval goes beyond.
        greatest: likewise.
    """

    name: str
    better: Literal["lower", "higher", "real"]
    about: str
    of: Value
    fits: Callable[[Context], bool] = lambda context: True
    real: Callable[[Context], Set] | None = in_place
    most: int = MOST
    blocks: int = BLOCKS
    every: Callable[[Set, Context], float] | None = None
    trials: Callable[[Set, Set], int] | None = None
    least: float = -math.inf
    greatest: float = math.inf

    def score(self, context: Context) -> Score:
        """The score of the context's samples, with its interval, beside that of real data."""
        return self.told(context, self.of_real(context))

    def of_real(self, context: Context) -> float | None:
        """The score of real data in place of samples."""
        if self.real is None:
            return None
        return plain(self.of(first(self.real(context), self.most), first(context.held, self.most), context))

    def told(self, context: Context, real: float | None) -> Score:
        """The score of the context's samples, with its interval, beside what is known of real data."""
        # As many samples as real data stand in for them: most distances depend on the count.
        most = min(self.most, len(context.real)) if self.real is in_place else self.most
        samples, held = first(context.samples, most), first(context.held, self.most)
        found, count = self._interval(samples, held, context), len(samples)
        if self.every is not None and context.beyond is not None and context.beyond.count:
            # As wide as for the kept ones: wider than that of more.
            found, count = moved(found, self.every(held, context)), len(context.samples) + context.beyond.count
        known = found.low != found.high
        return Score(
            name=self.name,
            value=found.value,
            low=max(found.low, self.least) if known else None,
            high=min(found.high, self.greatest) if known else None,
            better=self.better,
            real=real if count == len(samples) else None,  # of fewer it would be no comparison
            samples=count,
            about=self.about.format(target=target(context)),
        )

    def _interval(self, samples: Set, held: Set, context: Context) -> Interval:
        value, blocks = self.of(samples, held, context), blocks_of(samples, held, self.blocks)
        if isinstance(value, Interval):
            return value
        if not blocks:
            return Interval(value, value, value)

        def of(mine: np.ndarray, theirs: np.ndarray) -> float:
            return plain(self.of(samples.part(mine), held.part(theirs), context))

        found = jackknife(of, np.arange(len(samples)), np.arange(len(held)), blocks=blocks, seed=context.seed)
        if found.low == found.high and self.trials is not None:  # none or all, whatever is left out
            return wilson(found.value, self.trials(samples, held))
        return found


def plain(value: float | Interval) -> float:
    """A score without its interval."""
    return value.value if isinstance(value, Interval) else value


def moved(found: Interval, value: float) -> Interval:
    """An interval of the same width around another value."""
    return Interval(value, value - (found.value - found.low), value + (found.high - found.value))


def blocks_of(mine: Set, held: Set, most: int = BLOCKS) -> int:
    """Into how many blocks the two sets are cut for an interval; 0 where they are too small for one."""
    blocks = min(most, len(mine) // 2, len(held) // 2)
    return blocks if blocks >= LEAST_BLOCKS else 0


def target(context: Context) -> str:
    """What a learner of a table's rows tells, and how it is scored."""
    encoding = context.spec.encoding
    if context.asked or not isinstance(encoding, Columns):
        return "the class (accuracy)"
    last = encoding.columns[-1]
    return f"the column {last.name} ({'accuracy' if isinstance(last, Categorical) else 'R^2'})"


def first(some: Set, most: int) -> Set:
    """The first samples: those of a model are independent, and data were put in random order."""
    return some if len(some) <= most else some.part(np.arange(most))


def share(hits: np.ndarray) -> Interval:
    """The share of samples of which something holds, with Wilson's 95 % interval, which never leaves [0, 1].

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    return wilson(float(np.mean(hits)), len(hits))


def wilson(p: float, n: int) -> Interval:
    """Wilson's interval around a share p of n."""
    z = 1.959964
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    # The ends are exact where all or none are hits, but for rounding.
    return Interval(p, max(0.0, middle - reach) if p > 0 else 0.0, min(1.0, middle + reach) if p < 1 else 1.0)


def apart(mine: Set, held: Set, context: Context, kernel: Kernel) -> Interval:
    """A kernel distance of the features with its interval; without one where the sets are too small."""
    if blocks := blocks_of(mine, held):
        return mmd_interval(mine.features, held.features, kernel, blocks=blocks, seed=context.seed)
    value = mmd(mine.features, held.features, kernel)
    return Interval(value, value, value)
