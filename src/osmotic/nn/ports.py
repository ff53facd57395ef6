"""One small module for each kind of condition: raw values in, embedded values out, nulls where hidden.

A missing value is replaced by a blank of the right shape that is hidden in every sample. So there is one road
through each port, every parameter takes part in every step (DistributedDataParallel counts on it), and
``cond=None`` is exactly a condition hidden in all samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


class Numbers(nn.Module):
    """Real features ``(B, D)`` through two linear layers, or a learned null vector. Gives ``(B, width)``."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.layers = nn.Sequential(nn.Linear(numbers, width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(self, x: Tensor, numbers: Tensor | None, keep: Tensor) -> Tensor:
        if numbers is None:
            numbers = torch.zeros(len(x), self.numbers, device=x.device)
        if numbers.shape != (len(x), self.numbers):
            raise ValueError(
                f"cond.vector holds numbers here: expected shape {(len(x), self.numbers)}, "
                f"found {tuple(numbers.shape)}."
            )
        shown = keep[:, None]
        # Hidden entries are zeroed before the layers too: a NaN there would poison the weights' gradient.
        embedded = self.layers(torch.where(shown, numbers, 0).to(self.null.dtype))
        return torch.where(shown, embedded, self.null)


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
    """Token ids ``(B, L)`` by table, plus where they stand in the text. Gives ``(B, L, width)``."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
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
        return embedded + sincos((tokens.shape[1],), embedded.shape[-1], tokens.device).to(embedded.dtype)


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
