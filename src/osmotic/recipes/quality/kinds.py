"""What is measured on data that are no pictures: vectors, tables and sequences."""

from __future__ import annotations

import numpy as np

from osmotic import metrics
from osmotic.data.columns import Categorical, Columns
from osmotic.metrics import Interval
from osmotic.recipes.quality.measures import JUDGED, PAIRS, Measure, apart
from osmotic.recipes.quality.sets import Array, Context, Set, pictures, several


def columned(context: Context) -> bool:
    """Whether the data are a table."""
    return isinstance(context.spec.encoding, Columns)


def sequential(context: Context) -> bool:
    """Whether the data are sequences of two entries at least."""
    return context.spec.kind == "sequences" and context.spec.shape[-1] > 1


def categories(context: Context) -> Array:
    """Which columns of a table are categories."""
    assert isinstance(context.spec.encoding, Columns)
    return np.array([isinstance(column, Categorical) for column in context.spec.encoding.columns])


def filled(mine: Set, context: Context) -> Array:
    """A table's rows with a value of its own, below all others, in place of what is missing."""
    least = np.nanmin(context.held.raw, axis=0, initial=0.0)
    reach = np.nanmax(context.held.raw, axis=0, initial=0.0) - least
    filled: Array = np.where(np.isnan(mine.raw), least - reach - 1, mine.raw)
    return filled


def columns(mine: Set, held: Set, context: Context) -> Array:
    """How far each column's law is off."""
    return metrics.column_distances(filled(held, context), filled(mine, context), categories(context))


def useful(mine: Set, held: Set, context: Context) -> Interval:
    """How well held-out rows are predicted by a learner that saw these rows alone: the class, or the last column."""
    rows, asked = filled(mine, context), filled(held, context)
    if mine.labels is not None and held.labels is not None:
        task: metrics.Classification | metrics.Regression = metrics.Classification()
        targets, truth = mine.labels, held.labels
    else:
        task = metrics.Classification() if categories(context)[-1] else metrics.Regression()
        rows, targets, asked, truth = rows[:, :-1], rows[:, -1], asked[:, :-1], asked[:, -1]
    return metrics.train_on_synthetic(rows, targets, asked, truth, task, seed=context.seed)


ENERGY = Measure(
    "energy distance",
    "lower",
    "0 on average for a perfect model and for no other, at any count; in units of the features",
    lambda mine, held, context: apart(mine, held, context, metrics.NegativeDistance()),
    fits=lambda context: not pictures(context),
    most=PAIRS,
)

OTHERS = (
    Measure(
        "sliced Wasserstein distance",
        "lower",
        "how far probability must be moved, the root mean square over directions; in units of the features",
        lambda mine, held, context: metrics.sliced(mine.features, held.features, seed=context.seed),
        fits=lambda context: not pictures(context),
        most=PAIRS,
    ),
    ENERGY,
    Measure(
        "column distance, mean",
        "lower",
        "how far each column's law is off (Kolmogorov-Smirnov, total variation for categories), the mean over columns",
        lambda mine, held, context: float(columns(mine, held, context).mean()),
        fits=columned,
    ),
    Measure(
        "column distance, worst",
        "lower",
        "the same, of the column that is off most",
        lambda mine, held, context: float(columns(mine, held, context).max()),
        fits=columned,
    ),
    Measure(
        "correlation gap",
        "lower",
        "mean difference in how strongly two columns go together",
        lambda mine, held, context: metrics.correlation_gap(
            filled(held, context), filled(mine, context), categories(context)
        ),
        fits=lambda context: columned(context) and len(categories(context)) > 1,
        most=PAIRS,
    ),
    Measure(
        "trained on samples, tested on real",
        "higher",
        "score on held-out rows of a learner of samples alone that tells {target}",
        useful,
        fits=lambda context: columned(context) and (several(context) or len(categories(context)) > 1),
        most=JUDGED,
    ),
    Measure(
        "autocorrelation distance",
        "lower",
        "root mean square difference of the autocorrelations, up to half the length",
        lambda mine, held, context: metrics.autocorrelation_distance(held.x, mine.x),
        fits=sequential,
    ),
    Measure(
        "spectrum distance",
        "lower",
        "root mean square difference of the power spectra, in decibels",
        lambda mine, held, context: metrics.spectrum_distance(held.x, mine.x),
        fits=sequential,
    ),
)
