"""A subject that a trained model is taught: what its samples are called, and the word that was learned on its own."""

from __future__ import annotations

import copy
from pathlib import Path

from osmotic.adapters import learned
from osmotic.adapters import load as load_words
from osmotic.data.captions import Captions
from osmotic.data.dataset import Dataset, Under
from osmotic.data.errors import DataError
from osmotic.data.spec import Spec
from osmotic.data.words import Named, number, spoken, taught, uses
from osmotic.denoiser import NeuralDenoiser
from osmotic.training.model import Model
from osmotic.training.recipe import Adapted
from osmotic.training.run import Run

WORDS = "words.safetensors"
"""In the run of textual inversion: its word alone, for the base."""


def named(how: Adapted, spec: Spec, data: Dataset) -> Adapted:
    """An adaption with its words as the model writes them, and with the caption of samples that have none.

    Args:
        how: as it was asked for.
        spec: of the base's data.
        data: the subject's.

    Raises:
        DataError: for a word that is known, one like it that is not, or a caption where none can be.
    """
    caption = how.caption
    if caption is not None and spec.captions is None:
        raise DataError("the model reads no texts: leave out --caption")
    if caption is not None and data.texts is not None:
        raise DataError(f"{data.spec.source}: it has captions of its own: leave out --caption")
    if how.word is None or how.like is None:
        return how
    word, like = spoken(spec, how.word), spoken(spec, how.like)
    taught(spec, word)
    number(spec, like)
    if caption is None and data.texts is None and isinstance(spec.captions, Captions):
        caption = f"a {word}"
    return how.model_copy(update={"word": word, "like": like, "caption": caption})


def under(data: Dataset, spec: Spec, how: Adapted) -> Dataset:
    """The subject's samples as the adapted model is told them.

    Args:
        data: the subject's, as they were read.
        spec: of the adapted model: it knows the word.
        how: the adaption, as :func:`named` gives it.

    Raises:
        DataError: for data of another kind or shape, with names that the model lacks, or without the new word.
    """
    if how.caption is not None and spec.captions is not None:
        spec.captions.prompt(how.caption)  # refused where it is too long
        data = Named(data, caption=how.caption)
    elif how.word is not None and not isinstance(spec.captions, Captions) and data.labels is None:
        data = Named(data, name=how.word)
    found = Under(data, spec)
    if how.word is not None and not uses(found, how.word):
        raise DataError(f"{data.spec.source}: none of its samples is called {how.word!r}: call them so, or not at all")
    return found


def keep_word(run: Run, model: Model) -> Path:
    """Store the word of a run of textual inversion as a file of its own, ``RUN/words.safetensors``.

    Raises:
        AdapterError: if it cannot be written.
    """
    assert isinstance(model.denoiser, NeuralDenoiser)
    (words,) = learned(model.denoiser.network)
    words.save(run.directory / WORDS)
    return run.directory / WORDS


def teach(model: Model, path: str | Path) -> Model:
    """A model that knows the word of a file besides; several can be taught one after the other.

    Args:
        model: that the words were learned for; it stays as it is.
        path: the ``words.safetensors`` of a run of ``osmotic adapt --by word``.

    Raises:
        AdapterError: if the file is damaged or was made for another network.
        ValueError: for a word that the model knows, or a model without a network of its own.
    """
    if not isinstance(model.denoiser, NeuralDenoiser):
        raise ValueError("Words are taught to a network, and this denoiser has none; give the model of a run.")
    denoiser, spec = copy.deepcopy(model.denoiser), model.spec
    for word in load_words(path, denoiser.network).ids:
        spec = taught(spec, word)
    return Model(denoiser, spec, model.recipe, model.step, model.weights, model.tuning)
