"""A folder of pictures as data: sizes and colours found, bad files skipped up to a share, decoded once or on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .attributes import fit_all
from .captions import fit_captions
from .encoding import Array, Pixels
from .errors import DataError, listed, plural
from .listing import Listing, list_pictures
from .pictures import BadPicture, Look, Pixels8, as_channels, decode_all, in_threads, look_all, pixels
from .source import Labels, Options, Source, Stored
from .spec import Spec

IN_MEMORY = 2 << 30  # bytes of decoded pictures kept; larger sets are decoded again for every batch


@dataclass(frozen=True)
class Survey:
    """Pictures that could be opened, what they are, and the bad ones as (name, reason)."""

    listing: Listing
    looks: tuple[Look, ...]
    bad: tuple[tuple[str, str], ...]


class OnDemand(Source):
    """Pictures decoded when asked for, by threads: for folders larger than the memory."""

    def __init__(
        self,
        spec: Spec,
        listing: Listing,
        size: int | None,
        labels: Labels | None,
        attributes: NDArray[np.float64] | None,
    ) -> None:
        self.spec = spec
        self.listing = listing
        self.size = size
        self.labels = labels
        self.texts = listing.texts
        self.attributes = attributes

    def raw(self, indices: NDArray[np.int64]) -> Array:
        chosen = [self.listing.names[i] for i in indices]
        return np.stack(list(in_threads(self._picture, chosen)))

    def name(self, index: int) -> str:
        return self.listing.names[index]

    def _picture(self, name: str) -> Pixels8:
        try:
            picture = as_channels(pixels(self.listing.root / name, self.size), self.spec.shape[0])
        except BadPicture as error:
            raise DataError(f"{self.listing.root / name}: {error}; it was readable when the data was opened") from error
        if picture.shape[:2] != self.spec.shape[1:]:
            raise DataError(f"{self.listing.root / name}: its size changed since the data was opened: start again")
        return picture


def read_folder(root: Path, options: Options) -> Source:
    """Pictures of a folder, all of one size (or brought to `options.size`), grey only when all are grey.

    Unreadable files are skipped up to `options.max_bad` of all files (one always may, unless the share is 0) and named
    in the facts. Raises DataError beyond that, and for mixed sizes without `size`.
    """
    options.only("a folder of pictures", "size", "condition")
    survey = look_over(list_pictures(root, options.condition))
    _check_bad(survey.bad, len(survey.listing.names) + len(survey.bad), options.max_bad, root)
    height, width = _common_size(survey, options.size, root)
    channels = 1 if all(seen.grey for seen in survey.looks) else 3
    fits = len(survey.looks) * height * width * channels <= IN_MEMORY
    store = np.empty((len(survey.looks), height, width, channels), np.uint8) if fits else None
    good, bad = _decode(survey, options.size, (height, width), store)
    _check_bad(bad, len(survey.listing.names) + len(survey.bad), options.max_bad, root)
    listing = survey.listing.only(good)
    labels, classes = listing.numbered()
    attributes, raw = fit_all(listing.fields, str(root))
    looks = tuple(survey.looks[i] for i in good)
    spec = Spec(
        kind="images",
        shape=(channels, height, width),
        classes=classes,
        attributes=attributes,
        captions=None if listing.texts is None else fit_captions(listing.texts),
        source=str(root),
        count=len(good),
        encoding=Pixels(),
        facts=(*listing.facts, *_facts(looks, bad, options.size, listing, fits)),
    )
    if store is None:
        return OnDemand(spec, listing, options.size, labels, raw)
    return Stored(spec, store[: len(good)], labels, listing.names, listing.texts, raw)


def look_over(listing: Listing) -> Survey:
    """Headers of all pictures of a listing."""
    found = list(look_all(listing.paths, "looking at pictures"))
    good = [i for i, seen in enumerate(found) if isinstance(seen, Look)]
    bad = [(listing.names[i], str(seen)) for i, seen in enumerate(found) if isinstance(seen, BadPicture)]
    return Survey(listing.only(good), tuple(seen for seen in found if isinstance(seen, Look)), tuple(bad))


def _decode(
    survey: Survey, size: int | None, shape: tuple[int, int], store: Pixels8 | None
) -> tuple[list[int], tuple[tuple[str, str], ...]]:
    """Numbers of the pictures that decode, written into `store` one after the other, and all bad files so far."""
    good: list[int] = []
    bad = list(survey.bad)
    for i, picture in enumerate(decode_all(survey.listing.paths, size, "decoding pictures")):
        if isinstance(picture, BadPicture):
            bad.append((survey.listing.names[i], str(picture)))
            continue
        if picture.shape[:2] != shape:  # the file changed meanwhile: store has no place for it
            reason = f"decodes to {picture.shape[1]} x {picture.shape[0]}, unlike its header a moment ago"
            bad.append((survey.listing.names[i], reason))
            continue
        if store is not None:
            store[len(good)] = as_channels(picture, store.shape[-1])
        good.append(i)
    return good, tuple(bad)


def _check_bad(bad: Sequence[tuple[str, str]], total: int, share: float, root: Path) -> None:
    allowed = max(1, int(total * share)) if share > 0 else 0
    if len(bad) > allowed or len(bad) == total:
        shown = listed((f"{name}: {reason}" for name, reason in bad), 10)
        raise DataError(
            f"{root}: {len(bad):,} of {plural(total, 'picture')} cannot be read, and {allowed} may be ({shown}): "
            "remove or replace them, or raise max_bad"
        )


def _common_size(survey: Survey, size: int | None, root: Path) -> tuple[int, int]:
    if size is not None:
        return size, size
    sizes = Counter((seen.height, seen.width) for seen in survey.looks)
    if len(sizes) > 1:
        shown = listed(f"{count:,} of {width} x {height}" for (height, width), count in sizes.most_common())
        smallest = min(min(side) for side in sizes)
        raise DataError(
            f"{root}: pictures of {len(sizes)} sizes ({shown}): pass --size N to bring all to N x N "
            f"(the smallest side is {smallest})"
        )
    return next(iter(sizes))


def _facts(
    looks: Sequence[Look], bad: Sequence[tuple[str, str]], size: int | None, listing: Listing, fits: bool
) -> list[str]:
    facts = []
    greys = sum(seen.grey for seen in looks)
    if 0 < greys < len(looks):
        facts.append(f"{greys:,} of {plural(len(looks), 'picture')} are grey; all read as RGB")
    resized = sum((seen.height, seen.width) != (size, size) for seen in looks) if size else 0
    if resized:
        facts.append(f"{plural(resized, 'picture')} resized to {size} x {size} (shorter side, middle cut out)")
    if alpha := sum(seen.alpha for seen in looks):
        facts.append(f"{plural(alpha, 'picture')} with transparency composed on white")
    if deep := sum(seen.deep for seen in looks):
        facts.append(f"{plural(deep, 'picture')} of 16 bits scaled to 8")
    if turned := sum(seen.turned for seen in looks):
        facts.append(f"{plural(turned, 'picture')} turned upright as EXIF says")
    if listing.texts is not None:
        facts.append(f"{plural(len(looks), 'caption')} from metadata.jsonl")
    if bad:
        shown = listed(f"{name}: {reason}" for name, reason in bad)
        facts.append(f"{plural(len(bad), 'bad file')} skipped ({shown})")
    if not fits:
        facts.append("too large for the memory: pictures are decoded again for every batch")
    return facts
