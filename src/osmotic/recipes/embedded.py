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


def contents_of(folder: Path) -> dict[str, str]:
    """What ``unclip.json`` says.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        told = json.loads((folder / CONTENTS).read_text())
        return {name: str(told[name]) for name in (ENCODER, PRIOR, DECODER)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{folder / CONTENTS} cannot be read ({error}); make it again with the recipe.") from None


def encoder_of(folder: Path) -> str:
    """The encoder of a recipe's folder: a path, or a name on the hub.

    Raises:
        RunError: where the folder has none.
    """
    named = contents_of(folder)[ENCODER] if (folder / CONTENTS).is_file() else ENCODER
    if (folder / named).exists():
        return str(folder / named)
    if named == ENCODER:
        raise RunError(f"{folder} has lost its encoder, {folder / ENCODER}; put that run back.")
    return named


def as_told(run: str | Path, teacher: str | None, told: Embedding, dataset: Dataset) -> WithEmbedding:
    """The data of a prior's or a decoder's run, by the encoder that lies beside the run, or beside its teacher.

    Nothing is written: embeddings that are stored for these very samples are read, others made.

    Args:
        run: the prior's or the decoder's, or a student of one.
        teacher: of a student, by path.
        told: what its model is told.
        dataset: the captioned samples.

    Raises:
        RunError: where no encoder or another one is there, or the samples have no captions.
    """
    homes = [Path(each).resolve().parent for each in (run, teacher) if each is not None]
    home = next((folder for folder in homes if (folder / CONTENTS).is_file() or (folder / ENCODER).exists()), None)
    if home is None:
        raise RunError(
            f"{run} is told embeddings, and {homes[-1]} has no encoder of them: finish it with "
            "`python -m osmotic.recipes.unclip train`, or move the run back into the folder that it was made in."
        )
    if dataset.texts is None:
        raise RunError(f"{dataset.spec.source} has no captions, which {run} was trained with; give the data back.")
    read = reader(encoder_of(home), dataset.spec, "cpu")
    if read.fingerprint != told.fingerprint:
        raise RunError(f"{run} learned from another encoder than that of {home}; put that one back.")
    found = embed(dataset, read, home / SHARDS, write=False)
    return (priors if told.of == "text" else decoders)(dataset, found, read.fingerprint)
