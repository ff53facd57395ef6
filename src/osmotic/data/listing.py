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

from .controls import MADE
from .errors import DataError, closest, listed, plural
from .pictures import SUFFIXES
from .source import Labels, class_numbers

METADATA = "metadata.jsonl"
TOLD = {
    "file_name": "names a picture, and says nothing of it that a model could be told",
    "label": "is the class, which the model is told without being asked",
    "text": "is the caption, which the model is told without being asked",
}
"""Fields that are no conditions, and why."""


@dataclass(frozen=True)
class Listing:
    """Pictures of a folder: `names` are sorted paths below `root`; `labels` class names or numbers, `texts` captions.

    `fields`: further values of each picture, by name. `beside`: names of the images beside the pictures, one each and
    not sorted, or None. `others`: suffixes of the files that are no pictures, counted.
    `facts`: what a person should know.
    """

    root: Path
    names: tuple[str, ...]
    labels: tuple[str | int, ...] | None
    texts: tuple[str, ...] | None
    others: Counter[str]
    facts: tuple[str, ...]
    fields: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    beside: tuple[str, ...] | None = None

    @property
    def paths(self) -> list[Path]:
        return [self.root / name for name in self.names]

    def images(self) -> Listing | None:
        """The images beside the pictures as a listing of their own; None where there are none."""
        if self.beside is None:
            return None
        return Listing(self.root, self.beside, None, None, Counter(), ())

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
            None if self.beside is None else tuple(self.beside[i] for i in keep),
        )

    def numbered(self) -> tuple[Labels | None, tuple[str, ...] | None]:
        """Class number of each picture and the names of the classes, sorted; None without labels."""
        if self.labels is None:
            return None, None
        return class_numbers(np.asarray(self.labels), len(self.names), str(self.root))


def list_pictures(root: Path, condition: Sequence[str] = (), control: str | None = None) -> Listing:
    """All pictures below a folder, sorted by path, hidden files left out; links that lead outside are not followed.

    With `metadata.jsonl` (rows {"file_name": ..., "label": ..., "text": ...}) its pictures, labels and captions count;
    otherwise two or more subfolders, and no picture beside them, are the classes. `condition`: further fields of these
    rows to read; `control`: the field that names an image beside each picture. Raises DataError.
    """
    names, others, outside = _walk(root)
    facts = []
    if outside:
        facts.append(f"{plural(outside, 'link')} to places outside the folder not followed")
    if (root / METADATA).is_file():
        return _from_metadata(root, names, others, facts, condition, control)
    if condition or control is not None:
        asked = [*condition, *([] if control is None else [control])]
        hint = "" if control is None else closest(control, MADE)
        raise DataError(
            f"{root}: no {METADATA} there, whose rows would say {listed(asked)}{hint or ': write one, or say less'}"
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
    root: Path,
    names: tuple[str, ...],
    others: Counter[str],
    facts: list[str],
    condition: Sequence[str],
    control: str | None,
) -> Listing:
    where = f"{root / METADATA}"
    rows: dict[str, dict[str, Any]] = {}
    for number, row in _rows(root / METADATA):
        name = _safe_name(row.get("file_name"), "file_name", f"{where}, line {number}")
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
    kept = tuple(sorted(rows))
    labels = _field(rows, kept, "label", (str, int), where)
    texts = _field(rows, kept, "text", (str,), where)
    if labels is not None and len({type(label) for label in labels}) > 1:
        raise DataError(f"{where}: some labels are texts and some are numbers: use one kind")
    said = sorted({key for row in rows.values() for key in row} - {"file_name", "label", "text"})
    for name in condition:
        if name in TOLD:
            raise DataError(f"{where}: {name!r} {TOLD[name]}: leave it out")
    _refuse_unsaid(condition, said, said, where)
    beside, pictures = None, set(names)
    if control is not None:
        _refuse_unsaid([control], said, [*said, *MADE], where)
        beside = _beside(rows, kept, control, pictures, where)
    images = {key: found for key in said if (found := _named(rows, key, pictures))}
    left_out = pictures.difference(rows, *images.values())
    if left_out:
        facts.append(f"{plural(len(left_out), 'picture')} without a row in {METADATA} left out")
    for flag, rest in (
        ("condition", [key for key in said if key not in (*condition, *images)]),
        ("control", [key for key in images if key not in (*condition, control)]),
    ):
        if rest:
            facts.append(f"{METADATA} also says {listed(rest)}: --{flag} NAME tells the model")
    fields = {name: tuple(rows[picture].get(name) for picture in kept) for name in condition}
    return Listing(root, kept, labels, texts, others, tuple(facts), fields, beside)


def _refuse_unsaid(wanted: Sequence[str], said: Sequence[str], known: Sequence[str], where: str) -> None:
    """Refuse fields that no row has, with the nearest of what is known."""
    for name in wanted:
        if name not in said:
            hint = closest(name, known) or "."
            raise DataError(f"{where}: no row has {name!r}{hint} They have: {listed(said) or 'no more'}")


def _named(rows: dict[str, dict[str, Any]], key: str, pictures: set[str]) -> set[str]:
    """The pictures of the folder that a field names, if it names one in every row."""
    values = [row.get(key) for row in rows.values()]
    found = {PurePosixPath(value).as_posix() for value in values if isinstance(value, str)}
    return found if all(isinstance(value, str) for value in values) and found <= pictures else set()


def _beside(
    rows: dict[str, dict[str, Any]], kept: tuple[str, ...], key: str, pictures: set[str], where: str
) -> tuple[str, ...]:
    """The image beside each picture, by the field that names it; raises DataError where it is no picture within."""
    values = _field(rows, kept, key, (str,), where)
    if values is None:
        raise DataError(f"{where}: no row names an image as {key!r}: name one in each, relative to the folder")
    found = tuple(
        _safe_name(value, key, f"{where}, the row of {name!r}") for name, value in zip(kept, values, strict=True)
    )
    missing = sorted(set(found) - pictures)
    if missing:
        raise DataError(
            f"{where}: {plural(len(missing), 'file')} named there as {key!r} cannot be used ({listed(missing)}): "
            "each must be a picture inside the folder"
        )
    return found


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


def _safe_name(name: Any, key: str, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise DataError(f'{where}: has no "{key}": name the picture, relative to the folder')
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
