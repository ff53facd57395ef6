"""LoRA: low-rank changes to some weights of a network that is itself left alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from osmotic.adapters.errors import AdapterError
from osmotic.adapters.files import Header, fill, fingerprint, read, write
from osmotic.condition import Condition

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ADAPTABLE = (nn.Linear, *CONVOLUTIONS)

Choice = Callable[[str, nn.Module], bool]
"""Whether a layer is to be changed, from its name in the network and itself."""


def usual(name: str, layer: nn.Module) -> bool:
    """The projections of attention, the second layer of a block, and every convolution but the first of a block.

    The first layer of a block is left out: with it, an adapter of rank 4 would have more than a twentieth of the
    parameters of a small network.
    """
    *parents, own = name.split(".")
    if "embedding" in parents or own == "first":
        return False
    return isinstance(layer, CONVOLUTIONS) or parents[-1:] in (["attention"], ["cross"]) or own == "second"


def every(name: str, layer: nn.Module) -> bool:
    """Every linear layer and convolution, those that embed time and conditions too."""
    return True


class Change(nn.Module):
    """``B A`` in the shape of a weight, of rank r at most; zero at initialisation, for B is.

    The weight of a convolution is read as a matrix from all inputs under the kernel to the outputs.

    Args:
        weight: that is changed, ``(out, ...)``.
        rank: r, at least 1.
        generator: draws A from N(0, 1 / inputs).

    Shapes: A ``(r, inputs)``, B ``(out, r)``, in the weight's precision and on its device.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = weight.shape
        inputs = weight[0].numel()
        place = "cpu" if generator is None else generator.device
        draws = torch.randn(rank, inputs, generator=generator, device=place)
        self.a = nn.Parameter((draws * inputs**-0.5).to(weight))
        self.b = nn.Parameter(weight.new_zeros(len(weight), rank))

    def forward(self) -> Tensor:
        return (self.b @ self.a).view(self.shape)


class Adapter(nn.Module):
    """The changes that were learned together: one a layer, and the scale at which they are used."""

    def __init__(self, weights: Mapping[str, Tensor], rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.rank, self.scale = rank, 1.0
        # Modules may not have a dot in their name.
        changes = {name.replace(".", "/"): Change(weight, rank, generator) for name, weight in weights.items()}
        self.changes = nn.ModuleDict(changes)

    def items(self) -> list[tuple[str, Change]]:
        """The names of the changed layers, as the network calls them, and their changes."""
        return [(name.replace("/", "."), change) for name, change in self.changes.items() if isinstance(change, Change)]


class LoRAHeader(Header):
    """What a file of LoRA says of itself."""

    kind: Literal["LoRA"] = "LoRA"
    name: str
    rank: int
    scale: float
    layers: tuple[str, ...]


class LoRA(nn.Module):
    """A network ``network(x, time, cond)`` with any number of adapters: ``W + sum_k scale_k B_k A_k`` in place of W.

    Hu et al. 2021 (arXiv 2106.09685); their alpha / r is the scale here. The base is frozen and none of its tensors
    changes, neither name nor bits, until :meth:`merge`; with no adapter, at scale 0, and with an untrained one the
    output is the base's bit for bit. Gradients reach the adapters alone. The changed weights are made anew in each
    call, so merge before sampling: then a call costs what the base's costs.

    As a part of a model it is stored with all its tensors, the base's under ``network.`` and the adapters' under
    ``adapters.``; the scales are not among them. To store a run's network under its ordinary names, merge and take
    ``lora.network``.

    Args:
        network: the base; from now on it requires no gradients.

    Attributes:
        network: the base, the same object.
        adapters: by name.
        merged: whether the adapters are folded into the base's weights.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.adapters = nn.ModuleDict()
        self.merged = False
        self._originals: dict[str, Tensor] = {}
        self.register_state_dict_pre_hook(_refuse_merged)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_refuse_merged)  # type: ignore[no-untyped-call]

    @property
    def scales(self) -> dict[str, float]:
        """The scale of each adapter; see :meth:`rescale`."""
        return {name: self[name].scale for name in self.adapters}

    def __getitem__(self, name: str) -> Adapter:
        if name not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise ValueError(f"There is no adapter {name!r} on this network; there are: {known}.")
        return cast(Adapter, self.adapters[name])

    def add(
        self, name: str, rank: int = 4, layers: Choice = usual, generator: torch.Generator | None = None
    ) -> Adapter:
        """Attach a new adapter, which changes nothing yet; others go on learning unless they are frozen
        (``lora[other].requires_grad_(False)``).

        Args:
            name: of the adapter, without dots.
            rank: r of each change, at least 1.
            layers: which of the linear layers and convolutions.
            generator: draws the initial A.

        Raises:
            ValueError: for a name that is taken or no name, a rank below 1, a choice of no layer, or when merged.
        """
        self._refuse_name(name)
        if rank < 1:
            raise ValueError(f"The rank of an adapter is at least 1, not {rank}.")
        weights = {n: layer.weight for n, layer in self._adaptable() if layers(n, layer)}
        if not weights:
            raise ValueError("None of the network's layers was chosen; choose others, for example layers=every.")
        adapter = Adapter(weights, rank, generator)
        self.adapters[name] = adapter
        return adapter

    def remove(self, name: str) -> None:
        """Take an adapter off.

        Raises:
            ValueError: if there is none of this name, or when merged.
        """
        _refuse_merged(self)
        self[name]
        del self.adapters[name]

    def rescale(self, name: str, scale: float) -> None:
        """Use an adapter at another scale: 1 as it was trained, 0 off, any finite number; merged or not."""
        if not math.isfinite(scale):
            raise ValueError(f"The scale of an adapter is a finite number, not {scale}.")
        adapter, merged = self[name], self.merged
        self.unmerge()
        adapter.scale = scale
        if merged:
            self.merge()

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None = None, *aim: Tensor) -> Tensor:
        """One evaluation of the changed network, whatever it takes."""
        changed = {} if self.merged else self._changed()
        told = (x, time, cond, *aim)
        y: Tensor = functional_call(self.network, changed, told) if changed else self.network(*told)
        return y

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the adapters, at their scales, into the base's weights; the originals are kept aside."""
        _refuse_merged(self)
        own = dict(self.network.named_parameters(remove_duplicate=False))
        for name, weight in self._changed().items():
            self._originals[name] = own[name].detach().clone()
            own[name].copy_(weight)
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Give the base its weights back, bit for bit; nothing happens if they are there."""
        own = dict(self.network.named_parameters(remove_duplicate=False))
        for name, weight in self._originals.items():
            own[name].copy_(weight)
        self._originals.clear()
        self.merged = False

    def save(self, name: str, path: str | Path) -> None:
        """Store one adapter and its scale as a safetensors file.

        Raises:
            ValueError: if there is none of this name.
            AdapterError: if it cannot be written.
        """
        adapter = self[name]
        header = LoRAHeader(
            base=fingerprint(self.network),
            name=name,
            rank=adapter.rank,
            scale=adapter.scale,
            layers=tuple(layer for layer, _ in adapter.items()),
        )
        write(path, header, {key.replace("/", "."): value for key, value in adapter.changes.state_dict().items()})

    def load(self, path: str | Path, name: str | None = None) -> str:
        """Attach the adapter of a file, under its own name or another, and give that name.

        Raises:
            ValueError: if the name is taken, or when merged.
            AdapterError: if the file is damaged or was made for another network.
        """
        header, tensors = read(path, LoRAHeader, self.network)
        name = header.name if name is None else name
        self._refuse_name(name)
        adaptable = {n: layer.weight for n, layer in self._adaptable()}
        if header.rank < 1 or not header.layers or not set(header.layers) <= set(adaptable):
            raise AdapterError(
                f"{path} is damaged: its header names layers or a rank that cannot be; take another copy."
            )
        adapter = Adapter({n: adaptable[n] for n in header.layers}, header.rank)
        fill(adapter.changes, {_inside(key): value for key, value in tensors.items()}, path)
        adapter.scale = header.scale
        self.adapters[name] = adapter
        return name

    def _changed(self) -> dict[str, Tensor]:
        """The changed weights by their names in the base."""
        own = dict(self.network.named_parameters(remove_duplicate=False))
        changed: dict[str, Tensor] = {}
        for adapter in map(self.__getitem__, self.adapters):
            if adapter.scale == 0:
                continue
            for layer, change in adapter.items():
                name = f"{layer}.weight"
                changed[name] = changed.get(name, own[name]) + adapter.scale * change()
        return changed

    def _adaptable(self) -> list[tuple[str, Any]]:
        return [(name, layer) for name, layer in self.network.named_modules() if isinstance(layer, ADAPTABLE)]

    def _refuse_name(self, name: str) -> None:
        _refuse_merged(self)
        if not name or "." in name or hasattr(self.adapters, name):
            raise ValueError(f"An adapter needs a name of its own without dots; {name!r} is none or is taken.")


def _refuse_merged(lora: nn.Module, *_: object) -> None:
    """Before anything that would count the adapters twice, or none."""
    if getattr(lora, "merged", False):
        raise ValueError(
            "The adapters are merged into the weights; call unmerge() first, or take lora.network for the merged ones."
        )


def _inside(key: str) -> str:
    """From a file's ``layer.a`` to the name of the parameter in the adapter."""
    layer, _, own = key.rpartition(".")
    return f"{layer.replace('.', '/')}.{own}"
