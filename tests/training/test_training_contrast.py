"""Training a dual encoder: its batch, its refusals, its run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from osmotic.condition import Condition
from osmotic.data.dataset import open_data, split
from osmotic.nn import DualEncoder
from osmotic.objectives import info_nce
from osmotic.recipes.retrieving import retrieved
from osmotic.recipes.train import train
from osmotic.training.contrast import Contrastive, fingerprint, load_dual, same_texts
from osmotic.training.denoise import PLAYER
from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.run import Run
from osmotic.training.task import Batch, Noise

TEXTS = ["a dark one", "a bright one", "a dark one on the left", "nothing"]
FEW = Options(steps=4, batch_size=12, warmup=1, evaluate_every=2, checkpoint_every=2, preview_every=2, ema=(2.0,))


def data(count: int = 60):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (count, 8, 8), np.uint8)
    return open_data({"x": x, "text": [TEXTS[i % 4] for i in range(count)]})


def contrastive(**options) -> Recipe:
    process = Process(objective="contrastive")
    given = FEW.model_dump(exclude_unset=True) | options
    return Recipe(options=Options(**given), process=process, architecture=Architecture(widths=(8, 16)))


def batch(count: int, total: int | None = None) -> Batch:
    pairs, rows = data(), np.arange(count)
    noise = Noise(0, 0, total or count, 0, count, torch.device("cpu"))
    return Batch(pairs.batch(rows)[0], Condition(**pairs.told(rows)), rows, rows, 0, noise)


def test_the_loss_is_that_of_the_batch_without_pairs_of_one_text(tmp_path):
    run = train(data(), tmp_path / "run", contrastive(steps=1))
    dual, seen = load_dual(run.directory), batch(9)
    task = Contrastive(dual.module)
    assert seen.cond is not None
    texts = np.array([TEXTS[i % 4] for i in range(9)])
    same = torch.from_numpy(texts[:, None] == texts)
    assert torch.equal(same_texts(seen.cond), same)
    expected = info_nce(dual.pictures(seen.x0), dual.texts(texts.tolist()), dual.module.scale, same)
    torch.testing.assert_close(task.loss(PLAYER, seen, task.players), expected)
    features = Condition(tokens=torch.eye(3)[:, None].repeat(2, 1, 1), mask=torch.ones(6, 1, dtype=torch.bool))
    assert torch.equal(same_texts(features), torch.eye(3, dtype=torch.bool).repeat(2, 2))


def test_a_part_of_a_batch_is_refused(tmp_path):
    task = Contrastive(DualEncoder(torch.nn.Identity(), torch.nn.Identity()))
    with pytest.raises(RunError, match="without --accumulate"):
        task.loss(PLAYER, batch(4, 8), task.players)
    with pytest.raises(ValueError, match="without --accumulate"):
        train(data(), tmp_path / "run", contrastive(accumulate=2))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"process": Process(objective="contrastive", schedule="vp")}, "takes no --schedule"),
        ({"process": Process(objective="contrastive", condition_dropout=0.2)}, "takes no --condition-dropout"),
        ({"architecture": Architecture(network="dit")}, "no dit"),
    ],
)
def test_settings_that_it_does_not_have_are_refused(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        train(data(), tmp_path / "run", contrastive().model_copy(update=change))
    assert not (tmp_path / "run").exists()


def test_data_without_captions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs data with captions"):
        train(np.zeros((20, 8, 8), np.uint8), tmp_path / "run", contrastive())


def test_a_run_goes_on_with_the_same_bits_and_says_what_it_finds(tmp_path, capsys):
    whole = train(data(), tmp_path / "whole", contrastive())
    assert "held-out pairs: of 2 texts" in capsys.readouterr().err
    train(data(), tmp_path / "parts", contrastive(steps=2, floor=1.0))
    parts = train(data(), tmp_path / "parts", contrastive(steps=4, floor=1.0), resume=True)
    other = train(data(), tmp_path / "other", contrastive(floor=1.0))
    assert load_dual(parts.directory).fingerprint == load_dual(other.directory).fingerprint
    assert load_dual(whole.directory).fingerprint != load_dual(other.directory).fingerprint
    lines = [json.loads(line) for line in whole.metrics_path.read_text().splitlines()]
    last = [line["retrieval"] for line in lines if "retrieval" in line][-1]
    _, held_out = split(data(), 0.1, 0)
    assert last == pytest.approx(retrieved(load_dual(whole.directory), held_out)._asdict())
    with pytest.raises(RunError, match="dual encoder, which draws nothing"):
        load(whole.directory)


def test_a_run_of_another_kind_is_no_dual_encoder(tmp_path):
    Run.create(tmp_path / "run", Recipe(options=FEW).model_dump(mode="json"), data().spec.model_dump(mode="json"))
    with pytest.raises(RunError, match="is no dual encoder"):
        load_dual(tmp_path / "run")


def test_points_with_captions_are_pairs_as_well(tmp_path):
    """After a few steps two well separated kinds of points find their words."""
    which = np.arange(200) % 2
    x = np.random.default_rng(0).normal(size=(200, 3)) + 4 * which[:, None]
    pairs = open_data({"x": x, "text": [("low", "high")[i] for i in which]})
    recipe = contrastive(steps=20, learning_rate=3e-3, batch_size=32)
    run = train(pairs, tmp_path / "run", recipe)
    found = retrieved(load_dual(run.directory), pairs)
    assert (found.texts, found.chance) == (2, 0.5)
    assert found.text > 0.95


def test_a_fingerprint_is_of_every_weight():
    layer = torch.nn.Linear(3, 2)
    before = fingerprint(layer)
    assert fingerprint(layer) == before
    with torch.no_grad():
        layer.bias[1] += 1e-6
    assert fingerprint(layer) != before
