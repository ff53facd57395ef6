"""Texts as token ids: whole words where the captions repeat them, bytes where they do not."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from .encoding import Frozen
from .errors import DataError, closest

BYTES = 256  # ids below stand for the bytes of UTF-8, ids from here on for words
SPACE = 32  # ends a word that is spelled
MOST_WORDS = 4096
OFTEN = 2  # a word that stands in fewer captions is spelled: one sight teaches nobody a word
LONGEST = 128  # tokens of a caption that are read

Ids = NDArray[np.int64]


class Captions(Frozen):
    """The words of a set of captions, each with an id of its own; other words are spelled in UTF-8, if any was.

    Upper and lower case are one; a sign such as a comma is a word. Where no caption had to spell a word, a word that is
    not known means nothing to the model, and is refused.
    """

    words: tuple[str, ...]
    spelled: bool = Field(description="whether some words of the captions were spelled")
    length: int = Field(ge=1, description="tokens of the longest caption, as far as it is read")

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return BYTES + len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: BYTES + i for i, word in enumerate(self.words)}

    def tokens(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            DataError: for a word that the captions never had, where they spelled none.
        """
        return [token for word in split(text) for token in self._ids(word)]

    def pieces(self, text: str) -> list[tuple[str, int]]:
        """The words of a text in order, each with how many of its ids are the word's.

        Raises:
            DataError: as :meth:`tokens`.
        """
        return [(word, len(self._ids(word))) for word in split(text)]

    def _ids(self, word: str) -> list[int]:
        number = self._numbers.get(word)
        if number is not None:
            return [number]
        if self.spelled:
            return [*word.encode("utf-8", "surrogatepass"), SPACE]
        raise DataError(
            f"the word {word!r} stands in none of the captions that this model learned from"
            f"{closest(word, self.words) or '; use their words.'}"
        )

    def prompt(self, text: str) -> list[int]:
        """The ids of a text that a person wrote.

        Raises:
            DataError: as :meth:`tokens`, and for a text longer than any caption.
        """
        found = self.tokens(text)
        if len(found) > self.length:
            raise DataError(
                f"the text {text[:40]!r} ... has {len(found)} tokens, and the longest that this model learned from has "
                f"{self.length}; shorten it"
            )
        return found

    def encode(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.bool_]]:
        """Ids ``(B, length)``, 0 after the end, and which of them are real ``(B, length)``."""
        ids = np.zeros((len(texts), self.length), np.int64)
        mask = np.zeros(ids.shape, bool)
        for row, text in enumerate(texts):
            tokens = self.tokens(text)[: self.length]
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
        return ids, mask

    def describe(self) -> str:
        """One line for a person."""
        rest = ", others spelled" if self.spelled else ""
        return f"captions of up to {self.length} tokens, {len(self.words):,} words{rest}"


def split(text: str) -> list[str]:
    """Words and signs in lower case."""
    return re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFC", text.casefold()))


def fit_captions(texts: Iterable[str]) -> Captions:
    """The words of these captions, most frequent first.

    Raises:
        DataError: if none of them has any word.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(list(dict.fromkeys(split(text))))
    if not counts:
        raise DataError("the captions are all empty: leave them out, or write some")
    ranked = sorted(counts, key=lambda word: (-counts[word], word))  # the same in every process
    often = [word for word in ranked[:MOST_WORDS] if counts[word] >= OFTEN]
    found = Captions(words=tuple(often), spelled=len(often) < len(counts), length=1)
    longest = max(len(found.tokens(text)) for text in texts)
    return found.model_copy(update={"length": min(max(longest, 1), LONGEST)})


def parsed(value: Any) -> str:
    """A caption as a text.

    Raises:
        DataError: for anything else.
    """
    if not isinstance(value, str):
        raise DataError(f"a caption is a text, and {value!r} is none")
    return value
