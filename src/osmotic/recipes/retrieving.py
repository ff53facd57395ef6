"""How well a dual encoder finds held-out pairs, while it trains."""

from __future__ import annotations

import numpy as np
import torch

from osmotic.data.dataset import Dataset
from osmotic.metrics.retrieval import Retrieval, retrieval
from osmotic.nn.dual import DualEncoder
from osmotic.training.contrast import Dual
from osmotic.training.denoise import PLAYER
from osmotic.training.hooks import Hook, Moment
from osmotic.training.recipe import Recipe

MOST = 1000
"""Pairs that are looked at."""

AT_ONCE = 250


def retrieved(dual: Dual, pairs: Dataset) -> Retrieval:
    """How often samples and texts of pairs find each other among all of them (evenly chosen ones of a large set)."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(MOST, len(pairs))).astype(np.int64))
    assert pairs.texts is not None
    texts, own = np.unique(np.asarray([pairs.texts[i] for i in chosen.tolist()], dtype=str), return_inverse=True)
    parts = [dual.pictures(pairs.batch(rows)[0]) for rows in np.split(chosen, range(AT_ONCE, len(chosen), AT_ONCE))]
    similarity = torch.cat(parts) @ dual.texts(texts.tolist()).T
    return retrieval(similarity.numpy(), own)


def retrieving(recipe: Recipe, held_out: Dataset) -> Hook:
    """A hook that writes :func:`retrieved` of the averaged weights to the log, and says it after the last step."""

    def call(moment: Moment) -> None:
        module = moment.modules[PLAYER]
        assert isinstance(module, DualEncoder)
        with moment.averaged():
            found = retrieved(Dual(module, held_out.spec, ""), held_out)
        moment.log.record(moment.step, {"retrieval": found._asdict()})
        if moment.step == recipe.options.steps:
            moment.log.say(f"held-out pairs: {found.line()}")

    return Hook(recipe.options.evaluate_every, call)
