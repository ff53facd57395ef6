"""From noise to samples, one row a sample, one column a step of the solver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from osmotic.report import pictures
from osmotic.training.chosen import Plan
from osmotic.training.model import Model, Told

COLUMNS = 12
"""Points of a trajectory that are shown, at most."""


def strip(
    model: Model,
    path: Path,
    n: int,
    cond: Told | None,
    guidance: float,
    plan: Plan,
    seed: int = 0,
    rows: Sequence[str] = (),
) -> Path:
    """Draw a model of pictures at work; every level scaled to be seen, for noise is far larger than data.

    Args:
        model: of pictures.
        path: of the PNG.
        n: how many samples.
        cond: as in :meth:`osmotic.training.model.Model.sample`.
        guidance: likewise.
        plan: the solver, its steps and its stops.
        seed: of the noise.
        rows: names of the samples.
    """
    points = list(model.trajectory(n, cond, guidance, plan.sampler, plan.steps, seed, grid=plan.grid))
    chosen = sorted({round(i * (len(points) - 1) / (COLUMNS - 1)) for i in range(COLUMNS)})
    scale = model.recipe.process.sigma_data or 1.0
    frames = []
    for x in (points[i] for i in chosen):
        spread = x.std(dim=tuple(range(1, x.ndim)), keepdim=True).clamp_min(scale)
        frames.append(torch.where(spread > 2 * scale, x * (scale / spread), x))
    images = model.decode(torch.stack(frames, 1).flatten(0, 1))
    return pictures.save(pictures.grid(images, len(chosen), rows, [str(i) for i in chosen]), path)
