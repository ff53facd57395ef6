"""``osmotic train --codec``: latents on disk, samples decoded, and everything else of a run on a model of latents."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from osmotic import codecs
from osmotic.codecs import PCA
from osmotic.data.dataset import open_data
from osmotic.recipes.adapt import adapt
from osmotic.recipes.distill import distill
from osmotic.recipes.edit import Way, between, fill, redraw, swap
from osmotic.recipes.evaluate import likelihood
from osmotic.recipes.train import train
from osmotic.training import coding, latents
from osmotic.training.codec import load_codec
from osmotic.training.distributed import joined
from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=2, preview_every=4, evaluate_every=4, ema=(2.0,))
SMALL = Recipe(options=FEW, architecture=Architecture(widths=(8, 16), blocks=1, attention=()))
FLAT = Recipe(options=FEW, architecture=Architecture(widths=(16,)))


@pytest.fixture(scope="module")
def haar(tmp_path_factory):
    """A model of the wavelet's bands of digits, of a few steps: what it draws does not matter here."""
    return train("digits", tmp_path_factory.mktemp("runs") / "haar", SMALL, codec="haar")


@pytest.fixture(scope="module")
def white(tmp_path_factory):
    """A model of whitened wines, a codec that is no rotation."""
    return train("wine", tmp_path_factory.mktemp("runs") / "white", FLAT, codec="whitening")


@pytest.mark.parametrize("name", coding.LINEAR)
def test_a_run_keeps_its_codec_and_draws_data(name, tmp_path):
    data = load_digits().images[:64, :, :, None].astype(np.float32)
    run = train(data, tmp_path / "run", SMALL if name in ("haar", "dct") else FLAT, codec=name)
    model = load(run.directory)
    x = model.sample(3, steps=2)
    assert x.shape == (3, *model.spec.shape)
    assert model.decode(x).shape[0] == 3
    codec = codecs.load(run.directory / "codec" / "codec.safetensors")
    assert codec.fingerprint() == model.recipe.codec.fingerprint
    assert model.recipe.codec.shape == model.seen.shape == codec.latent(model.spec.shape)
    *_, last = model.points(3, steps=2)
    assert torch.equal(x, codec.decode(last))
    *_, shown = model.trajectory(3, steps=2)
    assert torch.equal(x, shown)


def test_whitened_latents_vary_alike_along_every_axis_that_varies():
    data = open_data(load_digits().images[:, :, :, None].astype(np.float32))
    codec, coded = coding.opened("whitening", data)
    z = codec.encode(data.batch(np.arange(len(data)))[0])
    assert coded.shape == (61,)  # three pixels of the digits never vary
    assert torch.allclose(z.T.cov(), torch.eye(61), atol=1e-2)


def test_kept_latents_are_those_of_the_codec_and_enter_training(haar):
    with joined("cpu") as world:
        codec = codecs.load(haar.directory / "codec" / "codec.safetensors")
        model, data = load(haar.directory), open_data("digits")
        kept = latents.cached(
            latents.Latents(data, codec, model.recipe.codec), haar.directory / "latents", world, print
        )
    rows = np.array([1500, 3, 1024, 3, 1023])
    z, labels = kept.batch(rows)
    assert torch.equal(z, codec.encode(data.batch(rows)[0]))
    assert torch.equal(labels, torch.from_numpy(data.labels[rows]))
    assert model.recipe.process.sigma_data == pytest.approx(float(kept.batch(np.arange(1797))[0].std()), rel=1e-2)


def test_an_interrupted_cache_goes_on_and_a_stale_one_is_refused(haar, tmp_path):
    data = open_data("digits")
    codec, coded = coding.opened("haar", data)
    with joined("cpu") as world:
        cache = latents.Latents(data, codec, coded)
        latents.cached(cache, tmp_path, world, print)
        shards = sorted(tmp_path.glob("*.safetensors"))
        assert len(shards) == 2
        first, before = shards[0].stat().st_mtime_ns, shards[1].read_bytes()
        shards[1].unlink()
        with pytest.raises(RunError, match="interrupted"):
            latents.Cached(cache, tmp_path)
        latents.cached(cache, tmp_path, world, print)
        assert shards[0].stat().st_mtime_ns == first
        assert shards[1].read_bytes() == before
        other, told = coding.opened("dct", data)
        with pytest.raises(RunError, match="stale latents, of another codec; delete"):
            latents.cached(latents.Latents(data, other, told), tmp_path, world, print)
        images = load_digits().images[:, :, :, None].astype(np.float32)
        images[778, 3, 3] += 1  # one pixel, of a picture that no cheap look at a few would meet
        changed = open_data((images, data.labels), value_range=(0, 16))
        with pytest.raises(RunError, match="stale latents, of other data; delete"):
            latents.cached(latents.Latents(changed, codec, coded), tmp_path, world, print)


def test_a_killed_run_of_latents_goes_on_with_the_same_bits(haar, tmp_path):
    train(
        "digits",
        tmp_path / "run",
        SMALL.model_copy(update={"options": FEW.model_copy(update={"steps": 2})}),
        codec="haar",
    )
    resumed = train("digits", tmp_path / "run", Recipe(options=Options(steps=4)), resume=True)
    ours, theirs = (load(run.directory).denoiser.state_dict() for run in (resumed, haar))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    train("digits", tmp_path / "run", Recipe(options=Options(steps=4)), codec="haar", resume=True)
    with pytest.raises(RunError, match="--codec haar, which cannot become pca"):
        train("digits", tmp_path / "run", Recipe(options=Options(steps=5)), codec="pca", resume=True)


def test_a_student_of_latents_and_an_adapted_one_decode_as_their_base(haar, tmp_path):
    student = distill(haar.directory, tmp_path / "student", "consistency", options=Options(steps=2, batch_size=8))
    for run in (student, adapt(haar.directory, "digits", tmp_path / "lora", options=Options(steps=2, batch_size=8))):
        model, base = load(run.directory), load(haar.directory)
        assert model.codec.fingerprint() == base.codec.fingerprint()
        assert model.sample(2, [1, 2], steps=1).shape == (2, 1, 8, 8)
        assert (run.directory / "latents" / "latents.json").exists()


def test_what_is_known_in_the_data_reaches_a_model_of_a_rotation(haar):
    model = load(haar.directory)
    x = torch.as_tensor(open_data("digits").batch(np.arange(2))[0])
    gaps = x.clone()
    gaps[:, :, 4:] = torch.nan
    filled = fill(model, gaps, Way(steps=3, particles=2))
    assert filled.shape == x.shape
    # The measurement is met as well as by a model of pixels; recipes.edit puts known pixels back to the bit.
    assert float((filled - x)[:, :, :4].abs().max()) < 1e-3
    report = likelihood(haar.directory, count=4, tolerance=1e-2)
    assert np.isfinite(report.bits.mean)


def test_edits_begin_with_latents_and_end_with_data(haar):
    model = load(haar.directory)
    x = torch.as_tensor(open_data("digits").batch(np.arange(2))[0])
    kept = redraw(model, x, 0.01, Way(steps=2, cond=[0, 1]))
    assert kept.shape == x.shape
    assert float((kept - x).abs().mean()) < 0.1
    assert swap(model, x, [0, 1], Way(cond=[1, 0])).shape == x.shape
    ends = between(model, x[0], x[1], 3, Way())
    assert float((ends[[0, -1]] - x).abs().max()) < 0.05


def test_a_codec_that_is_no_rotation_has_no_denoiser_of_data(white):
    model = load(white.directory)
    assert model.sample(2, [0, 1], steps=2).shape == (2, *model.spec.shape)
    with pytest.raises(ValueError, match="no rotation, so it has no exact denoiser of the data"):
        fill(model, torch.full((1, *model.spec.shape), torch.nan), Way(steps=2))
    with pytest.raises(ValueError, match="no rotation"):
        likelihood(white.directory, count=4)


WRONG = {
    "unknown": (["--codec", "harr"], "There is no codec 'harr'"),
    "flip": (["--codec", "haar", "--flip"], "Latents are encoded once"),
    "classifier": (["--codec", "haar", "--objective", "classifier"], "reads the data themselves"),
    "control": (["--codec", "haar", "--control", "edges"], "A control image has the data's size"),
    "no run": (["--codec", "runs/none"], "There is no run runs/none"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_latents_cannot_have_is_refused_in_a_sentence(case, tmp_path, osmotic):
    words, why = WRONG[case]
    code, _, err = osmotic("train", "digits", "--out", tmp_path / "run", *words)
    assert code == 2
    assert why in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_codec_of_other_data_does_not_fit(tmp_path):
    x = torch.randn(20, 1, 4, 4)
    with pytest.raises(RunError, match=r"The codec .* does not fit digits"):
        train("digits", tmp_path / "run", SMALL, codec=PCA.fit(x))


def test_a_lost_or_changed_codec_is_told(haar, tmp_path):
    run = train("digits", tmp_path / "run", SMALL, codec="haar")
    path = run.directory / "codec" / "codec.safetensors"
    codecs.save(path, codecs.Haar(2, 2))
    with pytest.raises(RunError, match="is not the codec"):
        load(run.directory)
    path.unlink()
    with pytest.raises(RunError, match="has lost its codec"):
        load(run.directory)
    assert json.loads((run.directory / "recipe.json").read_text())["codec"]["source"] == "haar"


def test_the_command_line_trains_says_and_draws(tmp_path, osmotic):
    run = tmp_path / "run"
    words = ["--steps", 2, "--batch-size", 8, "--widths", 8, "--blocks", 1, "--codec", "haar"]
    code, _, err = osmotic("train", "digits", "--out", run, *words)
    assert code == 0, err
    assert "codec: haar, latents of 4 x 4 x 4 for data of 1 x 8 x 8" in osmotic("info", run)[1]
    assert osmotic("sample", run, "--count", 2, "--steps", 2)[0] == 0
    assert osmotic("evaluate", run, "--count", 256, "--steps", 1)[0] == 0


def test_latents_of_an_autoencoder_are_diffused_and_its_run_is_not_needed_any_more(tmp_path, osmotic):
    few = ["--steps", 2, "--batch-size", 8, "--widths", 8, "--blocks", 1]
    code, _, err = osmotic("train", "digits", "--out", tmp_path / "ae", "--objective", "autoencoder", *few)
    assert code == 0, err
    code, _, err = osmotic("train", "digits", "--out", tmp_path / "run", "--codec", tmp_path / "ae", *few)
    assert code == 0, err
    student = distill(tmp_path / "run", tmp_path / "student", "consistency", options=Options(steps=2, batch_size=8))
    shutil.rmtree(tmp_path / "ae")
    for run in (tmp_path / "run", student.directory):
        model = load(run)
        assert model.sample(2, [1, 2], steps=1).shape == (2, 1, 8, 8)
        z = model.into(torch.zeros(1, 1, 8, 8))
        assert z.shape[1:] == model.recipe.codec.shape
    code, _, err = osmotic("train", "digits", "--out", tmp_path / "run", "--codec", "haar", "--resume", "--steps", 3)
    assert code == 2
    assert "cannot become haar" in err


def test_points_have_no_wavelet(tmp_path):
    with pytest.raises(RunError, match="haar is for data with positions"):
        train("moons", tmp_path / "run", codec="haar")


def test_a_learned_codec_comes_with_its_run_or_is_refused(tmp_path):
    coder = SMALL.model_copy(update={"process": Process(objective="autoencoder")})
    coder = coder.model_copy(update={"architecture": Architecture(widths=(8,), blocks=1)})
    run = train("digits", tmp_path / "ae", coder)
    codec = load_codec(run.directory, "cpu")
    made = train("digits", tmp_path / "run", SMALL, codec=codec)
    assert load(made.directory).sample(1, [0], steps=1).shape == (1, 1, 8, 8)
    stray = codecs.Neural(codec.network, codec.shift, codec.scale)
    with pytest.raises(RunError, match="no run could make again"):
        train("digits", tmp_path / "stray", SMALL, codec=stray)
    assert not (tmp_path / "stray").exists()


def test_a_model_of_bands_draws_other_sizes_fills_their_gaps_and_refuses_odd_ones(haar):
    model = load(haar.directory).at((16, 12))
    assert model.sample(2, [0, 1], steps=1).shape == (2, 1, 16, 12)
    gaps = torch.full((1, 1, 16, 12), torch.nan)
    gaps[:, :, :4] = -1
    assert fill(model, gaps, Way(steps=2, particles=1)).shape == gaps.shape
    with pytest.raises(ValueError, match=r"gives sizes of \(10, 10\), not of \(9, 9\)"):
        load(haar.directory).at((9, 9))


def test_autoencoders_are_of_one_size(tmp_path):
    for i, size in enumerate([(8, 8), (16, 8)] * 6):
        Image.new("L", size, i * 9).save(tmp_path / f"{i}.png")
    data = open_data(str(tmp_path), sizes=["8x8", "16x8"])
    coder = Recipe(options=FEW, process=Process(objective="autoencoder"))
    with pytest.raises(RunError, match="pictures of one size; give --size"):
        train(data, tmp_path / "out", coder)
    with pytest.raises(RunError, match="Latents are kept of one size"):
        train(data, tmp_path / "out", SMALL, codec="haar")
    assert not (tmp_path / "out").exists()
