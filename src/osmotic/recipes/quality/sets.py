"""What is compared: samples, held-out data and training data, each in every form that a measure may want."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmotic import metrics
from osmotic.data.counter import permutation
from osmotic.data.dataset import Dataset
from osmotic.data.spec import Spec
from osmotic.metrics import Moments, Neighbours
from osmotic.metrics.features import Features

Array = NDArray[Any]

CHUNK = 512
"""Samples that are encoded at a time."""


@dataclass(frozen=True)
class Set:
    """Samples or data.

    Args:
        x: ``(N, *S)`` float32, as a network sees them.
        raw: the same in the user's own format: pictures ``(N, H, W, C)`` uint8, tables and arrays in their units.
        features: ``(N, D)`` float64: of pictures as a person sees them, of everything else as the network does.
        labels: the class of each, ``(N,)``; None without classes.
    """

    x: Array
    raw: Array
    features: Array
    labels: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def flat(self) -> Array:
        """``(N, d)`` float64: every entry of x."""
        return self.x.reshape(len(self.x), -1).astype(np.float64)

    @property
    def classes(self) -> Array:
        """The labels, where there are some."""
        if self.labels is None:
            raise ValueError("These samples have no classes.")
        return self.labels

    def part(self, indices: Array) -> Set:
        """Some of them."""
        labels = None if self.labels is None else self.labels[indices]
        return Set(self.x[indices], self.raw[indices], self.features[indices], labels)


@dataclass(frozen=True)
class Context:
    """All that the measures of one evaluation look at.

    Args:
        spec: of the data.
        samples: of the model.
        held: real data that it was not trained on.
        training: real data that it was trained on, or a fixed random part of them; features were fitted to the second
            half of them.
        asked: whether the samples' labels are classes that the model was asked for.
        features: that all sets have.
        seed: of everything random in a measure.
        beyond: of the features of samples that were too many to be kept, if there were such.
    """

    spec: Spec
    samples: Set
    held: Set
    training: Set
    features: Features
    asked: bool
    seed: int
    beyond: Moments | None = None
    memo: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def real(self) -> Set:
        """Training data in place of samples, as many where there are so many: what a perfect model gets.

        Of the half that features were not fitted to: those of few samples fit these better than any others.
        """
        return self.training.part(np.arange(min(len(self.samples), half(len(self.training)))))

    def once(self, what: str, compute: Callable[[], Any], *arrays: Array) -> Any:
        """What several measures read of the same arrays, computed once."""
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        key = f"{what} {digest.hexdigest()}"
        if key not in self.memo:
            self.memo[key] = compute()
        return self.memo[key]


def half(count: int) -> int:
    """How many of the training data stand in for samples; features are fitted to the others."""
    return (count + 1) // 2


def arrays(dataset: Dataset, most: int, seed: int) -> tuple[Array, Array | None]:
    """A fixed random part of a data set ``(N, *S)`` in random order, all of it up to ``most``; with its labels."""
    indices = permutation(seed, 2, len(dataset))[:most]
    parts = [dataset.batch(indices[i : i + CHUNK]) for i in range(0, len(indices), CHUNK)]
    x = np.concatenate([part.numpy() for part, _ in parts])
    labels = None if dataset.labels is None else np.asarray(dataset.labels)[indices]
    return x, labels


def of_dataset(dataset: Dataset, features: Features, most: int, seed: int) -> Set:
    """The same with its features."""
    x, labels = arrays(dataset, most, seed)
    return of_arrays(x, dataset.spec, features, labels)


def as_given(x: Array, spec: Spec) -> Array:
    """Samples ``(N, *S)`` as a user gets them, seen by a network: categories and whole numbers are no others any more.

    Pictures are left as they are; what is measured on them looks at their pixels.
    """
    return x if spec.kind == "images" else spec.encode(spec.decode(x))


def looked_at(x: Array, spec: Spec) -> Array:
    """What features see of samples ``(N, *S)``: pictures as a person does, everything else as the network."""
    return spec.decode(x) if spec.kind == "images" else as_given(x, spec)


def of_arrays(x: Array, spec: Spec, features: Features, labels: Array | None = None) -> Set:
    """Samples ``(N, *S)`` as a network makes them.

    Raises:
        ValueError: if some are infinite or no numbers.
    """
    wrong = int((~np.isfinite(x.reshape(len(x), -1))).any(1).sum())
    if wrong:
        raise ValueError(
            f"{wrong:,} of {len(x):,} samples hold infinities or no numbers; look at the training's loss, or sample "
            "with other weights (--weights)."
        )
    raw = spec.decode(x)
    if spec.kind == "images":
        return Set(x, raw, features(raw), labels)
    seen = spec.encode(raw)
    return Set(seen, raw, features(seen), labels)


def nearest(some: Set, context: Context) -> Neighbours:
    """The nearest training sample of each, looked for once."""
    found: Neighbours = context.once("nearest", lambda: metrics.nearest(some.flat, context.training.flat), some.x)
    return found


def several(context: Context) -> bool:
    """Whether there are two classes at least, and the model was asked for them."""
    return context.asked and len(np.unique(context.training.classes)) > 1


def pictures(context: Context) -> bool:
    """Whether the data are pictures."""
    return context.spec.kind == "images"
