"""``osmotic train --objective autoencoder``: every kind of data, the codec that is stored, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch

import osmotic as package
from osmotic.codecs import Neural
from osmotic.data.dataset import open_data, split
from osmotic.data.spec import Spec
from osmotic.recipes.train import resolve, train
from osmotic.training.autoencoder_defaults import fill
from osmotic.training.autoencoding import CODEC, OUTCOME, Autoencoding, Outcome
from osmotic.training.codec import load_codec
from osmotic.training.errors import RunError
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Distillation, Process, Recipe
from osmotic.training.run import Run

from .conftest import TINY

DRAWS = np.random.default_rng(0)
# Name of the data, the data, what a latent of them is by default with the bottleneck kl, and with vq.
KINDS = {
    "grey pictures": (DRAWS.integers(0, 256, (30, 9, 12), dtype=np.uint8), (2, 3, 3), None),
    "colour pictures": (DRAWS.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8), (8, 2, 2), (2, 4, 4)),
    "sequences": (DRAWS.normal(size=(30, 2, 20)), (2, 3), None),
    "volumes": (DRAWS.normal(size=(30, 1, 4, 6, 5)), (1, 2, 3, 3), None),
    "points": (DRAWS.normal(size=(30, 2)) * 5 + 1, (1,), (2, 1)),
    "wine": ("wine", (3,), None),
}


def small(bottleneck="kl", steps=2, process=None, architecture=None, **settings) -> Recipe:
    """A recipe of two steps."""
    return Recipe(
        options=Options(steps=steps, batch_size=8, checkpoint_every=2, preview_every=2, evaluate_every=2),
        architecture=Architecture(widths=(8,)) if architecture is None else architecture,
        process=Process(objective="autoencoder", **(process or {})),
        autoencoder=Autoencoding(bottleneck=bottleneck, **settings),
    )


QUANTISED = ("colour pictures", "points")


@pytest.mark.parametrize(("name", "bottleneck"), [(n, "kl") for n in KINDS] + [(n, "vq") for n in QUANTISED])
def test_every_kind_of_data_becomes_a_codec(name, bottleneck, tmp_path):
    data, *latents = KINDS[name]
    wanted = latents[bottleneck == "vq"]
    recipe = small(bottleneck, **({"codes": 200} if bottleneck == "vq" else {}))
    told: list[str] = []
    dataset = open_data(data)
    train(dataset, tmp_path / "run", recipe, tell=told.append)
    codec = package.load_codec(tmp_path / "run")
    assert isinstance(codec, Neural)
    shape = dataset.spec.shape
    latent = codec.latent(shape)
    assert latent == wanted
    training, held_out = split(dataset, 0.1, 0)
    x = training.batch(np.arange(len(training)))[0]
    with torch.no_grad():
        z = codec.encode(x)
        assert z.shape == (len(x), *latent)
        assert codec.decode(z).shape == x.shape
    flat = z.double().transpose(0, 1).flatten(1)
    assert flat.mean(1).abs().max() < 1e-4
    assert (flat.std(1, correction=0) - 1).abs().max() < 1e-4
    found = Outcome.model_validate_json((tmp_path / "run" / OUTCOME).read_bytes())
    assert (found.shape, found.latent, found.samples, found.held_out) == (shape, latent, len(held_out), True)
    assert (found.psnr is not None) == (dataset.spec.kind == "images")
    assert (found.perplexity is not None) == (bottleneck == "vq")
    assert (found.columns != {}) == (name == "wine")
    if bottleneck == "kl":
        assert found.compression == pytest.approx(math.prod(shape) / math.prod(latent))
    assert (tmp_path / "run" / "samples" / "reconstructions.png").is_file()
    for line in found.lines():
        assert line in told


def test_the_outcome_is_what_the_codec_does(tmp_path):
    """PSNR and error of the held-out pictures, by numpy; bits of the codes, by hand."""
    pictures = KINDS["grey pictures"][0]
    train(pictures, tmp_path / "run", small("vq", codes=8, halvings=1))
    found = Outcome.model_validate_json((tmp_path / "run" / OUTCOME).read_bytes())
    dataset = open_data(pictures)
    _, held_out = split(dataset, 0.1, 0)
    x = held_out.batch(np.arange(len(held_out)))[0]
    codec = load_codec(tmp_path / "run")
    with torch.no_grad():
        made = codec.decode(codec.encode(x)).clamp(-1, 1)
    mse = float(((made - x).numpy().astype(np.float64) ** 2).mean())
    assert found.psnr == pytest.approx(10 * math.log10(4 / mse), abs=1e-4)
    assert found.error == pytest.approx(mse**0.5 / float(x.double().std(correction=0)), rel=1e-4)
    assert found.compression == pytest.approx(9 * 12 * 8 / (5 * 6 * 3))
    assert 1 <= found.perplexity <= 8
    assert 0 < found.used <= 1


def test_a_tables_columns_are_judged_in_their_own_units(wine, tmp_path):
    dataset = open_data(str(wine))
    train(dataset, tmp_path / "run", small())
    found = Outcome.model_validate_json((tmp_path / "run" / OUTCOME).read_bytes())
    _, held_out = split(dataset, 0.1, 0)
    x = held_out.batch(np.arange(len(held_out)))[0]
    codec = load_codec(tmp_path / "run")
    with torch.no_grad():
        made = codec.decode(codec.encode(x))
    from osmotic.data.table import to_table

    real, guess = (to_table(part.numpy(), dataset.spec, None, None) for part in (x, made))
    ash = math.sqrt(np.mean((np.array(real["ash"], float) - np.array(guess["ash"], float)) ** 2))
    assert found.columns["ash"] == pytest.approx(ash, rel=1e-3)
    assert found.columns["strong"] == pytest.approx(
        np.mean([a != b for a, b in zip(real["strong"], guess["strong"], strict=True)])
    )


def test_the_codec_is_the_same_bits_however_often_it_is_made(tmp_path):
    """Trained twice; and measured again where the file was lost, as after a kill at the end."""
    pictures = KINDS["grey pictures"][0]
    for name in ("one", "two"):
        train(pictures, tmp_path / name, small("vq", codes=8, adversarial=0.5, adversarial_start=1))
    first = (tmp_path / "one" / CODEC).read_bytes()
    assert first == (tmp_path / "two" / CODEC).read_bytes()
    one, two = load_codec(tmp_path / "one"), load_codec(tmp_path / "two")
    assert one.fingerprint() == two.fingerprint()
    (tmp_path / "one" / CODEC).unlink()
    with pytest.raises(RunError, match=r"is not finished, it has no codec\.safetensors: go on with `osmotic train"):
        load_codec(tmp_path / "one")
    train(pictures, tmp_path / "one", resume=True)
    assert (tmp_path / "one" / CODEC).read_bytes() == first


def test_a_run_that_is_trained_further_has_no_codec_until_it_is_done(tmp_path, monkeypatch):
    pictures = KINDS["grey pictures"][0]
    train(pictures, tmp_path / "run", small())
    before = (tmp_path / "run" / CODEC).read_bytes()

    def stopped(*words, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("osmotic.recipes.train.fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(pictures, tmp_path / "run", Recipe(options=Options(steps=4)), resume=True)
    assert not (tmp_path / "run" / CODEC).exists()
    train(pictures, tmp_path / "run", Recipe(options=Options(steps=4)), resume=True)
    assert (tmp_path / "run" / CODEC).read_bytes() != before
    assert json.loads((tmp_path / "run" / OUTCOME).read_text())["step"] == 4


def test_a_damaged_codec_is_refused(tmp_path):
    train(KINDS["points"][0], tmp_path / "run", small())
    path = tmp_path / "run" / CODEC
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(ValueError, match="is damaged: its codec is not the one that was stored"):
        load_codec(tmp_path / "run")


REFUSED = {
    "schedule": (small(process={"schedule": "vp"}), "takes no --schedule: it diffuses nothing"),
    "law": (small(process={"law": "uniform"}), "takes no --law"),
    "condition dropout": (small(process={"condition_dropout": 0.5}), "takes no --condition-dropout"),
    "network": (small(architecture=Architecture(network="dit")), "is no --network dit"),
    "attention": (small(architecture=Architecture(attention=(1,))), "takes no --attention"),
    "widths": (small(architecture=Architecture(widths=(4, 4, 4)), halvings=1), "2 widths at most"),
    "codes": (small(codes=9), "--bottleneck kl takes no --codes"),
    "kl weight": (small("vq", kl_weight=1.0), "--bottleneck vq takes no --kl-weight"),
    "start": (small(adversarial_start=3), "needs --adversarial above 0"),
    "patches of an mlp": (small(architecture=Architecture(network="mlp"), adversarial=1.0), "vectors have none"),
    "few-step": (
        small().model_copy(update={"distillation": Distillation(rounds=2)}),
        "--rounds belongs to few-step methods",
    ),
    "shard": (small().model_copy(update={"options": Options(shard=True)}), "train without --shard"),
    "other objective": (
        Recipe(autoencoder=Autoencoding(codes=9)),
        "--objective denoising takes no --codes: that is for --objective autoencoder",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_means_nothing_is_refused_before_anything_is_written(name, tmp_path):
    recipe, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        train(KINDS["grey pictures"][0], tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()


def test_pictures_alone_have_a_perceptual_error(tmp_path):
    with pytest.raises(ValueError, match="--perceptual is for pictures, not for vectors"):
        train(KINDS["points"][0], tmp_path / "run", small(perceptual=0.1))
    train(KINDS["colour pictures"][0], tmp_path / "run", small(perceptual=0.1))
    assert (tmp_path / "run" / CODEC).is_file()


def test_what_was_trained_cannot_change_on_the_way(tmp_path):
    train(KINDS["grey pictures"][0], tmp_path / "run", small())
    with pytest.raises(RunError, match=r"--kl-weight 0\.001, which cannot become 0\.1"):
        train(KINDS["grey pictures"][0], tmp_path / "run", small(steps=4, kl_weight=0.1), resume=True)


@pytest.fixture(scope="module")
def coded(pictures, tmp_path_factory):
    """A run of the command line on the folder of pictures."""
    from osmotic.cli.main import main

    run = tmp_path_factory.mktemp("runs") / "autoencoder"
    words = ["train", pictures, "--out", run, *TINY, "--objective", "autoencoder", "--widths", 8, "--bottleneck", "vq"]
    assert main([str(word) for word in [*words, "--codes", 16, "--holdout", 0.5]]) == 0
    return run


@pytest.mark.parametrize("command", ["sample", "evaluate", "tune", "bench", "distill", "edit", "adapt"])
def test_commands_that_draw_say_what_an_autoencoder_is_for(command, coded, osmotic, pictures, tmp_path):
    words = {
        "edit": [next(pictures.glob("*/*.png")), "--mask", next(pictures.glob("*/*.png"))],
        "distill": ["--method", "reflow", "--out", tmp_path / "out"],
        "adapt": [pictures, "--out", tmp_path / "out"],
    }
    code, _, err = osmotic(command, coded, *words.get(command, []))
    assert code == 2
    assert "is an autoencoder, which draws nothing; train on its latents with `osmotic train DATA --codec" in err
    assert len(err.strip().splitlines()) == 1


def test_info_says_what_it_is(coded, osmotic):
    code, out, _ = osmotic("info", coded)
    assert code == 0
    for words in ("bottleneck vq", "times fewer bits", "PSNR", "held-out samples", "of 16 codes used, perplexity"):
        assert words in out
    assert "schedule" not in out
    assert "target" not in out


def test_the_command_says_the_plan_and_what_to_do_next(osmotic, tmp_path):
    words = ["train", "moons", "--out", tmp_path / "run", *TINY, "--objective", "autoencoder"]
    code, out, _ = osmotic(*words)
    assert code == 0
    for line in ("1 latent channel, KL weight 0.001, pseudo-huber error", "network: mlp, widths 128-128"):
        assert line in out
    assert f"train on its latents with `osmotic train moons --codec {tmp_path / 'run'} --out LATENT_RUN`" in out
    assert "sigma_data" not in out
    code, _, err = osmotic("train", "moons", "--out", tmp_path / "other", "--bottleneck", "vq")
    assert code == 2
    assert "--objective denoising takes no --bottleneck" in err
    code, _, err = osmotic("train", "moons", "--out", tmp_path / "other", "--objective", "autoencoder", "--codes", 0)
    assert code == 2
    assert "--codes" in err


def test_other_runs_have_no_codec(picture_run):
    with pytest.raises(RunError, match="is no autoencoder; train one with `osmotic train DATA --objective autoencoder"):
        load_codec(picture_run)


def spec(kind: str, *shape: int, count: int = 10_000) -> Spec:
    encoding = {"type": "pixels"} if kind == "images" else {"type": "standard", "dtype": "float32", "mean": (0.0,)}
    encoding |= {} if kind == "images" else {"std": (1.0,)}
    return Spec(kind=kind, shape=shape, source="here", count=count, encoding=encoding)


@pytest.mark.parametrize(
    ("data", "latent", "halvings"),
    [
        (spec("images", 3, 32, 32), 8, 2),
        (spec("images", 1, 28, 28), 2, 2),
        (spec("images", 1, 8, 8), 2, 2),
        (spec("images", 3, 64, 64), 8, 2),
        (spec("images", 3, 128, 96), 16, 3),
        (spec("images", 1, 3, 3), 1, 0),
        (spec("sequences", 1, 128), 1, 4),
        (spec("sequences", 4, 64), 5, 3),
        (spec("array", 1, 16, 16, 16), 1, 1),
        (spec("vectors", 12), 3, None),
    ],
    ids=str,
)
def test_defaults_compress_by_about_six_to_twelve(data, latent, halvings):
    filled = fill(small(architecture=Architecture()), data)
    how = filled.autoencoder
    assert (how.latent_channels, how.halvings) == (latent, halvings)
    if halvings:
        assert 6 <= data.shape[0] * 2 ** (halvings * (len(data.shape) - 1)) / latent <= 16


def test_what_is_given_stays():
    dataset = open_data(KINDS["grey pictures"][0])
    filled = resolve(small(latent_channels=5, halvings=1, adversarial=0.1), dataset)
    how = filled.autoencoder
    assert (how.latent_channels, how.halvings, how.adversarial_start) == (5, 1, 1)
    assert filled.architecture.widths == (8,)
    assert filled.process.sigma_data is None


def test_every_process_waits_for_the_codec(tmp_path):
    """Two processes: one of them measures, both end, and the codec is that of one alone."""
    from tests.launching import launch

    pictures = KINDS["grey pictures"][0]
    train(pictures, tmp_path / "one", small(steps=2))
    assert launch(shared, tmp_path / "two", pictures) == [0, 0]
    one, two = load_codec(tmp_path / "one"), load_codec(tmp_path / "two")
    x = open_data(pictures).batch(np.arange(8))[0]
    with torch.no_grad():
        torch.testing.assert_close(two.encode(x), one.encode(x), rtol=1e-3, atol=1e-3)
    assert Run.open(tmp_path / "two").complete()[0][1].step == 2


def shared(out, pictures) -> None:
    train(pictures, out, small(steps=2), device="cpu")


@pytest.mark.slow
def test_the_defaults_beat_principal_components_on_the_digits(tmp_path):
    """Eight numbers for 64 pixels, held out; of principal components fitted to the same training data 16.0 dB."""
    train("digits", tmp_path / "run", Recipe(process=Process(objective="autoencoder"), options=Options(steps=1000)))
    found = Outcome.model_validate_json((tmp_path / "run" / OUTCOME).read_bytes())
    assert math.prod(found.latent) == 8
    training, held_out = (
        part.batch(np.arange(len(part)))[0].flatten(1).double().numpy() for part in split(open_data("digits"), 0.1, 0)
    )
    mean = training.mean(0)
    axes = np.linalg.svd(training - mean, full_matrices=False)[2][:8]
    left = (held_out - mean) - (held_out - mean) @ axes.T @ axes
    assert found.psnr > 10 * math.log10(4 / np.mean(left**2)) + 2
