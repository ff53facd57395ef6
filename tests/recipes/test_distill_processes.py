"""Distillation by several processes: shared pairs, two players and slow copies end where one process ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from osmotic.distill import pairs
from osmotic.recipes.distill import distill
from osmotic.recipes.train import train
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Distillation, Recipe
from osmotic.training.run import Run
from tests.launching import launch

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))
READS = {"knowledge": {"pairs": 64}, "dmd": {"pairs": 64}, "progressive": {"jumps": 4}, "ctm": {"adversarial": 0.1}}


def data():
    return torch.randn(80, 3, generator=torch.Generator().manual_seed(0)).numpy()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Without dropout, whose masks depend on the number of processes."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(data(), out, Recipe(options=FEW, architecture=Architecture(widths=(16, 16), dropout=0.0)))
    return out


def student(teacher: Path, out: Path, method: str) -> None:
    numbers = Distillation(**READS.get(method, {}))
    distill(teacher, out, method, data=data(), options=FEW, numbers=numbers, device="cpu")


def weights(out: Path) -> dict[str, torch.Tensor]:
    folder = Run.open(out).complete()[0][0]
    found = {f"{file.name} {name}": x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}
    return {name: x for name, x in found.items() if x.is_floating_point() and not name.endswith(".calls")}


@pytest.mark.parametrize("method", ["knowledge", "dmd", "shortcut", "progressive", "ddgan", "ctm", "scm"])
def test_two_processes_distil_like_one(teacher, tmp_path, method, monkeypatch):
    monkeypatch.setattr(pairs, "SHARD", 8)  # so that each process makes some
    student(teacher, tmp_path / "one", method)
    assert launch(student, teacher, tmp_path / "two", method, limit=100) == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) > 10
    for name, x in one.items():
        assert float((x.double() - two[name].double()).abs().max()) <= 1e-5, name
    made = [sorted(p.name for p in (tmp_path / which / "pairs").rglob("*")) for which in ("one", "two")]
    assert made[0] == made[1]
