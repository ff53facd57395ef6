"""Edited samples beside what was given, as one picture and as the user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmotic.data.given import Given
from osmotic.data.spec import Spec
from osmotic.data.whole import whole
from osmotic.report import pictures
from osmotic.report.samples import draw, write

Array = NDArray[Any]


def write_edited(
    x: Array,
    spec: Spec,
    folder: Path,
    before: Given,
    filled: bool,
    labels: Sequence[int] | None,
    notes: Sequence[Mapping[str, str]],
    told: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    drawn: bool = False,
) -> list[Path]:
    """Edited samples as files: pictures with a grid, a row for each that was given; a table; or an array.

    Args:
        x: results ``(N each, *S)`` in the network's scale, those of one sample after each other.
        spec: of the data, which turns them back.
        folder: where.
        before: what was given, N samples.
        filled: whether gaps were filled, so that what was known stands there again as it was given.
        labels: the class of each result, or None.
        notes: for each picture what is written into its PNG.
        told: the columns of a table that the model was told, a value for each result, where gaps were filled.
        drawn: whether what was "given" was drawn, too, so that it is written as well, in ``from/``.

    Returns:
        The paths that matter to a person.
    """
    each = len(x) // len(before.x)
    raw = spec.decode(x)
    if drawn:
        own = write(before.x, spec, folder / "from", None, notes)
        return [*own, *write_edited(x, spec, folder, before, filled, labels, notes)]
    if filled:
        raw = before.restored(raw, each)
    if spec.kind == "images":
        return [*write(x, spec, folder, labels, notes), _grid(raw, spec, folder, before, each)]
    if spec.kind == "table":
        from osmotic.data.table import edited_table, write_table

        # What was given stands again where gaps were filled; elsewhere every cell is the model's.
        cells = {name: [value for value in values for _ in range(each)] for name, values in before.cells.items()}
        write_table(edited_table(raw, spec, {**cells, **told} if filled else {}), folder / "edited.csv")
        return [folder / "edited.csv"]
    path = folder / "edited.npz"
    with whole(path) as part:
        np.savez_compressed(part, allow_pickle=False, x=raw)
    return [path]


def _grid(raw: Array, spec: Spec, folder: Path, before: Given, each: int) -> Path:
    """A row for each picture that was given, it and its results; results alone where they are of another size."""
    path = folder / "grid.png"
    if before.x.shape[1:] != spec.shape or len(raw) != each * len(before.x):
        return draw(raw, spec, path)
    given = spec.decode(np.nan_to_num(before.x, nan=-1.0))
    rows = [np.concatenate([given[i : i + 1], raw[i * each : (i + 1) * each]]) for i in range(len(given))]
    return pictures.save(pictures.grid(np.concatenate(rows), each + 1, list(before.names)), path)
