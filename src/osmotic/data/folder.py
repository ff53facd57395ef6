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
from .controls import Beside
from .encoding import Array, Pixels
from .errors import DataError, listed, plural
from .listing import Listing, list_pictures
from .pictures import BadPicture, Look, Pixels8, as_channels, decode_all, in_threads, look_all, pixels
from .sizes import Size, bucketed, spoken
from .source import Labels, Options, Sized, Source, Stored, one_size
from .spec import Spec

IN_MEMORY = 2 << 30  # bytes of decoded pictures kept; larger sets are decoded again for every batch


@dataclass(frozen=True)
class Survey:
    """Pictures that could be opened, what they and the images beside them are, and the bad ones as (name, reason)."""

    listing: Listing
    looks: tuple[Look, ...]
    bad: tuple[tuple[str, str], ...]
    beside: tuple[Look, ...] | None = None


@dataclass(frozen=True)
class Fitted:
    """The size of each picture: the sizes, the number of its size for each, and whether pictures are scaled to them."""

    sizes: tuple[Size, ...]
    buckets: NDArray[np.int64]
    scaled: bool

    def only(self, keep: Sequence[int]) -> Fitted:
        """That of some of its pictures."""
        return Fitted(self.sizes, self.buckets[np.asarray(keep, np.int64)], self.scaled)

    def each(self) -> list[Size]:
        """The size of each picture."""
        return [self.sizes[b] for b in self.buckets]

    def stores(self, depth: int) -> list[Pixels8]:
        """Room for all pictures of each size."""
        counts = np.bincount(self.buckets, minlength=len(self.sizes))
        return [np.empty((n, *size, depth), np.uint8) for n, size in zip(counts, self.sizes, strict=True)]

    def entries(self) -> int:
        """Pixels of all pictures."""
        return sum(height * width for height, width in self.each())


class OnDemand(Source):
    """Pictures decoded when asked for, by threads: for folders larger than the memory."""

    def __init__(
        self,
        spec: Spec,
        listing: Listing,
        fitted: Fitted,
        labels: Labels | None = None,
        attributes: NDArray[np.float64] | None = None,
    ) -> None:
        self.spec = spec
        self.listing = listing
        self.fitted = fitted
        self.labels = labels
        self.texts = listing.texts
        self.attributes = attributes
        self.buckets = fitted.buckets if len(fitted.sizes) > 1 else None

    def raw(self, indices: NDArray[np.int64]) -> Array:
        if self.buckets is not None:
            one_size(self.spec, self.buckets[indices])
        return np.stack(list(in_threads(self._picture, indices.tolist())))

    def name(self, index: int) -> str:
        return self.listing.names[index]

    def _picture(self, index: int) -> Pixels8:
        name, size = self.listing.names[index], self.fitted.sizes[self.fitted.buckets[index]]
        try:
            picture = pixels(self.listing.root / name, size if self.fitted.scaled else None)
            picture = as_channels(picture, self.spec.shape[0])
        except BadPicture as error:
            raise DataError(f"{self.listing.root / name}: {error}; it was readable when the data was opened") from error
        if picture.shape[:2] != size:
            raise DataError(f"{self.listing.root / name}: its size changed since the data was opened: start again")
        return picture


def read_folder(root: Path, options: Options) -> Source:
    """Pictures of a folder, all of one size (or brought to `options.size`, or each to the nearest of `options.sizes`),
    grey only when all are grey.

    `options.control` names an image beside each, which is read alike: scaled and cut as its picture, and grey only when
    all of them are, whatever the pictures. Unreadable files are skipped, with what belongs to them, up to
    `options.max_bad` of all files (one always may, unless the share is 0) and named in the facts. Raises DataError
    beyond that, for mixed sizes without `size`, and for an image of another shape than its picture.
    """
    options.only("a folder of pictures", "size", "sizes", "condition", "control")
    survey = look_over(list_pictures(root, options.condition, options.control))
    _check_bad(survey.bad, len(survey.listing.names) + len(survey.bad), options.max_bad, root)
    fitted = _fit(survey, options, root)
    _check_pairs(survey, root)
    kinds = [survey.looks] if survey.beside is None else [survey.looks, survey.beside]
    depths = [1 if all(seen.grey for seen in looks) else 3 for looks in kinds]
    fits = fitted.entries() * sum(depths) <= IN_MEMORY
    stores = [fitted.stores(depth) for depth in depths] if fits else []
    good, bad = _decode(survey, fitted, stores)
    _check_bad(bad, len(survey.listing.names) + len(survey.bad), options.max_bad, root)
    listing = survey.listing.only(good)
    labels, classes = listing.numbered()
    attributes, raw = fit_all(listing.fields, str(root))
    looks, fitted = tuple(survey.looks[i] for i in good), fitted.only(good)
    control = None if options.control is None else Beside(name=options.control, channels=3 if depths[-1] == 3 else 1)
    spec = Spec(
        kind="images",
        shape=(depths[0], *fitted.sizes[0]),
        sizes=fitted.sizes if len(fitted.sizes) > 1 else (),
        classes=classes,
        attributes=attributes,
        captions=None if listing.texts is None else fit_captions(listing.texts),
        control=control,
        source=str(root),
        count=len(good),
        encoding=Pixels(),
        facts=(*listing.facts, *_facts(looks, bad, fitted, listing, fits)),
    )
    source = _source(spec, listing, fitted, stores[0] if fits else None, labels, raw)
    images = listing.images()
    if images is not None:
        own = spec.model_copy(update={"shape": (depths[1], *spec.shape[1:]), "classes": None, "control": None})
        source.beside = _source(own, images, fitted, stores[1] if fits else None)
    return source


def _source(
    spec: Spec,
    listing: Listing,
    fitted: Fitted,
    stores: Sequence[Pixels8] | None,
    labels: Labels | None = None,
    attributes: NDArray[np.float64] | None = None,
) -> Source:
    """Pictures in memory, or decoded on demand where there is no store of them."""
    if stores is None:
        return OnDemand(spec, listing, fitted, labels, attributes)
    if len(stores) > 1:
        return Sized(spec, stores, fitted.buckets, labels, listing.names, listing.texts, attributes)
    return Stored(spec, stores[0][: len(listing.names)], labels, listing.names, listing.texts, attributes)


def look_over(listing: Listing) -> Survey:
    """Headers of all pictures of a listing and of the images beside them; a picture whose image is bad is bad, too."""
    listings = _with_images(listing)
    rows = list(zip(*(look_all(each.paths, "looking at pictures") for each in listings), strict=True))
    wrong = [_wrong(listings, i, row) for i, row in enumerate(rows)]
    good = [i for i, found in enumerate(wrong) if found is None]
    looks = [tuple(seen for i in good if isinstance(seen := rows[i][k], Look)) for k in range(len(listings))]
    bad = tuple(found for found in wrong if found is not None)
    return Survey(listing.only(good), looks[0], bad, None if len(looks) == 1 else looks[1])


def _with_images(listing: Listing) -> list[Listing]:
    """The listing of pictures, and that of the images beside them where there are any."""
    images = listing.images()
    return [listing] if images is None else [listing, images]


def _wrong(
    listings: Sequence[Listing],
    i: int,
    row: Sequence[Look | Pixels8 | BadPicture],
    shape: tuple[int, int] | None = None,
) -> tuple[str, str] | None:
    """The first bad file among a picture and the image beside it, and the reason; None where both are good."""
    for listing, found in zip(listings, row, strict=True):
        if isinstance(found, BadPicture):
            return listing.names[i], str(found)
        if isinstance(found, np.ndarray) and found.shape[:2] != shape:
            # The file changed meanwhile: there is no place for it.
            return listing.names[i], f"decodes to {found.shape[1]} x {found.shape[0]}, unlike its header a moment ago"
    return None


def _decode(
    survey: Survey, fitted: Fitted, stores: Sequence[Sequence[Pixels8]]
) -> tuple[list[int], tuple[tuple[str, str], ...]]:
    """Numbers of the pictures that decode, written into the stores one after the other, and all bad files so far."""
    good: list[int] = []
    bad = list(survey.bad)
    listings, sizes = _with_images(survey.listing), fitted.each()
    places = [0] * len(fitted.sizes)
    scaled = sizes if fitted.scaled else None
    rows = zip(*(decode_all(each.paths, scaled, "decoding pictures") for each in listings), strict=True)
    for i, row in enumerate(rows):
        wrong = _wrong(listings, i, row, sizes[i])
        if wrong is not None:
            bad.append(wrong)
            continue
        bucket = int(fitted.buckets[i])
        for store, picture in zip(stores, row, strict=False):  # no stores where memory is too small for them
            assert not isinstance(picture, BadPicture)
            store[bucket][places[bucket]] = as_channels(picture, store[bucket].shape[-1])
        places[bucket] += 1
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


def _fit(survey: Survey, options: Options, root: Path) -> Fitted:
    """What every picture is brought to."""
    none = np.zeros(len(survey.looks), np.int64)
    if options.size is not None:
        return Fitted(((options.size, options.size),), none, scaled=True)
    if options.sizes:
        found = bucketed(options.sizes, [(seen.height, seen.width) for seen in survey.looks])
        return Fitted(found.sizes, found.buckets, scaled=True)
    return Fitted((_common_size(survey, root),), none, scaled=False)


def _common_size(survey: Survey, root: Path) -> Size:
    sizes = Counter((seen.height, seen.width) for seen in (*survey.looks, *(survey.beside or ())))
    if len(sizes) > 1:
        shown = listed(f"{count:,} of {width} x {height}" for (height, width), count in sizes.most_common())
        smallest = min(min(side) for side in sizes)
        raise DataError(
            f"{root}: pictures of {len(sizes)} sizes ({shown}): pass --size N to bring all to N x N "
            f"(the smallest side is {smallest}), or --sizes N to train on shapes of about N x N pixels, as they are"
        )
    return next(iter(sizes))


def _check_pairs(survey: Survey, root: Path) -> None:
    """Refuse images of another shape than their pictures: scaled and cut alike, they would show other parts."""
    pairs = zip(survey.listing.names, survey.looks, survey.beside or (), strict=survey.beside is not None)
    odd = [
        f"{name}: {one.width} x {one.height} beside {other.width} x {other.height}"
        for name, one, other in pairs
        if not _same_shape(one, other)
    ]
    if odd:
        raise DataError(
            f"{root}: {plural(len(odd), 'picture')} and the image beside them differ in shape ({listed(odd)}): "
            "cut both to one, so that their points lie over each other"
        )


def _same_shape(one: Look, other: Look) -> bool:
    """Whether sides have one ratio, to less than a pixel of the smaller of both."""
    large, small = (one, other) if one.height >= other.height else (other, one)
    return abs(small.width * large.height - large.width * small.height) < large.height


def _facts(
    looks: Sequence[Look], bad: Sequence[tuple[str, str]], fitted: Fitted, listing: Listing, fits: bool
) -> list[str]:
    facts = []
    greys = sum(seen.grey for seen in looks)
    if 0 < greys < len(looks):
        facts.append(f"{greys:,} of {plural(len(looks), 'picture')} are grey; all read as RGB")
    facts += _resized(looks, fitted)
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


def _resized(looks: Sequence[Look], fitted: Fitted) -> list[str]:
    """How many pictures have which size, and how many were scaled to it."""
    resized = sum((seen.height, seen.width) != size for seen, size in zip(looks, fitted.each(), strict=True))
    if len(fitted.sizes) == 1:
        to = f"{spoken(fitted.sizes[0])} (shorter side, middle cut out)"
        return [f"{plural(resized, 'picture')} resized to {to}"] if resized else []
    counts = np.bincount(fitted.buckets, minlength=len(fitted.sizes))
    shares = listed((f"{n:,} of {spoken(size)}" for n, size in zip(counts, fitted.sizes, strict=True)), 12)
    scaled = f"; {plural(resized, 'picture')} resized, middle cut out" if resized else ""
    facts = [f"{len(fitted.sizes)} sizes, width x height: {shares}{scaled}"]
    areas = [height * width for height, width in fitted.sizes]
    if max(areas) > 2 * min(areas):
        facts.append(
            "sizes differ in area more than twofold, but all are trained at the same noise levels: the larger "
            "ones would need stronger noise"
        )
    return facts
