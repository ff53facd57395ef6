"""Fixed positions: where a token stands in a line, a plane or a volume of any size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from osmotic.nn.embedding import geometric, waves


def sincos(grid: tuple[int, ...], width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the grid coordinates, the width shared evenly by the axes.

    Row ``n`` is ``[phi(i_1), ..., phi(i_d), 0...]`` for the n-th point in row-major order, with the features
    of :class:`osmotic.nn.Sinusoidal` on each axis; a width that the axes cannot share evenly is filled with
    zeros. Dosovitskiy et al. 2021 (arXiv 2010.11929); Peebles & Xie 2023 (arXiv 2212.09748).

    Shapes: grid ``(n_1, ..., n_d)`` to ``(n_1 * ... * n_d, width)``, float32.
    """
    frequencies = geometric(width // (2 * len(grid)), device)
    axes = [waves(torch.arange(n, device=device), frequencies) for n in grid]
    spread = [
        axis.reshape(*(n if i == j else 1 for j in range(len(grid))), -1).expand(*grid, -1)
        for i, (n, axis) in enumerate(zip(grid, axes, strict=True))
    ]
    table = torch.cat(spread, dim=-1).flatten(0, -2)
    return F.pad(table, (0, width - table.shape[-1]))
