"""One model of several sizes: trained, resumed, sampled at each, measured at the commonest; and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import osmotic
from osmotic.cli.flags import UsageError
from osmotic.cli.sample import sized
from osmotic.data.dataset import Subset, main_size, open_data, split
from osmotic.distill import METHODS
from osmotic.distill.base import Start
from osmotic.recipes.held_out import parts
from osmotic.schedules import VP
from osmotic.training.build import told
from osmotic.training.model import load
from osmotic.training.recipe import Architecture, Distillation

from .conftest import SMALL_NET, TINY

SIZES = ["--sizes", "16x8", "8x16"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Wide pictures dark on the left, tall ones dark at the top."""
    root = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for i in range(36):
        ramp = np.linspace(0, 200, 16)[None].repeat(8, 0) + rng.integers(0, 50, (8, 16))
        picture = Image.fromarray(ramp.astype(np.uint8))
        (picture if i % 3 else picture.transpose(Image.Transpose.TRANSPOSE)).save(root / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def run(mixed, tmp_path_factory):
    """A few steps of a U-Net on both sizes."""
    from osmotic.cli.main import main

    out = tmp_path_factory.mktemp("runs") / "mixed"
    assert (
        main([str(w) for w in ["train", mixed, "--out", out, *SIZES, *TINY, *SMALL_NET, "--checkpoint-every", 2]]) == 0
    )
    return out


def weights(run, step: int = 4) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_both_sizes_are_trained_and_drawn(run, osmotic, tmp_path):
    spec = json.loads((run / "data.json").read_text())
    assert spec["sizes"] == [[8, 16], [16, 8]]
    for said, shape in (("16x8", (8, 16)), ("8x16", (16, 8)), (None, (8, 16))):
        out = tmp_path / str(said)
        code, printed, err = osmotic("sample", run, "--out", out, "--count", 3, *(["--size", said] if said else []))
        assert (code, err) == (0, "")
        assert printed
        assert np.asarray(Image.open(out / "pictures" / "000002.png")).shape == shape
        assert np.load(next(out.glob("samples_*.npz")))["arr_0"].shape == (3, *shape, 1)


def test_a_size_that_was_never_seen_is_drawn_and_said(run, osmotic, tmp_path):
    code, _, err = osmotic("sample", run, "--out", tmp_path / "x", "--count", 1, "--size", "12x7")
    assert code == 0
    assert "never saw pictures of 12 x 7; it learned 16 x 8, 8 x 16" in err
    assert np.asarray(Image.open(tmp_path / "x" / "pictures" / "000000.png")).shape == (7, 12)


def test_samples_do_not_depend_on_how_many_are_drawn_at_once(run):
    model = osmotic.load(run).at((16, 8))
    whole = model.sample(4, steps=3, seed=2)
    assert whole.shape == (4, 1, 16, 8)
    assert torch.equal(model.sample(2, steps=3, seed=2, batch_size=1), whole[:2])
    assert model.decode(whole).shape == (4, 16, 8, 1)


def test_the_network_is_told_its_size_and_learns_from_it(run):
    model = osmotic.load(run, weights="model")
    network = model.denoiser.network
    assert told(model.spec) == {"sizes": 2}
    assert network.embedding.size.last.weight.any()  # it was zero
    x, time = torch.randn(2, 1, 8, 16), torch.zeros(2)
    before = network(x, time)
    network.embedding.size.last.weight.data.zero_()
    network.embedding.size.last.bias.data.zero_()
    assert not torch.equal(network(x, time), before)


def test_a_resumed_run_is_the_same_to_the_bit(mixed, run, osmotic, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / "step-00000004")  # as if it had been killed after step 2
    assert osmotic("train", mixed, "--out", again, "--resume")[0] == 0
    assert weights(again).keys() == weights(run).keys()
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(run).items())


def test_what_was_held_out_is_found_again_at_the_commonest_size(mixed, run):
    training, held = parts(run)
    whole = split(open_data(mixed, sizes=["16x8", "8x16"]), 0.1, 0)
    for part, of in zip((training, held), whole, strict=True):
        own = main_size(of)
        assert [part.name(i) for i in range(len(part))] == [own.name(i) for i in range(len(own))]
        assert part.batch(np.arange(len(part)))[0].shape[1:] == (1, 8, 16)


def test_a_transformer_takes_them_too(mixed, osmotic, tmp_path):
    out = tmp_path / "dit"
    words = ["--network", "dit", "--width", 16, "--depth", 2, "--gradient-checkpointing"]
    code, printed, _ = osmotic("train", mixed, "--out", out, "--sizes", "11", *TINY, *words)
    assert code == 0
    assert "with gradient checkpointing (" in printed
    assert "2 sizes, width x height:" in printed
    assert osmotic("sample", out, "--count", 1, "--size", "8x16")[0] == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--sizes", "16x8", "8x16", "--network", "mlp"], "An mlp reads one size"),
        (["--sizes", "16by8"], "'16by8' is no size of a picture: write WIDTHxHEIGHT"),
        (["--sizes", "16x8", "--size", "8"], "give one of them"),
        ([], "or --sizes N"),
        ([*SIZES, "--turn"], "Quarter turns need square pictures"),
    ],
    ids=["mlp", "word", "both", "none", "turn"],
)
def test_what_cannot_be_trained_is_refused(mixed, osmotic, tmp_path, words, match):
    code, _, err = osmotic("train", mixed, "--out", tmp_path / "no", *TINY, *words)
    assert code == 2
    assert match in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "no").exists()


def test_what_is_no_size_is_refused(run, osmotic):
    for said in ("16", "16x", "0x8"):
        code, _, err = osmotic("sample", run, "--size", said)
        assert code == 2
        assert "is no size of a picture" in err


def test_models_without_positions_have_one_size(run):
    model = osmotic.load(run)
    with pytest.raises(ValueError, match="2 position axes"):
        model.at((3,))
    model.recipe = model.recipe.model_copy(update={"architecture": Architecture(network="mlp")})
    with pytest.raises(ValueError, match="is an mlp, which has one size"):
        model.at((16, 8))
    assert model.at((8, 16)).spec == model.spec
    model.spec = model.spec.model_copy(update={"kind": "array"})
    with pytest.raises(UsageError, match="--size is for pictures"):
        sized(model, "8x16")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "guided"])  # these pictures have no classes
def test_a_student_learns_all_sizes_or_says_why_not(run, osmotic, tmp_path, method, monkeypatch):
    seen, batch = set(), Subset.batch

    def noted(self, indices):
        x, labels = batch(self, indices)
        seen.add(tuple(x.shape[2:]))
        return x, labels

    monkeypatch.setattr(Subset, "batch", noted)
    few = ["--steps", 4, "--batch-size", 4, "--warmup", 1]
    out = tmp_path / "student"
    code, _, err = osmotic("distill", run, "--method", method, "--out", out, *few)
    start = Start(VP(), 0.5, 1, False, Distillation())
    if any(stage.pairs for stage in METHODS[method].stages(start)):
        assert (code, "draws several sizes" in err, out.exists()) == (2, True, False)
    else:
        assert code == 0, err
        assert seen == {(8, 16), (16, 8)}
        steps = [] if METHODS[method].stages(start)[-1].student(start).stops else ["--steps", 1]
        assert osmotic("sample", out, "--count", 1, "--size", "8x16", *steps)[0] == 0


def test_a_run_that_would_not_fit_begins_with_gradient_checkpointing(mixed, osmotic, tmp_path, monkeypatch):
    from osmotic.recipes import plan

    monkeypatch.setattr(plan, "free", lambda device: 1000)
    code, printed, _ = osmotic("train", mixed, "--out", tmp_path / "r", *SIZES, *TINY, *SMALL_NET)
    assert code == 0
    assert "gradient checkpointing is on, for a step takes" in printed
    assert json.loads((tmp_path / "r" / "recipe.json").read_text())["options"]["gradient_checkpointing"] is True


@pytest.mark.slow
def test_each_size_shows_what_its_pictures_show(mixed, osmotic, tmp_path):
    """Wide pictures grow brighter to the right, tall ones downwards: about 17 s of training on one core."""
    words = ["--steps", 300, "--batch-size", 16, "--evaluate-every", 300, "--preview-every", 300, "--warmup", 10]
    words += ["--checkpoint-every", 300, "--widths", 16, 32, "--blocks", 1, "--attention", 1, "--ema", 30]
    assert osmotic("train", mixed, "--out", tmp_path / "r", *SIZES, *words, "--learning-rate", 0.003)[0] == 0
    model = load(tmp_path / "r")
    for size, axis in (((8, 16), 1), ((16, 8), 0)):
        x = model.at(size).sample(32, steps=18)[:, 0].numpy()
        for other in (0, 1):
            means = x.mean(1 + (1 - other))
            along = np.mean([np.corrcoef(np.arange(len(row)), row)[0, 1] for row in means])
            assert (along > 0.9) if other == axis else (abs(along) < 0.5)
