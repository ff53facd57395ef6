"""Two texts word by word: which words they share, and whose attention each token of the second gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

import torch
from torch import Tensor

Piece = tuple[str, int]
"""A word, and how many tokens stand for it."""


class Text(NamedTuple):
    """A text as a network reads it.

    Args:
        pieces: its words in order, each with its number of tokens.
        tokens: a row of ``cond.tokens``: ids ``(L,)`` or features ``(L, D)``, those of the words first.
    """

    pieces: Sequence[Piece]
    tokens: Tensor


@dataclass(frozen=True, eq=False)
class Edit:
    """From a source text to a target text: the maps ``A = (A_source carry + A_target own) scale``, ``(N, L)``.

    Column j of the target's map is carried over from the source's where its word stands in both, or replaces another
    word in its place, and the target's own where the word is new. Nothing is normalised afterwards. Hertz et al. 2022
    (arXiv 2208.01626, section 3.2).

    Args:
        source: the source's row of tokens, ``(L,)`` or ``(L, D)``.
        target: likewise.
        carry: ``(L, L)`` from the source's tokens to the target's.
        own: ``(L,)``, 1 where the target's token keeps its own map, else 0.
        scale: ``(L,)``, by which the map of a token is multiplied, 1 for most.
    """

    source: Tensor
    target: Tensor
    carry: Tensor
    own: Tensor
    scale: Tensor

    @classmethod
    def of(cls, source: Text, target: Text, scales: Mapping[str, float] | None = None) -> Edit:
        """The edit between two texts.

        Words are compared from the longest common stretch outwards. Between common stretches as many words on both
        sides are swaps, one for one; a swapped word that is spelled by another number of tokens has the old one's whole
        attention evenly on them. Other words of the target are new.

        Args:
            source: the first text.
            target: the second, its tokens of the same shape.
            scales: for words of the target, by how much their maps are multiplied (the paper's re-weighting).

        Raises:
            ValueError: for a word that the target has not, or tokens of two shapes.
        """
        if source.tokens.shape != target.tokens.shape:
            raise ValueError(
                f"Two texts of a pair are padded alike; their tokens are {tuple(source.tokens.shape)} and "
                f"{tuple(target.tokens.shape)}."
            )
        length = len(target.tokens)
        carry, own, scale = torch.zeros(length, length), torch.ones(length), torch.ones(length)
        before, after = _places(source.pieces, length), _places(target.pieces, length)
        for i, j in _matched([word for word, _ in source.pieces], [word for word, _ in target.pieces]):
            there, here = before[i], after[j]
            alike = len(there) == len(here)
            carry[there.start : there.stop, here.start : here.stop] = torch.eye(len(here)) if alike else 1 / len(here)
            own[here.start : here.stop] = 0
        for word, factor in (scales or {}).items():
            places = [here for (w, _), here in zip(target.pieces, after, strict=True) if w == word.casefold()]
            if not places:
                said = " ".join(w for w, _ in target.pieces)
                raise ValueError(f"The word {word!r} is not in the prompt {said!r}; scale one that is.")
            for here in places:
                scale[here.start : here.stop] = factor
        return cls(source.tokens, target.tokens, carry, own, scale)


def _places(pieces: Sequence[Piece], length: int) -> list[range]:
    """Where the tokens of each word stand."""
    found, start = [], 0
    for word, count in pieces:
        if count < 1 or start + count > length:
            raise ValueError(f"The tokens of {word!r} do not fit into {length} tokens; give the pieces of this text.")
        found.append(range(start, start + count))
        start += count
    return found


def _matched(source: Sequence[str], target: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (i, j) of words that are the same, or of which the second stands in the place of the first."""
    codes = SequenceMatcher(None, source, target, autojunk=False).get_opcodes()
    return [(i, j) for _, a, b, c, d in codes if b - a == d - c for i, j in zip(range(a, b), range(c, d), strict=True)]
