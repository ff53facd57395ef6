"""Which picture files a folder holds, in a stable order, with their classes or captions."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from .errors import DataError, closest, listed, plural
from .pictures import SUFFIXES
from .source import Labels, class_numbers

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Listing:
    """Pictures of a folder: `names` are sorted paths below `root`; `labels` class names or numbers, `texts` captions.

    `fields`: further values of each picture, by name. `others`: suffixes of the files that are no pictures, counted.
    `facts`: what a person should know.
    """

    root: Path
    names: tuple[str, ...]
    labels: tuple[str | int, ...] | None
    texts: tuple[str, ...] | None
    others: Counter[str]
    facts: tuple[str, ...]
    fields: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        return [self.root / name for name in self.names]

    def only(self, keep: Sequence[int]) -> Listing:
        """The listing of some of its pictures."""
        return Listing(
            self.root,
            tuple(self.names[i] for i in keep),
            None if self.labels is None else tuple(self.labels[i] for i in keep),
            None if self.texts is None else tuple(self.texts[i] for i in keep),
            self.others,
            self.facts,
            {name: tuple(values[i] for i in keep) for name, values in self.fields.items()},
        )

    def numbered(self) -> tuple[Labels | None, tuple[str, ...] | None]:
        """Class number of each picture and the names of the classes, sorted; None without labels."""
        if self.labels is None:
            return None, None
        return class_numbers(np.asarray(self.labels), len(self.names), str(self.root))


def list_pictures(root: Path, condition: Sequence[str] = ()) -> Listing:
    """All pictures below a folder, sorted by path, hidden files left out; links that lead outside are not followed.

    With `metadata.jsonl` (rows {"file_name": ..., "label": ..., "text": ...}) its pictures, labels and captions count;
    otherwise two or more subfolders, and no picture beside them, are the classes. `condition`: further fields of these
    rows to read. Raises DataError.
    """
    names, others, outside = _walk(root)
    facts = []
    if outside:
        facts.append(f"{plural(outside, 'link')} to places outside the folder not followed")
    if (root / METADATA).is_file():
        return _from_metadata(root, names, others, facts, condition)
    if condition:
        raise DataError(
            f"{root}: no {METADATA} there, whose rows would say {listed(condition)}: write one, or say less"
        )
    if not names:
        found = listed(f"{count} x {suffix}" for suffix, count in others.most_common())
        raise DataError(f"{root}: no pictures in this folder ({found or 'it is empty'}): give one with {_kinds()}")
    tops = [PurePosixPath(name).parts[0] if "/" in name else None for name in names]
    folders = {top for top in tops if top is not None}
    labels: tuple[str, ...] | None = None
    if None not in tops and len(folders) > 1:
        labels = tuple(top for top in tops if top is not None)
    elif folders:
        why = "pictures lie beside them" if None in tops else "there is only one"
        facts.append(f"{plural(len(folders), 'subfolder')} not read as classes: {why}")
    return Listing(root, names, labels, None, others, tuple(facts))


def _kinds() -> str:
    return ", ".join(SUFFIXES[:4]) + " files"


def _walk(root: Path) -> tuple[tuple[str, ...], Counter[str], int]:
    """Sorted picture names below `root`, other files by suffix, and the number of links leading outside."""
    names, others, outside = [], Counter[str](), 0
    inside = root.resolve()
    for folder, subfolders, files in os.walk(root, followlinks=False):
        outside += sum(Path(folder, sub).is_symlink() for sub in subfolders)
        subfolders[:] = sorted(sub for sub in subfolders if not sub.startswith((".", "__MACOSX")))
        for file in files:
            path = Path(folder, file)
            if file.startswith(".") or (folder == str(root) and file == METADATA):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                outside += 1
            elif path.suffix.lower() in SUFFIXES and path.is_file():  # opening a pipe would wait for ever
                names.append(path.relative_to(root).as_posix())
            else:
                others[path.suffix.lower() or "without suffix"] += 1
    return tuple(sorted(names)), others, outside


def _from_metadata(
    root: Path, names: tuple[str, ...], others: Counter[str], facts: list[str], condition: Sequence[str]
) -> Listing:
    where = f"{root / METADATA}"
    rows: dict[str, dict[str, Any]] = {}
    for number, row in _rows(root / METADATA):
        name = _safe_name(row, f"{where}, line {number}")
        if name in rows:
            raise DataError(f"{where}, line {number}: {name!r} stands there twice: keep one row a picture")
        rows[name] = row
    missing = sorted(set(rows) - set(names))
    if missing:
        raise DataError(
            f"{where}: {plural(len(missing), 'file')} named there cannot be used ({listed(missing)}): "
            "each must be a picture inside the folder"
        )
    if not rows:
        raise DataError(f'{where}: it names no pictures: write rows like {{"file_name": "a.png", "text": "a cat"}}')
    left_out = len(names) - len(rows)
    if left_out:
        facts.append(f"{plural(left_out, 'picture')} without a row in {METADATA} left out")
    kept = tuple(sorted(rows))
    labels = _field(rows, kept, "label", (str, int), where)
    texts = _field(rows, kept, "text", (str,), where)
    if labels is not None and len({type(label) for label in labels}) > 1:
        raise DataError(f"{where}: some labels are texts and some are numbers: use one kind")
    said = sorted({key for row in rows.values() for key in row} - {"file_name", "label", "text"})
    for name in condition:
        if name not in said:
            hint = closest(name, said) or "."
            raise DataError(f"{where}: no row has {name!r}{hint} They have: {listed(said) or 'no more'}")
    rest = [key for key in said if key not in condition]
    if rest:
        facts.append(f"{METADATA} also says {listed(rest)}: --condition NAME tells the model")
    fields = {name: tuple(rows[picture].get(name) for picture in kept) for name in condition}
    return Listing(root, kept, labels, texts, others, tuple(facts), fields)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not a JSON object: write one object a line") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object: write one object a line")
        yield number, row


def _safe_name(row: dict[str, Any], where: str) -> str:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f'{where}: has no "file_name": name the picture, relative to the folder')
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or name.startswith("/") or ".." in windows.parts:
        raise DataError(f"{where}: {name!r} leads outside the folder: use a path below it")
    return PurePosixPath(name).as_posix()


def _field(
    rows: dict[str, dict[str, Any]], names: Sequence[str], key: str, types: tuple[type, ...], where: str
) -> tuple[Any, ...] | None:
    """Values of one field for all pictures; None when no row has it, DataError when only some have."""
    values = [rows[name].get(key) for name in names]
    if all(value is None for value in values):
        return None
    wrong = [
        name
        for name, value in zip(names, values, strict=True)
        if not isinstance(value, types) or isinstance(value, bool)
    ]
    if wrong:
        kinds = " or ".join({str: "a text", int: "a whole number"}[kind] for kind in types)
        raise DataError(f"{where}: {plural(len(wrong), 'row')} without {kinds} as {key!r} ({listed(wrong)}): add it")
    return tuple(values)
