"""The catalogue of noise schedules, and the history of the field."""

from __future__ import annotations

import numpy as np
import torch

from osmotic.recipes.gallery.numbers import Numbers
from osmotic.schedules import CATALOG

# First public dates as the tutorials give them: (year + (month - 1) / 12 by construction below), place, group.
HISTORY = (
    ("DPM", 2015, 3, "ICML 2015", "Stanford"),
    ("DDPM", 2020, 6, "NeurIPS 2020", "Berkeley"),
    ("DDIM", 2020, 10, "ICLR 2021", "Stanford"),
    ("Score SDE", 2020, 11, "ICLR 2021", "Stanford"),
    ("EDM", 2022, 6, "NeurIPS 2022", "NVIDIA"),
    ("Consistency", 2023, 3, "ICML 2023", "OpenAI"),
    ("CTM", 2023, 10, "ICLR 2024", "Sony AI"),
)


def schedules(seed: int) -> Numbers:
    """Signal and noise of every schedule of the catalogue, as shares of ``hypot(alpha, sigma)``, and its log-SNR.

    Times leave out the two ends, where log-SNR may be infinite.
    """
    t = torch.cat([torch.tensor([0.001]), torch.linspace(0.01, 0.99, 99), torch.tensor([0.999])]).to(torch.float64)
    rows = [CATALOG[name]()(t) for name in CATALOG]
    norms = [torch.hypot(alpha, sigma) for alpha, sigma in rows]
    return {
        "name": np.array(list(CATALOG)),
        "t": t.numpy(),
        "alpha": np.stack([alpha.numpy() for alpha, _ in rows]),
        "sigma": np.stack([sigma.numpy() for _, sigma in rows]),
        "signal": np.stack([(alpha / n).numpy() for (alpha, _), n in zip(rows, norms, strict=True)]),
        "noise": np.stack([(sigma / n).numpy() for (_, sigma), n in zip(rows, norms, strict=True)]),
        "log_snr": np.stack([2 * (alpha.log() - sigma.log()).numpy() for alpha, sigma in rows]),
    }


def timeline(seed: int) -> Numbers:
    """When the tutorials' models appeared."""
    names, years, months, places, groups = zip(*HISTORY, strict=True)
    return {
        "name": np.array(names),
        "year": np.array(years),
        "month": np.array(months),
        "place": np.array(places),
        "group": np.array(groups),
    }
