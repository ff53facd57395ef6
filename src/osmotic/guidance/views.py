"""Views of a condition, and one forward pass for several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import as_time
from osmotic.schedules import Number

View: TypeAlias = Callable[[Condition], Condition]
"""What is made of the condition of a batch: another condition of it. Views that compare equal are evaluated once."""


def everything(cond: Condition) -> Condition:
    """The condition as it is."""
    return cond


def nothing(cond: Condition) -> Condition:
    """The condition hidden from every sample."""
    return cond.drop(torch.zeros(len(cond), dtype=torch.bool, device=_device(cond)))


@dataclass(frozen=True)
class Shown:
    """The condition with some of its parts hidden: two scales for an image and a text need the image alone.

    Args:
        parts: for each part, in the order of ``Condition.keep``'s columns, whether it is shown.
    """

    parts: tuple[bool, ...]

    def __call__(self, cond: Condition) -> Condition:
        return cond.drop(torch.tensor(self.parts, device=_device(cond)).expand(len(cond), -1))


@dataclass(frozen=True, eq=False)
class Given:
    """Another condition, whatever the batch's own is: a negative, or one of several.

    What is no information and never dropped (``valid``, ``scale``, ``latent``) stays the batch's own unless this one
    has it.

    Args:
        condition: for the whole batch, or a single one that serves all its samples.
    """

    condition: Condition

    def __call__(self, cond: Condition) -> Condition:
        names = [n for n in ("valid", "scale", "latent") if getattr(self.condition, n) is None]
        own = {n: getattr(cond, n) for n in names if getattr(cond, n) is not None}
        return replace(repeated(self.condition, len(cond)), **own) if own else self.condition


def repeated(cond: Condition, size: int) -> Condition:
    """The condition for a batch of this size; a single one serves all samples."""
    if len(cond) != 1 or size == 1:
        return cond
    return cond[torch.zeros(size, dtype=torch.int64, device=_device(cond))]


def seen(denoiser: Denoiser, x: Tensor, t: Tensor, conditions: Sequence[Condition], s: Number | None) -> list[Estimate]:
    """The estimates under n conditions of the same samples ``(B, *S)``, by one call on a batch of n B."""
    n = len(conditions)
    if n == 1:
        return [denoiser(x, t, repeated(conditions[0], len(x)), s)]
    joined = Condition.cat([repeated(c, len(x)) for c in conditions])
    rest: Estimate = denoiser(torch.cat([x] * n), _times(t, n), joined, None if s is None else _times(s, n))
    found = []
    for _ in range(n - 1):
        first, rest = rest.split(len(x))
        found.append(first)
    return [*found, rest]


def _device(cond: Condition) -> torch.device:
    values: list[Tensor | None] = [getattr(cond, f.name) for f in fields(cond)]
    return next(value.device for value in values if value is not None)


def _times(t: Number, n: int) -> Tensor:
    """Times for n batches: a single time serves as it is."""
    t = as_time(t)
    return torch.cat([t] * n) if t.ndim else t
