"""A picture from a text in two draws: an embedding of a picture by the prior, and the picture by the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmotic.inversion import slerp
from osmotic.recipes.embedded import CONTENTS, DECODER, PRIOR, contents_of, encoder_of
from osmotic.recipes.embeddings import Reader, reader
from osmotic.training.errors import RunError
from osmotic.training.model import Model, load

OWN = 0x5EED0001
"""Added to the seed of the prior: with one seed for both, a picture's noise would be that of its embedding."""

GUIDANCE = 2.0
"""Of the decoder."""


@dataclass(frozen=True)
class Unclip:
    """An encoder of pictures and texts, a prior and a decoder: ``p(x | text) = int p(x | e) p(e | text) de``.

    Ramesh et al. 2022 (unCLIP, arXiv 2204.06125). Pictures that are given and drawn are ``(n, *S)`` in the network's
    scale; :attr:`decoder` ``.spec.encode`` and :meth:`decode` are the ways from and to a user's format.

    Args:
        reader: puts pictures and texts into one space.
        prior: draws a picture's embedding, told its text's.
        decoder: draws a picture, told its embedding.

    Raises:
        RunError: where prior and decoder were not trained in the reader's space.
    """

    reader: Reader
    prior: Model
    decoder: Model

    def __post_init__(self) -> None:
        for model, of, what in ((self.prior, "text", "prior"), (self.decoder, "picture", "decoder")):
            told = model.spec.embedding
            if told is None or told.of != of:
                raise RunError(f"The {what} is told no embedding of a {of}; give the one that the recipe trained.")
            if told.fingerprint != self.reader.fingerprint:
                raise RunError(f"The {what} was trained with another encoder than this; give the same back.")

    def sample(
        self,
        n: int,
        text: str | Sequence[str],
        guidance: float = GUIDANCE,
        *,
        prior_guidance: float = 1.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """n pictures of a text; picture i of a seed is the same whatever the number asked for.

        Args:
            n: how many.
            text: one for all, or one for each.
            guidance: of the decoder, 1 for none.
            prior_guidance: of the prior, likewise.
            steps: of the sampler, of either model.
            seed: of all noise.

        Raises:
            ValueError: for as many texts as are neither 1 nor n, or a word that the encoder never saw.
        """
        vectors = self.imagine(n, text, prior_guidance, steps=steps, seed=seed)
        return self.picture(vectors, guidance, steps=steps, seed=seed)

    def imagine(
        self, n: int, text: str | Sequence[str], guidance: float = 1.0, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """Unit vectors ``(n, D)`` of pictures of a text, drawn by the prior; arguments as :meth:`sample`."""
        texts = [text] if isinstance(text, str) else list(text)
        _refuse_none(n)
        if len(texts) not in (1, n):
            raise ValueError(f"{len(texts)} texts were given for {n} pictures; give one, or one for each.")
        told = self._told(texts).expand(n, -1)
        x = self.prior.sample(n, {"embedding": told}, guidance, steps=steps, seed=seed + OWN)
        return torch.nn.functional.normalize(torch.from_numpy(self.prior.decode(x)).float(), dim=1)

    def picture(
        self,
        vectors: Tensor,
        guidance: float = GUIDANCE,
        *,
        steps: int | None = None,
        seed: int = 0,
        alike: bool = False,
    ) -> Tensor:
        """Pictures of embeddings ``(n, D)``, drawn by the decoder.

        Args:
            vectors: their directions are told.
            guidance: 1 for none.
            steps: of the sampler.
            seed: of the noise.
            alike: whether all begin as one noise, so that they differ by their embeddings alone.
        """
        if not alike:
            return self.decoder.sample(len(vectors), {"embedding": vectors}, guidance, steps=steps, seed=seed)
        each = [self.decoder.sample(1, {"embedding": v}, guidance, steps=steps, seed=seed) for v in vectors]
        return torch.cat(each)

    def variations(
        self, x: Tensor, n: int, guidance: float = GUIDANCE, *, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """n pictures with the embedding of one, ``(*S)``: what the encoder sees of it stays, the rest is drawn anew."""
        _refuse_none(n)
        vectors = self.reader.pictures(x[None].cpu()).expand(n, -1)
        return self.picture(vectors, guidance, steps=steps, seed=seed)

    def between(
        self,
        first: Tensor,
        second: Tensor,
        n: int,
        guidance: float = GUIDANCE,
        *,
        steps: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """n pictures on the way from one, ``(*S)``, to another: of embeddings even on the arc between theirs.

        All are drawn from one noise. The ends are variations of the two pictures, not themselves.

        Raises:
            ValueError: for fewer than 2.
        """
        if n < 2:
            raise ValueError(f"A way has two ends, so it takes 2 pictures or more, not {n}.")
        start, end = self.reader.pictures(torch.stack([first, second]).cpu())
        vectors = torch.stack([_arc(start, end, w) for w in np.linspace(0, 1, n).tolist()])
        return self.picture(vectors, guidance, steps=steps, seed=seed, alike=True)

    def changed(
        self,
        x: Tensor,
        before: str,
        after: str,
        n: int,
        strength: float = 0.4,
        guidance: float = GUIDANCE,
        *,
        steps: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """n pictures on the way from the embedding of one, ``(*S)``, to the difference of two texts.

        The text difference of the paper (section 3.3): the arc from the picture's embedding to the unit vector of
        ``text(after) - text(before)``, as far as a share of it.

        Args:
            x: the picture.
            before: what it shows.
            after: what it should show.
            n: how many, the first being a variation of it, all of one noise.
            strength: the share of the arc that the last goes, in [0, 1]; 0.25 to 0.5 in the paper.
            guidance: of the decoder.
            steps: of its sampler.
            seed: of its noise.

        Raises:
            ValueError: for texts that are one to the encoder, or a word that it never saw.
        """
        _refuse_none(n)
        was, becomes = self._told([before, after])
        if torch.allclose(was, becomes, atol=1e-6):
            raise ValueError(f"{before!r} and {after!r} are one to the encoder; say what should change.")
        start = self.reader.pictures(x[None].cpu())[0]
        towards = torch.nn.functional.normalize(becomes - was, dim=0)
        vectors = torch.stack([_arc(start, towards, w) for w in np.linspace(0, strength, n).tolist()])
        return self.picture(vectors, guidance, steps=steps, seed=seed, alike=True)

    def _told(self, texts: list[str]) -> Tensor:
        for text in set(texts):
            self.reader.prompt(text)
        return self.reader.texts(texts)

    def decode(self, x: Tensor) -> NDArray[Any]:
        """Pictures ``(n, *S)`` in the user's format."""
        return self.decoder.decode(x)


def _refuse_none(n: int) -> None:
    if n < 1:
        raise ValueError(f"{n} pictures cannot be drawn; ask for 1 or more.")


def _arc(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """The point that far along the arc between two directions."""
    return slerp(a[None], b[None], weight)[0]


def load_unclip(folder: str | Path, device: torch.device | str | None = None) -> Unclip:
    """What ``python -m osmotic.recipes.unclip`` made in a folder.

    Raises:
        RunError: if it is none, or a part of it is missing or was changed.
    """
    path = Path(folder) / CONTENTS
    if not path.is_file():
        raise RunError(
            f"{folder} holds no finished unCLIP; make one with `python -m osmotic.recipes.unclip train DATA {folder}`."
        )
    parts = contents_of(Path(folder))
    drawing = load(Path(folder) / parts[DECODER], device=device)
    read = reader(encoder_of(Path(folder)), drawing.spec, device)
    return Unclip(read, load(Path(folder) / parts[PRIOR], device=device), drawing)
