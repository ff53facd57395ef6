"""What a denoiser may be told besides the noisy sample: one typed, opaque value with a few ports."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """A batch of conditions, as the user states them (nothing is embedded yet).

    Every port is optional and has the batch first. The core carries a condition unread; networks and guidance
    are the only readers, and a network's embedding owns the learned value that stands for "nothing".

    Args:
        vector: class labels ``(B,)`` int64, or attributes ``(B, A)`` floating, each a number or the number of a
            category, NaN where it is not known, or an embedding ``(B, D)``; joins the time embedding.
        tokens: ids ``(B, L)`` int64 or features ``(B, L, D)``; attended to (text).
        mask: ``(B, L)`` bool, True where a token is real.
        image: ``(B, C, *S)``; concatenated to the input (low resolution, masks, edits).
        valid: ``(B, *S)`` bool, True at real positions of padded data; never dropped, for it is no information.
        keep: ``(B,)`` bool, False where the whole condition is hidden from the network, or ``(B, P)`` with a column for
            each of its parts: the attributes of the vector (labels are one), the tokens, the image; None keeps all.
        scale: ``(B,)`` the guidance scale, for students that learned to follow a guided teacher; never dropped.
        latent: ``(B, L)`` standard normal numbers, for networks that draw x0 instead of estimating its mean; never
            dropped.
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    image: Tensor | None = None
    valid: Tensor | None = None
    keep: Tensor | None = None
    scale: Tensor | None = None
    latent: Tensor | None = None

    def __post_init__(self) -> None:
        sizes = {name: len(value) for name, value in self.ports().items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"All ports of a condition need the same batch size; found {sizes}.")

    def ports(self) -> dict[str, Tensor]:
        """The ports that are given, by name."""
        ports = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in ports.items() if value is not None}

    def __len__(self) -> int:
        for value in self.ports().values():
            return len(value)
        raise ValueError("An empty condition has no batch size; pass cond=None instead.")

    def __getitem__(self, index: slice | Tensor) -> Condition:
        """The conditions of some samples (index the batch with a slice, a mask or indices)."""
        return replace(self, **{name: value[index] for name, value in self.ports().items()})

    def to(self, device: torch.device | str) -> Condition:
        """The same conditions on another device."""
        return replace(self, **{name: value.to(device) for name, value in self.ports().items()})

    def drop(self, keep: Tensor) -> Condition:
        """Hide the condition of every sample whose ``keep`` is False; already hidden ones stay hidden.

        This is classifier-free training's dropout (Ho & Salimans 2022, arXiv 2207.12598).

        Args:
            keep: ``(B,)``, or ``(B, P)`` by parts.
        """
        if self.keep is None:
            return replace(self, keep=keep)
        parts = max(keep.ndim, self.keep.ndim)
        return replace(self, keep=_by_parts(keep, parts) & _by_parts(self.keep, parts))

    @staticmethod
    def cat(conditions: list[Condition]) -> Condition:
        """Join batches of conditions; every one must use the same ports.

        Raises:
            ValueError: if a port is present in one batch and absent in another.
        """
        flags = [c.keep is not None for c in conditions]
        if any(flags) and not all(flags):
            conditions = [c if c.keep is not None else c.drop(c._ones()) for c in conditions]
        parts = max((c.keep.ndim for c in conditions if c.keep is not None), default=1)
        if parts == 2:
            most = max(c.keep.shape[-1] for c in conditions if c.keep is not None and c.keep.ndim == 2)
            conditions = [
                replace(c, keep=_by_parts(c.keep, 2).expand(-1, most)) for c in conditions if c.keep is not None
            ]
        ports = [set(c.ports()) for c in conditions]
        if any(p != ports[0] for p in ports):
            raise ValueError(f"Conditions with different ports cannot be joined: {[sorted(p) for p in ports]}.")
        joined = {name: torch.cat([getattr(c, name) for c in conditions]) for name in ports[0]}
        return Condition(**joined)

    def _ones(self) -> Tensor:
        first = next(iter(self.ports().values()))
        return torch.ones(len(self), dtype=torch.bool, device=first.device)


def _by_parts(keep: Tensor, ndim: int) -> Tensor:
    """``(B,)`` as ``(B, 1)`` where parts are told apart."""
    return keep if keep.ndim == ndim else keep[:, None]
