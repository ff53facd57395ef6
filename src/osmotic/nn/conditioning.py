"""From raw conditions to what networks read, with a learned null for everything that may be hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.nn.embedding import AimEmbedding, Fourier, ScaleEmbedding, Sinusoidal, SizeEmbedding, TimeEmbedding
from osmotic.nn.ports import Attributes, Draws, Features, Image, Labels, MeanToken, Spread, Tokens, Vector, Vocabulary


class Context(NamedTuple):
    """What a network reads besides x; None where the embedding has no such port.

    Args:
        vector: ``(B, width)``, time, vector port and the mean of the tokens together, already activated.
        tokens: ``(B, 1 + L, width)``, the null first; those of an embedding last, or alone.
        mask: ``(B, 1 + L)`` bool, True where a token may be attended to; at least one in each row.
        image: ``(B, image_channels, *positions)``.
        valid: ``(B, *positions)`` bool, True at real positions.
    """

    vector: Tensor
    tokens: Tensor | None
    mask: Tensor | None
    image: Tensor | None
    valid: Tensor | None


class Embedding(nn.Module):
    """Embeds time and a :class:`osmotic.condition.Condition`, and owns the learned null of each port.

    A sample whose ``keep`` is False sees the null of every part; ``cond=None``, or a condition that holds
    ``valid`` alone, is the same as hiding all samples. Hidden values are never computed with, so they may be
    anything. Classifier-free guidance: Ho & Salimans 2022 (arXiv 2207.12598).

    Tokens are read by attention, in networks that have it, and their mean joins the vector (Saharia et al. 2022, arXiv
    2205.11487), by which networks without attention read them, too.

    Args:
        width: of the vectors and tokens it gives.
        classes: number of class labels; ``cond.vector`` is then ``(B,)`` integers in ``0..classes-1``.
        attributes: for each column of ``cond.vector``, then ``(B, A)`` floating, how many categories it has, None for a
            real number, best standardised.
        vector: numbers of an embedding; ``cond.vector`` is then ``(B, vector)`` floating and hidden as a whole.
        spread: how many tokens the embedding also becomes, for networks that attend.
        vocabulary: number of token ids; ``cond.tokens`` is then ``(B, L)`` integers, and their order counts.
        reader: layers of the transformer that reads token ids, trained with the network.
        token_features: width of ready token features; ``cond.tokens`` is then ``(B, L, token_features)``, a
            set: features that know their order (a text encoder's) need no more.
        image_channels: channels of ``cond.image``, which has the positions of x.
        time: features of time, :class:`Sinusoidal` by default.
        aims: whether it is also told the time that is aimed at, ``aim``; it changes nothing at initialisation.
        scales: whether it reads ``cond.scale``, the guidance scale; likewise.
        latents: how many normal numbers ``cond.latent`` brings.
        always: numbers of the parts that are never hidden from it where there is a condition: a low resolution that is
            to be enlarged, so that guidance leads away from a text alone.
        sizes: how many numbers of positions it is told, which it reads from x, for data of several sizes; likewise. 0
            tells none.

    Raises:
        ValueError: for two kinds of one port, for a condition that lacks a port or brings one that was not
            declared, for wrong shapes, and for labels and ids out of range (looked at on the CPU only: on an
            accelerator the check would stall the queue).
    """

    always: Tensor | None

    def __init__(
        self,
        width: int,
        classes: int | None = None,
        attributes: Sequence[int | None] | None = None,
        vector: int | None = None,
        spread: int = 0,
        vocabulary: int | None = None,
        reader: int = 0,
        token_features: int | None = None,
        image_channels: int = 0,
        time: Sinusoidal | Fourier | None = None,
        aims: bool = False,
        scales: bool = False,
        latents: int = 0,
        always: Sequence[int] = (),
        sizes: int = 0,
    ) -> None:
        super().__init__()
        if sum(kind is not None for kind in (classes, attributes, vector)) > 1:
            raise ValueError(
                "The vector port holds class labels, attributes or an embedding: give one of classes, attributes and "
                "vector, not both."
            )
        if vocabulary is not None and token_features is not None:
            raise ValueError("The tokens port holds ids or features: give vocabulary or token_features, not both.")
        self.width = width
        self.image_channels = image_channels
        features = Sinusoidal() if time is None else time
        self.time = TimeEmbedding(width, features)
        self.aim = AimEmbedding(width, features) if aims else None
        self.scale = ScaleEmbedding(width) if scales else None
        self.size = SizeEmbedding(width, sizes) if sizes else None
        self.latents = latents
        self.latent = Draws(latents, width) if latents else None
        self.vector: Labels | Attributes | Vector | None = None
        if vector is not None:
            self.vector = Vector(vector, width)
        self.spread = None if vector is None or not spread else Spread(vector, spread, width)
        if classes is not None:
            self.vector = Labels(classes, width)
        if attributes is not None:
            self.vector = Attributes(attributes, width)
        self.tokens: Tokens | None = None
        if vocabulary is not None:
            self.tokens = Tokens(Vocabulary(vocabulary, width, reader), width)
        if token_features is not None:
            self.tokens = Tokens(Features(token_features, width), width)
        self.pool = None if self.tokens is None else MeanToken(width)
        self.image = Image(image_channels) if image_channels else None
        attributed = 0 if self.vector is None else 1 if attributes is None else len(attributes)
        self.attended = self.tokens is not None or self.spread is not None
        """Whether the context has tokens, which a network reads by attention."""
        self.parts = attributed + (self.tokens is not None) + (self.image is not None)
        kept = torch.tensor([i in always for i in range(self.parts)]) if always else None
        self.register_buffer("always", kept, persistent=False)

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None = None, aim: Tensor | None = None) -> Context:
        """Embed the time ``(B,)``, the conditions of ``x`` ``(B, channels, *positions)`` and the time aimed at
        ``(B,)``.
        """
        if time.shape != (len(x),):
            raise ValueError(f"Time has one number a sample: expected shape ({len(x)},), found {tuple(time.shape)}.")
        cond = Condition() if cond is None else cond
        keep = self._keep(x, cond)
        vector = self._told(x, time, cond, aim)
        rest = [keep[:, i] for i in range(keep.shape[1])]
        image = None if self.image is None else self.image(x, cond.image, rest.pop())
        tokens = mask = None
        if self.tokens is not None and self.pool is not None:
            tokens, mask = self.tokens(x, cond.tokens, cond.mask, rest.pop())
            vector = vector + self.pool(tokens, mask)
        if self.spread is not None:
            tokens, mask = _after(tokens, mask, self.spread(x, cond.vector, rest[0]))
        if self.vector is not None:
            alone = not isinstance(self.vector, Attributes)
            vector = vector + self.vector(x, cond.vector, rest[0] if alone else keep[:, : len(rest)])
        return Context(nn.functional.silu(vector), tokens, mask, image, _valid(x, cond))

    def _told(self, x: Tensor, time: Tensor, cond: Condition, aim: Tensor | None) -> Tensor:
        """What is never hidden: the times, the guidance scale, the latent draw; ``(B, width)``."""
        for name, value, port in (
            ("a time to aim at", aim, self.aim),
            ("cond.scale", cond.scale, self.scale),
            ("cond.latent", cond.latent, self.latent),
        ):
            if (value is None) != (port is None):
                raise ValueError(
                    f"This network needs {name}, which is missing."
                    if value is None
                    else f"This network reads no {name.removeprefix('a ')}: leave it out."
                )
        vector: Tensor = self.time(time)
        if self.aim is not None:
            vector = vector + self.aim(time, aim)
        if self.scale is not None:
            vector = vector + self.scale(cond.scale)
        if self.size is not None:
            vector = vector + self.size(x.shape[2:])
        return vector if self.latent is None else vector + self.latent(x, cond.latent)

    def _keep(self, x: Tensor, cond: Condition) -> Tensor:
        """Which samples show which part of their condition, ``(B, P)``, after checking that the ports fit."""
        given = {"vector": cond.vector, "tokens": cond.tokens, "image": cond.image}
        declared = {"vector": self.vector, "tokens": self.tokens, "image": self.image}
        for name, value in given.items():
            if value is not None and declared[name] is None:
                raise ValueError(
                    f"This network has no {name} port, but the condition brings cond.{name}: leave it out."
                )
            if value is not None and len(value) != len(x):
                raise ValueError(f"cond.{name} holds {len(value)} samples and x holds {len(x)}: they must be as many.")
        if cond.mask is not None and cond.tokens is None:
            raise ValueError("The condition brings cond.mask without cond.tokens: give the tokens it belongs to.")
        if all(value is None for value in given.values()):
            return torch.zeros(len(x), self.parts, dtype=torch.bool, device=x.device)
        for name, port in declared.items():
            if port is not None and given[name] is None:
                raise ValueError(f"This network reads cond.{name}, which is missing: give it, or pass cond=None.")
        if cond.keep is None:
            return torch.ones(len(x), self.parts, dtype=torch.bool, device=x.device)
        keep = cond.keep if cond.keep.ndim == 2 else cond.keep[:, None]
        if keep.shape not in ((len(x), 1), (len(x), self.parts)):
            raise ValueError(
                f"cond.keep has a column for each of the {self.parts} parts of the condition, or none: expected "
                f"({len(x)},) or {(len(x), self.parts)}, found {tuple(cond.keep.shape)}."
            )
        return keep.expand(-1, self.parts) if self.always is None else keep | self.always


def _after(tokens: Tensor | None, mask: Tensor | None, more: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens that are all shown after those that there are."""
    shown = torch.ones(more.shape[:2], dtype=torch.bool, device=more.device)
    if tokens is None or mask is None:
        return more, shown
    return torch.cat([tokens, more.to(tokens.dtype)], 1), torch.cat([mask, shown], 1)


def _valid(x: Tensor, cond: Condition) -> Tensor | None:
    expected = (len(x), *x.shape[2:])
    if cond.valid is not None and cond.valid.shape != expected:
        raise ValueError(
            f"cond.valid marks the positions of x: expected shape {expected}, found {tuple(cond.valid.shape)}."
        )
    return None if cond.valid is None else cond.valid.bool()
