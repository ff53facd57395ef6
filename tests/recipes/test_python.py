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
    with pytest.raises(ValueError, match=r"there are ddim.*; did you mean 'ddim'\?"):
        model.sample(2, sampler="dim")
    with pytest.raises(ValueError, match=r"there are uniform.*cosine-data.*; did you mean 'karras'\?"):
        model.sample(2, grid="karas")
    assert model.sample(2, grid="cosine-data", steps=3).isfinite().all()
    with pytest.raises(ValueError, match=r"did you mean 'class-b'\?"):
        class_number("clas-b", ["class-a", "class-b"])


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


def test_guidance_that_was_never_learned_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="Guidance leads towards a class"):
        model.sample(2, guidance=3.0)
    always = Recipe(options=TINY.options, architecture=TINY.architecture, process=Process(condition_dropout=0.0))
    osmotic.train((model_data(), torch.arange(64) % 2), tmp_path / "run", always)
    shown = osmotic.load(tmp_path / "run")
    assert shown.sample(2, cond=1).shape == (2, 3)
    for wrong in ({"cond": 1, "guidance": 2.0}, {"cond": None}):
        with pytest.raises(ValueError, match="knows no 'nothing'"):
            shown.sample(2, **wrong)


def test_labels_of_numpy_and_conditions_of_the_wrong_length(model):
    assert torch.equal(model.sample(2, np.int64(1)), model.sample(2, 1))
    assert torch.equal(model.sample(2, list(np.arange(2))), model.sample(2, [0, 1]))
    with pytest.raises(ValueError, match=r"There is no class 0\.5"):
        model.sample(1, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="give one per sample"):
        model.sample(4, Condition(vector=torch.tensor([0, 1])))


def test_clipping_can_be_turned_off(tmp_path):
    off = Recipe(options=Options(**{**TINY.options.model_dump(), "clip": 0.0}), architecture=TINY.architecture)
    osmotic.train(model_data(), tmp_path / "run", off)
    assert osmotic.load(tmp_path / "run").recipe.options.clip == 0.0


@pytest.mark.parametrize("other", [lambda x: 1000 * x + 7, lambda x: x[:50], lambda x: x[:, :2]])
def test_resuming_on_other_data_is_refused(other, tmp_path):
    osmotic.train(model_data(), tmp_path / "run", TINY)
    with pytest.raises(ValueError, match="was trained on other data"):
        osmotic.train(other(model_data()), tmp_path / "run", TINY, resume=True)


def test_the_short_way_to_say_steps(tmp_path):
    osmotic.train(model_data(), tmp_path / "run", TINY, steps=3)
    model = osmotic.load(tmp_path / "run")
    assert model.step == 3
    assert model.recipe.options.batch_size == 16


@pytest.mark.parametrize("name", ["digits", "moons", "folder", "table"])
def test_the_recipes_run(name, tmp_path, monkeypatch):
    """Each short example from start to its picture or table, with a tiny network."""
    from osmotic.recipes import train as module

    def tiny(data, out, recipe=None, **how):
        return module.train(data, out, Recipe(**{**dict(recipe or Recipe()), "options": TINY.options}), **how)

    monkeypatch.setattr(osmotic, "train", tiny, raising=False)
    import csv
    import importlib

    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.new("RGB", (8, 8), (20 * i, 0, 255 - 20 * i)).save(tmp_path / "pictures" / f"{i}.png")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "kind"], *[[i / 7, i % 5, "xy"[i % 2]] for i in range(40)]])
    out = str(tmp_path / "run")
    words = {
        "digits": [out],
        "moons": [out],
        "folder": [str(tmp_path / "pictures"), out],
        "table": [str(tmp_path / "t.csv"), "kind", out],
    }
    importlib.import_module(f"osmotic.recipes.{name}").main(*words[name])
    made = {"moons": "moons.png", "folder": "pictures.png", "table": "samples.csv", "digits": "recipe.json"}[name]
    assert (tmp_path / "run" / made).stat().st_size > 0


def test_the_cifar10_recipe_is_of_the_size_it_says():
    from osmotic.nn import UNet, count
    from osmotic.recipes.cifar10 import RECIPE

    a = RECIPE.architecture
    assert 55e6 < count.parameters(UNet(3, a.widths, blocks=a.blocks, attention=a.attention)) < 59e6
    assert RECIPE.options.steps * RECIPE.options.batch_size == pytest.approx(200e6, rel=1e-5)


def test_how_the_data_are_read_stands_in_the_recipe_and_is_kept_on_resuming(wine, tmp_path):
    asked = Recipe(reading={"label": "cultivar"}, architecture=Architecture(network="mlp", widths=(8,)))
    few = Options(steps=2, batch_size=8, evaluate_every=2, preview_every=2, checkpoint_every=2)
    osmotic.train(str(wine), tmp_path / "run", asked.model_copy(update={"options": few}))
    assert osmotic.load(tmp_path / "run").spec.classes == ("class_0", "class_1", "class_2")
    osmotic.train(str(wine), tmp_path / "run", Recipe(options=Options(steps=3)), resume=True)
    assert osmotic.load(tmp_path / "run").step == 3


def test_sequences_that_are_too_short_to_halve_train_in_bfloat16(tmp_path):
    """Time came first by mistake: two positions. torch's halving convolution has no gradient at a single one."""
    x = np.cumsum(np.random.default_rng(0).normal(size=(60, 16, 2)), 1)
    few = Options(steps=3, batch_size=16, evaluate_every=3, preview_every=3, checkpoint_every=3, precision="bfloat16")
    wide = Architecture(network="unet", widths=(8, 8, 8), attention=())
    osmotic.train(x, tmp_path / "run", Recipe(options=few, architecture=wide))
    assert osmotic.load(tmp_path / "run").step == 3
    assert "swap the last two axes" in " ".join(open_data(x).spec.facts)
    assert len(resolve(Recipe(), open_data(x)).architecture.widths) == 2
