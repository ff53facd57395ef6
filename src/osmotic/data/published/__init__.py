"""Numbers that others published, as they were printed: context for a person, never merged and never measured here.

The same method stands in several tables with different numbers, so a number means something only with its table's id.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

SCORE_SDE = "Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021 (2011.13456)"
CONSISTENCY = "Song et al., Consistency Models, 2023 (2303.01469)"
CTM = "Kim et al., Consistency Trajectory Models, 2024 (2310.02279)"
DDIM = "Song et al., Denoising Diffusion Implicit Models, 2021 (2010.02502)"
LECTURES = "lecture notes on diffusion models, which quote several papers"


class Table(NamedTuple):
    """A published table.

    `id`: to cite beside every number. `source`: the paper, with its arXiv id. `columns`: heads, arrows as printed.
    `rows`: cells as printed: an empty one was empty, "-" and "X" are the authors' own marks. `notes`: what to know.
    """

    id: str
    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


T39 = (
    "The same method has other numbers in other tables (PD at 1 evaluation 8.34 and 9.12, at 2 evaluations 5.58 and "
    "4.51; EDM 2.04 and 2.01; DFNO 4.12 and 3.78; DDIM at 10 evaluations 8.23 and 13.36; BigGAN 14.7 and 8.51; LSGM's "
    "evaluations 147 and 138): cite the table's id with each number, and never merge tables."
)
T40 = (
    "The header of the last group stands above rows of distilled models at 2 evaluations, so rows were probably lost "
    "between them; it is kept as printed."
)
T41 = "One cell, DDIM on Church in 10 steps, was lost where this was copied from; it is left empty."
ODE = "FID is that of samples drawn with the ODE; ≤ marks a bound, and stars are as printed."
BEST = "Each model is sampled by the sampler that suits it best."
SYNTHETIC = "A star marks methods that need synthetic training data."
DISTILLED = "A dagger marks distilled models."
MARKS = "X: not applicable."
STEPS = "FID; the number in a column's head is the number of reverse steps, which is that of network calls."
SCATTERED = "Single numbers from different sources, told as they were said; the last column names the lecture and line."

_TABLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "TAB1": ("CIFAR-10, likelihood and FID with the ODE", f"{SCORE_SDE}, table 2", (ODE, T39)),
    "TAB2": ("CIFAR-10, sample quality", f"{SCORE_SDE}, table 3", (BEST, T39)),
    "TAB3": ("CIFAR-10, quality against evaluations", f"{CONSISTENCY}, table 1", (SYNTHETIC, T39)),
    "TAB4": ("ImageNet 64 x 64, LSUN Bedroom and Cat 256 x 256", f"{CONSISTENCY}, table 2", (DISTILLED, T39)),
    "TAB5": ("CIFAR-10, few-step models", f"{CTM}, table 1", (MARKS, T39, T40)),
    "TAB6": ("LSUN Bedroom and Church, DDIM and DDPM by steps", DDIM, (STEPS, T41)),
    "TAB7": ("Other numbers", LECTURES, (SCATTERED,)),
}


@cache
def published() -> tuple[Table, ...]:
    """All tables, TAB1 to TAB7."""
    return tuple(_read(id, *about) for id, about in _TABLES.items())


def _read(id: str, title: str, source: str, notes: tuple[str, ...]) -> Table:
    text = files(__name__).joinpath(f"{id}.csv").read_text(encoding="utf-8")
    columns, *rows = (tuple(row) for row in csv.reader(text.splitlines()))
    return Table(id, title, source, columns, tuple(rows), notes)
