"""Tables: CSV and Parquet files as data, and samples as a table with the same columns, order and types again.

Needs pyarrow, the optional extra `tables`; it is imported when a table is read or written, not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .attributes import Attribute, refuse_taken
from .columns import Categorical, Column, Columns, Label, Numeric, fit_categorical, fit_numeric
from .encoding import Array
from .errors import DataError, closest, listed, plural
from .source import Labels, Options, Stored
from .spec import Spec
from .table_files import arrow_type, is_text, load, pyarrow
from .whole import whole

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CATEGORIES = 1000
EXACT = 1 << 53  # largest integer up to which float64 has all of them


def read_table(path: Path, options: Options) -> Stored:
    """Rows of a CSV (also ; or tab separated) or Parquet file. Raises DataError naming columns and rows.

    Texts and booleans are categories; numbers, dates and times are numeric, unless named in `options.categorical`.
    Missing categories are a category of their own; missing numbers come back as missing at the same rate.
    `options.label` names the column whose values become the classes, `options.condition` those that a model is told;
    they are no longer columns of a sample.
    """
    options.only("a table", "label", "columns", "drop", "categorical", "condition")
    table = load(path)
    table = _chosen(table, options, path)
    if table.num_columns and table.num_rows == 0:
        raise DataError(f"{path}: has columns ({listed(table.column_names)}) but no rows: give at least one")
    label, labels = _label(table, options.label, path)
    refuse_taken(options.condition, str(path))
    columns: list[Column] = []
    raw: list[Array] = []
    attributes: list[Attribute] = []
    given: list[Array] = []
    for position, name in enumerate(table.column_names):
        if name == options.label:
            continue
        column, values = _fit(name, table.column(name), name in options.categorical, path)
        if name in options.condition:
            attributes.append(Attribute(column=column, position=position))
            given.append(values)
            continue
        columns.append(column)
        raw.append(values)
    if not columns:
        raise DataError(f"{path}: no columns are left to learn from: name more, or drop fewer")
    encoding = Columns(columns=tuple(columns), label=label)
    spec = Spec(
        kind="table",
        shape=(encoding.width,),
        classes=None if label is None else tuple(str(category) for category in label.column.categories),
        source=str(path),
        attributes=tuple(attributes),
        count=table.num_rows,
        encoding=encoding,
        facts=_facts(columns),
    )
    return Stored(spec, np.stack(raw, 1), labels, attributes=np.stack(given, 1) if given else None)


def to_table(
    x: ArrayLike, spec: Spec, labels: ArrayLike | None = None, attributes: ArrayLike | None = None
) -> pa.Table:
    """Samples (B, *spec.shape) as a table with the columns, order and types of the source.

    `labels` (B,) are class numbers, needed when a column of the source became the classes; `attributes` (B, A) raw
    values of the columns that the model was told, without which they are left out. Raises ValueError otherwise.
    """
    if not isinstance(spec.encoding, Columns):
        raise ValueError(f"{spec.source} is no table but {spec.kind}")
    arrow = pyarrow()
    raw = spec.decode(np.asarray(x))
    fields = [(column.name, _arrow_column(column, raw[:, i], arrow)) for i, column in enumerate(spec.encoding.columns)]
    if attributes is not None:
        for told, values in zip(spec.attributes, np.asarray(attributes, np.float64).T, strict=True):
            fields.append((told.name, _arrow_column(told.column, values, arrow)))
    label = spec.encoding.label
    if (label is None) != (labels is None):
        raise ValueError(f"{spec.source}: give labels exactly when the table has a label column")
    if label is not None:
        codes = np.asarray(labels, np.float64)
        fields.append((label.column.name, _arrow_column(label.column, codes, arrow)))
    return arrow.table(_ordered(dict(fields), spec))


def edited_table(raw: Array, spec: Spec, cells: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Raw rows (B, columns) as a table with the columns and order of the source, and what stands there kept.

    `cells`: Python's own values by column, None where the row's is taken; columns that the model is told are these
    alone, and left out where they are not there.
    """
    assert isinstance(spec.encoding, Columns)
    arrow = pyarrow()
    fields = {name: arrow.array(list(values)) for name, values in cells.items()}
    for i, column in enumerate(spec.encoding.columns):
        made = _arrow_column(column, raw[:, i], arrow)
        given = cells.get(column.name, [None] * len(made))
        kept = [new if old is None else old for new, old in zip(made.to_pylist(), given, strict=True)]
        fields[column.name] = arrow.array(kept)
    return arrow.table(_ordered(fields, spec))


def python_values(column: Column, raw: NDArray[np.float64]) -> list[Any]:
    """Raw values of a column ``(N,)`` as Python's own, in its own type; None where NaN."""
    values: list[Any] = _arrow_column(column, raw, pyarrow()).to_pylist()
    return values


def _ordered(fields: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """Columns where they stood in the source; those that are left out leave no gap."""
    assert isinstance(spec.encoding, Columns)
    placed = {told.name: told.position for told in spec.attributes}
    if spec.encoding.label is not None:
        placed[spec.encoding.label.column.name] = spec.encoding.label.position
    names = [column.name for column in spec.encoding.columns]
    for name, position in sorted(placed.items(), key=lambda item: item[1] or 0):
        names.insert(position or 0, name)
    return {name: fields[name] for name in names if name in fields}


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a `.csv` or `.parquet` file, complete or not at all. Raises DataError for any other ending."""
    pyarrow()
    from pyarrow import csv, parquet

    writers = {".csv": csv.write_csv, ".parquet": parquet.write_table}
    if path.suffix.lower() not in writers:
        raise DataError(f"{path}: a table is written as .csv or .parquet: choose one of these endings")
    with whole(path) as part:
        writers[path.suffix.lower()](table, part)


def _chosen(table: pa.Table, options: Options, path: Path) -> pa.Table:
    """The asked columns, in the order of the file; raises DataError for names that it does not have."""
    names = table.column_names
    asked = [*(options.columns or []), *options.drop, *options.categorical, *options.condition]
    asked += [options.label] if options.label else []
    for name in asked:
        if name not in names:
            raise DataError(f"{path}: no column {name!r}{closest(name, names) or '.'} It has: {listed(names, 40)}")
    for told in (options.label, *options.condition):
        if told in options.drop:
            raise DataError(f"{path}: {told!r} is told and also dropped: choose one")
    if options.label in options.condition:
        raise DataError(f"{path}: {options.label!r} is the label and also a condition: choose one")
    keep = {*(options.columns or names), options.label, *options.condition} - {*options.drop}
    return table.select([name for name in names if name in keep])


def _label(table: pa.Table, name: str | None, path: Path) -> tuple[Label | None, Labels | None]:
    if name is None:
        return None, None
    column = table.column(name)
    where = f"{path}: label column {name!r}"
    if column.null_count:
        raise DataError(f"{where} is empty in {plural(column.null_count, 'row')}: fill or remove them")
    fitted, codes = _categories(name, column, where)
    return Label(position=table.column_names.index(name), column=fitted), codes


def _fit(name: str, column: pa.ChunkedArray, coded: bool, path: Path) -> tuple[Column, Array]:
    """One column's description and its raw values (N,) float64."""
    types = pyarrow().types
    kind, where = column.type, f"{path}: column {name!r}"
    if column.null_count == len(column):
        raise DataError(f"{where} has no values at all: leave it out with drop")
    if coded or types.is_boolean(kind) or types.is_dictionary(kind) or is_text(kind):
        fitted, codes = _categories(name, column, where)
        return fitted, codes.astype(np.float64)
    if types.is_floating(kind):
        return _floats(name, column, where)
    if types.is_integer(kind) or (types.is_temporal(kind) and not types.is_interval(kind)):
        return _integers(name, column, where)
    if types.is_binary(kind) and path.suffix.lower() != ".parquet":
        raise DataError(f"{where} is not UTF-8 text: save the file as UTF-8")
    raise DataError(f"{where} holds {kind}, which is neither numbers nor categories: leave it out with drop")


def _categories(name: str, column: pa.ChunkedArray, where: str) -> tuple[Categorical, NDArray[np.int64]]:
    types = pyarrow().types
    kind, indices = column.type, None
    if types.is_dictionary(kind):
        kind, indices = kind.value_type, str(kind.index_type)
    if not (is_text(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)):
        raise DataError(f"{where} holds {kind}, which cannot be categories: use texts, booleans or whole numbers")
    values: Sequence[Any] = column.to_pylist()
    if types.is_floating(kind):
        values = _whole(values, where)
    distinct = len(set(values))
    if distinct > MOST_CATEGORIES or (distinct > 50 and distinct > len(values) / 2):
        raise DataError(
            f"{where} has {distinct:,} different values in {plural(len(values), 'row')}, too many for categories: "
            "leave it out with drop"
        )
    return fit_categorical(name, values, str(kind), indices=indices)


def _whole(values: Iterable[float | None], where: str) -> list[int | None]:
    """Floats that are all whole, as integers: categories are compared exactly."""
    found = list(values)
    bad = [row for row, value in enumerate(found) if value is not None and not float(value).is_integer()]
    if bad:
        shown = listed(f"{found[row]} in row {row}" for row in bad)
        raise DataError(f"{where} has values that are no classes ({shown}): use texts or whole numbers")
    return [None if value is None else int(value) for value in found]


def _floats(name: str, column: pa.ChunkedArray, where: str) -> tuple[Numeric, Array]:
    raw = column.cast("double").to_numpy().astype(np.float64)  # nulls become NaN: both mean missing
    infinite = np.flatnonzero(np.isinf(raw))
    if len(infinite):
        raise DataError(f"{where} is infinite in {plural(len(infinite), 'row')} ({listed(infinite)}): repair them")
    present = raw[~np.isnan(raw)]
    if len(present) == 0:
        raise DataError(f"{where} has no values at all: leave it out with drop")
    whole = bool(np.all(present == np.rint(present)) and np.all(np.abs(present) < EXACT))
    return fit_numeric(name, raw, str(column.type), integer=whole), raw


def _integers(name: str, column: pa.ChunkedArray, where: str) -> tuple[Numeric, Array]:
    """Integers and times as `origin + unit * k`: the smallest value, and the greatest common divisor above it."""
    arrow = pyarrow()
    try:
        wide = column if column.type.bit_width == 64 else column.cast(f"int{column.type.bit_width}", safe=False)
        whole = (column if arrow.types.is_integer(column.type) else wide).cast("int64")
    except arrow.ArrowException as error:
        raise DataError(f"{where} has values beyond 64 bits: leave it out with drop") from error
    absent = whole.is_null().to_numpy().astype(bool)
    origin = int(import_module("pyarrow.compute").min(whole).as_py())
    values = np.asarray(whole.fill_null(origin).to_numpy(), np.int64)
    above = values.astype(np.uint64) - np.array([origin], np.int64).astype(np.uint64)  # cannot overflow
    unit = max(int(np.gcd.reduce(above)), 1)
    if int(above.max()) // unit >= EXACT:
        raise DataError(f"{where} spans more than 2^53 steps: round it, or leave it out with drop")
    raw = np.where(absent, np.nan, (above // np.uint64(unit)).astype(np.float64))
    return fit_numeric(name, raw, str(column.type), integer=True, origin=origin, unit=unit), raw


def _facts(columns: Sequence[Column]) -> tuple[str, ...]:
    missing = [column.name for column in columns if isinstance(column, Numeric) and column.missing]
    missing += [column.name for column in columns if isinstance(column, Categorical) and None in column.categories]
    if not missing:
        return ()
    return (f"missing values in {plural(len(missing), 'column')} ({listed(missing)}): samples will have some too",)


def _arrow_column(column: Column, raw: NDArray[np.float64], arrow: Any) -> pa.Array:
    kind = arrow_type(column.type, arrow)
    if isinstance(column, Categorical):
        told = [None if np.isnan(code) else column.categories[int(code)] for code in raw]
        array = arrow.array(told, arrow.null() if not any(t is not None for t in told) else None).cast(kind)
        if column.indices is None:
            return array
        return array.dictionary_encode().cast(arrow.dictionary(arrow_type(column.indices, arrow), kind))
    absent = np.isnan(raw)
    if arrow.types.is_floating(kind):
        return arrow.array(raw, mask=absent).cast(kind, safe=False)
    steps = np.where(absent, 0, raw).astype(np.int64) * column.unit + column.origin
    whole = arrow.array(steps, mask=absent)
    if arrow.types.is_integer(kind):
        return whole.cast(kind)
    return whole.cast(f"int{kind.bit_width}").cast(kind)
