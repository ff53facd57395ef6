"""One small module for each kind of condition: raw values in, embedded values out, nulls where hidden.

A missing value is replaced by a blank of the right shape that is hidden in every sample. So there is one road
through each port, every parameter takes part in every step (DistributedDataParallel counts on it), and
``cond=None`` is exactly a condition hidden in all samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from osmotic.nn.attention import SelfAttention
from osmotic.nn.embedding import waves
from osmotic.nn.positions import sincos


class Labels(nn.Module):
    """Class labels ``(B,)`` by table; the last row is the null. Gives ``(B, width)``."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, x: Tensor, labels: Tensor | None, keep: Tensor) -> Tensor:
        if labels is None:
            labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
        if labels.shape != (len(x),) or labels.is_floating_point():
            raise ValueError(
                f"cond.vector holds class labels here: expected ({len(x)},) integers, "
                f"found {tuple(labels.shape)} of {labels.dtype}."
            )
        check_range(labels, keep, self.classes, "Class labels")
        embedded: Tensor = self.table(torch.where(keep, labels, self.classes))
        return embedded


class Number(nn.Module):
    """A real attribute ``(B,)`` through two linear layers of itself and a few waves, or a learned null.

    Gives ``(B, width)``. Waves of lengths 8, 4, 2, 1 and 1/2 let near values be told apart (Tancik et al. 2020, arXiv
    2006.10739); best for numbers of deviation 1.
    """

    WAVES = tuple(2 * math.pi * 2.0**k for k in range(-3, 2))

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1 + 2 * len(self.WAVES), width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, values: Tensor, keep: Tensor) -> Tensor:
        # Hidden entries are zeroed before the layers too: a NaN there would poison the weights' gradient.
        values = torch.where(keep, values, 0).float()
        told = waves(values, torch.tensor(self.WAVES, device=values.device))
        embedded = self.layers(torch.cat([values[:, None], told], dim=1).to(self.null.dtype))
        return torch.where(keep[:, None], embedded, self.null)


class Category(nn.Module):
    """The number of a category ``(B,)`` by table; the last row is the null. Gives ``(B, width)``."""

    def __init__(self, categories: int, width: int) -> None:
        super().__init__()
        self.categories = categories
        self.table = nn.Embedding(categories + 1, width)

    def forward(self, values: Tensor, keep: Tensor) -> Tensor:
        # Rounded, for it may have been stored as a float; NaN has no integer, and is hidden.
        numbers = torch.where(keep, values, 0).round().long()
        check_range(numbers, keep, self.categories, "Categories of an attribute")
        embedded: Tensor = self.table(torch.where(keep, numbers, self.categories))
        return embedded


class Attributes(nn.Module):
    """Several attributes ``(B, A)``, numbers and categories, each with its own null; NaN is seen as the null.

    Their embeddings are added up. Gives ``(B, width)``.

    Args:
        kinds: for each attribute how many categories it has, None for a number.
        width: of the output.
    """

    def __init__(self, kinds: Sequence[int | None], width: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(Number(width) if kind is None else Category(kind, width) for kind in kinds)

    def forward(self, x: Tensor, values: Tensor | None, keep: Tensor) -> Tensor:
        shape = (len(x), len(self.each))
        if values is None:
            values = torch.zeros(shape, device=x.device)
        if values.shape != shape:
            raise ValueError(f"cond.vector holds attributes here: expected shape {shape}, found {tuple(values.shape)}.")
        known = keep & ~values.isnan()
        embedded = [port(v, k) for port, v, k in zip(self.each, values.unbind(1), known.unbind(1), strict=True)]
        return torch.stack(embedded).sum(0)


class Vector(nn.Module):
    """An embedding ``(B, D)`` through two linear layers, or a learned null. Gives ``(B, width)``.

    It joins the time embedding as in unCLIP (Ramesh et al. 2022, arXiv 2204.06125); best for numbers of order 1.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, x: Tensor, values: Tensor | None, keep: Tensor) -> Tensor:
        shape = (len(x), self.features)
        if values is None:
            values = torch.zeros(shape, device=x.device)
        if values.shape != shape or not values.is_floating_point():
            raise ValueError(
                f"cond.vector holds an embedding here: expected {shape} floating, found {tuple(values.shape)} of "
                f"{values.dtype}."
            )
        embedded = self.layers(torch.where(keep[:, None], values, 0).to(self.null.dtype))
        return torch.where(keep[:, None], embedded, self.null)


class Spread(nn.Module):
    """An embedding ``(B, D)`` as a few tokens ``(B, count, width)``, each linear in it, or learned ones where hidden.

    Positions that attend to them are told apart by which token they look at: of a vector that acts on all channels
    alike, convolutions learn what to draw but hardly where. unCLIP has four (Ramesh et al. 2022, arXiv 2204.06125).
    """

    def __init__(self, features: int, count: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, count * width)
        self.null = nn.Parameter(torch.randn(count, width) * 3**-0.5)  # as large as tokens of numbers of order 1

    def forward(self, x: Tensor, values: Tensor | None, keep: Tensor) -> Tensor:
        if values is None:
            values = torch.zeros(len(x), self.layer.in_features, device=x.device)
        told = self.layer(torch.where(keep[:, None], values, 0).to(self.null.dtype))
        return torch.where(keep[:, None, None], told.view(len(x), *self.null.shape), self.null)


class Draws(nn.Module):
    """Normal numbers ``(B, L)`` through two linear layers, after the manner of a mapping network. Gives ``(B, width)``.

    Xiao et al. 2022 (arXiv 2112.07804).
    """

    def __init__(self, latents: int, width: int) -> None:
        super().__init__()
        self.latents = latents
        self.first, self.last = nn.Linear(latents, width), nn.Linear(width, width)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        if latent.shape != (len(x), self.latents):
            raise ValueError(
                f"cond.latent holds the draws of each sample: expected shape {(len(x), self.latents)}, found "
                f"{tuple(latent.shape)}."
            )
        embedded: Tensor = self.last(nn.functional.silu(self.first(latent.to(self.first.weight.dtype))))
        return embedded


class Vocabulary(nn.Module):
    """Token ids ``(B, L)`` by table, plus where they stand, read by a small transformer. Gives ``(B, L, width)``.

    Args:
        vocabulary: number of token ids.
        width: of the output.
        layers: of the transformer, which is trained with the network; 0 for the table alone.
    """

    def __init__(self, vocabulary: int, width: int, layers: int = 0) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.layers = nn.ModuleList(Reader(width) for _ in range(layers))
        self.table = nn.Embedding(vocabulary, width)
        # As large as the positions, so that neither drowns the other.
        nn.init.normal_(self.table.weight, std=0.5**0.5)

    def blank(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 0, dtype=torch.long, device=x.device)

    def forward(self, tokens: Tensor, shown: Tensor) -> Tensor:
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise ValueError(
                f"cond.tokens holds token ids here: expected (B, L) integers, "
                f"found {tuple(tokens.shape)} of {tokens.dtype}."
            )
        check_range(tokens, shown, self.vocabulary, "Token ids")
        embedded: Tensor = self.table(torch.where(shown, tokens, 0))
        if not tokens.shape[1]:
            return embedded
        h = embedded + sincos((tokens.shape[1],), embedded.shape[-1], tokens.device).to(embedded.dtype)
        if self.layers:
            # A row without a token attends to its first, and is seen by nobody: a softmax over nothing would be NaN.
            seen = shown.clone()
            seen[:, 0] |= ~shown.any(1)
            for layer in self.layers:
                h = layer(h, seen)
        return h


class Reader(nn.Module):
    """One layer of a transformer that reads text, normalised before each part (Xiong et al. 2020, arXiv 2002.04745)."""

    HEAD = 32

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        heads = next(n for n in range(max(1, width // self.HEAD), 0, -1) if width % n == 0)
        self.attention = SelfAttention(width, heads)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, shown: Tensor) -> Tensor:
        x = x + self.attention(self.first(x), shown)
        y: Tensor = x + self.layers(self.second(x))
        return y


class Features(nn.Module):
    """Ready token features ``(B, L, D)`` through one linear layer; a set. Gives ``(B, L, width)``."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.layer = nn.Linear(features, width)

    def blank(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 0, self.features, device=x.device)

    def forward(self, tokens: Tensor, shown: Tensor) -> Tensor:
        if tokens.dim() != 3 or tokens.shape[-1] != self.features:
            raise ValueError(
                f"cond.tokens holds features here: expected shape (B, L, {self.features}), found {tuple(tokens.shape)}."
            )
        embedded: Tensor = self.layer(torch.where(shown[..., None], tokens, 0).to(self.layer.weight.dtype))
        return embedded


class Tokens(nn.Module):
    """Embedded tokens with a null before them, which is seen where no other token is.

    Gives the tokens ``(B, 1 + L, width)`` and which of them may be attended to ``(B, 1 + L)``. An empty text
    and a hidden one look the same, and no row of an attention map is ever empty.
    """

    def __init__(self, embed: Vocabulary | Features, width: int) -> None:
        super().__init__()
        self.embed = embed
        self.null = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor, tokens: Tensor | None, mask: Tensor | None, keep: Tensor) -> tuple[Tensor, Tensor]:
        if tokens is None:
            tokens = self.embed.blank(x)
        size = tokens.shape[:2]
        if mask is not None and mask.shape != size:
            raise ValueError(
                f"cond.mask marks the real tokens: expected shape {tuple(size)}, found {tuple(mask.shape)}."
            )
        shown = keep[:, None].expand(size) if mask is None else keep[:, None] & mask.bool()
        embedded = self.embed(tokens, shown)
        null = self.null.to(embedded.dtype).expand(len(x), 1, -1)
        return torch.cat([null, embedded], dim=1), torch.cat([~shown.any(dim=1, keepdim=True), shown], dim=1)


class MeanToken(nn.Module):
    """A linear layer of the mean of the tokens that the mask shows.

    Shapes: tokens ``(B, L, width)``, mask ``(B, L)`` bool with at least one True a row, to ``(B, width)``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        share = mask.unsqueeze(-1).to(tokens.dtype)
        y: Tensor = self.layer((tokens * share).sum(1) / share.sum(1))
        return y


class Image(nn.Module):
    """An image ``(B, C, *positions)`` as it is, or one learned null colour everywhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.null = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, image: Tensor | None, keep: Tensor) -> Tensor:
        shape = (len(x), self.channels, *x.shape[2:])
        ones = (1,) * (x.dim() - 2)
        null = self.null.to(x.dtype).view(1, -1, *ones)
        if image is None:
            return null.expand(shape)
        if image.shape != shape:
            raise ValueError(
                f"cond.image has the batch and positions of x: expected shape {shape}, "
                f"found {tuple(image.shape)}; resize it first."
            )
        return torch.where(keep.view(-1, 1, *ones), image.to(x.dtype), null)


def check_range(values: Tensor, shown: Tensor, count: int, what: str) -> None:
    """Refuse shown values outside ``0..count-1``; on the CPU only, for elsewhere it would stall the queue."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = values[((values < 0) | (values >= count)) & shown]
    if len(wrong):
        raise ValueError(f"{what} run from 0 to {count - 1} here; found {int(wrong[0])}.")
