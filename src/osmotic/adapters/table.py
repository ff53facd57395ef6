"""A table of embeddings with new rows that learn while the old ones stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Table(nn.Embedding):
    """Stands in for an ``nn.Embedding``, under the same names: its weight, and new rows put in before row ``place``.

    Row i is ``weight[i]`` for ``i < place``, then come the new rows in the order they were added, then the rest of the
    weight (a null that stands last stays last).

    Args:
        table: whose weight is taken over, not copied.
        place: the first id that is new.
    """

    ROWS = "rows"

    def __init__(self, table: nn.Embedding, place: int) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, _weight=table.weight)
        self.weight = table.weight  # the same parameter, not one that shares its memory
        self.place = place
        self.rows = nn.ParameterList()
        self.words: dict[str, int] = {}

    def add(self, words: list[str], rows: Tensor) -> nn.Parameter:
        """Append rows ``(n, width)``, one a word; the ids go on where the last new one ended."""
        first = self.place + len(self.words)
        self.words |= {word: first + i for i, word in enumerate(words)}
        parameter = nn.Parameter(rows.detach().clone())
        self.rows.append(parameter)
        return parameter

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, torch.cat([self.weight[: self.place], *self.rows, self.weight[self.place :]]))
