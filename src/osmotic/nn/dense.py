"""The two halves of an autoencoder of tables, points and other small data of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from osmotic.nn.mlp import MLPBlock


class Dense(nn.Module):
    """An MLP from one shape to another: ``(B, *shape)`` laid flat, through residual blocks, to ``(B, *out_shape)``.

    ``y = W_out silu(norm(block_n(... W_in x)))``; without blocks, ``y = W x + b``, which as encoder and decoder finds
    the principal components (Baldi & Hornik 1989, Neural Networks 2).

    Args:
        shape: of one sample.
        out_shape: of one output.
        widths: of the blocks, one each; empty for a linear map.

    Raises:
        ValueError: for shapes or widths that are not positive, and for x of another shape.
    """

    def __init__(self, shape: Sequence[int], out_shape: Sequence[int], widths: Sequence[int] = ()) -> None:
        super().__init__()
        if not shape or not out_shape or min(*shape, *out_shape, *widths) < 1:
            raise ValueError(
                f"A dense coder maps a shape to a shape through positive widths, found {tuple(shape)}, "
                f"{tuple(out_shape)} and {tuple(widths)}."
            )
        self.shape, self.out_shape = tuple(shape), tuple(out_shape)
        inputs, outputs = math.prod(shape), math.prod(out_shape)
        self.body = nn.Sequential()
        if widths:
            self.body.append(nn.Linear(inputs, widths[0]))
            self.body.extend(MLPBlock(a, b, None, 0.0) for a, b in pairwise([widths[0], *widths]))
            self.body.extend([nn.LayerNorm(widths[-1]), nn.SiLU()])
        self.out = nn.Linear(widths[-1] if widths else inputs, outputs)

    @property
    def last(self) -> Tensor:
        """The weight of the last layer, whose gradients balance an adversary."""
        return self.out.weight

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(f"This coder takes samples of shape {self.shape}, found {tuple(x.shape[1:])}.")
        y: Tensor = self.out(self.body(x.flatten(1)))
        return y.view(len(x), *self.out_shape)
