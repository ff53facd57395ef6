"""Samples of any kind of data as one picture and as the user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmotic.data.columns import Columns, Numeric
from osmotic.data.images import save_images, save_npz
from osmotic.data.spec import Spec
from osmotic.data.whole import whole
from osmotic.report import pictures, plots

Array = NDArray[Any]


def draw(raw: Array, spec: Spec, path: Path, rows: Sequence[str] = (), real: Array | None = None) -> Path:
    """One picture of samples in the data's own format (what ``spec.decode`` gives).

    Args:
        raw: samples ``(N, ...)``.
        spec: what they are.
        path: of the PNG.
        rows: names of the rows of a grid of pictures, each row holding equally many samples.
        real: data to show beside, for points and tables.
    """
    if spec.kind == "images":
        return pictures.save(pictures.block(raw, rows), path)
    if spec.kind == "sequences":
        return plots.lines(raw, path)
    flat = raw.reshape(len(raw), -1)
    other = None if real is None else real.reshape(len(real), -1)
    if spec.kind == "vectors" and flat.shape[1] == 2:
        return plots.scatter(flat, path, other)
    if isinstance(spec.encoding, Columns):
        beside = None if other is None else _units(other, spec.encoding)[0]
        return plots.histograms(*_units(flat, spec.encoding), path, beside)
    names = [str(i) for i in range(flat.shape[1])]
    return plots.histograms(flat.astype(np.float64), names, [()] * len(names), path, other)


def _units(raw: Array, encoding: Columns) -> tuple[Array, list[str], list[tuple[str, ...]]]:
    """A table's raw rows in its columns' units, the columns' names, and each one's categories (none for numbers)."""
    values = np.array(raw, np.float64)
    categories: list[tuple[str, ...]] = []
    for i, column in enumerate(encoding.columns):
        if isinstance(column, Numeric):
            values[:, i] = column.origin + column.unit * values[:, i]
            categories.append(())
        else:
            categories.append(tuple("missing" if c is None else str(c) for c in column.categories))
    return values, [column.name for column in encoding.columns], categories


def write(
    x: Array,
    spec: Spec,
    folder: Path,
    labels: Sequence[int] | None,
    notes: Sequence[Mapping[str, str]],
    attributes: Array | None = None,
) -> list[Path]:
    """Samples as files that other tools read: PNGs and an ADM .npz, a table, or a .npy.

    Args:
        x: samples ``(N, *S)`` in the network's scale.
        spec: of the data, which turns them back.
        folder: where; it is made.
        labels: the class of each, or None.
        notes: for each picture what is written into its PNG (seed, command).
        attributes: ``(N, A)`` raw values that a table's samples were drawn under; None leaves their columns out.

    Returns:
        The paths that matter to a person: a folder of pictures counts once.
    """
    raw = spec.decode(x)
    folder.mkdir(parents=True, exist_ok=True)
    if spec.kind == "images":
        save_images(raw, folder / "pictures", texts=notes)
        shape = "x".join(str(n) for n in raw.shape[1:])
        return [folder / "pictures", save_npz(raw, folder / f"samples_{len(raw)}x{shape}.npz", labels)]
    if spec.kind == "table":
        return [_table(x, spec, folder, labels, attributes)]
    path = folder / "samples.npz"
    arrays = {"x": raw} if labels is None else {"x": raw, "y": np.asarray(labels, np.int64)}
    with whole(path) as part:
        np.savez_compressed(part, allow_pickle=False, **arrays)
    return [path]


def _table(x: Array, spec: Spec, folder: Path, labels: Sequence[int] | None, attributes: Array | None) -> Path:
    from osmotic.data.table import to_table, write_table

    path = folder / "samples.csv"
    write_table(to_table(x, spec, labels, attributes), path)
    return path
