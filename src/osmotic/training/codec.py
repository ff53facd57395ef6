"""The codec of an autoencoder's run: weights, shift and scale of its latents, in one file of the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from osmotic.codecs import Codec, Neural, load, save
from osmotic.training import checkpoint
from osmotic.training.autoencoders import autoencoder
from osmotic.training.autoencoding import AUTOENCODER, CODEC, OUTCOME, Outcome
from osmotic.training.errors import RunError, SaveFailed
from osmotic.training.loading import stored
from osmotic.training.run import Run, write_json


def load_codec(directory: str | Path, device: torch.device | str | None = None) -> Codec:
    """The codec of a run of ``--objective autoencoder``: latents of unit variance, and back.

    The run's recipe and data's description say what the network is; its data are not read.

    Args:
        directory: that ``osmotic train`` made.
        device: where to put it; a CUDA device if there is one by default.

    Raises:
        RunError: if it is no such run, or not finished.
        ValueError: for a damaged file.
    """
    run = Run.open(directory)
    recipe, spec = stored(run)
    if recipe.process.objective != AUTOENCODER:
        raise RunError(
            f"{directory} is no autoencoder; train one with `osmotic train DATA --objective autoencoder --out RUN`."
        )
    if not finished(run):
        raise RunError(
            f"{directory} is not finished, it has no {CODEC}: go on with `osmotic train {spec.source} --out "
            f"{directory} --resume`."
        )
    codec = load(run.directory / CODEC, autoencoder(recipe, spec, torch.device("cpu")))
    codec.home = run.directory
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return codec.eval().requires_grad_(False).to(place)


def trained(run: Run, device: torch.device) -> tuple[torch.nn.Module, int, str]:
    """The network with the weights of the newest whole checkpoint's first average, its step and their name.

    Raises:
        RunError: without a checkpoint.
    """
    recipe, spec = stored(run)
    found = checkpoint.newest(run, lambda text: None)
    if found is None:
        raise RunError(f"{run.directory} has no checkpoint yet; train it further with --resume.")
    name = checkpoint.average_name(recipe.options.ema[0]) if recipe.options.ema else "model"
    network = autoencoder(recipe, spec, device)
    checkpoint.load_weights(found[0], name, network, AUTOENCODER)
    return network.eval().requires_grad_(False), found[1].step, name


def fitted(network: torch.nn.Module, batches: Iterable[Tensor]) -> Neural:
    """The codec of a network, its latents measured on data ``(B, *S)``.

    Raises:
        RunError: where they cannot be brought to unit variance.
    """
    try:
        return Neural.fit(network, batches)
    except ValueError as error:
        raise RunError(str(error)) from None


def store(run: Run, codec: Codec, outcome: Outcome) -> None:
    """Put codec and outcome into the run; the codec last, for where it is the run is finished.

    Raises:
        SaveFailed: if the disk is full.
    """
    write_json(run.directory / OUTCOME, outcome.model_dump(mode="json"))
    try:
        save(run.directory / CODEC, codec)
    except OSError as error:
        raise SaveFailed(
            f"{run.directory / CODEC} cannot be written ({error.strerror}); make room there and go on with --resume."
        ) from error


def finished(run: Run) -> bool:
    """Whether the run has its codec."""
    return (run.directory / CODEC).is_file()


def forget(run: Run) -> None:
    """Take back what :func:`store` stored, the codec first: the run is trained further."""
    for name in (CODEC, OUTCOME):
        (run.directory / name).unlink(missing_ok=True)
