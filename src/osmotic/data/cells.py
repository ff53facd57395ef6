"""The cells of a table that is edited: their raw values, what a network sees of them, and those that it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .attributes import Attribute
from .columns import Categorical, Numeric
from .encoding import FloatArray
from .errors import DataError, listed


def raw_cells(column: Numeric | Categorical, values: list[Any], path: Path) -> NDArray[np.float64]:
    """Raw values ``(N,)``, NaN where there are none; numbers beyond what was seen stay as they are.

    Raises:
        DataError: for a cell that is no such value, naming its row.
    """
    attribute = Attribute(column=column)
    read = attribute.parse if isinstance(column, Categorical) else attribute.steps
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            found[row] = read(value)
        except DataError as error:
            raise DataError(f"{path}: row {row}: {error}") from None
        except (TypeError, ValueError):
            raise DataError(f"{path}: row {row}: {column.name} holds {column.type}, not {value!r}: repair it") from None
    infinite = np.flatnonzero(np.isinf(found))
    if len(infinite):
        where = f"{path}: column {column.name!r} is infinite in row {listed(infinite)}"
        raise DataError(f"{where}: put a number there, or leave the cell empty")
    return found


def seen_cells(column: Numeric | Categorical, raw: NDArray[np.float64]) -> FloatArray:
    """A column's coordinates, NaN where the cell is empty; a cell to be filled in is told that it is not missing."""
    absent = np.isnan(raw)
    filled = np.where(absent, 0.0 if isinstance(column, Categorical) else column.values[0], raw)
    x = column.encode(filled)
    # Of a number all but its flag, of a category all but "missing", which is the last.
    unknown = 1 if isinstance(column, Numeric) else column.width - (None in column.categories)
    x[absent, :unknown] = np.nan
    return x


def beyond(column: Numeric | Categorical, raw: NDArray[np.float64], values: list[Any]) -> tuple[str, ...]:
    """A line on cells that lie outside of all that a model saw; none where there are none.

    Args:
        column: as the model knows it.
        raw: its raw values ``(N,)``.
        values: the same as they stand in the table.
    """
    if isinstance(column, Categorical):
        return ()
    low, high = column.values[0], column.values[-1]
    rows = np.flatnonzero((raw < low) | (raw > high))
    if not len(rows):
        return ()
    dated = column.type.startswith(("date", "time"))
    span = "" if dated else " but {:g} to {:g}".format(*(column.origin + column.unit * v for v in (low, high)))
    value, where = values[rows[0]], f"row {listed(rows)}"
    return (f"{column.name} was never {value} in the data{span} ({where}); it stays, read as the nearest that was.",)


def nearest_seen(column: Numeric | Categorical, values: list[Any]) -> list[Any]:
    """A column's cells, those outside of all that a model saw as the nearest that it did."""
    if isinstance(column, Categorical):
        return values
    from .table import python_values

    attribute, (low, high) = Attribute(column=column), (column.values[0], column.values[-1])
    found = list(values)
    for i, value in enumerate(values):
        if value is not None and not low <= (raw := attribute.steps(value)) <= high:
            found[i] = python_values(column, np.clip([raw], low, high))[0]
    return found
