"""Pictures made smaller: the data of a cascade's lower stages, from those of its last one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .encoding import Array, Pixels
from .errors import DataError
from .source import Source
from .spec import Spec


class Reduced(Source):
    """The means over blocks of another source's pictures, rounded to 8 bits, with all that is known of them.

    Args:
        source: of pictures.
        factor: side of the blocks in pixels.

    Raises:
        DataError: for other data, or sides that are no multiples of it.
    """

    def __init__(self, source: Source, factor: int) -> None:
        refuse_unfit(source.spec, factor, "reduced")
        channels, *sides = source.spec.shape
        shape = (channels, *(side // factor for side in sides))
        self.source, self.factor = source, factor
        self.spec = source.spec.model_copy(update={"shape": shape, "encoding": Pixels()})
        self.labels, self.attributes, self.texts = source.labels, source.attributes, source.texts
        self.beside = None if source.beside is None else Reduced(source.beside, factor)

    def raw(self, indices: NDArray[np.int64]) -> Array:
        x = self.source.spec.encode(self.source.raw(indices))
        b, c, h, w = x.shape
        blocks = x.reshape(b, c, h // self.factor, self.factor, w // self.factor, self.factor)
        return self.spec.encoding.decode(blocks.mean((3, 5), dtype=np.float64))

    def name(self, index: int) -> str:
        return self.source.name(index)


def refuse_unfit(spec: Spec, factor: int, what: str) -> None:
    """Refuse data without blocks of a side. Raises DataError; `what` is done with them."""
    if spec.kind != "images":
        raise DataError(f"{spec.source}: only pictures can be {what}, and these are {spec.kind}: leave it out")
    height, width = spec.shape[1:]
    if height % factor or width % factor:
        raise DataError(
            f"{spec.source}: pictures of {width} x {height} pixels cannot be {what} by {factor}, which divides not "
            "both sides: choose another factor, or another --size"
        )
