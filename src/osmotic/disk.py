"""Files that readers, crashes and power cuts find whole or not at all (torch-free)."""

from __future__ import annotations

import os
from pathlib import Path

HIDDEN = ".tmp"
"""Unfinished things begin so; whoever owns the folder sweeps them up."""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Replace a file's content in one instant: readers and crashes see the old bytes or the new, never a part.

    Raises:
        OSError: if the disk is full or not writable; the old file is intact.
    """
    temporary = path.with_name(f"{HIDDEN}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
