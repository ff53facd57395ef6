"""What a data set is, in one value: kind, shape, classes, encoding. Stored with every run; decodes without the data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from .attributes import Attribute
from .captions import Captions
from .columns import Columns
from .controls import LEVEL, Beside, Control, Low
from .embedding import Embedding
from .encoder import Encoder
from .encoding import Array, Frozen, Pixels, Standard
from .errors import listed, plural
from .sizes import spoken

Kind = Literal["images", "vectors", "sequences", "table", "array"]
Encoding = Annotated[Pixels | Standard | Columns, Field(discriminator="type")]

SAME = ("kind", "shape", "sizes", "count", "classes", "encoding", "attributes", "captions", "control", "embedding")
"""What two descriptions of the same data have in common."""

SMALL = 2000
VERY_SMALL = 200
SMALL_CLASS = 20
SHOWN_COLUMNS = 40


class Spec(Frozen):
    """Description of a data set and the map between its raw values and what a network sees.

    `shape`: one sample as the network sees it, channels first, without the batch. `sizes`: heights and widths, where
    pictures have several, the commonest first: that of the shape; a batch has one. `classes`: names of the classes,
    None when there are no labels. `attributes`: what else is known of every sample, `captions`: how its text is read,
    `control`: which image goes with it, made of it or given, `embedding`: which vector; all of that is what a model may
    be told. `source`: where the data came from. `count`: samples. `facts`: what was found on reading that a person
    should know.
    """

    kind: Kind
    shape: tuple[PositiveInt, ...]
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    classes: tuple[str, ...] | None = None
    attributes: tuple[Attribute, ...] = ()
    captions: Captions | Encoder | None = None
    control: Control | None = None
    embedding: Embedding | None = None
    source: str
    count: PositiveInt
    encoding: Encoding
    facts: tuple[str, ...] = ()

    def encode(self, raw: Array) -> NDArray[np.float32]:
        """Raw values (B, ...) -> (B, *shape) float32; raises ValueError when the shape does not fit."""
        x = self.encoding.encode(np.asarray(raw))
        self._check(x)
        return x

    def decode(self, x: Array) -> NDArray[Any]:
        """(B, *shape) -> raw values: images as (B, H, W, C) uint8, arrays in their own units and dtype.

        Tables come in the raw form of `columns`, (B, columns) float64; `table.to_table` makes them a table again.
        """
        x = np.asarray(x)
        self._check(x)
        return self.encoding.decode(x)

    def _check(self, x: Array) -> None:
        known = [self.shape, *((*self.shape[:-2], *size) for size in self.sizes)]
        if x.shape[1:] not in known:
            raise ValueError(f"samples of shape {x.shape[1:]} do not fit data of shape {self.shape} ({self.source})")

    def describe(self) -> list[str]:
        """Lines for a person: what it is, its classes or columns, what was found, and advice for small sets."""
        shape = " x ".join(str(n) for n in self.shape)
        noun = {"table": "row", "array": "sample"}.get(self.kind, self.kind[:-1])
        lines = [f"{self.source}: {plural(self.count, noun)}, seen by the network as {shape}"]
        classes = None if self.classes is None else len(self.classes)
        if self.classes is not None:
            lines.append(f"{plural(len(self.classes), 'class')}: {listed(self.classes, 12)}")
        advised = (f"advice: {line}" for line in advice(self.count, classes))
        return [*lines, *self.known(), *self.columns(), *self.facts, *advised]

    def known(self) -> list[str]:
        """One line for each thing besides the class that a model is told."""
        lines = [f"sizes, width x height: {listed(map(spoken, self.sizes), 12)}"] if self.sizes else []
        lines += [attribute.describe() for attribute in self.attributes]
        lines += [found.describe() for found in (self.captions, self.embedding) if found is not None]
        if isinstance(self.control, Beside):
            colours = "RGB" if self.control.channels == 3 else "grey"
            lines.append(f"told an image beside each: {self.control.name}, {colours}")
        if isinstance(self.control, Low):
            lines.append(f"told its means over {self.control.factor} x {self.control.factor} pixels, to be enlarged")
        return lines

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what a model may be told, each of which can be hidden on its own."""
        first = () if self.classes is None else ("class",)
        vector = () if self.embedding is None else ("embedding",)
        text, image = () if self.captions is None else ("text",), () if self.control is None else ("image",)
        level = (LEVEL,) if isinstance(self.control, Low) else ()
        return (*first, *(attribute.name for attribute in self.attributes), *vector, *level, *text, *image)

    def columns(self) -> list[str]:
        """One line for each of the first columns of a table; empty for other kinds."""
        if not isinstance(self.encoding, Columns):
            return []
        lines = [f"column {column.describe()}" for column in self.encoding.columns]
        more = len(lines) - SHOWN_COLUMNS
        return lines if more <= 0 else [*lines[:SHOWN_COLUMNS], f"and {plural(more, 'column')} more"]


def advice(count: int, classes: int | None) -> list[str]:
    """What to know about a set of `count` samples in `classes` classes that is small; empty when it is not."""
    lines = []
    if count < VERY_SMALL:
        lines.append(f"{plural(count, 'sample')} only: a model will mostly repeat them; more data helps most")
    elif count < SMALL:
        lines.append(f"{count:,} samples are few: keep the model small and compare samples with their nearest data")
    if classes and count < SMALL_CLASS * classes:
        lines.append(f"about {count / classes:.0f} samples in a class: classes may look alike or be memorised")
    return lines
