"""Data as batches of tensors: what training reads, whatever the source."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .columns import Columns, recoding
from .controls import MADE, Beside, Low, made
from .counter import permutation, uniform
from .encoder import fit_encoder
from .errors import DataError, listed, plural
from .ports import Indices, Texts, Values, ports
from .read import read
from .reduced import Reduced, refuse_unfit
from .sizes import Said
from .source import Labels, Options, Source
from .spec import Kind, Spec


class Dataset(abc.ABC):
    """Samples that can be asked for by number, in any order, any number of times.

    `spec` describes them and holds the map back to raw values; `labels` are (N,) int64 class numbers or None;
    `attributes` (N, A) raw values or None; `texts` N captions or None; `buckets` (N,) the number of each sample's size
    among the spec's, or None where all have one. Implementations are final and thread-safe:
    `batch` and `told` are pure functions.
    """

    spec: Spec
    labels: Labels | None
    attributes: Values | None
    texts: Sequence[str] | None
    buckets: Indices | None = None

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        """Samples (B, *spec.shape) float32 and their labels (B,) int64, or None; `indices` (B,) in 0..len-1.

        Of pictures of several sizes, those of one: (B, C, *size). Raises DataError for others.
        """

    @abc.abstractmethod
    def told(self, indices: Indices) -> dict[str, Tensor]:
        """What a model may be told about samples, by port of a condition; nothing where nothing is known of them.

        `vector`: (B,) int64 labels, or (B, A) float32 with the class first where there is one, NaN where not known;
        `tokens` and `mask`: (B, L); `image`: (B, channels, *positions); `keep`: (B, parts) where parts are not known.
        """

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """File name or row of one sample, to name a bad one."""


class Encoded(Dataset):
    """The samples of a source, encoded batch by batch."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.spec = source.spec
        self.labels = source.labels
        self.attributes = source.attributes
        self.texts = source.texts
        self.buckets = source.buckets
        self._texts = Texts.of(source.spec, source.texts)
        self._told = ports(source.spec, len(source), source.labels, source.attributes, self._texts)

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        x = torch.from_numpy(self.spec.encode(self.source.raw(indices)))
        return x, None if self.labels is None else torch.from_numpy(self.labels[indices])

    def told(self, indices: Indices) -> dict[str, Tensor]:
        chosen = np.asarray(indices, np.int64)
        found = {name: torch.from_numpy(values[chosen]) for name, values in self._told.items()}
        found |= {} if self._texts is None else self._texts.told(chosen)
        if (beside := self.source.beside) is not None:
            found["image"] = torch.from_numpy(beside.spec.encode(beside.raw(chosen)))
        return found

    def name(self, index: int) -> str:
        return self.source.name(index)


class Subset(Dataset):
    """Some samples of another data set, renumbered from 0. The spec stays that of the whole."""

    def __init__(self, dataset: Dataset, indices: Indices) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, np.int64)
        self.spec = dataset.spec
        self.labels = None if dataset.labels is None else dataset.labels[self.indices]
        self.attributes = None if dataset.attributes is None else dataset.attributes[self.indices]
        self.texts = None if dataset.texts is None else [dataset.texts[i] for i in self.indices]
        self.buckets = None if dataset.buckets is None else dataset.buckets[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        return self.dataset.batch(self.indices[indices])

    def told(self, indices: Indices) -> dict[str, Tensor]:
        return self.dataset.told(self.indices[indices])

    def name(self, index: int) -> str:
        return self.dataset.name(int(self.indices[index]))


class Under(Dataset):
    """A data set as the samples of another's kind: in its scale, its classes, its words, with its image beside each.

    Args:
        dataset: samples of the same kind and shape.
        spec: of the other data, which a model was trained on.

    Raises:
        DataError: for another kind or shape, a class, an attribute or a word that the other has not, or images beside
            the samples that have other channels.
    """

    def __init__(self, dataset: Dataset, spec: Spec) -> None:
        own = dataset.spec
        # A table's width depends on the categories that it has; its columns are compared by name.
        for name in ("kind",) if spec.kind == "table" else ("kind", "shape"):
            if getattr(own, name) != getattr(spec, name):
                raise DataError(
                    f"{own.source}: its {name} is {getattr(own, name)}, and the model's {getattr(spec, name)}: give "
                    "data of that"
                )
        if own.sizes not in ((), spec.sizes):
            raise DataError(
                f"{own.source}: its pictures have other sizes than the model learned: pass --size N instead"
            )
        self.dataset = dataset
        self.buckets = dataset.buckets
        self.spec = spec.model_copy(update={"source": own.source, "count": own.count, "facts": own.facts})
        self.labels = _renumbered(dataset, spec)
        self._recoded = _recoded(own, spec)
        self.attributes = _attributes(dataset, spec)
        self.texts = None if spec.captions is None else dataset.texts
        self._texts = Texts.of(self.spec, self.texts)
        self._told = ports(
            self.spec, len(dataset), self.labels, self.attributes, self._texts, image=_has_images(own, spec)
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        x, _ = self.dataset.batch(indices)
        if self.spec.kind != "images" and self.dataset.spec.encoding != self.spec.encoding:
            raw = self.dataset.spec.decode(x.numpy())
            for i, recode in enumerate(self._recoded):
                raw[:, i] = recode(raw[:, i])
            x = torch.from_numpy(self.spec.encode(raw))
        return x, None if self.labels is None else torch.from_numpy(self.labels[indices])

    def told(self, indices: Indices) -> dict[str, Tensor]:
        chosen = np.asarray(indices, np.int64)
        found = {name: torch.from_numpy(values[chosen]) for name, values in self._told.items()}
        found |= {} if self._texts is None else self._texts.told(chosen)
        if (control := self.spec.control) is None:
            return found
        if not isinstance(control, Beside):
            return found | {"image": torch.from_numpy(made(control, self.batch(chosen)[0].numpy()))}
        if isinstance(self.dataset.spec.control, Beside):
            return found | {"image": self.dataset.told(chosen)["image"]}
        size = self.spec.shape[1:] if self.buckets is None else self.spec.sizes[self.buckets[chosen[0]]]
        return found | {"image": torch.zeros(len(chosen), control.channels, *size)}

    def name(self, index: int) -> str:
        return self.dataset.name(index)


def _has_images(own: Spec, spec: Spec) -> bool:
    """Whether the images that another is told are known of these data; hidden where they are not."""
    if not isinstance(spec.control, Beside):
        return True
    if not isinstance(own.control, Beside):
        return False
    if own.control.channels != spec.control.channels:
        raise DataError(
            f"{own.source}: its images {own.control.name!r} have {plural(own.control.channels, 'channel')}, and those "
            f"that the model is told {spec.control.channels}: give data of that"
        )
    return True


Recode = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _recoded(own: Spec, spec: Spec) -> list[Recode]:
    """How a table's raw columns become another's; none where data are no tables."""
    if not (isinstance(own.encoding, Columns) and isinstance(spec.encoding, Columns)):
        return []
    names, others = ([c.name for c in encoding.columns] for encoding in (own.encoding, spec.encoding))
    if names != others:
        raise DataError(f"{own.source}: its columns are {listed(names, 20)}, and the model's {listed(others, 20)}")
    pairs = zip(own.encoding.columns, spec.encoding.columns, strict=True)
    return [recoding(one, other, own.source) for one, other in pairs]


def _attributes(dataset: Dataset, spec: Spec) -> Values | None:
    """Its attributes as another's raw values, NaN for those that it does not have."""
    own = {attribute.name: i for i, attribute in enumerate(dataset.spec.attributes)}
    unknown = [name for name in own if name not in {a.name for a in spec.attributes}]
    if unknown:
        raise DataError(f"{dataset.spec.source}: the model is told no {listed(unknown)}; leave out --condition")
    if dataset.attributes is None:
        return None
    found = np.full((len(dataset), len(spec.attributes)), np.nan)
    for i, attribute in enumerate(spec.attributes):
        if attribute.name in own:
            j = own[attribute.name]
            recode = recoding(dataset.spec.attributes[j].column, attribute.column, dataset.spec.source)
            found[:, i] = recode(dataset.attributes[:, j])
    return found


def _renumbered(dataset: Dataset, spec: Spec) -> Labels | None:
    """Its labels by the numbers of another's classes."""
    own = dataset.spec
    if dataset.labels is None or own.classes is None or spec.classes is None:
        return None
    unknown = [name for name in own.classes if name not in spec.classes]
    if unknown:
        raise DataError(f"{own.source}: the model knows no class {listed(unknown)}, but {listed(spec.classes, 20)}")
    return np.array([spec.classes.index(name) for name in own.classes], np.int64)[dataset.labels]


def main_size(dataset: Dataset) -> Subset:
    """The samples that have the size of the data's shape, which are most; all of them where there is one size."""
    if dataset.buckets is not None:
        return Subset(dataset, np.flatnonzero(dataset.buckets == 0))
    return dataset if isinstance(dataset, Subset) else Subset(dataset, np.arange(len(dataset)))


def split(dataset: Dataset, holdout: float, seed: int) -> tuple[Subset, Subset]:
    """Training part and held-out part, disjoint and in the original order: a pure function of (n, holdout, seed).

    `holdout` in [0, 1) is the held-out share, at least one sample when it is above 0. Where there are labels, every
    class gives its share to within one sample. Raises ValueError when no sample would be left to train on.
    """
    n = len(dataset)
    if not 0.0 <= holdout < 1.0:
        raise ValueError(f"the held-out share must be in [0, 1), not {holdout}")
    count = max(1, round(n * holdout)) if holdout else 0
    if count >= n:
        raise ValueError(
            f"holding out {count} of {n} samples leaves none to train on: give more data or a smaller share"
        )
    order = permutation(seed, 0, n)
    if dataset.labels is not None:
        order = order[np.argsort(dataset.labels[order], kind="stable")]
    # Walking along the classes and taking a sample whenever the running quota passes a whole number, from a random
    # start: every sample is equally likely to be held out, and every class gives its share.
    start = int(n * uniform(seed, 0, n))
    quota = (np.arange(n + 1) * count + start) // n
    held = np.zeros(n, bool)
    held[order[np.diff(quota) > 0]] = True
    return Subset(dataset, np.flatnonzero(~held)), Subset(dataset, np.flatnonzero(held))


def open_data(
    source: Any,
    *,
    kind: Kind | None = None,
    value_range: tuple[float, float] | None = None,
    size: int | None = None,
    sizes: Sequence[Said] = (),
    label: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    condition: Sequence[str] = (),
    control: str | None = None,
    text_encoder: str | None = None,
    max_bad: float = 0.01,
    reduce: int | None = None,
    upscale: int | None = None,
) -> Dataset:
    """Data set from a path, the name of an embedded set, an array, an (array, labels) pair, or anything indexable.

    In place of labels, a mapping may name several things that are known of every sample of the array: "label" are the
    classes, "text" the captions, what `control` names the images beside them, anything else an attribute. One mapping
    of all, with the array as "x", means the same.

    Arguments beside `source` are those of `source.Options`; each is found from the data when left out.
    Raises `errors.DataError` (a ValueError) with one sentence that says what is wrong and what to do.
    """
    options = Options(
        kind=kind,
        value_range=value_range,
        size=size,
        sizes=sizes,
        label=label,
        columns=columns,
        drop=drop,
        categorical=categorical,
        condition=condition,
        control=None if control in MADE else control,
        max_bad=max_bad,
    )
    if isinstance(source, Mapping) and "x" in source:
        source = (source["x"], {name: values for name, values in source.items() if name != "x"})
    if isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str | Path):
        known = source[1]
        known = {name: _numpy(v) for name, v in known.items()} if isinstance(known, Mapping) else _numpy(known)
        source = (_numpy(source[0]), known)
    Options(reduce=reduce, upscale=upscale)  # which refuses what is none
    found = read(_numpy(source), options)
    dataset = Encoded(found if reduce is None else Reduced(found, reduce))
    told: dict[str, Any] = {}
    if text_encoder is not None:
        if dataset.texts is None:
            raise DataError(f"{dataset.spec.source}: no captions for a text encoder to read: leave it out")
        told["captions"] = fit_encoder(text_encoder, dataset.texts)
    if control is not None and dataset.spec.kind != "images":
        raise DataError(f"{dataset.spec.source}: a control is made of a picture, and these are no pictures")
    told |= {"control": control} if control in MADE else {}
    if upscale is not None:
        refuse_unfit(dataset.spec, upscale, "enlarged")
        if control is not None:
            raise DataError(f"{dataset.spec.source}: the image to be enlarged is the only one: leave out control")
        told["control"] = Low(factor=upscale)
    return Under(dataset, dataset.spec.model_copy(update=told)) if told else dataset


def _numpy(value: Any) -> Any:
    """Tensors as numpy arrays (types that numpy lacks as float32); anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
