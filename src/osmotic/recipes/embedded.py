"""The data of unCLIP's prior and decoder: embeddings told those of captions, and samples told their embeddings."""

from __future__ import annotations

import json
from pathlib import Path

from osmotic.data.dataset import Dataset, open_data
from osmotic.data.embedding import Embedding
from osmotic.data.with_embedding import WithEmbedding
from osmotic.recipes.embeddings import Embeddings, embed, reader
from osmotic.training.errors import RunError

CONTENTS = "unclip.json"
"""In the recipe's folder: the encoder, the prior and the decoder, by path."""

ENCODER, PRIOR, DECODER, SHARDS = "encoder", "prior", "decoder", "embeddings"
"""In the folder: three runs, and the embeddings of the data."""

OF = "embeddings of "
"""How the source of a prior's data begins; the rest is that of the samples."""


def priors(dataset: Dataset, found: Embeddings, fingerprint: str) -> WithEmbedding:
    """What a prior learns from: embeddings of samples, told those of their captions."""
    vectors = open_data(found.pictures, kind="vectors")
    told = WithEmbedding(
        vectors, found.texts, Embedding(of="text", width=found.texts.shape[1], fingerprint=fingerprint)
    )
    told.spec = told.spec.model_copy(update={"source": f"{OF}{dataset.spec.source}"})
    return told


def decoders(dataset: Dataset, found: Embeddings, fingerprint: str) -> WithEmbedding:
    """What a decoder learns from: samples, told their embeddings."""
    width = found.pictures.shape[1]
    return WithEmbedding(dataset, found.pictures, Embedding(of="picture", width=width, fingerprint=fingerprint))


def encoder_of(folder: Path) -> str:
    """The encoder of a recipe's folder: a path, or a name on the hub.

    Raises:
        RunError: where the folder has none.
    """
    try:
        named = str(json.loads((folder / CONTENTS).read_text())["encoder"])
    except FileNotFoundError:
        named = ENCODER  # not finished: a run of its own, if any
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{folder / CONTENTS} cannot be read ({error}); make it again with the recipe.") from None
    if (folder / named).exists():
        return str(folder / named)
    if named == ENCODER:
        raise RunError(f"{folder} has lost its encoder, {folder / ENCODER}; put that run back.")
    return named


def as_told(run: str | Path, told: Embedding, dataset: Dataset) -> WithEmbedding:
    """The data of a prior's or a decoder's run, by the encoder that lies beside the run.

    Args:
        run: the prior's or the decoder's, or a student in its place.
        told: what its model is told.
        dataset: the captioned samples.

    Raises:
        RunError: where no encoder or another one is there, or the samples have no captions.
    """
    home = Path(run).resolve().parent
    if not ((home / CONTENTS).is_file() or (home / ENCODER).exists()):
        raise RunError(
            f"{run} is told embeddings of an encoder that is not beside it; move it into the folder that "
            "`python -m osmotic.recipes.unclip train` made."
        )
    if dataset.texts is None:
        raise RunError(f"{dataset.spec.source} has no captions, which {run} was trained with; give the data back.")
    read = reader(encoder_of(home), dataset.spec)
    if read.fingerprint != told.fingerprint:
        raise RunError(f"{run} learned from another encoder than that of {home}; put that one back.")
    found = embed(dataset, read, home / SHARDS)
    return (priors if told.of == "text" else decoders)(dataset, found, read.fingerprint)
