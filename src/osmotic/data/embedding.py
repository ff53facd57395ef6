"""An embedding that a model is told, as a value that is stored with its run (torch-free)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from .encoding import Frozen
from .errors import DataError


class Embedding(Frozen):
    """The direction of a vector, told by the numbers of a vector of length sqrt(width), so that they are of order 1.

    Args:
        of: what was embedded.
        width: numbers of a vector.
        fingerprint: of the encoder, whose space no other has.
    """

    of: Literal["picture", "text"]
    width: int = Field(ge=1)
    fingerprint: str

    def describe(self) -> str:
        """One line for a person."""
        return f"told the embedding of each {self.of}: {self.width} numbers"

    def prompt(self, vector: ArrayLike) -> NDArray[np.float32]:
        """One vector that a person gave, as it is told.

        Raises:
            DataError: for another number of numbers, or one without a direction.
        """
        found = np.asarray(vector, np.float32)
        if found.shape != (self.width,):
            raise DataError(f"an embedding has {self.width} numbers here, and this has the shape {found.shape}")
        return sphere(found[None]).reshape(-1)


def sphere(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors ``(N, D)`` brought to length sqrt(D).

    Raises:
        DataError: for one of no direction.
    """
    found = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise DataError("an embedding is zero or not finite, so it has no direction: give another")
    scaled: NDArray[np.float32] = (found / lengths * math.sqrt(found.shape[1])).astype(np.float32)
    return scaled
