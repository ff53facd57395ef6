"""Checkpoints that are whole or not there: safetensors files and a manifest with their checksums."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from osmotic.disk import HIDDEN, sync_folder
from osmotic.training import manifest
from osmotic.training.errors import Diverged, RunError, SaveFailed
from osmotic.training.manifest import Manifest
from osmotic.training.player import fill
from osmotic.training.run import Run

Files = Mapping[str, Mapping[str, Tensor]]  # name of a file without its ending -> named tensors


def average_name(halflife: float) -> str:
    """The file of a half-life's average, without its ending."""
    return f"ema-{halflife:g}"


def save(run: Run, step: int, files: Files, options: Mapping[str, Any], held_out: float | None) -> Path:
    """Write the checkpoint of a step: hidden folder, each file synced, the manifest last, then one rename.

    A crash at any moment leaves the earlier checkpoints as they were and at worst a hidden folder, which the next
    :meth:`Run.locked` sweeps up.

    Raises:
        Diverged: if a tensor is not finite; nothing is written.
        SaveFailed: if the disk is full or not writable; nothing is left behind.
    """
    _refuse_non_finite(run, step, files)
    folder = run.checkpoints / f"step-{step:08d}"
    hidden = run.checkpoints / f"{HIDDEN}-{folder.name}"
    try:
        run.checkpoints.mkdir(exist_ok=True)
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir()
        entries = {}
        for name, tensors in files.items():
            path = hidden / f"{name}.safetensors"
            save_file(_separate(tensors), path)
            path.chmod(hidden.stat().st_mode & 0o666)  # safetensors writes for the owner alone, whatever the umask says
            entries[path.name] = manifest.entry(path)
            _sync(path)
        contents = Manifest(format=manifest.FORMAT, step=step, held_out=held_out, options=dict(options), files=entries)
        (hidden / manifest.NAME).write_text(contents.sealed().model_dump_json(indent=2))
        _sync(hidden / manifest.NAME)
        sync_folder(hidden)
        _discard(folder)  # a damaged one of the same step
        os.rename(hidden, folder)
        sync_folder(run.checkpoints)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise SaveFailed(
            f"The checkpoint of step {step} cannot be written to {run.checkpoints} ({error}); the earlier ones are "
            "intact: make room there and go on with --resume."
        ) from error
    return folder


def prune(run: Run, keep_last: int) -> None:
    """Delete all but the newest checkpoints and the best one."""
    complete = run.complete()
    keep = {folder for folder, _ in complete[:keep_last]}
    if (best := best_of(complete)) is not None:
        keep.add(best)
    for folder, _ in complete:
        if folder not in keep:
            _discard(folder)


def best_of(complete: list[tuple[Path, Manifest]]) -> Path | None:
    """The checkpoint with the lowest held-out loss (the newest of equals), None if none was measured."""
    measured = [(m.held_out, -m.step, folder) for folder, m in complete if m.held_out is not None]
    return min(measured)[2] if measured else None


def newest(run: Run, say: Callable[[str], None]) -> tuple[Path, Manifest] | None:
    """The newest checkpoint whose every byte is right; each damaged one on the way is named through ``say``.

    Raises:
        RunError: if there are checkpoints and all are damaged.
    """
    reasons, folders = [], run.folders()
    for number, folder in enumerate(folders, 1):
        try:
            return folder, manifest.verify(folder)
        except RunError as error:
            reasons.append(str(error))
            if number < len(folders):
                say(f"{error} Trying the checkpoint before it.")
    if reasons:
        raise RunError(f"No checkpoint in {run.checkpoints} is whole: {reasons[0]}")
    return None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; nothing in the file is executed.

    Raises:
        RunError: if it is not such a file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read as safetensors: {error}.") from None


def load_weights(folder: Path, name: str, module: nn.Module, player: str) -> None:
    """Fill a module from one file of a checkpoint, strictly, after checking its checksum.

    Args:
        folder: of the checkpoint.
        name: ``"model"`` or :func:`average_name` of a half-life.
        module: of the same structure as the player that was trained.
        player: its name in the task.

    Raises:
        RunError: naming the file and the tensor that does not fit.
    """
    path = folder / f"{name}.safetensors"
    contents = manifest.verify(folder, only=path.name)
    if path.name not in contents.files:
        weights = ", ".join(sorted(Path(f).stem for f in contents.files if f.startswith(("model", "ema-"))))
        raise RunError(f"{folder} has no weights {name!r}; it has {weights}.")
    found = {
        key.removeprefix(f"{player}."): value
        for key, value in read_tensors(path).items()
        if key.startswith(f"{player}.")
    }
    fill(module.state_dict(), found, path)


def _refuse_non_finite(run: Run, step: int, files: Files) -> None:
    for name, tensors in files.items():
        for key, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise Diverged(
                    f"After step {step} the tensor {key!r} of {name} is not finite, so nothing was saved; "
                    f"{last_good(run)}"
                )


def last_good(run: Run) -> str:
    """Where to go on from, for the end of an error message."""
    advice = "lower --learning-rate or look at the data"
    complete = run.complete()
    if not complete:
        return f"no checkpoint was saved yet: {advice} and start again."
    return f"the last good checkpoint is {complete[0][0]}: {advice} and go on with --resume."


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, none sharing memory with another (tied weights do)."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        address = own.untyped_storage().data_ptr()
        result[name] = own.clone() if address in seen else own
        seen.add(address)
    return result


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _discard(folder: Path) -> None:
    """Delete a checkpoint so that no part of it is ever taken for one."""
    if folder.exists():
        hidden = folder.with_name(f"{HIDDEN}-old-{folder.name}")
        os.rename(folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)
