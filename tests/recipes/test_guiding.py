"""Every way of leading samples from the command line, and a classifier that leads a model that knows no classes."""

import numpy as np
import pytest
import torch

from osmotic import guidance
from osmotic.recipes.train import train
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))
SMALL = Architecture(widths=(8, 16), blocks=1, attention=())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model of the digits, a weaker one, and a classifier, each of a few steps; what they draw does not matter."""
    root = tmp_path_factory.mktemp("runs")
    train("digits", root / "digits", Recipe(options=FEW, architecture=SMALL))
    train("digits", root / "weak", Recipe(options=FEW.model_copy(update={"seed": 1}), architecture=SMALL))
    judge = Recipe(options=FEW, architecture=SMALL, process=Process(objective="classifier"))
    train("digits", root / "judge", judge)
    return root


def pixels(folder):
    with np.load(next(folder.glob("*.npz"))) as archive:
        return archive["arr_0"].astype(float)


def test_every_piece_acts_and_all_together_work(runs, tmp_path, osmotic):
    found = {}

    def draw(name, *words):
        code, _, err = osmotic("sample", runs / "digits", "--count", 10, "--steps", 3, "--out", tmp_path / name, *words)
        assert code == 0, err
        found[name] = pixels(tmp_path / name)

    draw("plain")
    draw("guided", "--guidance", 3)
    draw("negative", "--guidance", 3, "--negative", "4")
    draw("interval", "--guidance", 3, "--interval", 0.2, 1.6)
    draw("rescale", "--guidance", 3, "--rescale", 0.7)
    draw("plus-plus", "--guidance", 0.6, "--plus-plus")
    draw("autoguidance", "--autoguidance", runs / "weak")
    draw("classifier", "--classifier", runs / "judge", "--classifier-scale", 4)
    draw("threshold", "--guidance", 3, "--threshold", "dynamic")
    several = ["--autoguidance", runs / "weak", "--classifier", runs / "judge", "--threshold", "static"]
    draw("all", "--guidance", 3, "--interval", 0.2, 5, "--rescale", 0.5, *several)
    names = list(found)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert np.abs(found[one] - found[other]).mean() > 0, f"{one} draws what {other} draws"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--interval", 0.2, 1.6], "changes guidance, and there is none"),
        (["--rescale", 0.7], "changes guidance, and there is none"),
        (["--guidance", 2, "--interval", 2, 1], "low < high"),
        (["--guidance", 0.5, "--plus-plus", "--sampler", "heun"], "CFG++"),
        (["--guidance", 0.5, "--plus-plus", "--rescale", 0.5], "would undo"),
        (["--autoguidance", "nowhere"], "nowhere"),
        (["--classifier", "digits"], "is no classifier"),
        (["--autoguidance", "judge"], "is a classifier, which draws nothing"),
        (["--guidance", 2, "--threshold", "sometimes"], "there are static, dynamic"),
        (["--autoguidance-scale", 3], "--autoguidance-scale is of --autoguidance RUN"),
        (["--classifier-scale", 3], "--classifier-scale is of --classifier RUN"),
        (["--guidance", 3, "--plus-plus"], "is its lambda, from 0 to 1; got 3"),
        (["--guidance", 3, "--interval", 1], "--interval takes LOW HIGH"),
        (["--set", "a"], "--set takes NAME VALUE ..."),
    ],
)
def test_what_does_not_go_together_is_one_sentence(runs, words, said, osmotic):
    words = [runs / word if word in ("digits", "judge") else word for word in words]
    code, _, err = osmotic("sample", runs / "digits", "--count", 2, "--steps", 2, *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_pieces_go_around_the_denoiser_from_python(runs):
    model = load(runs / "digits")
    x = model.sample(4, 3, 2.0, steps=3, guide=lambda inner: guidance.Interval(inner, 0.0))
    assert torch.equal(x, model.sample(4, 3, 2.0, steps=3))
    off = model.sample(4, 3, 2.0, steps=3, guide=lambda inner: guidance.Interval(inner, 1e6))
    assert torch.allclose(off, model.sample(4, 3, steps=3), atol=1e-5)


@pytest.mark.slow
def test_a_classifier_leads_a_model_without_classes(tmp_path, osmotic):
    """Two far clouds, 0.3 and 0.7 of the data: the model draws both in their shares, led it draws the one asked for."""
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.7).astype(int)
    x = (rng.normal(size=(3000, 2)) * 0.15 + np.array([[-1, 0.5], [1, -0.5]])[labels]).astype(np.float32)
    names = np.array(["left", "right"])[labels]
    options = Options(steps=700, batch_size=256, learning_rate=2e-3, ema=(40.0,))
    small = Architecture(widths=(64,) * 3)
    train(x, tmp_path / "model", Recipe(options=options, architecture=small))
    judge = Recipe(options=options.model_copy(update={"steps": 400}), architecture=small)
    judge = judge.model_copy(update={"process": Process(objective="classifier")})
    train((x, names), tmp_path / "judge", judge)

    def drawn(*words):
        words = [*words, "--count", 400, "--steps", 20, "--out", tmp_path / f"samples-{len(list(tmp_path.iterdir()))}"]
        code, _, err = osmotic("sample", tmp_path / "model", *words)
        assert code == 0, err
        with np.load(words[-1] / "samples.npz") as archive:
            return archive["x"]

    plain = drawn()
    assert (plain[:, 0] < 0).mean() == pytest.approx(0.3, abs=0.08)
    for name, side in (("left", -1), ("right", 1)):
        led = drawn("--classifier", tmp_path / "judge", "--class", name)
        assert (led[:, 0] * side > 0).mean() > 0.97, name
        assert led.std(0).max() < 0.3
