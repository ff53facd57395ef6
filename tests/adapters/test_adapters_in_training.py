"""Adapters in the ordinary training loop: what its checkpoints and averages hold, and who can read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nn_family import settled
from safetensors.torch import load_file
from torch import Tensor, nn

from osmotic.adapters import ControlNet, LoRA, learn
from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import V
from osmotic.laws import Uniform
from osmotic.nn import Embedding
from osmotic.nn.unet import UNet
from osmotic.schedules import Rectified
from osmotic.training.checkpoint import load_weights
from osmotic.training.denoise import PLAYER, Denoising, Drop
from osmotic.training.errors import RunError
from osmotic.training.hooks import Hook, Moment
from osmotic.training.loop import fit
from osmotic.training.options import Options
from osmotic.training.run import Run

OPTIONS = Options(steps=8, batch_size=8, warmup=2, ema=(2.0,), log_every=4, evaluate_every=8, checkpoint_every=4)


class Lines:
    """Labelled sequences ``(1, 6)``; some kinds are shown an image, too."""

    def __init__(self, labels: int, image: bool) -> None:
        self.labels, self.image = labels, image
        self.x = torch.randn(16, 1, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(indices)
        return self.x[rows], rows % self.labels

    def told(self, indices) -> dict[str, Tensor]:
        x, labels = self.batch(indices)
        return {"vector": labels, **({"image": x.sign()} if self.image else {})}

    def name(self, index: int) -> str:
        return f"line {index}"


def base() -> UNet:
    class Member:
        @staticmethod
        def build(embedding: Embedding) -> UNet:
            return UNet(1, (8,), ndim=1, blocks=1, embedding=embedding)

    return settled(Member, Embedding(16, classes=3))


def lora() -> nn.Module:
    network = LoRA(base())
    network.add("style", 2, generator=torch.Generator().manual_seed(1))
    return network


def control() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ControlNet(base(), 1)


def words() -> nn.Module:
    network = base()
    learn(network, network.embedding.vector, {"mine": 0})
    return network


# What is adapted, where the base's tensors stand in it, and what else is there.
KINDS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "lora": (lora, "network.", "adapters."),
    "control": (control, "network.", "branch."),
    "words": (words, "", "embedding.vector.table.rows."),
}
every = pytest.mark.parametrize("kind", KINDS)


def denoiser(network: nn.Module) -> NeuralDenoiser:
    return NeuralDenoiser(network, Rectified(), V())


def train(build: Callable[[], nn.Module], directory: Path, stop: int | None = None) -> Path:
    def call(moment: Moment) -> None:
        if moment.step == stop:
            raise InterruptedError

    run = Run.open(directory) if (directory / "recipe.json").exists() else Run.create(directory, {"a": 1}, {"b": 1})
    task = Denoising(denoiser(build()), Uniform(), drop=Drop(0.2, (0.2, 0.2) if build is control else ()))
    data = Lines(4 if build is words else 3, build is control)  # the new class is number 3
    fit(task, data, run, OPTIONS, hooks=(Hook(1, call),), device="cpu")
    return directory / "checkpoints" / f"step-{OPTIONS.steps:08d}"


@every
def test_checkpoints_hold_the_base_as_it_was_and_what_was_learned(kind: str, tmp_path: Path) -> None:
    build, prefix, own = KINDS[kind]
    folder, fresh = train(build, tmp_path), build()
    kept = base().state_dict()
    for name in ("model", "ema-2"):
        found = {
            key.removeprefix(f"{PLAYER}.network."): value
            for key, value in load_file(folder / f"{name}.safetensors").items()
        }
        assert found.keys() == fresh.state_dict().keys()
        for key, value in kept.items():
            assert torch.equal(found[f"{prefix}{key}"], value), (name, key)
        others = {key for key in found if key not in {f"{prefix}{k}" for k in kept}}
        assert all(key.startswith(own) for key in others)
        moved = {key for key in others if not torch.equal(found[key], fresh.state_dict()[key])}
        assert moved
        again = denoiser(build())
        load_weights(folder, name, again, PLAYER)
        assert all(torch.equal(again.network.state_dict()[key], value) for key, value in found.items())


@every
def test_a_plain_network_does_not_take_them_in_silence(kind: str, tmp_path: Path) -> None:
    folder = train(KINDS[kind][0], tmp_path)
    with pytest.raises(RunError, match="it belongs to another model") as error:
        load_weights(folder, "model", denoiser(base()), PLAYER)
    assert "\n" not in str(error.value)


@every
def test_stopped_and_resumed_is_never_stopped(kind: str, tmp_path: Path) -> None:
    build = KINDS[kind][0]
    whole = train(build, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(build, tmp_path / "broken", stop=6)
    resumed = train(build, tmp_path / "broken")
    for path in whole.glob("*.safetensors"):
        assert (resumed / path.name).read_bytes() == path.read_bytes(), path.name
