"""A denoiser whose network lends the attention of one text to the next one's sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import refuse_matrices
from osmotic.levels import Level, as_time, once
from osmotic.nn import AttentionBlock, DiTBlock
from osmotic.nn.attention import Attend, CrossAttention, SelfAttention, attend
from osmotic.nn.ports import MeanToken
from osmotic.prompts.pair import turns
from osmotic.prompts.words import Edit
from osmotic.schedules import Number

Attending: TypeAlias = SelfAttention | CrossAttention
Hook: TypeAlias = Callable[[nn.Module, object, Tensor], Tensor]

CROSS, WITHIN, MEAN = 0.8, 0.4, 0.05
"""Shares of the way for the maps over the text, for those over the picture, and for the mean of the text. The first two
are the paper's numbers, the last was found on a small model of the embedded shapes: with more, colours stay, too."""
COARSE = 16 * 16
"""Positions of the finest level whose self-attention is shared; the published code's."""


class Shared(Denoiser):
    """A denoiser of pairs of rows, 2i the source and 2i + 1 the target, that gives the target the source's attention.

    In the first ``cross`` of the way the target's maps over the tokens are
    ``(A_source carry + A_target own) scale`` (:class:`~osmotic.prompts.Edit`), in the first ``within`` of it the
    self-attention maps of coarse levels are the source's; values are always the target's own. Hertz et al. 2022 (arXiv
    2208.01626). In the networks here the mean of a text joins the time embedding, too, and says most of what the text
    says where the layout is decided; no attention map can hold it back, so in the first ``mean`` of the way the target
    is told the source's mean. The source is denoised as it would be alone.

    Maps are never formed: ``A carry v`` is the fused attention of carried values, for attention is linear in them. The
    way from noise to data is measured by ``phi = atan2(sigma, deviation alpha)``, a part s of it being gone where
    ``phi <= (1 - s) pi / 2``, so that a share means the same to every schedule, grid and sampler. Both kinds of
    maps are shared under the conditional and the unconditional view of guidance around it; under another text (a
    negative) the self-attention maps alone are. The network is as it was after each call, also after one that fails.

    Args:
        denoiser: of a network that reads tokens by cross-attention; guidance goes around this one.
        edits: between the texts of the pairs that will be seen; a pair of other texts keeps its own maps.
        cross: share of the way, in [0, 1].
        within: likewise.
        mean: likewise.
        deviation: of the data.

    Raises:
        ValueError: for a network without cross-attention, shares outside [0, 1], no edit, and paths of matrices; in
            calls, for an odd batch and a condition without tokens.
    """

    _carry: Tensor
    _own: Tensor
    _scale: Tensor
    _source: Tensor
    _target: Tensor

    def __init__(
        self,
        denoiser: Denoiser,
        edits: Sequence[Edit],
        cross: float = CROSS,
        within: float = WITHIN,
        mean: float = MEAN,
        deviation: float = 1.0,
    ) -> None:
        super().__init__()
        refuse_matrices(denoiser, "Shared")
        blocks = [m for m in denoiser.modules() if isinstance(m, AttentionBlock | DiTBlock)]
        # Not the self-attention of what reads the text: tuples, for these are no further submodules.
        self._along = tuple(block.attention for block in blocks)
        self._across = tuple(block.cross for block in blocks if block.cross is not None)
        self._means = tuple(m for m in denoiser.modules() if isinstance(m, MeanToken))
        if not self._across:
            raise ValueError(
                "Attention control needs a network that reads a text by cross-attention, and this one has none; use a "
                "U-Net or a DiT that was trained with captions."
            )
        shares = (cross, within, mean)
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(
                f"Attention is shared for shares of the way, in 0 to 1; got {cross:g}, {within:g}, {mean:g}."
            )
        if not edits:
            raise ValueError("Attention control needs at least one edit, from a source text to a target text.")
        self.denoiser, self.shares, self.deviation = denoiser, shares, deviation
        self.around(denoiser)
        place = next(denoiser.parameters()).device
        for name in ("source", "target", "carry", "own", "scale"):
            rows = torch.stack([getattr(edit, name) for edit in edits]).to(place)
            self.register_buffer(f"_{name}", rows, persistent=False)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        tokens = cond.tokens if isinstance(cond, Condition) else None
        if tokens is None:
            raise ValueError("Attention is shared between two texts; give a condition with tokens.")
        if len(x) % 2:
            raise ValueError(f"Sources and targets take turns in a batch; {len(x)} samples are no pairs.")
        cross, within, mean = self._on(as_time(t))
        calls: dict[Attending, Attend] = {}
        if cross is not False:
            calls |= dict.fromkeys(self._across, self._told(tokens, cross))
        if within is not False:
            calls |= dict.fromkeys(self._along, _Within(within))
        hooks: dict[nn.Module, Hook] = {} if mean is False else dict.fromkeys(self._means, _Mean(mean))
        with instead(calls, hooks):
            estimate: Estimate = self.denoiser(x, t, cond, s)
        return estimate

    def _told(self, tokens: Tensor, on: bool | Tensor) -> _Cross:
        """The control of maps over these tokens ``(R, L)`` or ``(R, L, D)``, where it is on."""
        same = alike(tokens[0::2, None], self._source) & alike(tokens[1::2, None], self._target)
        found = same.flatten(2).all(2)
        index = found.float().argmax(1)
        gate = found.any(1) & (on.to(found.device) if isinstance(on, Tensor) else on)
        carry = self._carry[index] * self._scale[index, None] * gate[:, None, None]
        weight = torch.where(gate[:, None], self._own[index] * self._scale[index], 1.0)
        return _Cross(carry, weight)

    def _on(self, t: Tensor) -> list[bool | Tensor]:
        """Whether each kind of thing is shared at a time: True or False, or for each pair ``(R / 2,)``."""

        def look() -> list[bool | Tensor]:
            alpha, sigma = self.schedule.numbers(t)
            single = not isinstance(alpha, Tensor) and not isinstance(sigma, Tensor)
            phi = torch.atan2(*(as_time(number).double() for number in (sigma, self.deviation * alpha)))
            phi = phi if phi.ndim == 0 else phi[0::2]
            found: list[bool | Tensor] = [share > 0 and phi > (1 - share) * (math.pi / 2) for share in self.shares]
            return [bool(on) for on in found] if single else found

        return once(t, self, look)


class _Cross:
    """Attention to tokens in which targets read the source's maps, too; the null before the tokens is each one's own.

    Args:
        carry: ``(P, L, L)`` for each pair.
        weight: ``(P, L)``, of the target's own map.
    """

    def __init__(self, carry: Tensor, weight: Tensor) -> None:
        self.carry, self.weight = carry, weight

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        carry = nn.functional.pad(self.carry, (1, 0, 1, 0)).to(v)
        weight = nn.functional.pad(self.weight, (1, 0), value=1.0).to(v)
        shown = None if mask is None else mask[0::2]
        carried = attend(q[0::2], k[0::2], carry @ v[1::2], heads, shown)
        y = attend(q, k, v * turns(torch.ones_like(weight), weight)[..., None], heads, mask)
        return y + turns(torch.zeros_like(carried), carried)


class _Within:
    """Self-attention in which targets have the source's maps and their own values.

    Args:
        on: True, or for each pair ``(P,)``.
    """

    def __init__(self, on: bool | Tensor) -> None:
        self.on = on

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        if q.shape[1] > COARSE:
            return attend(q, k, v, heads, mask)
        return attend(lent(q, self.on), lent(k, self.on), v, heads, mask)


class _Mean:
    """A hook on the mean of the tokens ``(R, width)`` by which targets read the source's.

    Args:
        on: True, or for each pair ``(P,)``.
    """

    def __init__(self, on: bool | Tensor) -> None:
        self.on = on

    def __call__(self, module: nn.Module, told: object, mean: Tensor) -> Tensor:
        return lent(mean, self.on)


def lent(x: Tensor, on: bool | Tensor) -> Tensor:
    """Rows ``(R, ...)`` with the sources' in place of the targets', True or for some pairs ``(P,)``."""
    theirs = x[0::2].repeat_interleave(2, 0)
    if not isinstance(on, Tensor):
        return theirs if on else x
    return torch.where(on.to(x.device).repeat_interleave(2).view(-1, *[1] * (x.ndim - 1)), theirs, x)


def alike(a: Tensor, b: Tensor) -> Tensor:
    """Where two are equal: ids to the bit, features of an encoder but for the rounding that differs with the batch."""
    return torch.isclose(a, b.to(a.dtype), rtol=1e-3, atol=1e-3) if a.is_floating_point() else a == b


@contextmanager
def instead(calls: Mapping[Attending, Attend], hooks: Mapping[nn.Module, Hook]) -> Iterator[None]:
    """Modules that attend by another function, and whose output another changes; as they were afterwards, whatever
    happens.
    """
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        for module, call in calls.items():
            module.attend = call
        yield
    finally:
        for module in calls:
            module.__dict__.pop("attend", None)
        for handle in handles:
            handle.remove()
