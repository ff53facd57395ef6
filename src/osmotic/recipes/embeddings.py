"""The embeddings of a data set's samples and captions, made once and kept in shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from osmotic.contents import contents
from osmotic.data.clip import Clip, load_clip
from osmotic.data.dataset import Dataset
from osmotic.data.spec import Spec
from osmotic.training.contrast import load_dual
from osmotic.training.errors import RunError, SaveFailed
from osmotic.training.run import RECIPE, write_atomically

SHARD = 1024
"""Samples a file: what an interruption loses at most."""


class Reader(Protocol):
    """What puts samples and texts into one space: a dual encoder trained here, or a ready CLIP."""

    @property
    def width(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def prompt(self, text: str) -> None: ...

    def pictures(self, x: Tensor) -> Tensor: ...

    def texts(self, texts: list[str]) -> Tensor: ...


class Ready:
    """A CLIP that reads samples as a model draws them.

    Args:
        clip: of a folder.
        spec: of the pictures.
    """

    def __init__(self, clip: Clip, spec: Spec) -> None:
        self.clip, self.spec = clip, spec

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return self.clip.width

    @property
    def fingerprint(self) -> str:
        """Of its weights."""
        return self.clip.fingerprint

    def prompt(self, text: str) -> None:
        """Any text is read, as far as CLIP reads."""

    def pictures(self, x: Tensor) -> Tensor:
        """The unit vectors ``(B, D)`` of samples ``(B, *S)`` in the network's scale."""
        return self.clip.pictures(self.spec.decode(x.numpy()))

    def texts(self, texts: list[str]) -> Tensor:
        """The unit vectors ``(B, D)`` of texts."""
        return self.clip.texts(texts)


def reader(name: str | Path, spec: Spec, device: torch.device | str | None = None) -> Reader:
    """The encoder of a run of ``--objective contrastive``, or the CLIP of a folder, for data of this description.

    Raises:
        RunError: for an encoder of other data.
        ValueError: for a CLIP where the data are no pictures, or no such thing.
    """
    if (Path(name) / RECIPE).is_file():
        dual = load_dual(name, device)
        for what in ("shape", "encoding"):
            if getattr(dual.spec, what) != getattr(spec, what):
                raise RunError(f"{name} reads other data than these: their {what} differs; train one on these.")
        return dual
    if spec.kind != "images":
        raise ValueError(f"A CLIP reads pictures, not {spec.kind}; leave it out, and an encoder is trained.")
    return Ready(load_clip(str(name)), spec)


class Embeddings(NamedTuple):
    """Of N samples.

    Args:
        pictures: ``(N, D)`` unit vectors of the samples.
        texts: ``(N, D)`` of their captions.
    """

    pictures: np.ndarray
    texts: np.ndarray


def embed(
    dataset: Dataset,
    read: Reader,
    folder: str | Path,
    progress: Callable[[int], object] | None = None,
    write: bool = True,
) -> Embeddings:
    """The embeddings of all samples; shards that are there for these very samples, captions and encoder are read.

    A shard's fingerprint is of what it was made from, to the bit, so that one that is stale, or no such file, is made
    anew: making goes on where it was interrupted, and nothing old is ever taken for new.

    Args:
        dataset: with captions.
        read: the encoder.
        folder: of the shards, made if it is not there.
        progress: called with the number of samples that were finished.
        write: store the shards that were made.

    Raises:
        SaveFailed: if the disk is full or not writable.
    """
    assert dataset.texts is not None
    try:
        if write:
            Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveFailed(f"{folder} cannot be made: {error.strerror}.") from error
    parts = []
    for start in range(0, len(dataset), SHARD):
        rows = np.arange(start, min(start + SHARD, len(dataset)))
        x, texts = dataset.batch(rows)[0], [dataset.texts[i] for i in rows.tolist()]
        parts.append(_shard(Path(folder) / f"{start:08d}.safetensors", x, texts, read, write))
        if progress is not None:
            progress(len(rows))
    return Embeddings(*(torch.cat([part[name] for part in parts]).numpy() for name in Embeddings._fields))


def _shard(path: Path, x: Tensor, texts: list[str], read: Reader, write: bool) -> dict[str, Tensor]:
    """The embeddings of some samples, from the file if it is theirs, and into it if it was not."""
    name = _fingerprint(x, texts, read)
    if path.is_file():
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("fingerprint") == name:
                    return {key: file.get_tensor(key) for key in Embeddings._fields}
        except (OSError, SafetensorError):
            pass  # damaged: made anew
    different = list(dict.fromkeys(texts))
    which = {text: i for i, text in enumerate(different)}
    found = {
        "pictures": torch.cat([read.pictures(x[i : i + 128]) for i in range(0, len(x), 128)]),
        "texts": torch.cat([read.texts(different[i : i + 128]) for i in range(0, len(different), 128)])[
            [which[text] for text in texts]
        ],
    }
    if write:
        write_atomically(path, save(found, {"fingerprint": name}))
    return found


def _fingerprint(x: Tensor, texts: list[str], read: Reader) -> str:
    hashed = hashlib.blake2b(repr((read.fingerprint, texts)).encode(), digest_size=16)
    for title, data in contents({"x": x}):
        hashed.update(title.encode() + data)
    return hashed.hexdigest()
