"""A run directory: where training writes, and the only place it writes (torch-free)."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from osmotic.disk import HIDDEN, replace
from osmotic.training import manifest
from osmotic.training.errors import RunError, SaveFailed
from osmotic.training.manifest import Manifest

RECIPE = "recipe.json"
CASCADE = "cascade.json"
"""In a folder of several runs: names them as the stages of a cascade."""
STAGES = "stages"
"""In a student's run: the runs of its earlier rounds."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content in one instant: readers and crashes see the old bytes or the new, never a part.

    Raises:
        SaveFailed: if the disk is full or not writable; the old file is intact.
    """
    try:
        replace(path, data)
    except OSError as error:
        raise SaveFailed(f"{path} cannot be written: {error.strerror}; the old content is intact.") from error


def write_json(path: Path, value: Any) -> None:
    """:func:`write_atomically` of readable JSON; NaN and infinities are refused."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class Run:
    """A directory with recipe.json, data.json, metrics.jsonl, timing.jsonl, checkpoints/, samples/ and tb/.

    Use :meth:`create` or :meth:`open`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def create(
        cls, directory: str | Path, recipe: Mapping[str, Any], data: Mapping[str, Any], contents: str | None = None
    ) -> Run:
        """Start a run in a new or empty directory; the recipe and the data's description are stored as JSON.

        Args:
            directory: where.
            recipe: how it is trained.
            data: what the data are.
            contents: the fingerprint of what they hold, for :meth:`contents`.

        Raises:
            RunError: if something is there already.
        """
        cls.refuse_used(directory)
        run = cls(Path(directory))
        try:
            run.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{directory} cannot be made: {error.strerror}; choose another --out.") from error
        write_json(run.data_path, data)
        if contents is not None:
            write_json(run.contents_path, {"fingerprint": contents})
        write_json(run.recipe_path, recipe)  # last: a directory with a recipe is a run
        return run

    @staticmethod
    def refuse_used(directory: str | Path) -> None:
        """Refuse a directory in which no new run can be started; nothing is written.

        Raises:
            RunError: saying what is there and what to do.
        """
        path = Path(directory)
        if (path / RECIPE).exists():
            raise RunError(
                f"{directory} already holds a run; pass --resume (resume=True in Python) to continue it, or choose "
                "another --out."
            )
        if path.exists() and not path.is_dir():
            raise RunError(f"{directory} is a file; choose another --out.")
        if path.exists() and any(not _ours(inside) for inside in path.iterdir()):
            raise RunError(f"{directory} is not empty and holds no run; choose a new or empty directory for --out.")

    @classmethod
    def open(cls, directory: str | Path) -> Run:
        """An existing run.

        Raises:
            RunError: if the directory is none, naming what is missing.
        """
        run = cls(Path(directory))
        if run.directory.is_file():
            raise RunError(f"{directory} is a file, so it is no run; name the directory that training made.")
        if not run.directory.is_dir():
            raise RunError(
                f"{directory} does not exist, so it is no run; make one with `osmotic train DATA --out {directory}`."
            )
        if (run.directory / CASCADE).is_file():
            raise RunError(f"{directory} is a cascade of several runs; name the folder of one of its stages.")
        for path in (run.recipe_path, run.data_path):
            if not path.is_file():
                raise RunError(
                    f"{directory} is not a run: it has no {path.name}; pass a directory that `osmotic train` made."
                )
        return run

    @property
    def recipe_path(self) -> Path:
        return self.directory / RECIPE

    @property
    def data_path(self) -> Path:
        return self.directory / "data.json"

    @property
    def contents_path(self) -> Path:
        """Names what the data hold, by a hash of some samples."""
        return self.directory / "contents.json"

    @property
    def metrics_path(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def timing_path(self) -> Path:
        """Speed and remaining time, apart from the metrics: those are the same numbers in every repetition."""
        return self.directory / "timing.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.directory / "samples"

    @property
    def tensorboard(self) -> Path:
        return self.directory / "tb"

    def recipe(self) -> dict[str, Any]:
        """What was stored as recipe.json."""
        return _read_object(self.recipe_path)

    def data(self) -> dict[str, Any]:
        """What was stored as data.json."""
        return _read_object(self.data_path)

    def contents(self) -> str | None:
        """The fingerprint of what the data held when the run began; None for a run that did not store it."""
        return _read_object(self.contents_path).get("fingerprint") if self.contents_path.is_file() else None

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; an unfinished last line (of a killed run) is left out."""
        if not self.metrics_path.is_file():
            return []
        return [record for _, record in whole_lines(self.metrics_path)]

    def stages(self) -> list[Path]:
        """The runs of a distillation's earlier rounds, in their order: each names the one before as its teacher."""
        folders = sorted(path.parent for path in (self.directory / STAGES).glob(f"*/{RECIPE}"))
        taught = {Path(str((Run(f).recipe().get("student") or {}).get("teacher"))).name: f for f in folders}
        name = next((name for name in taught if name not in {f.name for f in folders}), "")
        found = []
        while name in taught:
            found.append(taught.pop(name))
            name = found[-1].name
        return found

    def folders(self) -> list[Path]:
        """The folders of finished checkpoints, newest first (their content is not checked)."""
        if not self.checkpoints.is_dir():
            return []
        return sorted((p for p in self.checkpoints.glob("step-*") if p.is_dir()), reverse=True)

    def complete(self) -> list[tuple[Path, Manifest]]:
        """Checkpoints whose files are there in the right sizes, newest first; cheap, so made for listing."""
        found = []
        for folder in self.folders():
            try:
                found.append((folder, manifest.read(folder)))
            except RunError:
                continue
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; a killed holder leaves no lock behind. Unfinished leftovers are swept up.

        Raises:
            RunError: if another process trains in it.
        """
        try:
            lock = (self.directory / ".lock").open("a")
        except OSError as error:
            raise RunError(f"{self.directory} cannot be written: {error.strerror}; mend its permissions.") from None
        with lock as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"{self.directory} is in use by another process; wait for it or choose another --out."
                ) from None
            for leftover in [*self.directory.glob(f"{HIDDEN}*"), *self.checkpoints.glob(f"{HIDDEN}*")]:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield


def is_cascade(directory: str | Path) -> bool:
    """Whether a folder holds one."""
    return (Path(directory) / CASCADE).is_file()


def stage_folders(directory: str | Path) -> list[Path]:
    """The runs of a cascade's stages, as its ``cascade.json`` names them, relative to it.

    Raises:
        RunError: if there is no such file, or it holds something else.
    """
    path = Path(directory) / CASCADE
    try:
        names = json.loads(path.read_bytes())["stages"]
        assert isinstance(names, list)
        assert names
        assert all(isinstance(name, str) for name in names)
    except OSError as error:
        raise RunError(f"{directory} is no cascade: {path.name} cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        raise RunError(f'{path} should hold {{"stages": [RUN, ...]}}, the folder of each stage.') from None
    return [Path(directory) / name for name in names]


def whole_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(line, parsed line) for the leading lines of a JSON-lines file that are complete."""
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not isinstance(record, dict):
            return
        yield line, record


def _ours(path: Path) -> bool:
    """Whether a file was left by a :meth:`Run.create` that was killed before it stored the recipe."""
    return path.name in ("data.json", "contents.json") or path.name.startswith(HIDDEN)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} should hold a JSON object.")
    return value
