"""A coupling chooses which noise each sample is trained with, in the threads that prepare batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_toys import Points

import osmotic
from osmotic.data.encoding import Standard
from osmotic.data.spec import Spec
from osmotic.objectives.couplings import ClasswiseOT, Coupling, MiniBatchOT, cost
from osmotic.training import build
from osmotic.training.distributed import World
from osmotic.training.feed import Feed
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

OPTIONS = Options(steps=3, batch_size=24)
WORLD = World(0, 1, torch.device("cpu"))


class Reversed(Coupling):
    """The last noise for the first sample."""

    def __call__(self, x0, eps, labels=None):
        self.seen = x0, eps, labels
        return torch.arange(len(x0)).flip(0)


def test_noise_is_that_of_the_coupling_and_all_else_as_without():
    plain = Feed(Points(), [], OPTIONS, WORLD).batches(1)[0]
    coupling = Reversed()
    (batch,) = Feed(Points(), [], OPTIONS, WORLD, coupling).batches(1)
    assert torch.equal(batch.x0, plain.x0)
    assert torch.equal(batch.cond.vector, plain.cond.vector)
    assert torch.equal(batch.eps(), plain.eps().flip(0))
    x0, eps, labels = coupling.seen
    assert torch.equal(x0, batch.x0)
    assert torch.equal(eps, plain.eps())
    assert torch.equal(labels, plain.cond.vector)


def test_optimal_transport_shortens_the_paths_of_a_batch_within_its_classes():
    (plain,) = Feed(Points(), [], OPTIONS, WORLD).batches(0)
    (batch,) = Feed(Points(), [], OPTIONS, WORLD, ClasswiseOT()).batches(0)
    own = torch.arange(24)
    assert cost(plain.x0, plain.eps(), batch.order).mean() < 0.8 * cost(plain.x0, plain.eps(), own).mean()
    labels = batch.cond.vector
    assert torch.equal(labels[batch.order], labels)


def spec(classes):
    names = None if classes is None else tuple(classes)
    encoding = Standard(dtype="float32", mean=(0.0, 0.0), std=(1.0, 1.0))
    return Spec(kind="vectors", shape=(2,), source="points", count=9, classes=names, encoding=encoding)


def test_the_recipe_names_couplings_by_the_data():
    process = Process(coupling="optimal")
    assert build.coupling(Process(), spec(None)) is None
    assert isinstance(build.coupling(process, spec(None)), MiniBatchOT)
    assert isinstance(build.coupling(process, spec("ab")), ClasswiseOT)
    with pytest.raises(ValueError, match="hybrid"):
        build.coupling(Process(coupling="optimal", objective="hybrid"), spec(None))


def test_training_with_a_coupling_is_another_training(tmp_path):
    """The command's flag reaches the loss: weights differ after a few steps, and a run repeats itself."""
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    found = {}
    for name, coupling in (("a", "optimal"), ("b", "optimal"), ("c", "independent")):
        process = Process(coupling=coupling, schedule="rectified", target="velocity", law="uniform")
        options = Options(steps=4, batch_size=32, warmup=1, checkpoint_every=4, evaluate_every=4, preview_every=4)
        recipe = Recipe(options=options, architecture=Architecture(widths=(8, 8)), process=process)
        osmotic.train(x, tmp_path / name, recipe)
        found[name] = osmotic.load(tmp_path / name, weights="model").denoiser.network.stem.weight
    assert torch.equal(found["a"], found["b"])
    assert not torch.allclose(found["a"], found["c"])
