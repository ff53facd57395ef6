"""Codecs on disk: one safetensors file, whole or not there, that says what it holds; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed
from torch import Tensor, nn

from osmotic.codecs.base import Codec, Description
from osmotic.codecs.composed import Composed
from osmotic.codecs.fixed import DCT, Haar, Identity
from osmotic.codecs.neural import Neural
from osmotic.codecs.principal import PCA, Whitening
from osmotic.codecs.tiled import Tiled
from osmotic.disk import replace

KEY = "osmotic-codec"
"""Where the description stands in the file's metadata."""

Tensors = Mapping[str, Tensor]
Maker = Callable[[Description, Tensors, nn.Module | None], Codec]


def save(path: str | Path, codec: Codec) -> None:
    """Store a codec: its tensors, its description and its fingerprint; of a network the weights, not the code.

    Raises:
        OSError: if the disk is full or not writable; what was there is intact.
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in codec.state_dict().items()}
    header = {"codec": codec.description(), "fingerprint": codec.fingerprint()}
    replace(path, packed(tensors, {KEY: json.dumps(header)}))


def load(path: str | Path, network: nn.Module | None = None) -> Codec:
    """The codec of a file, on the CPU.

    Args:
        path: written by :func:`save`.
        network: of the structure that was stored, for a file with a :class:`Neural`; it is filled.

    Raises:
        ValueError: for a file that is not a codec's or was damaged, and for a network that is missing or does not fit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}.") from None
    try:
        header = json.loads(metadata[KEY])
        codec = made(header["codec"], tensors, network)
        whole = codec.fingerprint() == header["fingerprint"]
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{path} does not hold a codec of this version of osmotic.") from None
    if not whole:
        raise ValueError(f"{path} is damaged: its codec is not the one that was stored.")
    return codec


def made(description: Description, tensors: Tensors, network: nn.Module | None = None) -> Codec:
    """The codec of a description and its tensors, by the names of ``state_dict``."""
    return KINDS[description["kind"]](description, tensors, network)


def _composed(description: Description, tensors: Tensors, network: nn.Module | None) -> Codec:
    return Composed(
        [made(each, _below(tensors, f"codecs.{i}."), network) for i, each in enumerate(description["codecs"])]
    )


def _neural(description: Description, tensors: Tensors, network: nn.Module | None) -> Codec:
    if network is None:
        raise ValueError("This codec has a network, of which the file holds the weights alone; pass network=.")
    codec = Neural(network, tensors["shift"], tensors["scale"])
    weights = _below(tensors, "network.")
    own = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if codec.description() != description or own != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError("The network given is not of the structure that was stored with this codec.")
    network.load_state_dict(weights)
    return codec


def _below(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# Codecs by the name of their kind; enter a new one here.
KINDS: dict[str, Maker] = {
    "identity": lambda description, tensors, network: Identity(),
    "haar": lambda description, tensors, network: Haar(description["axes"], description["levels"]),
    "dct": lambda description, tensors, network: DCT(description["axes"], description["block"]),
    "pca": lambda description, tensors, network: PCA(tensors["shift"], tensors["axes"]),
    "whitening": lambda description, tensors, network: Whitening(
        tensors["shift"], tensors["axes"], tensors["deviations"]
    ),
    "composed": _composed,
    "neural": _neural,
    "tiled": lambda description, tensors, network: Tiled(
        made(description["codec"], _below(tensors, "codec."), network), description["tile"]
    ),
}
