"""Looking at data before training: bad files, sizes, modes, duplicates, class counts, advice. Torch-free."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .errors import listed, plural
from .folder import look_over
from .listing import list_pictures
from .pictures import BadPicture, decode_all
from .read import is_picture_folder, read
from .source import Options, Source
from .spec import advice

CHUNK = 1024


@dataclass(frozen=True)
class Scan:
    """What was found in a source of data.

    `bad`: files that cannot be read, with the reason. `sizes`, `modes`: how many samples have each.
    `duplicates`: groups of names with the same content. `classes`: samples of each class, empty without labels.
    """

    source: str
    kind: str
    count: int
    bad: tuple[tuple[str, str], ...]
    sizes: dict[str, int]
    modes: dict[str, int]
    duplicates: tuple[tuple[str, ...], ...]
    classes: dict[str, int]
    facts: tuple[str, ...]
    advice: tuple[str, ...]

    def lines(self) -> list[str]:
        """The findings for a person, one a line."""
        lines = [f"{self.source}: {self.count:,} good samples ({self.kind})"]
        lines += [f"{title}: {_counts(found)}" for title, found in self._tables() if found]
        if self.bad:
            lines.append(f"bad: {plural(len(self.bad), 'file')}")
            lines += [f"  {name}: {reason}" for name, reason in self.bad[:20]]
        if self.duplicates:
            extra = sum(len(group) - 1 for group in self.duplicates)
            lines.append(f"duplicates: {extra:,} more than needed in {plural(len(self.duplicates), 'group')}")
            lines += [f"  {listed(group)}" for group in self.duplicates[:10]]
        return [*lines, *self.facts, *(f"advice: {line}" for line in self.advice)]

    def _tables(self) -> Iterable[tuple[str, dict[str, int]]]:
        return ("sizes", self.sizes), ("modes", self.modes), ("classes", self.classes)


def scan(source: Any, options: Options | None = None) -> Scan:
    """Findings about a path, an embedded set or an array; unlike `open_data`, it does not stop at bad pictures.

    Raises DataError when there is nothing to look at.
    """
    if isinstance(source, str | Path) and is_picture_folder(source):
        return _scan_pictures(Path(source).expanduser())
    return _scan_source(read(source, options or Options()))


def _scan_pictures(root: Path) -> Scan:
    listing = list_pictures(root)
    survey = look_over(listing)
    prints: list[tuple[str, bytes]] = []
    good: list[int] = []
    bad = list(survey.bad)
    for i, picture in enumerate(decode_all(survey.listing.paths, None, "scanning pictures")):
        name = survey.listing.names[i]
        if isinstance(picture, BadPicture):
            bad.append((name, str(picture)))
            continue
        good.append(i)
        prints.append((name, _print(picture)))
    kept = survey.listing.only(good)
    looks = [survey.looks[i] for i in good]
    sizes = Counter(f"{seen.width} x {seen.height}" for seen in looks)
    classes = Counter(str(label) for label in kept.labels or ())
    facts = [*listing.facts]
    if listing.others:
        kinds = listed(f"{count} x {suffix}" for suffix, count in listing.others.most_common())
        facts.append(f"other files, not read: {kinds}")
    if kept.texts is not None:
        facts.append(f"{plural(len(kept.texts), 'caption')} from metadata.jsonl")
    duplicates = _duplicates(prints)
    return Scan(
        source=str(root),
        kind="images",
        count=len(good),
        bad=tuple(bad),
        sizes=dict(sizes.most_common()),
        modes=dict(Counter(seen.mode for seen in looks).most_common()),
        duplicates=duplicates,
        classes=dict(sorted(classes.items())),
        facts=tuple(facts),
        advice=tuple(_picture_advice(sizes, len(bad), len(looks)) + _advice(len(good), classes, duplicates)),
    )


def _scan_source(source: Source) -> Scan:
    spec = source.spec
    prints: list[tuple[str, bytes]] = []
    starts = range(0, len(source), CHUNK)
    for start in tqdm(starts, desc="scanning samples", delay=2, leave=False):
        indices = np.arange(start, min(start + CHUNK, len(source)))
        for index, value in zip(indices.tolist(), source.raw(indices), strict=True):
            prints.append((source.name(index), _print(value)))
    counts: dict[str, int] = {}
    if source.labels is not None and spec.classes is not None:
        found = np.bincount(source.labels, minlength=len(spec.classes)).tolist()
        counts = dict(zip(spec.classes, found, strict=True))
    duplicates = _duplicates(prints)
    described = [*spec.columns(), *spec.known(), *spec.facts]
    return Scan(
        source=spec.source,
        kind=spec.kind,
        count=len(source),
        bad=(),
        sizes={" x ".join(str(n) for n in spec.shape): len(source)},
        modes={},
        duplicates=duplicates,
        classes=counts,
        facts=tuple(described),
        advice=tuple(_advice(len(source), counts, duplicates)),
    )


def _print(value: Any) -> bytes:
    """Fingerprint of a sample's content: shape and values, not the bytes of its file."""
    array = np.ascontiguousarray(value)
    return hashlib.blake2b(array.tobytes(), digest_size=16, person=str(array.shape)[:16].encode()).digest()


def _duplicates(prints: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, ...], ...]:
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name, digest in prints:
        groups[digest].append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def _picture_advice(sizes: Counter[str], bad: int, good: int) -> list[str]:
    lines = []
    if good == 0:
        lines.append("none of the pictures can be read: replace them")
    if len(sizes) > 1:
        lines.append(
            "pictures have several sizes: pass --size N to bring all to N x N, or --sizes N to keep their shapes"
        )
    if bad and good:
        lines.append(f"{plural(bad, 'file')} cannot be read: remove or replace them")
    return lines


def _advice(count: int, classes: dict[str, int], duplicates: Sequence[tuple[str, ...]]) -> list[str]:
    lines = advice(count, len(classes) or None)
    if classes and max(classes.values()) > 10 * max(1, min(classes.values())):
        least = min(classes, key=lambda name: classes[name])
        lines.append(f"classes differ more than tenfold in size; the smallest is {least} with {classes[least]:,}")
    extra = sum(len(group) - 1 for group in duplicates)
    if count and extra > 0.01 * count:
        lines.append(f"{extra / count:.0%} of the samples are copies of others: the model will favour them")
    return lines


def _counts(found: dict[str, int]) -> str:
    return listed((f"{name} ({count:,})" for name, count in found.items()), 20)
