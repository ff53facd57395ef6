"""The codec of a run: what is diffused are its latents, and it is kept in the run, so that nothing else is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from osmotic import codecs
from osmotic.codecs import DCT, PCA, Codec, Haar, Neural, Tiled, Whitening
from osmotic.codecs.principal import principal
from osmotic.data.dataset import Dataset
from osmotic.data.encoding import Standard
from osmotic.data.errors import closest
from osmotic.data.spec import Spec
from osmotic.disk import HIDDEN, sync_folder
from osmotic.training.autoencoding import CODEC
from osmotic.training.codec import load_codec
from osmotic.training.errors import RunError
from osmotic.training.recipe import Coded, Recipe
from osmotic.training.run import RECIPE, Run, write_json

FOLDER = "codec"
FITTED = 10_000
"""Samples that a linear codec is fitted to, at most."""

FINEST = 8
"""A wavelet halves sides down to about this: a network still has neighbours to look at."""

STILL = 1e-4
"""An axis along which data deviate so much less than along the first is left out of a whitening."""

Said = str | Path | Codec
"""A codec, the run of an autoencoder, or the name of a linear one."""


def _haar(dataset: Dataset) -> Codec:
    sides, levels = dataset.spec.shape[1:], 1
    if len(sides) not in (1, 2, 3):
        raise RunError(f"--codec haar is for data with positions, and these have the shape {dataset.spec.shape}.")
    while all(side % 2 ** (levels + 1) == 0 and side >> (levels + 1) >= FINEST for side in sides):
        levels += 1
    return Haar(len(sides), levels)


def _dct(dataset: Dataset) -> Codec:
    if len(dataset.spec.shape) < 2:
        raise RunError(f"--codec dct is for data with positions, and these have the shape {dataset.spec.shape}.")
    return DCT(tuple(range(1 - len(dataset.spec.shape), 0)))


def _whitening(dataset: Dataset) -> Codec:
    """Along as many axes as the data vary."""
    mean, axes, deviations = principal(_some(dataset))
    vary = deviations > STILL * deviations.max()
    return Whitening(mean, axes[vary], deviations[vary])


LINEAR: dict[str, Callable[[Dataset], Codec]] = {
    "haar": _haar,
    "dct": _dct,
    "pca": lambda dataset: PCA.fit(_some(dataset)),
    "whitening": lambda dataset: _whitening(dataset),
}
"""Codecs that need no training, by name."""


def opened(said: Said, training: Dataset) -> tuple[Codec, Coded]:
    """A codec for data, and what a recipe says of it.

    Args:
        said: see :data:`Said`.
        training: data of the kind and shape that are encoded, to which linear codecs are fitted.

    Raises:
        RunError: for a name or a run that is none, and a codec that does not fit the data.
    """
    if isinstance(said, Codec):
        codec, name = said, type(said).__name__
        if codec.home is None and any(isinstance(part, Neural) for part in codec.modules()):
            raise RunError("This codec has a network that no run could make again; give the run of its autoencoder.")
    elif str(said) in LINEAR:
        codec, name = _fitted(str(said), training), str(said)
    else:
        codec, name = _trained(said, training.spec), str(Path(said).resolve())
    shape = training.spec.shape
    try:
        latent = codec.latent(shape)
    except ValueError:
        raise RunError(
            f"The codec {name} does not fit {training.spec.source}, whose samples have the shape {shape}; train an "
            f"autoencoder on these data, or give one of {', '.join(LINEAR)}."
        ) from None
    return codec.eval(), Coded(source=name, fingerprint=codec.fingerprint(), shape=latent, data=shape)


def seen(spec: Spec, coded: Coded | None) -> Spec:
    """The data's description as the network knows them: of latents, where there is a codec."""
    if coded is None:
        return spec
    flat = len(coded.shape) == 1
    kind = "vectors" if flat else "sequences" if len(coded.shape) == 2 else "array"
    plain = Standard(dtype="float32", mean=(0.0,) * coded.shape[0], std=(1.0,) * coded.shape[0])
    return spec.model_copy(update={"kind": kind, "shape": coded.shape, "encoding": plain, "facts": ()})


def resized(codec: Codec, coded: Coded, shape: tuple[int, ...], device: torch.device) -> tuple[Codec, Coded]:
    """A codec for samples of another shape, piece by piece, so that memory does not grow with them.

    Raises:
        ValueError: for a shape that it does not give back.
    """
    pieces = Tiled(codec.codec if isinstance(codec, Tiled) else codec)
    latent = pieces.latent(shape)
    with torch.no_grad():
        given = tuple(pieces.decode(torch.zeros(1, *latent, device=device)).shape[1:])
    if given != shape:
        raise ValueError(f"This model's codec gives sizes of {given[1:]}, not of {shape[1:]}; ask for what it gives.")
    return pieces, coded.model_copy(update={"shape": latent, "data": shape})


def keep(run: Run, codec: Codec, made: Recipe | None = None) -> None:
    """Store a codec with a run; of a learned one also the recipe of its network.

    Args:
        made: the recipe of the autoencoder that was trained within this run, whose codec is stored anew each time.

    Raises:
        SaveFailed: if the disk is full.
    """
    folder = run.directory / FOLDER
    if made is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        return
    part = run.directory / f"{HIDDEN}-{FOLDER}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    codecs.save(part / CODEC, codec)
    if codec.home is not None:
        for name in (RECIPE, "data.json"):
            shutil.copyfile(codec.home / name, part / name)
    if made is not None:
        write_json(part / RECIPE, made.model_dump(mode="json"))
        shutil.copyfile(run.data_path, part / run.data_path.name)
    part.rename(folder)
    sync_folder(run.directory)


def kept(run: Run, recipe: Recipe) -> Codec | None:
    """The codec of a run, or None where it diffuses the data themselves.

    Raises:
        RunError: if it is lost or another.
    """
    if recipe.codec is None:
        return None
    folder = run.directory / FOLDER
    if not recipe.codec.fingerprint:
        raise RunError(f"{run.directory} is not finished, so it has no codec yet; go on with --resume.")
    if not (folder / CODEC).exists():
        raise RunError(f"{run.directory} has lost its codec, {folder / CODEC}; put it back, or train a new run.")
    codec = load_codec(folder, "cpu") if (folder / RECIPE).exists() else codecs.load(folder / CODEC)
    if codec.fingerprint() != recipe.codec.fingerprint:
        raise RunError(f"{folder / CODEC} is not the codec that {run.directory} was trained with; put that one back.")
    return codec.eval().requires_grad_(False)


def _trained(said: str | Path, spec: Spec) -> Codec:
    if not Path(said).exists() and Path(said).name != str(said):
        raise RunError(f"There is no run {said} to take a codec from; give that of a finished autoencoder.")
    if not Path(said).exists():
        hint = closest(str(said), list(LINEAR)) or "."
        raise RunError(
            f"There is no codec {str(said)!r}: give the run of an autoencoder (osmotic train DATA --objective "
            f"autoencoder), or one of {', '.join(LINEAR)}{hint}"
        )
    return load_codec(said, "cpu")


def _fitted(name: str, training: Dataset) -> Codec:
    try:
        return LINEAR[name](training)
    except RunError:
        raise
    except ValueError as error:
        raise RunError(f"--codec {name} does not fit {training.spec.source}: {error}") from None


def _some(dataset: Dataset) -> Tensor:
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(FITTED, len(dataset))).astype(np.int64))
    return torch.as_tensor(dataset.batch(indices)[0])
