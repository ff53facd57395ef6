"""What a model is told of samples, by port of a condition: labels and attributes, captions, which parts are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .attributes import told as attributes_told
from .captions import Captions
from .controls import Low
from .encoder import Encoder
from .source import Labels
from .spec import Spec

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


class Texts:
    """The captions of a data set, each different one read once.

    Args:
        captions: how they are read.
        texts: one a sample.
    """

    def __init__(self, captions: Captions | Encoder, texts: Sequence[str]) -> None:
        different, self.which = np.unique(np.asarray(texts, dtype=str), return_inverse=True)
        tokens, self.mask = captions.encode(different.tolist())
        # Half the memory, at an error far below what an encoder means.
        self.tokens = tokens.astype(np.float16) if tokens.dtype == np.float32 else tokens

    @classmethod
    def of(cls, spec: Spec, texts: Sequence[str] | None) -> Texts | None:
        """Those of data that have some."""
        return None if spec.captions is None or texts is None else cls(spec.captions, texts)

    def told(self, indices: Indices) -> dict[str, Tensor]:
        """The ports of some samples."""
        rows = self.which[indices]
        tokens = torch.from_numpy(self.tokens[rows])
        mask = torch.from_numpy(self.mask[rows])
        return {"tokens": tokens.float() if tokens.is_floating_point() else tokens, "mask": mask}


def ports(
    spec: Spec,
    count: int,
    labels: Labels | None,
    attributes: Values | None,
    texts: Sequence[str] | Texts | None,
    image: bool = True,
    embedding: NDArray[np.float32] | None = None,
) -> dict[str, NDArray[Any]]:
    """What a model is told of samples, as :meth:`Dataset.told` gives it but for images and for :class:`Texts`.

    A part that is None is not known of any of them: it is hidden by ``keep``, ``(count, parts)``, which is left out
    where all is known. `image`: whether the images, which are looked up for each batch, are known. The noise over a low
    resolution is 0: it is put there in training, or by who draws. Classes and attributes cannot stand beside an
    embedding, which takes their port.
    """
    found: dict[str, NDArray[Any]] = {}
    known = [attributes is not None] * len(spec.attributes)
    if spec.classes is not None:
        known = [labels is not None, *known]
    first = np.zeros(count, np.int64) if labels is None else labels
    if spec.attributes:
        unknown = np.full((count, len(spec.attributes)), np.nan)
        vector = attributes_told(spec.attributes, unknown if attributes is None else attributes)
        if spec.classes is not None:
            vector = np.concatenate([first.astype(np.float32)[:, None], vector], 1)
        found["vector"] = vector
    elif spec.classes is not None:
        found["vector"] = first
    if spec.embedding is not None:
        known.append(embedding is not None)
        found["vector"] = np.zeros((count, spec.embedding.width), np.float32) if embedding is None else embedding
    if isinstance(spec.control, Low):
        known.append(True)
        rest = found.get("vector", np.zeros((count, 0), np.float32)).reshape(count, -1)
        found["vector"] = np.concatenate([rest.astype(np.float32), np.zeros((count, 1), np.float32)], 1)
    if spec.captions is not None:
        known.append(texts is not None)
        if not isinstance(texts, Texts):  # those of a data set are many, and are looked up for each batch
            found["tokens"], found["mask"] = spec.captions.encode([""] * count if texts is None else texts)
    if spec.control is not None:
        known.append(image)
    if not all(known):
        found["keep"] = np.tile(np.array(known), (count, 1))
    return found
