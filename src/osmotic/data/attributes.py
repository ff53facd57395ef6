"""What is known about samples besides themselves: attributes, numbers or categories, that a model may be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Categorical, Column, Numeric, fit_categorical, fit_numeric
from .controls import LEVEL
from .encoding import Array, Frozen
from .errors import DataError, closest, listed

MOST = 1000  # categories of an attribute
TAKEN = ("class", "text", "image", "scale")
"""Names of the other parts of a condition."""


class Attribute(Frozen):
    """One attribute of every sample.

    Args:
        column: its name, kind and range.
        position: where it stood among a table's columns; None where the data are no table.
    """

    column: Column
    position: int | None = None

    @property
    def name(self) -> str:
        """Of the column."""
        return self.column.name

    @property
    def categories(self) -> int | None:
        """How many categories it has; None for a number. Missing is none of them: it is not known."""
        if isinstance(self.column, Numeric):
            return None
        return len([c for c in self.column.categories if c is not None])

    def encode(self, raw: Array) -> NDArray[np.float32]:
        """Raw values ``(B,)`` as a network is told them: a category's number, a normal score; NaN where missing."""
        if isinstance(self.column, Categorical):
            count = self.categories
            assert count is not None
            return np.where(raw < count, raw, np.nan).astype(np.float32)  # missing is the last, where there is any
        scores = self.column.encode(np.asarray(raw))[:, 0]
        return np.where(np.isnan(raw), np.nan, scores).astype(np.float32)

    def parse(self, value: Any) -> float:
        """The raw value of what a person wrote; None and NaN are "not known".

        Raises:
            DataError: for a category that there is not, no number, or a number that was never seen.
        """
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return float("nan")
        if isinstance(self.column, Categorical):
            names = [str(c) for c in self.column.categories if c is not None]
            said = category(value)
            if said not in names:
                hint = closest(said, names) or "."
                raise DataError(f"{self.name} is never {said!r}; it is one of {listed(names, 20)}{hint}")
            return float(names.index(said))
        try:
            raw = self.steps(value)
        except (TypeError, ValueError):
            raise DataError(f"{self.name} is a number, and {value!r} is none") from None
        low, high = self.column.values[0], self.column.values[-1]
        if not low <= raw <= high:
            span = [self.column.origin + self.column.unit * v for v in (low, high)]
            raise DataError(f"{self.name} was never {value} in the data, but {span[0]:g} to {span[1]:g}")
        return raw

    def steps(self, value: Any) -> float:
        """A number's raw value, in steps above the smallest where it is one of integers; dates in their own unit."""
        assert isinstance(self.column, Numeric)
        if self.column.type.startswith(("date", "time")):
            import pyarrow

            zoned = self.column.type.split(", tz=")[0].rstrip("]") + ("]" if "[" in self.column.type else "")
            kind = pyarrow.type_for_alias(zoned)
            value = pyarrow.scalar(value).cast(kind).cast(f"int{kind.bit_width}").as_py()
        return (float(value) - self.column.origin) / self.column.unit

    def describe(self) -> str:
        """One line for a person."""
        return f"told {self.column.describe()}"


def category(value: Any) -> str:
    """A category as it is written: whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def told(attributes: Sequence[Attribute], raw: Array) -> NDArray[np.float32]:
    """All attributes ``(B, A)`` as a network is told them."""
    return np.stack([attribute.encode(raw[:, i]) for i, attribute in enumerate(attributes)], 1)


def parse(attributes: Sequence[Attribute], wanted: Mapping[str, Any]) -> NDArray[np.float64]:
    """Raw values ``(A,)`` of what a person says by name; what is not said is not known, NaN.

    Raises:
        DataError: for a name that there is not, or a value that cannot be.
    """
    names = [attribute.name for attribute in attributes]
    for name in wanted:
        if name not in names:
            raise DataError(f"there is no attribute {name!r}{closest(name, names) or ';'} there are {listed(names)}")
    return np.array([a.parse(wanted.get(a.name)) for a in attributes], np.float64)


def fit_all(
    values: Mapping[str, Sequence[Any]], where: str
) -> tuple[tuple[Attribute, ...], NDArray[np.float64] | None]:
    """An attribute for each name, and their raw values ``(N, A)``; None without any."""
    if not values:
        return (), None
    refuse_taken(values, where)
    attributes, raw = zip(*(fit(name, each, where) for name, each in values.items()), strict=True)
    return attributes, np.stack(raw, 1)


def refuse_taken(names: Iterable[str], where: str) -> None:
    """Refuse attributes that are called as another part of a condition is. Raises DataError."""
    for name in names:
        if name in (*TAKEN, LEVEL):
            raise DataError(f"{where}: an attribute cannot be called {name!r}: rename it")


def fit(name: str, values: Sequence[Any], where: str) -> tuple[Attribute, NDArray[np.float64]]:
    """An attribute from a value a sample: numbers, or texts, booleans and None as categories; and its raw values.

    Raises:
        DataError: for a name that is taken, or values that are neither.
    """
    found = list(values)
    known = [v for v in found if v is not None and v == v]  # NaN is unlike itself
    if not known:
        raise DataError(f"{where}: {name!r} has no values at all: leave it out")
    if all(isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in known):
        raw = np.array([np.nan if v is None else float(v) for v in found])
        if np.isinf(raw).any():
            raise DataError(f"{where}: {name!r} is infinite in places: repair it")
        present = raw[~np.isnan(raw)]
        return Attribute(column=fit_numeric(name, raw, "double", integer=bool(np.all(present == present.round())))), raw
    for kinds, plain, type in (((str, np.str_), str, "string"), ((bool, np.bool_), bool, "bool")):
        if all(isinstance(v, kinds) for v in known):
            if len(set(known)) > MOST:
                raise DataError(f"{where}: {name!r} has {len(set(known)):,} different values, too many for categories")
            column, codes = fit_categorical(name, [None if v is None else plain(v) for v in found], type)
            return Attribute(column=column), codes.astype(np.float64)
    found_kinds = sorted({v.__class__.__name__ for v in known})
    raise DataError(f"{where}: {name!r} holds {listed(found_kinds)}: an attribute is all numbers, or all texts")
