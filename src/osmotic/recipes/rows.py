"""What a model is told of the rows of a table: by their own cells, and by a person where those are empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from osmotic.data.attributes import Attribute
from osmotic.data.columns import Columns
from osmotic.data.given import Given
from osmotic.data.spec import Spec
from osmotic.data.table import python_values
from osmotic.training.conditions import class_number
from osmotic.training.conditions import rows as each_of

CLASS = "class"


def told(taken: Given, spec: Spec, said: Mapping[str, Any], each: int) -> dict[str, Any]:
    """What is known of each result: cells speak for their rows, and what a person says fills those that are empty.

    Args:
        taken: the rows.
        spec: of the model's data.
        said: by the names that the model is told, for all results or for each.
        each: results for each row.

    Raises:
        ValueError: where a person says something else than a cell does.
    """
    own, total = taken.told(spec, each), len(taken.x) * each
    found = dict(said) | own
    for name in set(own) & set(said):
        values = each_of(name, said[name], total)
        for i, (cell, wanted) in enumerate(zip(own[name], values, strict=True)):
            if cell is not None and wanted is not None and not _alike(spec, name, cell, wanted):
                flag = "--class" if name == CLASS else f"--set {name}"
                raise ValueError(
                    f"Row {i // each} says itself that its {name} is {cell}, and {flag} says {wanted}; change the "
                    f"cell, or leave out {flag}."
                )
        found[name] = [wanted if cell is None else cell for cell, wanted in zip(own[name], values, strict=True)]
    return found


def gaps(taken: Given, spec: Spec) -> dict[str, str]:
    """The columns with empty cells that the model is told and does not draw: by the name that it is told, the column's.

    Args:
        taken: the rows.
        spec: of the model's data.
    """
    return {name: column for name, column in _columns(spec).items() if None in taken.cells.get(column, ())}


def written(taken: Given, spec: Spec, cond: Mapping[str, Any], each: int) -> dict[str, list[Any]]:
    """The columns that the model was told, of each result, by their own names: their gaps as they were told.

    Args:
        taken: the rows.
        spec: of the model's data.
        cond: what :func:`told` gave.
        each: results for each row.
    """
    found = {}
    for name, column in _columns(spec).items():
        if column in taken.cells:
            cells = [value for value in taken.cells[column] for _ in range(each)]
            values = each_of(name, cond.get(name), len(cells))
            found[column] = [
                _cell(spec, name, new) if old is None else old for old, new in zip(cells, values, strict=True)
            ]
    return found


def _columns(spec: Spec) -> dict[str, str]:
    """The told columns of a table, by the name that a model is told."""
    label = spec.encoding.label if isinstance(spec.encoding, Columns) else None
    return {a.name: a.name for a in spec.attributes} | ({} if label is None else {CLASS: label.column.name})


def _attribute(spec: Spec, name: str) -> Attribute:
    return next(attribute for attribute in spec.attributes if attribute.name == name)


def _alike(spec: Spec, name: str, cell: Any, wanted: Any) -> bool:
    if name == CLASS:
        assert spec.classes is not None
        return class_number(cell, spec.classes) == class_number(wanted, spec.classes)
    attribute = _attribute(spec, name)
    return attribute.parse(cell) == attribute.parse(wanted)


def _cell(spec: Spec, name: str, told: Any) -> Any:
    """What is told as it stands in a table."""
    if told is None:
        return None
    if name == CLASS:
        assert isinstance(spec.encoding, Columns)
        assert spec.encoding.label is not None
        assert spec.classes is not None
        return spec.encoding.label.column.categories[class_number(told, spec.classes)]
    attribute = _attribute(spec, name)
    return python_values(attribute.column, np.array([attribute.parse(told)]))[0]
