"""What is measured: distances, fidelity and coverage, classes, pictures, memorisation; other kinds stand in `kinds`."""

from __future__ import annotations

from typing import Any

import numpy as np

from osmotic import metrics
from osmotic.metrics import GaussianKernel, Interval, Manifold, Moments
from osmotic.recipes.quality.kinds import OTHERS
from osmotic.recipes.quality.measures import JUDGED, PAIRS, SEARCHED, Measure, apart, first, share
from osmotic.recipes.quality.sets import Context, Set, nearest, pictures, several

NEARER = "nearer than held-out data"

BALLS = 1000
"""Samples that precision, recall, density and coverage look at: their interval takes forty of each."""


def frechet(mine: Set, held: Set, context: Context) -> float:
    """Of the features' Gaussians."""
    return metrics.frechet(Moments().update(mine.features), Moments().update(held.features))


def frechet_of_all(held: Set, context: Context) -> float:
    """Of all samples, those of which only moments were kept among them."""
    assert context.beyond is not None
    every = Moments().update(context.samples.features).merged(context.beyond)
    return metrics.frechet(every, Moments().update(held.features))


def scale(context: Context) -> float:
    """The Gaussian kernel's: the median distance of held-out data, whatever is measured."""
    found: float = context.once("scale", lambda: metrics.median_scale(context.held.features, seed=context.seed))
    return found


def manifold(mine: Set, held: Set, context: Context) -> Manifold:
    """Precision, recall, density and coverage of the features, once for all four."""
    found: Manifold = context.once(
        "manifold", lambda: metrics.manifold(held.features, mine.features), mine.features, held.features
    )
    return found


def judge(context: Context) -> Any:
    """A classifier of real training samples, which saw neither held-out data nor samples."""

    def fitted() -> Any:
        training = first(context.training, JUDGED)
        return metrics.fit_classifier(training.features, training.classes)

    return context.once("judge", fitted)


def agreed(mine: Set, held: Set, context: Context) -> Interval:
    """The share of samples that the judge puts in their class."""
    return share(judge(context).predict(mine.features) == mine.labels)


def learned(mine: Set, held: Set, context: Context) -> Interval:
    """The share of held-out data that a classifier trained on the samples alone gets right."""
    found = metrics.fit_classifier(mine.features, mine.classes)
    return share(found.predict(held.features) == held.labels)


def authentic(mine: Set, held: Set, context: Context) -> Interval:
    """Which samples are no near copies of a training sample."""
    return share(metrics.authentic(mine.flat, context.training.flat))


def nearer(mine: Set, held: Set, context: Context) -> Interval:
    """Which samples are nearer to the training set than half of the held-out data are; both counts have their error."""
    ours, theirs = nearest(mine, context).distance, nearest(context.held, context).distance
    found = metrics.bootstrap(lambda a, b: float(np.mean(a < np.median(b))), ours, theirs, seed=context.seed)
    return found if found.low != found.high else share(ours < np.median(theirs))


def told_apart(mine: Set, held: Set, context: Context) -> Interval:
    """By a classifier, on rows that it did not see."""
    return metrics.two_sample(mine.features, held.features, seed=context.seed).auc


def probable(context: Context) -> bool:
    """Whether the features come with probabilities of classes."""
    return hasattr(context.features, "probabilities")


def entropy(mine: Set, held: Set, context: Context) -> Interval:
    """The Inception Score of the classifier behind the features."""
    seen = mine.raw if pictures(context) else mine.x
    return metrics.inception_score(context.features.probabilities(seen), seed=context.seed)  # type: ignore[attr-defined]


DISTANCES = (
    Measure(
        "Frechet distance",
        "lower",
        "distance of the means and covariances of the features; grows as samples get fewer, so compare equal counts",
        frechet,
        every=frechet_of_all,
        least=0.0,
    ),
    Measure(
        "Frechet distance, infinite samples",
        "lower",
        "the same, extrapolated to infinitely many samples: 0 for a perfect model at any count",
        lambda mine, held, context: metrics.frechet_infinite(mine.features, held.features, seed=context.seed),
        fits=lambda context: min(len(context.samples), len(context.held)) >= 10 * context.features.dimensions,
    ),
    Measure(
        "kernel distance",
        "lower",
        "KID's polynomial kernel on the features, unbiased at any count: 0 on average for a perfect model",
        lambda mine, held, context: apart(mine, held, context, metrics.Polynomial()),
        most=PAIRS,
    ),
    Measure(
        "Gaussian-kernel distance",
        "lower",
        "maximum mean discrepancy of the features (CMMD's kind), which sees every difference of the laws; unbiased",
        lambda mine, held, context: apart(mine, held, context, GaussianKernel(scale(context))),
        most=PAIRS,
    ),
    Measure(
        "precision",
        "higher",
        "share of samples that lie among real data",
        lambda mine, held, context: manifold(mine, held, context).precision,
        most=BALLS,
        trials=lambda mine, held: len(mine),
        least=0.0,
        greatest=1.0,
    ),
    Measure(
        "recall",
        "higher",
        "share of real data that lie among the samples",
        lambda mine, held, context: manifold(mine, held, context).recall,
        most=BALLS,
        trials=lambda mine, held: len(held),
        least=0.0,
        greatest=1.0,
    ),
    Measure(
        "density",
        "real",
        "how thickly the samples lie where real data are; 1 is as thick as real data",
        lambda mine, held, context: manifold(mine, held, context).density,
        most=BALLS,
        least=0.0,
    ),
    Measure(
        "coverage",
        "higher",
        "share of real data with a sample nearby",
        lambda mine, held, context: manifold(mine, held, context).coverage,
        most=BALLS,
        trials=lambda mine, held: len(held),
        least=0.0,
        greatest=1.0,
    ),
    Measure(
        "told from real data",
        "real",
        "probability that a classifier ranks a sample and a real one rightly; 0.5 is that it cannot tell them apart",
        told_apart,
        most=PAIRS,
    ),
)

MEMORY = (
    Measure(
        "Vendi score",
        "real",
        "how many different samples there are, in effect, among 1,000 at most",
        lambda mine, held, context: metrics.vendi(mine.features, GaussianKernel(scale(context))),
        most=1000,
        blocks=0,
    ),
    Measure(
        "authentic",
        "real",
        "share of samples no nearer to a training sample than that one to its next: 0 for copies, below 1 for anything",
        authentic,
        real=lambda context: context.held,
        most=SEARCHED,
    ),
    Measure(
        NEARER,
        "real",
        "share of samples nearer to the training set than half of the held-out data are: 0.5 is right, 1 is copying",
        nearer,
        real=lambda context: context.held,
        most=SEARCHED,
        least=0.0,
        greatest=1.0,
    ),
)

CLASSES = (
    Measure(
        "class agreement",
        "higher",
        "share of samples that a judge, trained on real training data, puts in the class asked for",
        agreed,
        fits=several,
        real=lambda context: context.held,
    ),
    Measure(
        "classification accuracy score",
        "higher",
        "accuracy on held-out data of a classifier trained on samples alone",
        learned,
        fits=several,
        most=JUDGED,
    ),
    Measure(
        "classifier score",
        "higher",
        "the Inception Score's formula with the classifier of the features: sure and equally frequent answers",
        entropy,
        fits=probable,
    ),
)

IMAGES = (
    Measure(
        "contrast",
        "real",
        "spread of a pixel over samples, relative to held-out data: below 1 for samples too alike or blurred",
        lambda mine, held, context: metrics.contrast(mine.raw, held.raw),
        fits=pictures,
    ),
    Measure(
        "fine detail",
        "real",
        "power of the finest frequencies, relative to held-out data: below 1 for blurred samples, above for noise",
        lambda mine, held, context: metrics.detail(mine.raw, held.raw),
        fits=lambda context: pictures(context) and metrics.fine_power(context.held.raw) > 0,
    ),
)


MEASURES: tuple[Measure, ...] = (*DISTANCES, *OTHERS, *CLASSES, *IMAGES, *MEMORY)
