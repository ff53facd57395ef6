"""Samples that a model is told the embeddings of: a vector for each, made once by an encoder of pictures or texts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .dataset import Dataset
from .embedding import Embedding, sphere
from .errors import DataError
from .ports import Indices


class WithEmbedding(Dataset):
    """The samples of another data set, of each of which a model is told a vector and nothing else.

    Args:
        dataset: the samples.
        vectors: ``(N, D)``, one a sample, of any length; their directions are told.
        embedding: what they are.

    Raises:
        DataError: for another number or width of vectors, and for one of no direction.
    """

    def __init__(self, dataset: Dataset, vectors: NDArray[np.float32], embedding: Embedding) -> None:
        if vectors.shape != (len(dataset), embedding.width):
            raise DataError(
                f"{dataset.spec.source}: {len(dataset)} samples need as many embeddings of {embedding.width} numbers, "
                f"not {vectors.shape}: embed these samples"
            )
        self.dataset, self.vectors = dataset, torch.from_numpy(sphere(vectors))
        nothing = {"classes": None, "attributes": (), "captions": None, "control": None}
        self.spec = dataset.spec.model_copy(update=nothing | {"embedding": embedding})
        self.labels = self.attributes = self.texts = None

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Indices) -> tuple[Tensor, None]:
        return self.dataset.batch(indices)[0], None

    def told(self, indices: Indices) -> dict[str, Tensor]:
        return {"vector": self.vectors[torch.from_numpy(np.asarray(indices, np.int64))]}

    def name(self, index: int) -> str:
        return self.dataset.name(index)
