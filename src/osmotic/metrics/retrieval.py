"""How well pairs are found by their similarity."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Retrieval(NamedTuple):
    """Shares in [0, 1].

    Args:
        text: of samples whose nearest text is their own.
        chance: of them by chance, one over the number of texts.
        sample: of texts whose nearest sample is one of theirs.
        sample_chance: of them by chance.
        texts: how many different ones there are.
    """

    text: float
    chance: float
    sample: float
    sample_chance: float
    texts: int

    def line(self) -> str:
        """For a person."""
        return (
            f"of {self.texts} texts a sample finds its own in {self.text:.0%} (by chance {self.chance:.1%}), "
            f"a text one of its samples in {self.sample:.0%} (by chance {self.sample_chance:.1%})"
        )


def retrieval(similarity: NDArray[np.floating], own: NDArray[np.integer]) -> Retrieval:
    """How often the most similar one is the right one.

    Args:
        similarity: ``(N, T)`` of N samples and T different texts, each of at least one sample.
        own: ``(N,)`` the number of each sample's text.

    Raises:
        ValueError: for a text without a sample.
    """
    count = similarity.shape[1]
    each = np.bincount(own, minlength=count)
    if len(each) != count or not each.all():
        raise ValueError(f"Each of the {count} texts needs a sample of its own.")
    found = own[similarity.argmax(0)] == np.arange(count)
    return Retrieval(
        text=float((similarity.argmax(1) == own).mean()),
        chance=1 / count,
        sample=float(found.mean()),
        sample_chance=float((each / len(own)).mean()),
        texts=count,
    )
