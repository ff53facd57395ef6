"""What a checkpoint says about itself, and whether its files agree (torch-free)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from osmotic.training.errors import RunError

FORMAT = 1
NAME = "manifest.json"


class Entry(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """The table of contents of a checkpoint, written last: a folder without a true one is no checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    step: int
    held_out: float | None
    """Held-out loss measured at exactly this step, if it was: the best checkpoint has the lowest."""
    options: dict[str, Any]
    files: dict[str, Entry]
    seal: str = ""
    """SHA-256 of all the above: the manifest vouches for the files, and this for the manifest."""

    def sealed(self) -> Manifest:
        """The same with its seal."""
        content = self.model_dump_json(exclude={"seal"})
        return self.model_copy(update={"seal": hashlib.sha256(content.encode()).hexdigest()})


def entry(path: Path) -> Entry:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return Entry(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def read(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose files exist in the stated sizes.

    Raises:
        RunError: naming the file that is missing, cut short or of another format.
    """
    path = folder / NAME
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
            raise RunError(f"{path} has format {value['format']}, this version reads format {FORMAT}; update osmotic.")
        manifest = Manifest.model_validate(value)
    except FileNotFoundError:
        raise RunError(f"{folder} is not a complete checkpoint: it has no {NAME}.") from None
    except (ValidationError, UnicodeError, json.JSONDecodeError, RecursionError, OSError) as error:
        raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}.") from None
    if manifest != manifest.sealed():
        raise RunError(f"{path} is damaged: its content differs from its seal.")
    for name, stated in manifest.files.items():
        if Path(name).name != name:
            raise RunError(f"{path} names a file outside its folder: {name!r}.")
        if not (folder / name).is_file():
            raise RunError(f"{folder / name} is missing.")
        if (size := (folder / name).stat().st_size) != stated.size:
            raise RunError(f"{folder / name} is damaged: it has {size} bytes instead of {stated.size}.")
    return manifest


def verify(folder: Path, only: str | None = None) -> Manifest:
    """Like :func:`read`, and every byte of every file (or of ``only`` one) is checked against its SHA-256.

    Raises:
        RunError: naming the file that differs.
    """
    manifest = read(folder)
    for name, stated in manifest.files.items():
        if only in (None, name) and entry(folder / name).sha256 != stated.sha256:
            raise RunError(f"{folder / name} is damaged: its checksum differs from the manifest's.")
    return manifest
