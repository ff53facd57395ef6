"""Features of the FID Inception network, from a file of weights that the user has or fetches."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .base import Array, Features, Vectors, check_images
from .inception_network import InceptionNetwork
from .planes import full_precision, planes

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
LARGEST = 200_000_000  # bytes; the file has 95,628,359
CHUNK = 1 << 20
SIDE = 299


class Inception(Features):
    """The 2048 features behind FID, and the classes behind the Inception score.

    Images are scaled to [0, 1], brought to 299 x 299 by bilinear interpolation without antialiasing (pixel centres at
    halves), then to [-1, 1]: pytorch-fid's convention. Grey is repeated into three channels. Heusel et al. 2017 (arXiv
    1706.08500), Salimans et al. 2016 (arXiv 1606.03498).

    Args:
        network: with its weights, in evaluation mode, on the device where it shall run.
        weights: what the weights are, for the name.
    """

    dimensions = 2048
    usual_names = MappingProxyType(
        {
            "Frechet distance": "FID",
            "Frechet distance, infinite samples": "FID, infinite samples",
            "kernel distance": "KID",
            "classifier score": "Inception Score",
        }
    )

    def __init__(self, network: InceptionNetwork, weights: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name = f"2048 features of the FID Inception network ({weights})"

    @classmethod
    def from_file(cls, path: Path, device: torch.device | str = "cpu") -> Inception:
        """The network of FID with the weights of pytorch-fid's release file, ported from the TensorFlow graph.

        Raises:
            ValueError: the file is not that file, by its SHA-256; nothing in it is read then.
        """
        found = sha256(path)
        if found != SHA256:
            raise ValueError(
                f"{path} is not the FID Inception file: its SHA-256 begins with {found[:8]} instead of {SHA256[:8]}; "
                f"get {FILE} from {URL}"
            )
        # Only tensors are unpickled, and only from the one file whose checksum is written above.
        state = torch.load(path, weights_only=True, map_location="cpu")
        return cls(filled(state, path).to(device), f"weights {SHA256[:8]}")

    @classmethod
    def from_safetensors(cls, path: Path, checksum: str, device: torch.device | str = "cpu") -> Inception:
        """The network with weights of the same names from a .safetensors file.

        Args:
            path: the file.
            checksum: its SHA-256, 64 hexadecimal digits: the name of the features carries its beginning.
            device: where the network shall run.

        Raises:
            ValueError: the file has another checksum, or other parameters.
        """
        from safetensors.torch import load_file

        found = sha256(path)
        if found != checksum.lower():
            raise ValueError(
                f"{path} is not the file that was asked for: its SHA-256 is {found}, not {checksum}; get it again, or "
                "state its own checksum if you trust it."
            )
        return cls(filled(load_file(path), path).to(device), f"weights {found[:8]} of {path.name}")

    def probabilities(self, x: Array) -> Vectors:
        """Probabilities of the 1008 outputs, ``(N, 1008)``, for the Inception score.

        As in Salimans et al. 2016 (arXiv 1606.03498) the logits are taken without the bias of the last layer.
        """
        weight = self.network.fc.weight.double().cpu().numpy()
        found = np.empty((len(x), len(weight)))
        at = 0
        for block in self.blocks(x):
            logits = block @ weight.T
            share = np.exp(logits - logits.max(1, keepdims=True))
            found[at : at + len(block)] = share / share.sum(1, keepdims=True)
            at += len(block)
        return found

    def _check(self, x: Array) -> None:
        check_images(x)

    def _batch(self, shape: tuple[int, ...]) -> int:
        # The widest maps are 64 x 147 x 147: sixteen images keep them at 90 MB.
        return 16

    def _block(self, x: Array) -> Array:
        with torch.inference_mode(), full_precision():
            pixels = planes(x, self.network.fc.weight.device)
            pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)
            found: Tensor = self.network(2 * pixels - 1)
        return found.cpu().numpy()


def filled(state: Mapping[str, Tensor], path: Path) -> InceptionNetwork:
    """The network with the tensors of a state; counters of batch normalisation may be absent.

    Raises:
        ValueError: naming a parameter that is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = InceptionNetwork()
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items() if not _counter(name)}
    given = {name: tensor.float() for name, tensor in state.items() if not _counter(name)}
    for name in sorted(wanted.keys() ^ given.keys()):
        fault = "lacks" if name in wanted else "has an unknown"
        raise ValueError(f"{path} {fault} {name}: it does not hold the FID Inception network; get {FILE} from {URL}")
    for name, shape in wanted.items():
        if given[name].shape != shape:
            raise ValueError(
                f"{path} has {name} of shape {tuple(given[name].shape)} instead of {tuple(shape)}: it does not hold "
                f"the FID Inception network; get {FILE} from {URL}"
            )
    counters = {name: torch.tensor(0) for name in network.state_dict() if _counter(name)}
    network.load_state_dict({**given, **counters}, assign=True)
    return network


def _counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(folder: Path) -> Path:
    """Downloads the weights of the FID Inception network into a folder, unless they are there; returns the file.

    The file appears whole and checked or not at all.

    Raises:
        ValueError: what came is not the file, by its SHA-256.
        OSError: the download failed.
    """
    path = folder / FILE
    if path.is_file() and sha256(path) == SHA256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=FILE, suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            found = _download(file)
        if found != SHA256:
            raise ValueError(f"{URL} gave another file: its SHA-256 begins with {found[:8]} instead of {SHA256[:8]}.")
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _download(file: IO[bytes]) -> str:
    """Writes what the address gives into a file; its SHA-256. Stops where no such file can be so large."""
    digest = hashlib.sha256()
    size = 0
    try:
        with urllib.request.urlopen(URL, timeout=60) as answer, tqdm(unit="B", unit_scale=True, leave=False) as bar:
            while chunk := answer.read(CHUNK):
                size += len(chunk)
                if size > LARGEST:
                    raise ValueError(f"{URL} gave more than {LARGEST:,} bytes: it is not the FID Inception file.")
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
    except OSError as error:
        raise OSError(f"{URL} could not be fetched ({error}): get {FILE} by hand and give its path.") from error
    return digest.hexdigest()
