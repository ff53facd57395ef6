"""Data as the latents of a codec: encoded on the way, or once and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from osmotic.codecs import Codec
from osmotic.data.dataset import Dataset, Subset
from osmotic.data.fingerprint import fingerprint
from osmotic.data.ports import Indices
from osmotic.data.spec import SAME
from osmotic.training.coding import seen
from osmotic.training.distributed import World
from osmotic.training.errors import RunError
from osmotic.training.model import Model
from osmotic.training.recipe import Coded
from osmotic.training.run import write_atomically, write_json

FOLDER, HEAD = "latents", "latents.json"
SHARD = 1024
"""Samples a file: what an interruption loses at most."""

WITNESSES = 2048
"""Samples whose contents tell that latents are stale, evenly over all."""

BATCH = 64


class Latents(Dataset):
    """A data set as a latent model sees it, each batch encoded when it is asked for.

    Args:
        dataset: the data.
        codec: of them.
        coded: what the recipe says of the codec.
        device: where the codec computes.
    """

    def __init__(self, dataset: Dataset, codec: Codec, coded: Coded, device: torch.device | str = "cpu") -> None:
        self.dataset, self.codec, self.coded, self.device = dataset, codec.to(device), coded, torch.device(device)
        self.spec = seen(dataset.spec, coded)
        self.labels, self.attributes, self.texts = dataset.labels, dataset.attributes, dataset.texts

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        rows = np.asarray(indices, np.int64)
        return self.encoded(rows), None if self.labels is None else torch.from_numpy(self.labels[rows])

    @torch.no_grad()
    def encoded(self, rows: np.ndarray) -> Tensor:
        """The latents of some samples, ``(B, *Z)`` float32 on the CPU."""
        parts = [self.dataset.batch(rows[i : i + BATCH])[0] for i in range(0, len(rows), BATCH)]
        found = [self.codec.encode(part.to(self.device)).float().cpu() for part in parts]
        return torch.cat(found) if found else torch.empty(0, *self.spec.shape)

    def told(self, indices: Indices) -> dict[str, Tensor]:
        return self.dataset.told(indices)

    def name(self, index: int) -> str:
        return self.dataset.name(index)


class Cached(Latents):
    """The same from a folder that :func:`fill` has finished; shards are mapped, so memory does not grow."""

    def __init__(self, latents: Latents, folder: Path) -> None:
        super().__init__(latents.dataset, latents.codec, latents.coded, latents.device)
        self._shards = []
        for low in range(0, len(self), SHARD):
            if not _shard(folder, low).exists():
                raise RunError(f"{folder} lacks {_shard(folder, low).name}: its making was interrupted; go on with it.")
            with safe_open(_shard(folder, low), framework="pt") as file:
                self._shards.append(file.get_tensor("z"))  # mapped: what is not asked for is not read

    def encoded(self, rows: np.ndarray) -> Tensor:
        out = torch.empty(len(rows), *self.spec.shape)
        for number in np.unique(rows // SHARD):
            mine = np.flatnonzero(rows // SHARD == number)
            out[mine] = self._shards[number][torch.from_numpy(rows[mine] - number * SHARD)]
        return out


def cached(latents: Latents, folder: Path, world: World, say: Callable[[str], None]) -> Cached:
    """The latents of all samples from a folder; those that are missing are made now, by each process its share.

    Args:
        latents: of the whole data set.
        folder: of the run.
        world: the processes.
        say: told what is done.

    Raises:
        RunError: if the folder holds the latents of another codec or of other data.
        SaveFailed: if the disk is full; finished shards are intact.
    """
    world.from_main(lambda: claim(latents, folder))
    lows = range(0, len(latents), SHARD)
    mine = [low for i, low in enumerate(lows) if i % world.size == world.rank and not _shard(folder, low).exists()]
    if mine:
        say(f"encoding {len(latents):,} samples into {folder}, once")
    with tqdm(total=len(mine), desc="encoding", unit="shard", delay=2, leave=False, disable=not world.main) as bar:
        for low in mine:
            z = latents.encoded(np.arange(low, min(low + SHARD, len(latents))))
            if not bool(z.isfinite().all()):
                raise RunError("Some latents are not finite; train the autoencoder again, at a lower learning rate.")
            write_atomically(_shard(folder, low), save({"z": z.contiguous()}))
            bar.update()
    world.sum(torch.zeros(1, device=world.device))  # nobody reads before everybody has written
    return Cached(latents, folder)


def of_model(model: Model, dataset: Dataset, device: torch.device) -> Latents | None:
    """Data as a model of latents sees them, each batch encoded when it is asked for; None for one of the data."""
    if model.codec is None or model.recipe.codec is None:
        return None
    return Latents(dataset, model.codec, model.recipe.codec, device)


def as_latents(
    model: Model, parts: tuple[Subset, Subset], folder: Path, world: World, say: Callable[[str], None]
) -> tuple[Subset, Subset]:
    """Two parts of one data set as a model sees them: themselves, or latents, kept in a folder."""
    latents = of_model(model, parts[0].dataset, world.device)
    if latents is None:
        return parts
    kept = cached(latents, folder, world, say)
    first, second = (Subset(kept, part.indices) for part in parts)
    return first, second


def claim(latents: Latents, folder: Path) -> None:
    """Say in a folder whose latents it holds, or refuse one that holds others.

    Raises:
        RunError: saying what differs.
    """
    head, path = _head(latents), folder / HEAD
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, head)
        return
    try:
        before: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        before = {}
    version = [(name, "another version") for name in ("shard", "witnesses")]
    for name, what in (("codec", "another codec"), *version, ("data", "other data")):
        if before.get(name) != head[name]:
            raise RunError(f"{folder} holds stale latents, of {what}; delete the folder to have them made anew.")


def _head(latents: Latents) -> dict[str, Any]:
    """Whose latents they are: the codec, and the data by their description and by the contents of some samples."""
    told = json.dumps(latents.dataset.spec.model_dump(mode="json", include=set(SAME)), sort_keys=True)
    data = fingerprint(latents.dataset, told.encode(), WITNESSES)
    return {"codec": latents.coded.fingerprint, "data": data, "shard": SHARD, "witnesses": WITNESSES}


def _shard(folder: Path, low: int) -> Path:
    return folder / f"latents-{low:08d}.safetensors"
