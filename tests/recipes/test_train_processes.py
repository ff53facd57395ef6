"""Latents, autoencoders, end-to-end models and cascades by two processes: they end where one process ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from osmotic.recipes.cascade import train_cascade
from osmotic.recipes.train import train
from osmotic.training import latents
from osmotic.training.autoencoding import AUTOENCODER
from osmotic.training.coding import FOLDER as CODEC
from osmotic.training.lsgm import LSGM
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.run import Run
from tests.launching import launch

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))
FLAT = Architecture(widths=(16, 16), dropout=0.0)  # masks of dropout depend on the number of processes
SIDED = Architecture(widths=(8,), blocks=1, attention=(), dropout=0.0)


def pictures() -> np.ndarray:
    return load_digits().images[:80, :, :, None].astype(np.float32)


def recipe(architecture: Architecture, objective: str = "denoising") -> Recipe:
    return Recipe(options=FEW, architecture=architecture, process=Process(objective=objective))


def coded(out: Path, ready: Path, codec: str) -> None:
    train(pictures(), out, recipe(SIDED if codec == "haar" else FLAT), codec=codec, device="cpu")


def learned(out: Path, ready: Path) -> None:
    train(pictures(), out, recipe(SIDED), codec=ready, device="cpu")


def alone(out: Path, ready: Path, objective: str) -> None:
    train(pictures(), out, recipe(Architecture(widths=(8,), blocks=1, dropout=0.0), objective), device="cpu")


def cascade(out: Path, ready: Path) -> None:
    train_cascade(pictures(), out, (4, 8), recipe(SIDED), device="cpu")


CASES = {
    "haar": (coded, "haar"),
    "pca": (coded, "pca"),
    "learned codec": (learned,),
    "autoencoder": (alone, AUTOENCODER),
    "lsgm": (alone, LSGM),
    "cascade": (cascade,),
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder, to be a codec."""
    out = tmp_path_factory.mktemp("ready") / "run"
    alone(out, out, AUTOENCODER)
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All that a finished run or cascade has stored, but for counters."""
    found = {}
    for recipe in folder.rglob("recipe.json"):
        if recipe.parent.name == CODEC:
            continue
        last = Run.open(recipe.parent).complete()[0][0]
        for file in [*last.glob("*.safetensors"), *recipe.parent.glob("latents/*"), *recipe.parent.glob("codec/*")]:
            if file.suffix == ".safetensors":
                found |= {f"{file.relative_to(folder)} {name}": x for name, x in load_file(file).items()}
    return {name: x for name, x in found.items() if x.is_floating_point() and not name.endswith(".calls")}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_like_one(case: str, ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD", 16)  # so that each process encodes some
    work, *told = CASES[case]
    work(tmp_path / "one", ready, *told)
    assert launch(work, tmp_path / "two", ready, *told, limit=100) == [0, 0]
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) > 10
    # Sums in another order move weights of tiny gradients by a step, and most by next to nothing; other noise, or other
    # samples, move every weight of a player by about a step: medians of 6e-5 to 5e-4, with another seed.
    apart: dict[str, list[torch.Tensor]] = {}
    for name in (name for name in one if "checkpoints" in name):
        file, tensor = name.split(" ")
        apart.setdefault(f"{file} {tensor.split('.')[0]}", []).append((one[name] - two[name]).abs().flatten())
    assert len(apart) >= {"lsgm": 4, "cascade": 4}.get(case, 2)  # players, and stages, with an average of each
    for name, parts in apart.items():
        assert float(torch.cat(parts).median()) < 2e-5, name
    if case in ("haar", "pca", "learned codec"):
        assert all(torch.equal(x, two[name]) for name, x in one.items() if "checkpoints" not in name)
        assert len(list((tmp_path / "two" / "latents").glob("*.safetensors"))) == 5
