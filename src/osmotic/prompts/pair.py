"""A source and a target as one sample, so that any sampler takes the same steps and draws the same noise for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance
from osmotic.guidance.views import repeated
from osmotic.levels import Level, as_time
from osmotic.noise import Generators, Source, increment, normal
from osmotic.noise import Pair as Numbers
from osmotic.schedules import Number


class Pair(Denoiser):
    """A denoiser of pairs ``(B, 2, *S)``, the source first, around one of rows that take turns.

    The condition is the target's; the source's is the same with another text. Adaptive samplers choose their steps for
    both together, and so both are at one time at every call, which :class:`~osmotic.prompts.Shared` needs.

    Args:
        denoiser: a :class:`~osmotic.prompts.Shared`, with guidance around it or not.
        source: whose text (tokens and mask) the sources are told, one for all pairs or one for each.
        led: whether sources are guided as targets are. Not, where a source stands for a given picture: it comes back
            from its own noise without guidance alone, and its estimate is among the forward passes anyway.

    Raises:
        ValueError: for a source without tokens; in calls, for a condition without, texts that are not padded alike, and
            samples that are no pairs.
        TypeError: in calls, for what is no condition.
    """

    def __init__(self, denoiser: Denoiser, source: Condition, led: bool = True) -> None:
        super().__init__()
        _text(source)
        self.denoiser, self.source, self.led = denoiser, source, led
        self.around(denoiser)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if x.ndim < 2 or x.shape[1] != 2:
            raise ValueError(f"Pairs are (B, 2, ...), the source first; found {tuple(x.shape)}.")
        if not isinstance(cond, Condition):
            raise TypeError(f"A pair is told a text each in an osmotic Condition; got {type(cond).__name__}.")
        told, rows = self._told(cond, len(x)), x.flatten(0, 1)
        t = as_time(t)
        t = t.repeat_interleave(2) if t.ndim else t
        s = s.repeat_interleave(2) if isinstance(s, Tensor) and s.ndim else s
        inner = self.denoiser
        if self.led or not isinstance(inner, Guidance) or inner.plain is None:
            return _paired(inner(rows, t, told, s))
        plain, guided = (_paired(estimate) for estimate in inner.both(rows, t, told, s))
        x0, eps = (torch.stack([a[:, 0], b[:, 1]], 1) for a, b in zip(plain, guided, strict=True))
        return Estimate(x0, eps, guided.v)

    def _told(self, cond: Condition, count: int) -> Condition:
        """The conditions of the rows."""
        cond = repeated(cond, count)
        source = retold(cond, self.source)
        tokens, mask = (turns(a, b) for a, b in zip(_text(source), _text(cond), strict=True))
        twins = cond[torch.arange(count, device=tokens.device).repeat_interleave(2)]
        return replace(twins, tokens=tokens, mask=mask)


class Common(Source):
    """Noise for pairs: what is drawn for a sample serves its source and its target alike.

    Args:
        generator: one for the whole batch, one per pair, or a source; drawn from as for samples ``(B, *S)``.
    """

    def __init__(self, generator: Generators) -> None:
        self.generator = generator

    def normal(self, shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
        if len(shape) < 3:  # no pairs but what both are told: the latents of a denoiser that draws
            return normal(shape, self.generator, device, dtype)
        return twice(normal((shape[0], *shape[2:]), self.generator, device, dtype))

    def increment(self, x: Tensor, t: Numbers, s: Numbers) -> Tensor:
        return twice(increment(x[:, 0], self.generator, t, s))


def twice(x: Tensor) -> Tensor:
    """Samples ``(B, *S)`` as pairs of equal ones ``(B, 2, *S)``."""
    return torch.stack([x, x], 1)


def _paired(estimate: Estimate) -> Estimate:
    """Of rows that take turns, of pairs; unformed where one pair of numbers serves all rows, as it does in a loop."""

    def pairs(z: Tensor) -> Tensor:
        return z.reshape(-1, 2, *z.shape[1:])

    u, w, *x0 = estimate.row(1.0, 0.0)
    _, _, *eps = estimate.row(0.0, 1.0)
    v = None if estimate.v is None else pairs(estimate.v)
    if any(isinstance(number, Tensor) for number in (*x0, *eps)):
        return Estimate(pairs(estimate.x0), pairs(estimate.eps), v)
    return Estimate.of(pairs(u), pairs(w), (x0[0], x0[1]), (eps[0], eps[1]), v)


def retold(cond: Condition, source: Condition) -> Condition:
    """A condition with the text of another, which is one for all or one for each.

    Raises:
        ValueError: for texts that are not padded alike.
    """
    tokens, mask = _text(repeated(source, len(cond)))
    own, _ = _text(cond)
    if tokens.shape != own.shape:
        raise ValueError(
            f"Source and target of a pair are told texts padded alike: expected tokens {tuple(own.shape)}, found "
            f"{tuple(tokens.shape)}."
        )
    return replace(cond, tokens=tokens.to(own), mask=mask.to(own.device))


def _text(cond: Condition) -> tuple[Tensor, Tensor]:
    """Its tokens and which of them are real."""
    tokens, mask = cond.tokens, cond.mask
    if tokens is None:
        raise ValueError("Source and target of a pair are told a text each; give conditions with tokens.")
    return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask


def turns(sources: Tensor, targets: Tensor) -> Tensor:
    """Rows of two tensors ``(B, ...)`` in turn, ``(2 B, ...)``."""
    return torch.stack([sources, targets], 1).flatten(0, 1)
