"""The bound on the likelihood that a model trained end to end with its latents was trained by."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.data.counter import permutation
from osmotic.data.dataset import Dataset
from osmotic.likelihood import bits_per_dimension
from osmotic.recipes.draws import Progress
from osmotic.recipes.error_bars import mean
from osmotic.recipes.held_out import lattice, log_jacobian, unit
from osmotic.recipes.nats import Report
from osmotic.training import lsgm
from osmotic.training.run import Run
from osmotic.training.task import Batch, Domain, Noise


def of_latents(
    run: str | Path,
    held: Dataset,
    count: int | None,
    draws: int,
    seed: int,
    conditional: bool,
    weights: str | None,
    batch_size: int,
    progress: Progress | None,
) -> Report:
    """Minus the mean of :class:`~osmotic.training.lsgm.EndToEnd`'s three terms over held-out samples: at most the
    log-likelihood.

    Args:
        run: of ``--objective lsgm``.
        held: the samples.
        count: a fixed random part of them; None for all.
        draws: of latents, times and noise for each.
        seed: of the part and of all draws.
        conditional: given what is known of each.
        weights: of the run.
        batch_size: samples at a time.
        progress: as in :func:`osmotic.recipes.evaluate.likelihood`.
    """
    begun = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task, step, name = lsgm.loaded(Run.open(run), weights, device)
    chosen = permutation(seed, 0, len(held))[: count or len(held)]
    parts = torch.empty(3, draws, len(chosen), dtype=torch.float64)
    for draw in range(draws):
        for start in range(0, len(chosen), batch_size):
            rows = chosen[start : start + batch_size]
            terms = task.terms(
                task.generative, *_batch(held, rows, seed, draw, start, len(chosen), conditional, device)
            )
            parts[:, draw, start : start + len(rows)] = torch.stack([*terms]).double().cpu()
            if progress is not None:
                progress(len(rows), draws * len(chosen))
    spec, entries = held.spec, math.prod(held.spec.shape)
    found = -parts.sum(0) + log_jacobian(spec)
    names = ("reconstruction", "negative entropy", "cross-entropy")
    settings: dict[str, Any] = {term: round(float(part.mean()), 4) for term, part in zip(names, parts, strict=True)}
    settings |= {"draws": draws, "seed": seed, "given": "the class" if conditional else "nothing", "step": step}
    return Report(
        mean(found),
        mean(bits_per_dimension(found, entries)),
        unit(spec, lattice(spec)),
        len(chosen),
        len(held),
        entries,
        1.0,
        time.monotonic() - begun,
        settings | {"weights": name, "what": "the bound that it was trained by, of latents with a law of their own"},
    )


def _batch(
    held: Dataset,
    rows: np.ndarray,
    seed: int,
    draw: int,
    start: int,
    total: int,
    conditional: bool,
    device: torch.device,
) -> tuple[Batch, Condition | None]:
    """Samples with their draws, which are functions of (seed, draw, place in the part), and what the prior is told."""
    x: Tensor = held.batch(rows)[0].to(device)
    noise = Noise(seed, draw, total, start, len(rows), device, Domain.HELD_OUT)
    known = held.told(rows) if conditional else {}
    cond = Condition(**known).to(device) if known else None
    return Batch(x, cond, np.arange(start, start + len(rows)), rows, draw, noise), cond


def refuse_others(*settings: object) -> None:
    """Refuse what the flow's likelihood is told and this bound has no use for.

    Raises:
        ValueError: if anything was said.
    """
    if any(setting is not None for setting in settings):
        raise ValueError(
            "A model trained end to end with its latents is measured by its own bound; leave out --divergence, "
            "--noise, --dequantisation and --bound."
        )
