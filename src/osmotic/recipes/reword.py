"""Editing by words: a sample under one text becomes one under another, and keeps what the words have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from osmotic import inversion
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.noise import generators
from osmotic.prompts import Common, Edit, Pair, Shared, Text, retold, twice
from osmotic.prompts.shared import CROSS, MEAN, WITHIN
from osmotic.recipes.edit import STEPS, Progress, Way, every, refuse_gaps
from osmotic.samplers import prior, sample
from osmotic.training.conditions import rows as said
from osmotic.training.model import Model

CORRECTIONS = 1
"""Of each step up to the noise, by what DDIM's own step down misses."""


def reword(
    model: Model, x: Tensor, before: str, way: Way, share: float = CROSS, progress: Progress | None = None
) -> Tensor:
    """Samples ``(N each, *S)`` of the noises that give x under one text, drawn under another with its attention.

    As :func:`osmotic.recipes.edit.swap`, with cross-attention control (Hertz et al. 2022, arXiv 2208.01626): on the way
    down x is drawn beside what it becomes, without guidance, and lends it its attention
    (:class:`osmotic.prompts.Shared`). Both ways take the same DDIM steps, for attention is shared up to a level where
    the flow jumps, and an adaptive solver would stumble. There is one result, so ``way.each`` is 1.

    Args:
        model: with a posterior mean, told a text that it reads by cross-attention.
        x: ``(N, *S)``.
        before: the text of x.
        way: how; its condition says the text of the results.
        share: of the way for which attention over the text is shared, in [0, 1]; the rest of
            :class:`~osmotic.prompts.Shared` in proportion.
        progress: told how many are done.

    Raises:
        ValueError: for a model without texts or cross-attention, no text, or a share outside [0, 1].
    """
    refuse_gaps(x)
    lending, source = _lending(model, before, way, len(x) * way.each, share)
    x = model.into(x)
    times = model.plan().grid(model.denoiser.schedule, way.steps or STEPS, model.denoiser.start)
    steps = inversion.Stepwise(times, iterations=CORRECTIONS)

    def some(denoiser: Denoiser, rows: Tensor, cond: Condition | None, first: int) -> Tensor:
        assert cond is not None
        was = retold(cond, source)
        noise = inversion.encode(model.guided(was), x[rows].to(model.device), was, steps)
        return inversion.decode(Pair(denoiser, source, led=False), twice(noise), cond, steps)[:, 1]

    return every(lending, len(x), way, some, progress, twins=2)


def drawn(model: Model, before: str, way: Way, share: float = CROSS, progress: Progress | None = None) -> Tensor:
    """Pairs ``(each, 2, *S)`` of a sample under one text and the same under another, from one noise.

    The first of pair i is sample i of the same seed under the first text.

    Args:
        model: told a text that it reads by cross-attention.
        before: the text of the first.
        way: how; its condition says the text of the second.
        share: as in :func:`reword`.
        progress: told how many are done.

    Raises:
        ValueError: as :func:`reword`.
    """
    lending, source = _lending(model, before, way, way.each, share)
    plan = model.plan(steps=way.steps)

    def some(denoiser: Denoiser, rows: Tensor, cond: Condition | None, first: int) -> Tensor:
        keyed = list(generators(way.seed, range(first, first + len(rows)), model.device))
        noise = prior(denoiser, (len(rows), *model.seen.shape), keyed, model.device)
        times = plan.grid(denoiser.schedule, plan.steps, denoiser.start)
        return sample(plan.sampler, Pair(denoiser, source), twice(noise), times, cond, Common(keyed))

    return every(lending, 1, way, some, progress, twins=2)


def _lending(model: Model, before: str, way: Way, total: int, share: float) -> tuple[Model, Condition]:
    """The model with shared attention between the first text and each that is asked for, and the first as a condition.

    Raises:
        ValueError: as :func:`reword`.
    """
    captions = model.spec.captions
    if captions is None:
        raise ValueError("This model was trained without texts, so it has no attention over words to share.")
    asked = way.cond.get("text") if isinstance(way.cond, Mapping) else way.cond
    texts = [] if asked is None or isinstance(asked, Condition) else said("text", asked, total)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("Attention is shared between two texts; say what the results should be in words, too.")
    captions.prompt(before)
    different = [before, *dict.fromkeys(texts)]
    ids, mask = (torch.from_numpy(rows) for rows in captions.encode(different))
    read = [Text(captions.pieces(text), row) for text, row in zip(different, ids, strict=True)]
    edits = [Edit.of(read[0], text) for text in read[1:]]
    deviation = model.recipe.process.sigma_data or 1.0
    shared = Shared(model.denoiser, edits, share, share * WITHIN / CROSS, share * MEAN / CROSS, deviation)
    lending = Model(shared, model.spec, model.recipe, model.step, model.weights, model.tuning, model.codec)
    return lending, Condition(tokens=ids[:1], mask=mask[:1]).to(model.device)
