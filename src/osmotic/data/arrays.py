"""Arrays as data: what their axes mean, their range, their statistics; `.npy` and `.npz` files, without pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .attributes import fit_all
from .captions import fit_captions, parsed
from .controls import MADE, Beside
from .encoding import Array, Pixels, Standard, along_channels
from .errors import DataError, closest, listed
from .source import Options, Stored, class_numbers
from .spec import Kind, Spec

VALUE_KEYS = ("x", "images", "arr_0", "data")
LABEL_KEYS = ("y", "labels", "label", "arr_1")
LARGEST = 1e100  # squares of larger values overflow
CHUNK = 1 << 24  # values looked at in one go: statistics of a mapped file never need the whole file in memory


class Layout(NamedTuple):
    """A view of the array as its kind wants it: images (N, H, W, C), vectors (N, D), others (N, C, *S)."""

    kind: Kind
    values: Array
    fact: str | None = None


class Extent(NamedTuple):
    """Smallest and largest value."""

    low: float
    high: float


def from_array(
    array: Array,
    options: Options,
    source: str,
    labels: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    known: Mapping[str, Any] | None = None,
) -> Stored:
    """Samples from an array with the batch on axis 0, and labels if given; raises DataError naming what is wrong.

    `known`: further values of each sample by name; "text" are its captions, what `options.control` names the image
    beside it, anything else an attribute.
    """
    options.only("an array", "kind", "value_range", "condition", "control")
    array = np.asanyarray(array)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{source}: values of type {array.dtype} are not numbers: convert the array first")
    if array.ndim == 0 or 0 in array.shape:
        raise DataError(f"{source}: an array of shape {array.shape} holds no samples: give (samples, ...)")
    extent = _extent(array, source)
    layout = _layout(array, extent, options, source)
    numbers, names = (None, None) if labels is None else class_numbers(labels, len(array), source, classes)
    known = dict(known or {})
    _refuse_unknown(options, known, source)
    image = None if options.control is None else np.asanyarray(known.pop(options.control))
    rest = {name: _each(name, values, len(array), source) for name, values in known.items()}
    texts = None if "text" not in rest else [parsed(text) for text in rest.pop("text")]
    attributes, raw = fit_all(rest, source)
    facts = [layout.fact] if layout.fact else []
    if layout.kind == "images":
        pixels = _pixels(layout.values, extent, options, source)
        facts.append(f"values {extent.low:g} to {extent.high:g}, read as [{pixels.low:g}, {pixels.high:g}]")
        encoding: Pixels | Standard = pixels
        shape = (layout.values.shape[3], *layout.values.shape[1:3])
    else:
        entry = "column" if layout.kind == "vectors" else "channel"
        facts.append(f"values {extent.low:g} to {extent.high:g}, each {entry} standardised")
        encoding = _standard(layout.values)
        shape = layout.values.shape[1:]
    spec = Spec(
        kind=layout.kind,
        shape=shape,
        classes=names,
        attributes=attributes,
        captions=None if texts is None else fit_captions(texts),
        source=source,
        count=len(array),
        encoding=encoding,
        facts=tuple(facts),
    )
    found = Stored(spec, layout.values, numbers, None, texts, raw)
    return found if image is None else _paired(found, array, image, options)


def _refuse_unknown(options: Options, known: Mapping[str, Any], source: str) -> None:
    """Refuse names that nothing is known by."""
    unknown = [name for name in options.condition if name not in known]
    if unknown:
        raise DataError(f"{source}: nothing called {listed(unknown)} is known of these samples: leave it out")
    if options.control is not None and options.control not in known:
        hint = closest(options.control, [*known, *MADE]) or ":"
        raise DataError(
            f"{source}: no image called {options.control!r} stands beside each sample{hint} give an array of that "
            f"name, or one of {', '.join(MADE)}"
        )


def _paired(pictures: Stored, array: Array, image: Array, options: Options) -> Stored:
    """Pictures with the image beside each, in their own range: its units have to be theirs."""
    spec, name = pictures.spec, options.control or ""
    source = f"{spec.source}, {name!r}"
    if not isinstance(spec.encoding, Pixels):
        raise DataError(f"{source}: an image stands beside a picture, and these are {spec.kind}: say kind 'images'")
    if image.dtype.kind not in "biuf" or (image.dtype.kind == "f") != (array.dtype.kind == "f"):
        raise DataError(f"{source}: holds {image.dtype}, and the pictures {array.dtype}: give both in the same units")
    if len(image) != len(array) or 0 in image.shape:
        raise DataError(f"{source}: an array of shape {image.shape} is no image for each of {len(array):,} samples")
    span = (spec.encoding.low, spec.encoding.high)
    if image.dtype.kind == "b":  # a mask: as its picture would show it
        image = np.where(image, *reversed(span)).astype(array.dtype)
    extent = _extent(image, source)
    _pixels(image, extent, replace(options, value_range=span), source)
    layout = _stated_layout(image, "images", source)
    height, width, channels = layout.values.shape[1:]
    if (height, width) != spec.shape[1:]:
        raise DataError(
            f"{source}: images of {width} x {height} beside pictures of {spec.shape[2]} x {spec.shape[1]}: make them "
            "alike"
        )
    if image.dtype.kind in "iu" and extent[1] <= 1 < span[1]:
        raise DataError(
            f"{source}: holds nothing above 1 beside pictures of {span[0]:g} to {span[1]:g}, and would be seen as "
            "black: give a mask as true and false, or as large as the pictures"
        )
    own = spec.model_copy(update={"shape": (channels, height, width)})
    control = Beside(name=name, channels=3 if channels == 3 else 1)
    pictures.spec = spec.model_copy(update={"control": control})
    pictures.beside = Stored(own, layout.values)
    return pictures


def _each(name: str, values: Any, count: int, source: str) -> list[Any]:
    """One value a sample, as Python's own types."""
    found = np.asarray(values)
    if found.shape != (count,):
        raise DataError(
            f"{source}: {name!r} has shape {found.shape}, but there are {count:,} samples: give one value each"
            f"{f', or name it with control={name!r} if it is an image' if found.ndim > 2 else ''}"
        )
    return list(values) if found.dtype.kind == "O" else found.tolist()


def read_npy(path: Path, options: Options) -> Stored:
    """Samples of a `.npy` file, mapped rather than read, so that it may be larger than the memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python: a broken one raises SyntaxError, TokenError, ...
        raise DataError(f"{path}: not a readable .npy file of numbers ({_reason(error)}): save it again") from error
    return from_array(array, options, str(path))


def read_npz(path: Path, options: Options) -> Stored:
    """Samples of a `.npz` file: values under x, images, arr_0 or data; labels, if any, under y, labels, label
    or arr_1; captions under text; and what `options.condition` and `options.control` name. All else is named in a fact.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive.files)
            values_key = next((key for key in VALUE_KEYS if key in keys), None)
            if values_key is None:
                raise DataError(
                    f"{path}: holds {listed(keys) or 'nothing'}{closest(keys[0], VALUE_KEYS) if keys else ''}; "
                    f"store the samples under one of {', '.join(VALUE_KEYS)}"
                )
            told = {*options.condition, options.control}
            label_key = next((key for key in LABEL_KEYS if key in keys and key not in told), None)
            array = archive[values_key]
            labels = None if label_key is None else archive[label_key]
            for name in (*options.condition, *([] if options.control is None else [options.control])):
                if name not in keys:
                    raise DataError(f"{path}: holds no {name!r}{closest(name, keys) or '.'} It has: {listed(keys)}")
            known = {name: archive[name] for name in keys if name in {*told, "text"}}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each have their own errors for a broken archive
        raise DataError(f"{path}: not a readable .npz file of numbers ({_reason(error)}): save it again") from error
    found = from_array(array, options, str(path), labels, known=known)
    rest = [name for name in keys if name not in {values_key, label_key, *known}]
    if rest:
        fact = f"also holds {listed(rest)}, not read: labels are called {', '.join(LABEL_KEYS)}, captions text"
        found.spec = found.spec.model_copy(update={"facts": (*found.spec.facts, fact)})
    return found


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    objects = "pickle" in text.lower() or "Python objects" in text
    return "it holds Python objects, which could run code" if objects else text[:120]


def _chunks(array: Array) -> Iterator[tuple[int, Array]]:
    rows = max(1, CHUNK // max(1, array[0].size))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _extent(array: Array, source: str) -> Extent:
    """Range of the values; raises DataError that names the rows with NaN or infinite values."""
    low, high = np.inf, -np.inf
    bad: list[int] = []
    for start, chunk in _chunks(array):
        finite = np.isfinite(chunk).reshape(len(chunk), -1).all(1)
        bad += (start + np.flatnonzero(~finite)).tolist()
        if not bad:
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    if bad:
        raise DataError(
            f"{source}: {len(bad):,} of {len(array):,} samples hold NaN or infinite values "
            f"(row {listed(bad)}): remove or repair them"
        )
    if max(abs(low), abs(high)) > LARGEST:
        raise DataError(f"{source}: values from {low:g} to {high:g} are too large to compute with: rescale them")
    return Extent(low, high)


def _layout(array: Array, extent: Extent, options: Options, source: str) -> Layout:
    """What the axes mean. Stated kinds are obeyed; otherwise 8-bit and picture-shaped arrays are images."""
    if options.kind is not None:
        return _stated_layout(array, options.kind, source)
    if array.ndim <= 2:
        return _stated_layout(array, "vectors", source)
    if array.ndim == 3 and array.dtype == np.uint8:
        return _stated_layout(array, "images", source)
    if array.ndim == 3:
        channels, length = array.shape[1:]
        fact = f"read as sequences of {channels} channels and length {length}; kind 'images' reads grey pictures"
        if channels > length:
            fact += "; if time comes first, swap the last two axes"
        return Layout("sequences", array, fact)
    if array.ndim == 4 and _channel_axis(array) and _known_range(extent, array, options):
        return _stated_layout(array, "images", source)
    if array.dtype == np.uint8 and array.ndim == 4:
        raise DataError(
            f"{source}: shape {array.shape} has neither 1 nor 3 channels: drop or compose the others, "
            "or say kind 'array' for (samples, channels, ...) that are no pictures"
        )
    return _stated_layout(array, "array", source)


def _stated_layout(array: Array, kind: Kind, source: str) -> Layout:
    if kind == "vectors" and array.ndim <= 2:
        return Layout(kind, array.reshape(len(array), -1))
    if kind == "sequences" and array.ndim in (2, 3):
        return Layout(kind, array if array.ndim == 3 else array[:, None, :])
    if kind == "array" and array.ndim >= 2:
        return Layout(kind, array)
    if kind == "images" and array.ndim == 3:
        return Layout(kind, array[..., None], "grey pictures (samples, height, width)")
    if kind == "images" and array.ndim == 4 and (axis := _channel_axis(array)):
        place = "last" if axis == 3 else "first"
        return Layout(kind, np.moveaxis(array, axis, 3), f"pictures with channels {place}")
    wanted = {
        "vectors": "(samples, numbers)",
        "sequences": "(samples, channels, length)",
        "images": "(samples, height, width) or the same with 1 or 3 channels first or last",
        "array": "(samples, channels, ...)",
        "table": "columns with names: a CSV or Parquet file",
    }[kind]
    raise DataError(f"{source}: an array of shape {array.shape} cannot be read as {kind}, which needs {wanted}")


def _channel_axis(array: Array) -> int | None:
    """Axis of 1 or 3 channels, last before first; None when there is none."""
    return next((axis for axis in (3, 1) if array.shape[axis] in (1, 3)), None)


def _known_range(extent: Extent, array: Array, options: Options) -> tuple[float, float] | None:
    """The usual range of pictures into which all values fall; None when they fall into none."""
    if options.value_range is not None:
        return options.value_range
    if array.dtype == np.uint16:
        return 0.0, 65535.0
    usual = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
    return next((span for span in usual if span[0] <= extent.low and extent.high <= span[1]), None)


def _pixels(array: Array, extent: Extent, options: Options, source: str) -> Pixels:
    span = _known_range(extent, array, options)
    if span is None:
        raise DataError(
            f"{source}: pictures with values {extent.low:g} to {extent.high:g} have no usual range: say value_range"
        )
    if extent.low < span[0] or extent.high > span[1]:
        raise DataError(
            f"{source}: values from {extent.low:g} to {extent.high:g} do not fit the range {span[0]:g} to {span[1]:g}"
        )
    return Pixels(low=span[0], high=span[1])


def _standard(array: Array) -> Standard:
    """Mean and standard deviation of each entry of axis 1, in float64, in two passes over the data."""
    rest = tuple(axis for axis in range(array.ndim) if axis != 1)
    count = array.size // array.shape[1]
    mean = sum((chunk.sum(rest, np.float64) for _, chunk in _chunks(array)), np.zeros(array.shape[1])) / count
    square = sum((_square(chunk, mean, rest) for _, chunk in _chunks(array)), np.zeros(array.shape[1])) / count
    std = np.sqrt(square)
    # Rounding would leave a constant entry a deviation of about 1e-16 of its size, and not quite its mean.
    first = array[0].reshape(array.shape[1], -1)[:, 0].astype(np.float64)
    constant = np.all([(chunk == along_channels(first, array.ndim)).all(rest) for _, chunk in _chunks(array)], 0)
    mean = np.where(constant, first, mean)
    std = np.where(constant | (std == 0), 1.0, std)
    return Standard(dtype=array.dtype.name, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _square(chunk: Array, mean: NDArray[np.float64], rest: tuple[int, ...]) -> NDArray[np.float64]:
    centred = np.moveaxis(chunk.astype(np.float64), 1, -1) - mean
    return np.asarray((centred**2).sum(tuple(range(len(rest)))))
