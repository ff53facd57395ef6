"""One noise level of a sampling run: a time that remembers the numbers computed at it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Level(Tensor):
    """A time t (0-dimensional float64 CPU tensor) with a memo of plain numbers, itself among them.

    The sampling loop makes each level once, so schedules, targets and clocks are evaluated once per level, in float64,
    and a step reads Python floats: no 0-dimensional tensor arithmetic and no host-device read in the loop. To everybody
    else a level is an ordinary tensor, and arithmetic on it gives ordinary tensors.
    """

    memo: dict[Hashable, Any]
    number: float
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(t: Tensor | float) -> Level:
        """The level at time t, a number or a 0-dimensional tensor."""
        return Level.grid(torch.as_tensor(t, dtype=torch.float64).reshape(1))[0]

    @staticmethod
    def grid(times: Tensor) -> list[Level]:
        """The levels at times ``(n,)``."""
        times = times.detach().to("cpu", torch.float64, copy=True)
        levels = [Tensor._make_subclass(Level, t) for t in times.unbind()]
        for level, number in zip(levels, times.tolist(), strict=True):
            level.memo, level.number = {}, number
        return levels

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Level({self.number})"


def once(t: Tensor, key: Hashable, compute: Callable[[], T]) -> T:
    """``compute()``, remembered under ``key`` where t is a level."""
    if not isinstance(t, Level):
        return compute()
    if key not in t.memo:
        t.memo[key] = compute()
    value: T = t.memo[key]
    return value


def recall(t: Level, key: Hashable, s: Level, find: Callable[[], object]) -> Any:
    """What is kept at t for the step to s under a key: ``t.memo[key] = s, value``, which ``find()`` has to set.

    The key names whatever the value depends on besides, a schedule for one: levels outlive a run.
    """
    known = t.memo.get(key)
    if known is None or known[0] is not s:
        find()
        known = t.memo[key]
    return known[1]


def as_time(t: Tensor | float) -> Tensor:
    """A time as a tensor: tensors pass unchanged, a plain number becomes a float64 one."""
    return t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)
