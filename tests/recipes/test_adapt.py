"""``osmotic adapt``: low-rank changes, control images and whole weights on a trained model, end to end."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from osmotic.data.controls import CONTROLS, blocks, edges, grey
from osmotic.data.dataset import Under, open_data
from osmotic.data.errors import DataError
from osmotic.recipes.adapt import adapt
from osmotic.recipes.train import train
from osmotic.training import build
from osmotic.training.model import load, stored
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe
from osmotic.training.run import Run

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))
SMALL = Architecture(widths=(8, 16), blocks=1, attention=(1,))
TINY = ["--steps", 4, "--batch-size", 8, "--checkpoint-every", 4, "--preview-every", 4, "--evaluate-every", 4]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train("digits", tmp_path_factory.mktemp("runs") / "base", Recipe(options=FEW, architecture=SMALL))


@pytest.fixture(scope="module")
def negatives(tmp_path_factory):
    """Digits in black on white, as pictures in folders of three classes."""
    root = tmp_path_factory.mktemp("negatives")
    bunch = load_digits(n_class=3)
    for i in range(60):
        (root / str(bunch.target[i])).mkdir(exist_ok=True)
        picture = Image.fromarray((255 - bunch.images[i] * 255 / 16).round().astype(np.uint8))
        picture.save(root / str(bunch.target[i]) / f"{i}.png")
    return root


@pytest.mark.parametrize("by", ["lora", "control", "whole"])
def test_before_the_first_step_the_result_is_the_base(base, by):
    model = load(base.directory)
    reading = {"control": "edges"} if by == "control" else {}
    dataset = open_data("digits", **reading)
    from osmotic.recipes.adapt import resolved
    from osmotic.training.recipe import Adapted

    recipe = resolved(model.recipe, Adapted(by=by, base="base"), None, reading)
    spec = model.spec.model_copy(update={"control": dataset.spec.control})
    made = build.denoiser(recipe, spec, torch.device("cpu"), model.denoiser.network).eval()
    x, t = torch.randn(4, 1, 8, 8), torch.tensor(0.3, dtype=torch.float64)
    cond = model.condition([0, 1, 2, 3], 4, 0, 4)
    expected = model.denoiser(x, t, cond).x0
    if by == "control":
        from dataclasses import replace

        cond = replace(cond, image=dataset.told(np.arange(4))["image"])
    assert torch.equal(made(x, t, cond).x0, expected)
    learns = sum(p.numel() for p in made.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in model.denoiser.parameters())
    assert {"lora": 0 < learns < 0.25 * whole, "control": learns > 0.2 * whole, "whole": learns == whole}[by]


@pytest.mark.parametrize(
    "words", [["--by", "lora", "--rank", 2], ["--by", "control", "--control", "edges"], ["--by", "whole"]], ids=str
)
def test_adapting_and_sampling_from_the_command_line(base, negatives, tmp_path, words, osmotic):
    out = tmp_path / "out"
    code, said, err = osmotic("adapt", base.directory, negatives, "--out", out, *words, *TINY)
    assert code == 0, err
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["adapted"]["by"] == words[1]
    assert json.loads((out / "data.json").read_text())["classes"] == [str(i) for i in range(10)]
    assert "parameters" in said
    assert "60 images, seen by the network as 1 x 8 x 8" in said
    code, _, err = osmotic("adapt", base.directory, negatives, "--out", out, *words, "--resume", "--steps", 6)
    assert code == 0, err
    picture = next((negatives / "0").glob("*.png"))
    control = ["--control", picture] if "control" in words else []
    code, _, err = osmotic("sample", out, "--class", 2, "--count", 4, "--steps", 3, "--guidance", 2, *control)
    assert code == 0, err
    code, _, err = osmotic("evaluate", out, "--count", 40, "--steps", 2)
    assert code == 2
    assert "Too few samples were held out" in err  # it found the data again, under the base's classes
    if "lora" in words:
        before, after = load(base.directory).denoiser.network, load(out).denoiser.network.network
        for name, weight in before.state_dict().items():
            assert torch.equal(weight, after.state_dict()[name]), "the base is as it was"


def test_what_is_not_said_again_is_as_it_began(base, tmp_path, osmotic):
    out = tmp_path / "out"
    for words in (["--by", "lora", "--rank", 2], ["--resume"], ["--resume", "--rank", 2]):
        code, _, err = osmotic("adapt", base.directory, "digits", "--out", out, *words, *TINY)
        assert code == 0, err
    for words, said in ((["--by", "whole"], "--by lora, which cannot become whole"), (["--rank", 8], "--rank 2")):
        code, _, err = osmotic("adapt", base.directory, "digits", "--out", out, "--resume", *words, *TINY)
        assert code == 2
        assert said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits", "--by", "control"], "go together"),
        (["digits", "--control", "edges"], "go together"),
        (["moons"], "its kind is vectors, and the model's images"),
        (["digits", "--rank", 0], "--rank is at least 1"),
        (["digits", "--by", "whole", "--rank", 2], "--rank is of lora's changes, and --by whole makes none"),
        (["digits", "--by", "word", "--word", "w", "--like", "1", "--rank", 2], "leave it out"),
        (["digits", "--by", "lore"], "there are lora, control, whole, word"),
    ],
)
def test_what_does_not_fit_is_one_sentence(base, tmp_path, words, said, osmotic):
    code, _, err = osmotic("adapt", base.directory, *words, "--out", tmp_path / "out", *TINY)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_classes_that_the_base_never_saw_are_refused(base, tmp_path):
    x = np.random.default_rng(0).integers(0, 16, (40, 8, 8)).astype(np.uint8)
    data = open_data((x, np.array(["seven", "eight"])[np.arange(40) % 2]), kind="images", value_range=(0, 16))
    with pytest.raises(DataError, match="the model knows no class eight, seven"):
        adapt(base.directory, data, tmp_path / "out", options=FEW)
    assert not (tmp_path / "out").exists()


def test_adapted_and_few_step_models_are_refused(base, tmp_path):
    once = adapt(base.directory, "digits", tmp_path / "once", options=FEW)
    with pytest.raises(ValueError, match=f"is adapted already; adapt {base.directory} instead"):
        adapt(once.directory, "digits", tmp_path / "twice", options=FEW)
    with pytest.raises(ValueError, match="--by lora, which cannot become whole"):
        adapt(base.directory, "digits", tmp_path / "once", "whole", options=FEW, resume=True)


def test_data_without_labels_leave_the_class_hidden(base):
    images = load_digits().images.astype(np.uint8)
    data = Under(open_data(images, kind="images", value_range=(0, 16)), load(base.directory).spec)
    told = data.told(np.arange(3))
    assert told["keep"].tolist() == [[False]] * 3
    assert data.labels is None
    run_spec = stored(Run.open(base.directory))[1]
    assert data.spec.classes == run_spec.classes


def test_a_model_is_trained_with_a_control_from_scratch(tmp_path, osmotic):
    small = [*TINY, "--widths", 8, 16, "--blocks", 1]
    code, _, err = osmotic("train", "digits", "--out", tmp_path / "run", "--control", "blocks", *small)
    assert code == 0, err
    model = load(tmp_path / "run")
    assert model.spec.parts == ("class", "image")
    x = model.sample(2, {"class": 3, "image": torch.zeros(1, 8, 8)}, 2.0, steps=2)
    assert x.shape == (2, 1, 8, 8)
    code, _, err = osmotic("train", "digits", "--out", tmp_path / "no", "--control", "edges", "--flip", *small)
    assert code == 2
    assert "would not turn the control image" in err
    code, _, err = osmotic("train", "moons", "--out", tmp_path / "no", "--control", "edges", *TINY)
    assert code == 2
    assert "no pictures" in err


def test_controls_are_what_they_say():
    x = np.full((1, 3, 8, 8), -1, np.float32)
    x[:, :, :, 4:] = 1
    assert np.array_equal(np.flatnonzero(edges(x)[0, 0].any(0)), [3, 4])
    assert edges(x * 0.1).max() == 0
    assert np.allclose(grey(x)[0, 0], x[0, 0])
    colour = np.random.default_rng(0).uniform(-1, 1, (2, 3, 6, 10)).astype(np.float32)
    assert np.allclose(
        grey(colour)[:, 0], 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2], atol=1e-6
    )
    means = blocks(colour)
    assert np.allclose(means[:, :, :4, 4:8], colour[:, :, :4, 4:8].mean((2, 3), keepdims=True), atol=1e-6)
    assert np.allclose(means[:, :, 4:, 8:], colour[:, :, 4:, 8:].mean((2, 3), keepdims=True), atol=1e-6)
    for make in CONTROLS.values():
        assert make(colour).dtype == np.float32


@pytest.mark.parametrize("by", ["lora", "control"])
def test_every_weight_of_an_adapted_model_s_student_learns(base, tmp_path, by):
    from osmotic.recipes.distill import distill

    reading = {"control": "edges"} if by == "control" else {}
    made = adapt(base.directory, "digits", tmp_path / "made", by, options=FEW, reading=reading)
    run = distill(made.directory, tmp_path / "student", "ctm", options=FEW)
    first = load(base.directory).denoiser.network.state_dict()
    student = load(run.directory).denoiser.network.state_dict()
    moved = [name for name, weight in first.items() if not torch.equal(weight, student[f"network.{name}"])]
    assert len(moved) > 0.5 * len(first)
    assert any("aim.last" in name and weight.abs().sum() > 0 for name, weight in student.items())


def test_a_control_run_is_resumed_without_saying_it_again_and_other_data_are_refused(
    base, negatives, tmp_path, osmotic
):
    out = tmp_path / "out"
    words = ["adapt", base.directory, negatives, "--out", out, "--by", "control"]
    assert osmotic(*words, "--control", "edges", *TINY)[0] == 0
    code, _, err = osmotic(*words, "--resume", "--steps", 6)
    assert code == 0, err
    code, _, err = osmotic("adapt", base.directory, "digits", "--out", out, "--by", "control", "--resume")
    assert code == 2
    assert "trained on other data" in err


def test_other_samples_of_the_same_description_are_refused_when_resuming(tmp_path):
    """A run that began before that was looked at goes on."""
    first, second = (np.random.default_rng(i).integers(0, 256, (2, 40, 4, 4)).astype(np.uint8) for i in range(2))
    small = Recipe(options=FEW, architecture=Architecture(network="mlp", widths=(16,)))
    for i, out in enumerate((tmp_path / "trained", tmp_path / "adapted")):

        def go(x, resume, out=out):
            data = open_data(x, kind="images")
            if out.name == "trained":
                return train(data, out, small, resume=resume)
            return adapt(tmp_path / "trained", data, out, "whole", options=FEW, resume=resume)

        go(first[i], False)
        go(first[i], True)
        with pytest.raises(ValueError, match="was trained on other data of the same description"):
            go(second[i], True)
        kept = (out / "contents.json").read_bytes()
        (out / "contents.json").unlink()
        go(second[i], True)
        (out / "contents.json").write_bytes(kept)


def test_captions_that_the_base_does_not_read_are_named(base, tmp_path, osmotic):
    lines = []
    for i in range(40):
        Image.fromarray(np.full((8, 8), 6 * i, np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"grey {i % 3}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    code, said, err = osmotic("adapt", base.directory, tmp_path, "--out", tmp_path / "out", *TINY)
    assert code == 0, err
    assert "captions are not used: the base reads none" in said
