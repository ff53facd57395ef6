"""Adapters on disk: one safetensors file that is whole or not there, and says which network it was made for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from osmotic.adapters.errors import AdapterError
from osmotic.adapters.table import Table
from osmotic.contents import contents
from osmotic.disk import replace

FORMAT = 1
KEY = "osmotic"
"""Where the header stands in the file's metadata."""

H = TypeVar("H", bound="Header")
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Header(BaseModel):
    """What an adapter's file says of itself; each kind of adapter adds its own.

    Args:
        kind: of adapter.
        base: names and shapes of the network it was made for, in their order: the fingerprint.
        sha256: of the tensors' names, shapes and bytes; filled in on writing.
        format: of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    base: Shapes
    sha256: str = ""
    format: int = FORMAT


def fingerprint(network: nn.Module) -> Shapes:
    """Names and shapes of a network's weights and buffers; rows added to its tables are not its own."""
    added = tuple(f"{name}.{Table.ROWS}." for name, module in network.named_modules() if isinstance(module, Table))
    state = network.state_dict().items()
    return tuple((name, tuple(tensor.shape)) for name, tensor in state if not name.startswith(added))


def write(path: str | Path, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Store an adapter: readers and crashes see the old file or the new one, never a part.

    Raises:
        AdapterError: if a tensor is not finite or the file cannot be written; what was there is intact.
    """
    path = Path(path)
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    _refuse_non_finite(path, own)
    sealed = header.model_copy(update={"sha256": _digest(own)})
    try:
        replace(path, save(own, {KEY: sealed.model_dump_json()}))
    except OSError as error:
        raise AdapterError(f"{path} cannot be written: {error.strerror}; choose another place or make room.") from error


def read(path: str | Path, kind: type[H], network: nn.Module) -> tuple[H, dict[str, Tensor]]:
    """The header and the tensors (on the CPU) of an adapter that was made for this network; nothing is executed.

    Args:
        path: of the file.
        kind: the header that is expected.
        network: the base, without the adapter.

    Raises:
        AdapterError: if it is no such file, is damaged, or was made for a network of other names or shapes; the first
            layer that does not fit is named.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, kind, file.metadata() or {})
            _compare(path, header.base, fingerprint(network))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path} cannot be read as safetensors: {error}.") from None
    if _digest(tensors) != header.sha256:
        raise AdapterError(f"{path} is damaged: its tensors differ from their checksum; take another copy.")
    _refuse_non_finite(path, tensors)
    return header, tensors


@torch.no_grad()
def fill(module: nn.Module, found: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy the tensors of a file into a module, in its own precision, only if all names and shapes agree.

    Raises:
        AdapterError: naming the first tensor that does not fit; nothing was copied then.
    """
    own = module.state_dict()
    for name in [*own, *found]:
        if name not in found or name not in own or own[name].shape != found[name].shape:
            raise AdapterError(f"{path} is damaged: its tensor {name!r} is not as its header says; take another copy.")
    for name, tensor in own.items():
        tensor.copy_(found[name])


def _header(path: Path, kind: type[H], metadata: Mapping[str, str]) -> H:
    try:
        value = json.loads(metadata[KEY])
        if not isinstance(value, dict):
            raise TypeError
    except (KeyError, ValueError, TypeError, RecursionError):
        raise AdapterError(f"{path} was not written by osmotic as an adapter; give one that was.") from None
    if value.get("format") != FORMAT:
        raise AdapterError(f"{path} has format {value.get('format')}, this version reads {FORMAT}; update osmotic.")
    expected: Any = kind.model_fields["kind"].default
    if value.get("kind") != expected:
        raise AdapterError(f"{path} holds {value.get('kind')}, not {expected}; load it as what it is.")
    try:
        return kind.model_validate_json(metadata[KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AdapterError(f"{path} is damaged: {where} in its header: {first['msg']}.") from None


def _compare(path: Path, stated: Shapes, found: Shapes) -> None:
    """Refuse an adapter whose base is not this network, naming the first layer that differs."""
    shapes, own = dict(stated), dict(found)
    for name in [*shapes, *own]:
        if shapes.get(name) == own.get(name):
            continue
        there = f"of shape {shapes[name]}" if name in shapes else "absent"
        here = f"of shape {own[name]}" if name in own else "absent"
        raise AdapterError(f"{path} was made for another network: {name!r} is {there} there and {here} in this one.")


def _refuse_non_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(f"{path}: the tensor {name!r} is not finite; train again with a lower learning rate.")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for title, data in contents(tensors):
        total.update(f"{title}\n".encode())
        total.update(data)
    return total.hexdigest()
