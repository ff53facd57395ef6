"""Two encoders into one space: a sample and its text are near each other there."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmotic.condition import Condition
from osmotic.nn.ports import Features, MeanToken, Tokens, Vocabulary


class Embeddings(NamedTuple):
    """What two encoders say of pairs.

    Args:
        pictures: ``(B, D)`` of unit norm.
        texts: ``(B, D)`` of unit norm.
        scale: one over the temperature, 0-dimensional.
    """

    pictures: Tensor
    texts: Tensor
    scale: Tensor


class TextEncoder(nn.Module):
    """Tokens ``(B, L)`` or ``(B, L, features)`` to one vector ``(B, outputs)``: a linear layer of their mean.

    A text without tokens is read as a learned one.

    Args:
        embed: of the tokens.
        width: that it gives.
        outputs: of the vector.
    """

    def __init__(self, embed: Vocabulary | Features, width: int, outputs: int) -> None:
        super().__init__()
        self.tokens, self.pool = Tokens(embed, width), MeanToken(width)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        every = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        y: Tensor = self.out(self.pool(*self.tokens(tokens, tokens, mask, every)))
        return y


class DualEncoder(nn.Module):
    """Samples and texts as unit vectors, and the learned scale of their inner products.

    Radford et al. 2021 (CLIP, arXiv 2103.00020): the temperature begins at 0.07 and the scale never exceeds 100.

    Args:
        picture: samples ``(B, *S)`` to ``(B, D)``.
        text: ``text(tokens, mask)``, to ``(B, D)``.
    """

    TEMPERATURE, MOST = 0.07, 100.0

    def __init__(self, picture: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.picture, self.text = picture, text
        self.log_scale = nn.Parameter(torch.tensor(-math.log(self.TEMPERATURE)))

    @property
    def scale(self) -> Tensor:
        """One over the temperature."""
        return self.log_scale.clamp(max=math.log(self.MOST)).exp()

    def pictures(self, x: Tensor) -> Tensor:
        """The unit vectors ``(B, D)`` of samples ``(B, *S)``."""
        return F.normalize(self.picture(x).float(), dim=1)

    def texts(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The unit vectors ``(B, D)`` of texts ``(B, L)``."""
        return F.normalize(self.text(tokens, mask).float(), dim=1)

    def forward(self, x: Tensor, time: Tensor | None = None, cond: Condition | None = None) -> Embeddings:
        """Both of pairs; it is called as all networks are, but there is no time to read.

        Raises:
            ValueError: without texts.
        """
        if cond is None or cond.tokens is None:
            raise ValueError("A dual encoder reads cond.tokens, which is missing: give the texts of the samples.")
        return Embeddings(self.pictures(x), self.texts(cond.tokens, cond.mask), self.scale)
