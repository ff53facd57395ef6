"""Enlarging pictures: what comes out is what was given when made small again, in windows too, and wrong use is said."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from osmotic.guidance import Downsample
from osmotic.recipes.train import train
from osmotic.recipes.upscale import consistent, continued, lanczos, passes, strides, upscale
from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

from .conftest import SMALL_NET, TINY

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four steps that enlarges grey pictures of 4 x 6 pixels twice, told their class."""
    raw = np.random.default_rng(0).integers(0, 256, (40, 8, 12, 1), np.uint8)
    recipe = Recipe(options=FEW, architecture=Architecture(widths=(8,), blocks=1), reading={"upscale": 2})
    return train((raw, np.arange(40) % 2), tmp_path_factory.mktemp("runs") / "run", recipe).directory


@pytest.fixture(scope="module")
def model(run):
    return load(run, device="cpu")


def low(n, h, w, seed=0):
    levels = np.random.default_rng(seed).integers(0, 256, (n, 1, h, w))
    return torch.from_numpy(levels / 127.5 - 1).float()


@pytest.mark.parametrize("shape", [(4, 6), (2, 3), (9, 6), (11, 17)])
@pytest.mark.parametrize("factor", [None, 4])
def test_made_small_again_they_are_what_was_given(model, shape, factor):
    """At the size of the training, below and above it, after rounding to 8 bits: 35 dB would do, an untrained model
    is brought to 45."""
    given, times = low(2, *shape), factor or 2
    x = upscale(model, given, factor, steps=2)
    assert x.shape == (2, 1, times * shape[0], times * shape[1])
    assert x.abs().max() <= 1
    eight = torch.from_numpy(model.spec.encoding.decode(x.numpy()).astype(np.float64)).movedim(-1, 1) / 127.5 - 1
    error = (Downsample(times)(eight) - given).square().mean().sqrt()
    assert 20 * torch.log10(2 / error) > 45
    assert x.std() > 0.2  # not a constant


def test_a_picture_is_the_same_in_any_batch_and_its_part_as_in_the_whole(model):
    pictures = low(3, 4, 6)
    whole = upscale(model, pictures, steps=2, seed=4)
    assert torch.allclose(upscale(model, pictures, steps=2, seed=4, batch_size=1), whole, atol=1e-5)
    assert torch.allclose(upscale(model, pictures[2:], steps=2, seed=4, numbers=[2]), whole[2:], atol=1e-5)
    assert not torch.allclose(upscale(model, pictures, steps=2, seed=5), whole, atol=1e-2)
    # Where a window of the large picture is a window of the small one, far from what is beyond it, they agree. (Putting
    # means right reaches a little further, so they are told to be noisy.)
    large, way = low(1, 16, 24), {"steps": 1, "seed": 4, "noise": 0.01}
    corner = upscale(model, large[..., :12, :16], **way)
    assert torch.allclose(upscale(model, large, **way)[..., :16, :20], corner[..., :16, :20], atol=1e-4)


def test_what_is_said_and_noise_change_results(model):
    pictures = low(2, 4, 6)
    plain = upscale(model, pictures, steps=2)
    told = upscale(model, pictures, cond={"class": 1}, guidance=3.0, steps=2)
    noisy = upscale(model, pictures, steps=2, noise=0.4)
    assert not torch.allclose(plain, told, atol=1e-3)
    assert not torch.allclose(plain, noisy, atol=1e-3)
    assert not torch.allclose(Downsample(2)(noisy), pictures, atol=0.05)  # it is no longer believed
    count = []
    upscale(model, pictures, 4, steps=3, progress=count.append)
    assert sum(count) == 6


def test_even_a_model_that_is_wrong_is_put_right():
    x, given = torch.ones(2, 1, 8, 12), low(2, 4, 6)
    # White all over is the worst; a step of 8 bits is 0.008.
    assert torch.allclose(Downsample(2)(consistent(x, given, 2)), given, atol=0.004)
    # What it changes has no edges of its own: a picture that is too dark everywhere but for a slope keeps its slope.
    slope = torch.linspace(-0.4, 0.4, 12).expand(1, 1, 8, 12)
    brighter = consistent(slope - 0.2, Downsample(2)(slope), 2)
    assert torch.allclose(brighter, slope, atol=1e-4)
    ragged = torch.randn(2, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    found = consistent(ragged, given, 2)
    assert found.abs().max() <= 1
    assert torch.allclose(Downsample(2)(found), given, atol=0.004)
    already = Downsample(2)(ragged.clamp(-1, 1))
    assert torch.allclose(consistent(ragged.clamp(-1, 1), already, 2), ragged.clamp(-1, 1), atol=1e-6)


def test_lanczos_keeps_constants_and_has_the_known_weights():
    flat = np.full((1, 5, 7, 3), 90, np.uint8)
    assert (lanczos(flat, 4) == 90).all()
    line = np.zeros((1, 1, 33, 1), np.uint8)
    line[0, 0, 16] = 100
    found = lanczos(line, 2)[0, 0, :, 0].astype(float)
    apart = ((np.arange(66) + 0.5) / 2 - 0.5)[:, None] - np.arange(33)
    weights = np.where(np.abs(apart) < 3, np.sinc(apart) * np.sinc(apart / 3), 0.0)
    expected = 100 * (weights / weights.sum(1, keepdims=True))[:, 16]
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 1
    assert found.max() > 80


def test_sizes_windows_and_factors(model):
    assert strides((28, 28), 4) == [20, 20]
    assert strides((8, 12), 2) == [6, 8]
    assert strides((4, 4), 4) == [4, 4]
    assert continued(torch.ones(1, 1, 2, 9), (4, 6)).shape == (1, 1, 4, 9)
    assert [passes(model.spec, f) for f in (None, 2, 4, 8)] == [1, 1, 2, 3]
    with pytest.raises(RunError, match=r"2 times larger, or 4, 8, \.\.\.; not 6 times"):
        passes(model.spec, 6)
    with pytest.raises(ValueError, match="This model enlarges pictures"):
        upscale(model, torch.zeros(1, 3, 4, 6))
    with pytest.raises(ValueError, match="a level from 0"):
        upscale(model, low(1, 4, 6), noise=-0.1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A grey picture, two coloured ones, and a file that is none."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (4, 6), np.uint8)).save(folder / "small.png")
    (folder / "more").mkdir()
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (9, 10, 3), np.uint8)).save(folder / "more" / f"{i}.png")
    (folder / "more" / "notes.txt").write_text("no picture")
    (folder / "wrong.png").write_text("no picture")
    (folder / "empty").mkdir()
    return folder


def test_from_pictures_to_pictures(run, files, osmotic, tmp_path):
    code, out, err = osmotic("upscale", run, files / "small.png", files / "more", "--steps", 2, "--class", 1)
    assert code == 0, err
    assert "so 0.png, 1.png will be grey" in err
    folder = run / "samples" / "upscale-0"
    for name, size in (("small", (12, 8)), ("0", (20, 18)), ("1-lanczos", (20, 18))):
        assert str(folder / f"{name}.png") in out
        with Image.open(folder / f"{name}.png") as picture:
            assert (picture.size, picture.mode) == (size, "L")
    with Image.open(folder / "small.png") as large, Image.open(files / "small.png") as small:
        means = np.asarray(large, float).reshape(4, 2, 6, 2).mean((1, 3))
        assert np.abs(means - np.asarray(small)).max() <= 1.5
    assert (folder / "beside.png").exists()
    code, out, err = osmotic("upscale", run, files / "small.png", "--factor", 4, "--out", tmp_path / "x.png")
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-lanczos.png", "x.png"]
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (24, 16)
    again = osmotic("upscale", run, files / "small.png", "--factor", 4, "--out", tmp_path / "y.png")
    assert again[0] == 0
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()
    # The same model by the ordinary command, told small pictures.
    code, out, err = osmotic("sample", run, "--control", files / "small.png", "--count", 3, "--steps", 2)
    assert code == 0, err


def test_trained_from_the_command_line_and_evaluated(pictures, osmotic, tmp_path):
    out = tmp_path / "run"
    changes = ["--flip", "--shift", 1]
    code, said, err = osmotic("train", pictures, "--out", out, "--upscale", 4, *changes, *TINY, *SMALL_NET)
    assert code == 0, err
    assert "told its means over 4 x 4 pixels" in said
    assert f"osmotic upscale {out} PICTURE" in said
    assert json.loads((out / "recipe.json").read_text())["reading"] == {"upscale": 4}
    assert "told: a picture 4 times smaller" in osmotic("info", out)[1]
    code, _, err = osmotic("train", pictures, "--out", out, "--resume", "--steps", 6)
    assert code == 0, err  # read as they were
    code, _, err = osmotic("train", pictures, "--out", out, "--resume", "--upscale", 2)
    assert code == 2
    assert "control" in err
    code, _, err = osmotic("evaluate", out, "--count", 40, "--steps", 2)
    assert "Too few samples were held out" in err  # it found the data again, low resolutions and all


def test_wrong_use_is_one_sentence(run, picture_run, files, osmotic, tmp_path):
    small = files / "small.png"
    (tmp_path / "there.png").write_text("")
    for words, said in [
        ([run, files / "wrong.png"], "wrong.png: not a picture"),
        ([run, files / "nowhere.png"], "no such file"),
        ([run, files / "empty"], "no pictures in this folder"),
        ([run], "Nothing to enlarge was named"),
        ([run, small, "--factor", 3], "2 times larger, or 4, 8, ...; not 3 times"),
        ([picture_run, small], "does not enlarge pictures; train one that does"),
        ([tmp_path / "none", small], "does not exist"),
        ([run, small, "--guidance", 2], "Guidance leads towards"),
        ([run, small, "--prompt", "a cat"], "trained without texts"),
        ([run, small, small, "--out", tmp_path / "x.png"], "one file, and there are 2 pictures"),
        ([run, small, "--out", tmp_path / "there.png"], "there.png exists"),
    ]:
        code, _, err = osmotic("upscale", *words)
        assert code == 2, (words, err)
        assert said in err, (words, err)
        assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "x.png").exists()
