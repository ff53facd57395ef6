"""Table files as they are: CSV, also with ; or tabs, and Parquet, read by pyarrow, which is imported only then."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import Column
from .errors import DataError, listed

if TYPE_CHECKING:
    import pyarrow as pa


def pyarrow() -> Any:
    """The package pyarrow. Raises DataError where it is not there."""
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise DataError("tables need pyarrow: pip install 'osmotic[tables]'") from error


def load(path: Path, columns: Sequence[Column] = ()) -> pa.Table:
    """The table of a CSV or Parquet file, as it is; columns that are known are read as their type. Raises DataError."""
    arrow = pyarrow()
    from pyarrow import csv, parquet

    try:
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path)
        else:
            types = {column.name: arrow_type(column.type, arrow) for column in columns}
            nulls = csv.ConvertOptions(strings_can_be_null=True, column_types=types)
            table = csv.read_csv(
                path,
                # With one thread a value that is not of its column's type is named with its line.
                read_options=csv.ReadOptions(use_threads=not types),
                parse_options=csv.ParseOptions(delimiter=_delimiter(path)),
                convert_options=nulls,
            )
        table.validate(full=True)  # a file may call bytes text that are none
        names = table.column_names
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if "Empty CSV" in str(error):
            raise DataError(f"{path}: holds no rows: give a line of column names, and rows below it") from None
        reason = _reason(error, columns)
        raise DataError(f"{path}: not a readable table ({reason}): repair or export it again") from error
    if path.suffix.lower() != ".parquet" and _headless(table):
        raise DataError(f"{path}: the first line holds data ({listed(names)}): add a line with column names above it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: columns with the same name ({listed(twice)}): give each its own")
    return table


def _reason(error: Exception, columns: Sequence[Column]) -> str:
    text = " ".join(str(error).split())[:200]
    found = re.search(r"Row #(\d+): CSV conversion error to (.+): invalid value '(.*)'", text) if columns else None
    return f"line {found[1]} has {found[3]!r}, where the model's column holds {found[2]}" if found else text


def _delimiter(path: Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        head = file.readline(1 << 16)
    return max(",;\t", key=head.count)


def _headless(table: pa.Table) -> bool:
    """Whether the column names are a row of data: all numbers, or a value that its own column of texts has again."""
    if all(_is_number(name) for name in table.column_names):
        return True
    compute = import_module("pyarrow.compute")
    return any(
        compute.index(column, name).as_py() >= 0
        for name, column in zip(table.column_names, table.columns, strict=True)
        if is_text(column.type)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_text(kind: pa.DataType) -> bool:
    """Whether a column's type is one of texts."""
    return str(kind) in ("string", "large_string", "string_view")


def arrow_type(text: str, arrow: Any) -> pa.DataType:
    """The type that pyarrow writes as `text`."""
    zoned = re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", text)
    return arrow.timestamp(zoned[1], zoned[2]) if zoned else arrow.type_for_alias(text)
