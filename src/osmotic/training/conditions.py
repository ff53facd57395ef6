"""What a person says of the samples that are wanted, as the condition that a model is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmotic.cascade import nearest
from osmotic.condition import Condition
from osmotic.data.attributes import parse
from osmotic.data.controls import LEVEL, Low, channels
from osmotic.data.embedding import Embedding
from osmotic.data.errors import closest, listed
from osmotic.data.ports import ports
from osmotic.data.spec import Spec
from osmotic.training.recipe import Recipe

NEEDS_LOW = (
    "This model enlarges pictures, so it needs a low resolution for each sample: use `osmotic upscale RUN PICTURE`, "
    'name pictures with --control, or say "image".'
)


Labels = int | str | Sequence[int | str] | Tensor | np.ndarray
Told = Labels | Condition | Mapping[str, Any]
"""What a person may say of the samples that are wanted."""


def asked(spec: Spec, cond: Told, n: int) -> Condition:
    """The condition of n samples, from anything that a person may say.

    Raises:
        ValueError: for a condition of another number, and what the data have no name for.
    """
    if isinstance(cond, Condition):
        if len(cond) != n:
            raise ValueError(f"A condition of {len(cond)} was given for {n} samples; give one per sample.")
        return cond
    if isinstance(cond, Mapping):
        return told(spec, cond, n)
    if spec.classes is None and spec.captions is None:
        raise ValueError("This model was trained without classes; leave the class out.")
    return told(spec, {"text" if spec.classes is None else "class": cond}, n)


def told(spec: Spec, wanted: Mapping[str, Any], n: int) -> Condition:
    """The condition of n samples of whom this much is said.

    Args:
        spec: of the data; ``spec.parts`` are the names that mean something.
        wanted: by name one value for all samples, or one for each; ``"class"`` a name or number, ``"text"`` a caption,
            an attribute its number or category. What is not said, or is None, is hidden from the model.
        n: how many.

    Raises:
        ValueError: for a name or value that there is not, or another number of values.
    """
    parts = spec.parts
    if not parts:
        raise ValueError("This model was trained without conditions, so there is nothing to tell it.")
    for name in wanted:
        if name not in parts:
            hint = closest(name, parts) or "."
            raise ValueError(f"This model is told nothing called {name!r}; it is told {listed(parts, 20)}{hint}")
    each = {name: rows(name, wanted.get(name), n) for name in parts}
    enlarging = isinstance(spec.control, Low)
    keep = np.array([[value is not None or (enlarging and name == LEVEL) for value in each[name]] for name in parts]).T
    labels = attributes = texts = None
    if spec.classes is not None:
        numbers = [0 if value is None else class_number(value, spec.classes) for value in each["class"]]
        labels = np.array(numbers, np.int64)
    if spec.attributes:
        named = [attribute.name for attribute in spec.attributes]
        told = [parse(spec.attributes, {name: each[name][i] for name in named}) for i in range(n)]
        attributes = np.array(told, np.float64).reshape(n, len(named))
    if spec.captions is not None:
        texts = ["" if value is None else str(value) for value in each["text"]]
        for text in set(texts):
            spec.captions.prompt(text)
    vectors = None if spec.embedding is None else embeddings(spec.embedding, each["embedding"])
    found = ports(spec, n, labels, attributes, texts, embedding=vectors)
    known = {name: torch.from_numpy(values) for name, values in found.items()}
    known |= {} if spec.control is None else {"image": images(spec, each["image"])}
    if enlarging:
        known["vector"][:, -1] = torch.tensor([_level(value) for value in each[LEVEL]])
    return Condition(**known, keep=None if keep.all() else torch.from_numpy(keep))


def images(spec: Spec, each: list[Any]) -> Tensor:
    """The control image ``(n, channels, *positions)`` of each sample, blank where there is none.

    A low resolution may be as small as it is, or repeated over its blocks.

    Raises:
        ValueError: for one of another shape, or none where the model cannot do without.
    """
    assert spec.control is not None
    shape = (channels(spec.control, spec.shape), *spec.shape[1:])
    found = torch.zeros(len(each), *shape)
    for i, image in enumerate(each):
        if image is None:
            if isinstance(spec.control, Low):
                raise ValueError(NEEDS_LOW)
            continue
        value = torch.as_tensor(image, dtype=torch.float32)
        if isinstance(spec.control, Low) and value.ndim == 3 and value.shape[-1] * spec.control.factor == shape[-1]:
            value = nearest(value[None], spec.control.factor)[0]
        if value.shape != shape:
            raise ValueError(f"The image that this model is told has the shape {shape}, not {tuple(value.shape)}.")
        found[i] = value
    return found


def _level(value: Any) -> float:
    """The level of the noise over a low resolution, 0 where nothing is said of it.

    Raises:
        ValueError: if it is none.
    """
    try:
        level = 0.0 if value is None else float(value)
    except (TypeError, ValueError):
        level = math.nan
    if not 0 <= level <= 1:
        raise ValueError(f"The {LEVEL} is a number from 0 (none) to 1; got {value!r}.")
    return level


def embeddings(embedding: Embedding, each: list[Any]) -> NDArray[np.float32]:
    """The vector ``(n, width)`` of each sample, zero where there is none.

    Raises:
        DataError: for one of another width or without a direction.
    """
    found = np.zeros((len(each), embedding.width), np.float32)
    for i, vector in enumerate(each):
        if vector is not None:
            found[i] = embedding.prompt(vector)
    return found


def blank(spec: Spec, n: int) -> Condition | None:
    """A condition of n samples of whom nothing is said, with all ports; None for data that have none."""
    known = {"image": torch.zeros(spec.shape)} if isinstance(spec.control, Low) else {}
    return told(spec, known, n) if spec.parts else None


def rows(name: str, value: Any, n: int) -> list[Any]:
    """One value for each of n samples.

    Raises:
        ValueError: for as many as are neither 1 nor n.
    """
    if isinstance(value, Tensor | np.ndarray):
        single = {"image": 3, "embedding": 1}.get(name)  # the axes of one for all; one more, and there is one for each
        value = value.reshape(-1).tolist() if single is None else [value] if value.ndim == single else list(value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * n
    if len(value) not in (1, n):
        raise ValueError(f"{len(value)} values of {name} were given for {n} samples; give one, or one per sample.")
    return list(value) * (n if len(value) == 1 else 1)


def class_number(wanted: int | str | np.integer[Any], classes: Sequence[str]) -> int:
    """The number of a class given by name or number; names win, so that digits called "0" to "9" work.

    Raises:
        ValueError: if there is no such class, listing some that there are.
    """
    if isinstance(wanted, str) and wanted in classes:
        return list(classes).index(wanted)
    text = wanted.isascii() and wanted.isdigit() if isinstance(wanted, str) else isinstance(wanted, int | np.integer)
    number = int(wanted) if text else -1
    if not 0 <= number < len(classes):
        shown = ", ".join(classes[:20]) + (" ..." if len(classes) > 20 else "")
        hint = closest(str(wanted), classes) or "."
        raise ValueError(f"There is no class {wanted!r}; the {len(classes)} classes are {shown}{hint}")
    return number


def refuse_unlearned(spec: Spec, recipe: Recipe, diagonal: bool, shown: Condition | None, guidance: float) -> None:
    """Refuse what a model never learned: guidance without a class, "nothing" without dropped conditions.

    Args:
        spec: of its data.
        recipe: of its training.
        diagonal: whether it has a posterior mean.
        shown: what it will be told.
        guidance: the scale.

    Raises:
        ValueError: saying what to do instead.
    """
    if not math.isfinite(guidance):
        raise ValueError(f"The guidance scale must be a finite number; got {guidance}.")
    if isinstance(spec.control, Low):
        if shown is None or shown.image is None:
            raise ValueError(NEEDS_LOW)
        if guidance != 1 and set(spec.parts) == {LEVEL, "image"}:
            raise ValueError("This model is told a low resolution alone, which it always keeps to; leave out guidance.")
    if shown is None and guidance != 1:
        if not spec.parts:
            raise ValueError(
                "Guidance leads towards a class or a text, and this model was told neither; leave the guidance "
                "scale at 1."
            )
        what = (
            "a class"
            if spec.classes
            else "a text"
            if spec.captions
            else "an embedding"
            if spec.embedding
            else "an attribute"
        )
        raise ValueError(f"Guidance leads towards {what}; name one, or leave the guidance scale at 1.")
    learned = None if recipe.student is None else recipe.student.scales
    if learned is not None:
        if not learned[0] <= guidance <= learned[1]:
            raise ValueError(
                f"This student learned guidance from {learned[0]:g} to {learned[1]:g}, not {guidance:g}; give a "
                "scale between."
            )
        if shown is None and spec.parts:
            raise ValueError("This student learned guidance towards a class; name one.")
        return
    if guidance != 1 and recipe.student is not None and not diagonal:
        raise ValueError(
            "Guidance leads the posterior mean, and this student has none; leave the guidance scale at 1, and "
            f"distil the guided teacher (`osmotic distill --guidance {guidance:g}`, or --method guided for all "
            "scales)."
        )
    if shown is not None and shown.keep is not None and shown.keep.ndim == 2:
        for name, kept in zip(spec.parts, shown.keep.all(0).tolist(), strict=True):
            told = recipe.process.part_dropout or {}
            if not kept and not recipe.process.condition_dropout and not told.get(name):
                raise ValueError(f"This model was never trained without its {name} (--condition-dropout 0); say one.")
    nothing = bool(spec.parts) and (shown is None or guidance != 1)
    if nothing and recipe.process.condition_dropout == 0:
        raise ValueError(
            "This model was trained with --condition-dropout 0, so it knows no 'nothing'; name a class and leave "
            "the guidance scale at 1."
        )
