"""A new word of a description: a word of its captions or, where it reads none, one more class; and who is called so."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .captions import BYTES, Captions, split
from .columns import Categorical, Columns, Label
from .dataset import Dataset
from .errors import DataError, closest, listed
from .ports import Indices
from .spec import Spec


def known(spec: Spec) -> tuple[str, ...]:
    """The words or the classes that a new one would follow.

    Raises:
        DataError: for data that tell neither, or whose captions a frozen encoder reads.
    """
    if isinstance(spec.captions, Captions):
        return spec.captions.words
    if spec.classes is not None:
        return spec.classes
    if spec.captions is not None:
        raise DataError("a frozen encoder reads the model's texts, and learns no words: adapt it by lora or whole")
    raise DataError("the model is told neither classes nor texts, so it learns no words: adapt it by lora or whole")


def spoken(spec: Spec, word: str) -> str:
    """A word as the description writes it: of captions in lower case.

    Raises:
        DataError: for several words, or none; and as :func:`known`.
    """
    known(spec)
    if not isinstance(spec.captions, Captions):
        if not word.strip():
            raise DataError("a class needs a name: give --word one")
        return word
    words = split(word)
    if len(words) != 1:
        raise DataError(f"a word is one word without spaces and signs, and {word!r} is {len(words)}: choose another")
    return words[0]


def number(spec: Spec, word: str) -> int:
    """The id of a known word or class in its table.

    Raises:
        DataError: if it is not known; and as :func:`known`.
    """
    words = known(spec)
    if word not in words:
        what = "word" if isinstance(spec.captions, Captions) else "class"
        hint = closest(word, words) or f"; it knows {listed(words, 20)}."
        raise DataError(f"the model knows no {what} {word!r}{hint}")
    return words.index(word) + (BYTES if isinstance(spec.captions, Captions) else 0)


def taught(spec: Spec, word: str) -> Spec:
    """The description with one word or class more, whose id is the next.

    Raises:
        DataError: for a word that is there already; and as :func:`known`.
    """
    words = known(spec)
    if word in words:
        raise DataError(f"the model knows {word!r} already: choose another word, or adapt it by lora or whole")
    return _with(spec, (*words, word))


def untaught(spec: Spec) -> Spec:
    """The description without its last word or class: :func:`taught` undone."""
    return _with(spec, known(spec)[:-1])


def _with(spec: Spec, words: tuple[str, ...]) -> Spec:
    captions = spec.captions
    if isinstance(captions, Captions):
        # Made anew, not copied: a copy would keep the numbers that the old one remembers.
        told = Captions(words=words, spelled=captions.spelled, length=captions.length)
        return spec.model_copy(update={"captions": told})
    return spec.model_copy(update={"classes": words, "encoding": _labelled(spec, words)})


def _labelled(spec: Spec, words: tuple[str, ...]) -> object:
    """The encoding; a table's label column has the classes as its categories, in its own type."""
    encoding = spec.encoding
    if not isinstance(encoding, Columns) or encoding.label is None:
        return encoding
    column = encoding.label.column
    categories, shares = column.categories[: len(words)], column.shares[: len(words)]
    if len(words) > len(categories):
        categories, shares = (*categories, _value(column, words[-1])), (*shares, 0.0)
    label = Categorical(**{**column.model_dump(), "categories": categories, "shares": shares})
    return Columns(columns=encoding.columns, label=Label(position=encoding.label.position, column=label))


def _value(column: Categorical, word: str) -> str | int:
    """A class as a value of the label column."""
    kinds = {type(category) for category in column.categories if category is not None}
    if kinds == {str}:
        return word
    if kinds == {int} and re.fullmatch(r"-?[0-9]+", word):
        if int(word) not in column.categories:
            return int(word)
        raise DataError(f"column {column.name!r} has the class {int(word)} already: choose another name")
    what = "whole numbers" if kinds == {int} else "true and false"
    raise DataError(f"the classes in column {column.name!r} are {what}, and {word!r} is none: choose another name")


class Named(Dataset):
    """A data set whose samples have no names of their own, all called the same.

    Args:
        dataset: the samples.
        caption: of all of them; None leaves the texts as they are.
        name: of the one class of all; None leaves the labels as they are.
    """

    def __init__(self, dataset: Dataset, caption: str | None = None, name: str | None = None) -> None:
        self.dataset, self.attributes, self.buckets = dataset, dataset.attributes, dataset.buckets
        self.spec, self.labels, self.texts = dataset.spec, dataset.labels, dataset.texts
        if name is not None:
            self.spec = self.spec.model_copy(update={"classes": (name,)})
            self.labels = np.zeros(len(dataset), np.int64)
        if caption is not None:
            self.texts = [caption] * len(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        return self.dataset.batch(indices)

    def told(self, indices: Indices) -> dict[str, Tensor]:
        return self.dataset.told(indices)

    def name(self, index: int) -> str:
        return self.dataset.name(index)


def uses(dataset: Dataset, word: str) -> bool:
    """Whether any sample of data under a description that knows a word is called so."""
    if isinstance(dataset.spec.captions, Captions):
        return any(word in split(text) for text in set(dataset.texts or ()))
    return dataset.labels is not None and bool((dataset.labels == number(dataset.spec, word)).any())


def likened(text: str, word: str, like: str) -> str:
    """A text without its new word: with the known one in its place, unless that is there anyway.

    "a sks" becomes "a circle", and so does "a sks circle", as in DreamBooth's prompts.
    """
    words: Sequence[str] = split(text)
    if like in words:
        return " ".join(w for w in words if w != word)
    return " ".join(like if w == word else w for w in words)
