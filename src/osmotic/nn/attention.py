"""Attention within a sequence and from a sequence to tokens, by the fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, int, Tensor | None], Tensor]
"""What :func:`attend` is."""


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention in several heads; ``mask`` ``(B, L)`` is True at keys that count."""
    q, k, v = (z.view(*z.shape[:-1], heads, -1).transpose(1, 2) for z in (q, k, v))
    shown = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=shown).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Every position attends to every real one: ``softmax(q k^T / sqrt(d)) v``, then a linear layer.

    Vaswani et al. 2017 (arXiv 1706.03762). Shapes: x ``(B, N, C)``, valid ``(B, N)`` bool or None.

    Attributes:
        attend: how; what controls a network sets another in place of :func:`attend`.
    """

    attend: Attend = staticmethod(attend)

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(channels, 3 * channels)
        self.write = nn.Linear(channels, channels)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        q, k, v = self.read(x).chunk(3, dim=-1)
        y: Tensor = self.write(self.attend(q, k, v, self.heads, valid))
        return y


class CrossAttention(nn.Module):
    """Every position attends to the tokens that its mask shows.

    Shapes: x ``(B, N, C)``, tokens ``(B, L, width)``, mask ``(B, L)`` bool.

    Attributes:
        attend: as of :class:`SelfAttention`.
    """

    attend: Attend = staticmethod(attend)

    def __init__(self, channels: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(channels, channels)
        self.read = nn.Linear(width, 2 * channels)
        self.write = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        k, v = self.read(tokens).chunk(2, dim=-1)
        y: Tensor = self.write(self.attend(self.ask(x), k, v, self.heads, mask))
        return y
