"""Columns of a table: numbers by quantiles to normal scores, categories to scaled one-hot, each with its inverse.

The raw form of a table is (N, columns) float64: numbers as they are (NaN = missing), integers and times as the number
of steps above the smallest, categories as their index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import NormalDist
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool, StrictInt, StrictStr

from .encoding import Array, FloatArray, Frozen
from .errors import DataError, listed

KNOTS = 257  # quantiles kept for each numeric column: fine enough for any marginal, small enough for JSON
SMALLEST_SCALE = 0.1  # a category in 1 row of 1,000,000 must not become a coordinate of size 1,000

Category = StrictStr | StrictBool | StrictInt | None


class Numeric(Frozen):
    """A column of numbers, mapped through its quantiles to normal scores, linearly between knots.

    A value that fills many rows owns a whole interval of scores: all of it decodes to that value exactly.
    Decoded values stay within the observed range. Missing values are data: where the column has any, a second
    coordinate carries whether the value is missing (share `missing` of the rows), and missing comes back as missing.
    Integers and times are `origin + unit * k` with k below 2^53, so that nanosecond times survive float64.
    """

    kind: Literal["numeric"] = "numeric"
    name: str
    type: str
    integer: bool
    origin: int = 0
    unit: int = 1
    values: tuple[float, ...] = Field(min_length=2)  # not decreasing
    scores: tuple[float, ...] = Field(min_length=2)  # strictly increasing
    missing: float = Field(default=0.0, ge=0.0, lt=1.0)

    @property
    def width(self) -> int:
        """Coordinates of the network's vector that this column takes."""
        return 2 if self.missing else 1

    @cached_property
    def _knots(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.asarray(self.values), np.asarray(self.scores)

    def encode(self, raw: Array) -> FloatArray:
        """(B,) numbers, NaN = missing -> (B, width) normal scores; a missing value's score is 0."""
        absent = np.isnan(raw)
        scores = np.where(absent, 0.0, self._score(np.where(absent, self.values[0], raw)))
        if not self.missing:
            return scores[:, None].astype(np.float32)
        flag = (absent - self.missing) / _flag_scale(self.missing)
        return np.stack([scores, flag], 1).astype(np.float32)

    def decode(self, x: Array) -> NDArray[np.float64]:
        """(B, width) -> (B,) numbers within the observed range, rounded for integer columns, NaN = missing."""
        values, scores = self._knots
        raw = np.interp(np.asarray(x[:, 0], np.float64), scores, values)
        if self.integer:
            raw = np.rint(raw)
        if self.missing:
            absent = x[:, 1] * _flag_scale(self.missing) + self.missing > 0.5
            raw = np.where(absent, np.nan, raw)
        return np.asarray(raw, np.float64)

    @cached_property
    def _centres(self) -> NDArray[np.float64]:
        """For each knot, the score in the middle (by probability) of all knots with the same value."""
        values, scores = self._knots
        normal = NormalDist()
        first = scores[np.searchsorted(values, values, "left")]
        last = scores[np.searchsorted(values, values, "right") - 1]
        middle = [normal.inv_cdf((normal.cdf(a) + normal.cdf(b)) / 2) for a, b in zip(first, last, strict=True)]
        return np.where(first == last, scores, middle)

    def _score(self, raw: Array) -> NDArray[np.float64]:
        values, scores = self._knots
        inside = np.clip(raw, values[0], values[-1])
        above = np.searchsorted(values, inside, "left")  # first knot >= value
        on_knot = values[above] == inside
        below = np.where(on_knot, above, above - 1)
        span = np.where(on_knot, 1.0, values[above] - values[below])
        share = (inside - values[below]) / span
        between = scores[below] + share * (scores[above] - scores[below])
        return np.where(on_knot, self._centres[above], between)

    def describe(self) -> str:
        """One line for a person."""
        numbers = "integers" if self.integer else "numbers"
        low, high = (f"{self.origin + self.unit * value:.6g}" for value in (self.values[0], self.values[-1]))
        absent = f", {self.missing:.1%} missing" if self.missing else ""
        if self.type.startswith(("date", "time")):
            return f"{self.name}: times ({self.type}){absent}"
        return f"{self.name}: {numbers} {low} to {high}{absent}"


class Categorical(Frozen):
    """A column of categories: `x = (one-hot - shares) / sqrt(1 - sum(shares^2))`, decoded by argmax.

    The vector of a column has mean 0 and total variance 1, like one numeric column. Missing is a category (None).
    """

    kind: Literal["categorical"] = "categorical"
    name: str
    type: str
    indices: str | None = None  # pyarrow's index type where the column is dictionary-encoded
    categories: tuple[Category, ...] = Field(min_length=1)
    shares: tuple[float, ...] = Field(min_length=1)

    @property
    def width(self) -> int:
        """Coordinates of the network's vector that this column takes."""
        return len(self.categories)

    @cached_property
    def _scale(self) -> tuple[NDArray[np.float64], float]:
        shares = np.asarray(self.shares)
        return shares, max(math.sqrt(max(1.0 - float(np.sum(shares**2)), 0.0)), SMALLEST_SCALE)

    def encode(self, raw: Array) -> FloatArray:
        """(B,) category numbers -> (B, categories)."""
        shares, scale = self._scale
        one_hot = np.eye(self.width)[raw.astype(np.int64)]
        return np.asarray((one_hot - shares) / scale, np.float32)

    def decode(self, x: Array) -> NDArray[np.float64]:
        """(B, categories) -> (B,) numbers of the nearest categories."""
        shares, scale = self._scale
        return np.asarray(np.argmax(x * scale + shares, 1), np.float64)

    def describe(self) -> str:
        """One line for a person."""
        shown = ", ".join("missing" if value is None else str(value) for value in self.categories[:6])
        more = f", ... ({self.width} in all)" if self.width > 6 else ""
        return f"{self.name}: categories {shown}{more}"


Column = Annotated[Numeric | Categorical, Field(discriminator="kind")]


class Label(Frozen):
    """The column that became the classes: where it stood in the table, and its values in the order of the classes."""

    position: int
    column: Categorical


class Columns(Frozen):
    """A table's encoding: the vectors of its columns, one after the other."""

    type: Literal["columns"] = "columns"
    columns: tuple[Column, ...] = Field(min_length=1)
    label: Label | None = None

    @cached_property
    def _edges(self) -> list[int]:
        return [int(edge) for edge in np.cumsum([0, *(column.width for column in self.columns)])]

    @property
    def width(self) -> int:
        """Coordinates of the network's vector."""
        return self._edges[-1]

    def encode(self, raw: Array) -> FloatArray:
        """(B, columns) float64 -> (B, width) float32."""
        parts = [column.encode(raw[:, i]) for i, column in enumerate(self.columns)]
        return np.concatenate(parts, 1)

    def decode(self, x: Array) -> NDArray[np.float64]:
        """(B, width) -> (B, columns) float64."""
        edges = self._edges
        parts = [column.decode(x[:, edges[i] : edges[i + 1]]) for i, column in enumerate(self.columns)]
        return np.stack(parts, 1)


def recoding(
    own: Numeric | Categorical, other: Numeric | Categorical, where: str
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """From the raw values of one column to those of another with the same meaning.

    Raises DataError for columns of another kind, or a category that the other never had.
    """
    if isinstance(own, Numeric) and isinstance(other, Numeric):
        shift = own.origin - other.origin
        return lambda raw: (raw * own.unit + shift) / other.unit
    if not (isinstance(own, Categorical) and isinstance(other, Categorical)):
        raise DataError(f"{where}: column {own.name!r} holds {own.kind} values, and the model's {other.kind} ones")
    known = [str(category) for category in other.categories]
    unknown = [c for c in map(str, own.categories) if c not in known]
    if unknown:
        raise DataError(f"{where}: the model never saw {listed(unknown)} in column {own.name!r}")
    numbers = np.array([known.index(str(category)) for category in own.categories], np.float64)
    return lambda raw: np.where(np.isnan(raw), np.nan, numbers[np.nan_to_num(raw).astype(np.int64)])


def _flag_scale(share: float) -> float:
    return max(math.sqrt(share * (1.0 - share)), SMALLEST_SCALE)


def fit_numeric(
    name: str, raw: NDArray[np.float64], type: str, *, integer: bool, origin: int = 0, unit: int = 1
) -> Numeric:
    """Column of numbers from its values (N,) float64; NaN = missing, and at least one value is not missing."""
    present = raw[~np.isnan(raw)]
    count = max(2, min(len(present), KNOTS))
    levels = np.linspace(0.0, 1.0, count)
    edge = 0.5 / max(len(present), 2)  # the outermost scores are finite: half a row from the end
    normal = NormalDist()
    return Numeric(
        name=name,
        type=type,
        integer=integer,
        origin=origin,
        unit=unit,
        # Observed values, no interpolation between two of them: knots of an integer column are integers.
        values=tuple(np.quantile(present, levels, method="inverted_cdf").tolist()),
        scores=tuple(normal.inv_cdf(min(max(level, edge), 1.0 - edge)) for level in levels.tolist()),
        missing=(len(raw) - len(present)) / len(raw),
    )


def fit_categorical(
    name: str, values: Sequence[Any], type: str, *, indices: str | None = None
) -> tuple[Categorical, NDArray[np.int64]]:
    """Column of categories from its values (None = missing), and the category number of every row.

    Categories are in sorted order, missing last.
    """
    known = set(values)
    categories = (*sorted(known - {None}), *((None,) if None in known else ()))
    number = {category: i for i, category in enumerate(categories)}
    codes = np.fromiter((number[value] for value in values), np.int64, len(values))
    shares = np.bincount(codes, minlength=len(categories)) / len(codes)
    column = Categorical(name=name, type=type, indices=indices, categories=categories, shares=tuple(shares.tolist()))
    return column, codes
