"""What distances are measured on: made from the training data, by name for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from osmotic.data.spec import Spec
from osmotic.metrics.features import Features, Pixels, Principal, RandomConv, default_features
from osmotic.recipes.quality.sets import Array, half, looked_at

EACH = 5
"""Held-out samples for each feature, at least: a covariance of more features would be mostly noise."""

FEWEST = 8
"""Features at least."""


@dataclass(frozen=True)
class Seen:
    """What features are made from.

    Args:
        spec: of the data.
        training: ``(N, ...)`` training data as features see them, pictures uint8, everything else standardised: the
            half of them that does not stand in for samples.
        labels: ``(N,)`` or None.
        held: how many held-out samples there are.
    """

    spec: Spec
    training: Array
    labels: Array | None
    held: int


Make = Callable[[Seen], Features]


def usual(seen: Seen) -> Features:
    """Random convolutions of pictures, the values of everything else; no more than the held-out data bear."""
    return bearable(default_features(seen.spec.kind, seen.training), seen)


def bearable(features: Features, seen: Seen) -> Features:
    """As many principal components of the features as the held-out data bear, or all of them."""
    most = max(FEWEST, seen.held // EACH)
    if features.dimensions <= most:
        return features
    plain = features.features if isinstance(features, Principal) else features  # projected once, not twice
    return Principal.fitted(plain, seen.training, most)


def learned(seen: Seen) -> Features:
    """Of a small classifier trained on these data: by their classes, of pictures without classes by their turns."""
    from osmotic.metrics.features.learned import Learned

    return Learned.trained(seen.training, seen.labels)


def random(seen: Seen) -> Features:
    """Random convolutions."""
    refuse_others(seen, "random")
    return bearable(RandomConv.fitted(seen.training), seen)


def pixels(seen: Seen) -> Features:
    """Principal components of pixels."""
    refuse_others(seen, "pixels")
    return bearable(Principal.fitted(Pixels(seen.training.shape[1:]), seen.training), seen)


def refuse_others(seen: Seen, name: str) -> None:
    """Refuse features of pictures for other data."""
    if seen.spec.kind != "images":
        other = "" if seen.labels is None else ", or take learned"
        raise ValueError(f"--features {name} are for pictures, and these data are none; leave it out{other}.")


def inception(file: Path | None, folder: Path) -> Make:
    """The network of FID, with the weights in a file, fetched once into the folder if no file is named."""

    def make(seen: Seen) -> Features:
        from osmotic.metrics.features.inception import Inception, fetch

        refuse_others(seen, "inception")
        if file is not None:
            return Inception.from_file(file)
        try:
            return Inception.from_file(fetch(folder))
        except OSError as error:
            raise ValueError(f"{str(error).rstrip('.')}; name it with --inception FILE then.") from None

    return make


NAMED: dict[str, Make] = {"random": random, "learned": learned, "pixels": pixels}
"""By the names of the command line, beside "inception", which needs a place for its weights."""


def seen(x: Array, labels: Array | None, spec: Spec, held: int) -> Seen:
    """What features are made from: the second half of the training data ``(N, *S)``."""
    rest = slice(half(len(x)), None) if len(x) > 1 else slice(None)
    return Seen(spec, looked_at(x[rest], spec), None if labels is None else labels[rest], held)
