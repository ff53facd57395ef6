"""The same from Python: ten lines on any tensor, and the model that a run gives."""

import numpy as np
import pytest
import torch

import osmotic
from osmotic.condition import Condition
from osmotic.data.dataset import open_data
from osmotic.recipes.train import deviation, resolve
from osmotic.samplers import Heun
from osmotic.schedules import VE, VP, Rectified
from osmotic.times import Uniform
from osmotic.training.model import class_number
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

TINY = Recipe(
    options=Options(steps=6, batch_size=16, checkpoint_every=6, preview_every=6, evaluate_every=6),
    architecture=Architecture(widths=(16, 16)),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    out = tmp_path_factory.mktemp("python") / "run"
    osmotic.train((x, torch.arange(64) % 2), out, TINY)
    return osmotic.load(out)


def test_ten_lines_train_on_any_tensor(model):
    assert isinstance(model.denoiser, osmotic.NeuralDenoiser)
    x = model.sample(5, cond=1, guidance=2.0, sampler="dpmpp-2m", steps=4, seed=3)
    assert x.shape == (5, 3)
    assert model.decode(x).shape == (5, 3)
    assert torch.equal(x, model.sample(5, cond=1, guidance=2.0, sampler="dpmpp-2m", steps=4, seed=3))


def test_loading_twice_gives_the_same_model(model, tmp_path):
    osmotic.train(model_data(), tmp_path / "a", TINY)
    a, b = (osmotic.load(tmp_path / "a") for _ in range(2))
    assert torch.equal(a.sample(3), b.sample(3))
    raw = osmotic.load(tmp_path / "a", weights="model")
    assert not torch.equal(a.sample(3), raw.sample(3))


def model_data():
    return torch.randn(64, 3, generator=torch.Generator().manual_seed(0))


def test_training_is_a_function_of_the_seed_and_leaves_the_world_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    osmotic.train(model_data(), tmp_path / "a", TINY)
    assert torch.equal(torch.rand(1), expected)
    osmotic.train(model_data(), tmp_path / "b", TINY)
    assert torch.equal(osmotic.load(tmp_path / "a").sample(4), osmotic.load(tmp_path / "b").sample(4))


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp-2m"])
def test_a_sample_does_not_depend_on_batch_count_or_start(model, sampler):
    labels = [0, 1, 1, 0, 1, 0, 0]
    whole = model.sample(7, labels, 1.5, sampler, 3)
    assert torch.allclose(whole, model.sample(7, labels, 1.5, sampler, 3, batch_size=2), atol=1e-5)
    assert torch.allclose(whole[4:6], model.sample(2, labels[4:6], 1.5, sampler, 3, first=4), atol=1e-5)


def test_conditions_in_every_form(model):
    by_name = model.sample(2, ["0", "1"])
    for form in ([0, 1], np.array([0, 1]), torch.tensor([0, 1]), Condition(vector=torch.tensor([0, 1]))):
        assert torch.equal(model.sample(2, form), by_name)
    assert torch.equal(model.sample(2, 1), model.sample(2, [1, 1]))
    for wrong, words in [(2, "There is no class 2"), ([0, 1, 0], "one per sample"), ("x", "There is no class 'x'")]:
        with pytest.raises(ValueError, match=words):
            model.sample(2, wrong)


def test_names_win_over_numbers():
    assert class_number("1", ["7", "1", "0"]) == 1
    assert class_number("2", ["7", "1", "0"]) == 2
    assert class_number(0, ["7", "1", "0"]) == 0


def test_objects_and_other_paths(model):
    assert model.sample(2, sampler=Heun(), grid=Uniform(), steps=3).shape == (2, 3)
    for schedule in (VP(), Rectified(), VE(40.0)):
        assert torch.isfinite(model.sample(2, schedule=schedule)).all()
    assert len(list(model.trajectory(2, steps=4))) == 5
    with pytest.raises(ValueError, match="there are ddim"):
        model.sample(2, sampler="dim")


def test_given_values_stay_and_the_rest_is_found():
    dataset = open_data("digits")
    found = resolve(Recipe(), dataset)
    assert found.architecture.network == "unet"
    assert found.options.batch_size == 128
    assert found.process.sigma_data == deviation(dataset) == pytest.approx(0.752, abs=0.01)
    kept = resolve(Recipe(options=Options(steps=10_000), process=Process(sigma_data=2.0)), dataset)
    assert kept.options.steps == 10_000
    assert kept.process.sigma_data == 2.0
    assert resolve(Recipe(), open_data("moons")).architecture.network == "mlp"


def test_anything_indexable_trains(tmp_path):
    class Mine:
        def __len__(self):
            return 32

        def __getitem__(self, i):
            return np.full((1, 8, 8), i % 4 / 4, np.float32), i % 4

    osmotic.train(
        Mine(), tmp_path / "run", Recipe(options=TINY.options, architecture=Architecture(widths=(8, 8), blocks=1))
    )
    assert osmotic.load(tmp_path / "run").sample(2, 3).shape == (2, 1, 8, 8)
