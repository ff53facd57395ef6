"""ControlNet: a frozen network that learns to follow an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from osmotic.adapters.branches import DiTBranch, UNetBranch
from osmotic.adapters.files import Header, fill, fingerprint, read, write
from osmotic.condition import Condition
from osmotic.nn import DiT, UNet
from osmotic.nn.conditioning import Context


class ControlHeader(Header):
    """What a file of a ControlNet says of itself."""

    kind: Literal["ControlNet"] = "ControlNet"
    channels: int


class ControlNet(nn.Module):
    """A network ``network(x, time, cond)`` that does as its base does, and follows ``cond.image``.

    A trainable copy of the base's first layers sees x and the image, and adds ``scale`` times what it finds to the
    features of the frozen base, through layers that start at zero (Zhang et al. 2023, arXiv 2302.05543): untrained, the
    output is the base's bit for bit, and it always is for samples without an image or with a hidden one (``cond.keep``,
    whose last column is the image's where it has columns), so that guidance leads towards the image as towards the rest
    of the condition. In the first step
    gradients reach the layers that speak, from the second the copy too, from the third all.

    As a part of a model it is stored with all its tensors, the base's under ``network.`` and its own under ``branch.``.

    Args:
        network: the base, a U-Net or a DiT without an image port; from now on it requires no gradients.
        channels: of the image, which has the positions of x.

    Attributes:
        scale: of the control, 1 as it was trained, 0 none.

    Raises:
        ValueError: for another network or no channels; in calls, for an image of another shape.
    """

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        if not isinstance(network, UNet | DiT):
            raise ValueError(
                f"Control copies the way down of a U-Net or the first blocks of a DiT; a {type(network).__name__} has "
                "neither."
            )
        if network.embedding.image_channels:
            raise ValueError("This network has an image port of its own: give the image to that.")
        if channels < 1:
            raise ValueError(f"An image has at least one channel, not {channels}.")
        self.channels, self.scale = channels, 1.0
        self.branch = UNetBranch(network, channels) if isinstance(network, UNet) else DiTBranch(network, channels)
        self.network = network.requires_grad_(False)

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None = None, aim: Tensor | None = None) -> Tensor:
        """One evaluation, as the base's."""
        image = None if cond is None else cond.image
        if cond is None or image is None:
            y: Tensor = self.network(x, time, cond, aim)
            return y
        self.network.check(x)
        if image.shape != (expected := (len(x), self.channels, *x.shape[2:])):
            raise ValueError(
                f"cond.image has the batch and positions of x: expected shape {expected}, found {tuple(image.shape)}; "
                "resize it first."
            )
        told, keep = self._apart(cond)
        context: Context = self.network.embedding(x, time, told, aim)
        residuals = self.branch(x, shown(image.to(x.dtype), keep), context)
        y = self.network(x, time, told, aim, residuals=[shown(self.scale * r, keep) for r in residuals])
        return y

    def _apart(self, cond: Condition) -> tuple[Condition, Tensor | None]:
        """What the base is told, and which samples show their image ``(B,)``, None for all."""
        told, keep = replace(cond, image=None), cond.keep
        if keep is None or keep.ndim == 1:
            return told, keep
        parts = self.network.embedding.parts + 1
        if keep.shape[1] not in (1, parts):
            raise ValueError(
                f"cond.keep has a column for each of the {parts} parts of the condition, the image last, or one for "
                f"all; found {keep.shape[1]}."
            )
        return (told if keep.shape[1] == 1 else replace(told, keep=keep[:, :-1])), keep[:, -1]

    def save(self, path: str | Path) -> None:
        """Store what was learned, without the base, as a safetensors file.

        Raises:
            AdapterError: if it cannot be written.
        """
        header = ControlHeader(base=fingerprint(self.network), channels=self.channels)
        write(path, header, self.branch.state_dict())

    @classmethod
    def load(cls, path: str | Path, network: nn.Module) -> ControlNet:
        """The control of a file over a base of the network it was made for.

        Raises:
            AdapterError: if the file is damaged or was made for another network.
        """
        header, tensors = read(path, ControlHeader, network)
        control = cls(network, header.channels)
        fill(control.branch, tensors, path)
        return control


def shown(values: Tensor, keep: Tensor | None) -> Tensor:
    """Values ``(B, ...)``, zero where ``keep`` ``(B,)`` hides them, whatever stands there."""
    return values if keep is None else torch.where(keep.view(-1, *(1,) * (values.dim() - 1)), values, 0)
