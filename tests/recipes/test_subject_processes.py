"""A subject taught by two processes: what the base draws is shared, and the weights end where one process ends."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from osmotic.distill import pairs
from osmotic.recipes import prior
from osmotic.recipes.adapt import adapt
from osmotic.recipes.train import train
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe
from osmotic.training.run import Run
from tests.launching import launch

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))


def points(n):
    return np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Without dropout, whose masks depend on the number of processes."""
    data, architecture = (points(80), np.arange(80) % 2), Architecture(widths=(16, 16), dropout=0.0)
    return train(
        data, tmp_path_factory.mktemp("base") / "run", Recipe(options=FEW, architecture=architecture)
    ).directory


def teach(base, out, by, count):
    adapt(base, points(30), out, by, word="mine", like="1", prior_samples=count, options=FEW, device="cpu")


def tensors(folder):
    return {f"{file.name} {name}": x for file in folder.glob("*.safetensors") for name, x in load_file(file).items()}


@pytest.mark.parametrize(("by", "count"), [("word", None), ("whole", 20), ("lora", 20)])
def test_two_processes_teach_like_one(base, tmp_path, by, count, monkeypatch):
    monkeypatch.setattr(pairs, "SHARD", 8)  # so that each process draws some
    teach(base, tmp_path / "one", by, count)
    assert launch(teach, base, tmp_path / "two", by, count, limit=60) == [0, 0]
    one, two = (tmp_path / which for which in ("one", "two"))
    weights = [tensors(Run.open(out).complete()[0][0]) for out in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    model = {name: x for name, x in weights[0].items() if name.startswith("model") and x.is_floating_point()}
    apart = torch.cat([(x.double() - weights[1][name].double()).abs().flatten() for name, x in model.items()])
    # Sums in another order move a weight by 1e-6 or so; the same samples in another order move them by 2e-4.
    assert float(apart.mean()) < 1e-5
    drawn = [tensors(out / prior.FOLDER) for out in (one, two)]
    assert drawn[0].keys() == drawn[1].keys()
    assert all(torch.equal(x, drawn[1][name]) for name, x in drawn[0].items())
    assert len(list((two / prior.FOLDER).glob("*.safetensors"))) == (0 if count is None else 3)
    assert (two / "words.safetensors").exists() == (by == "word")
