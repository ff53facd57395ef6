"""Scores of a run, from the command line to the file, with exact denoisers of known laws in the network's place."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

from osmotic.data.dataset import open_data, split
from osmotic.oracles import Dataset, Gaussian
from osmotic.recipes.quality import Drawing, catalog, drawing, features, lines, measure, quality
from osmotic.recipes.quality.sets import Context, Set
from osmotic.recipes.scores import Quality, kept
from osmotic.recipes.train import train
from osmotic.schedules import Cosine
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

from .conftest import lend

NET = Architecture(network="mlp", widths=(8,))
FEW = Options(steps=2, batch_size=8, evaluate_every=2, preview_every=2, checkpoint_every=2)
COSINE = Process(schedule="cosine", target="v")


def recipe(**more) -> Recipe:
    return Recipe(options=FEW, architecture=NET, process=COSINE, **more)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A run on 3,000 draws of a standard normal law in the plane, in units of their own; 900 are held out."""
    place = tmp_path_factory.mktemp("points")
    np.save(place / "points.npy", 5 + 3 * np.random.default_rng(0).normal(size=(3000, 2)))
    train(str(place / "points.npy"), place / "run", recipe(holdout=0.3))
    return place / "run"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = tmp_path_factory.mktemp("digits") / "run"
    train("digits", run, recipe(holdout=0.25))
    return run


def named(found: Quality) -> dict:
    return {score.name: score for score in found.scores}


def training(run, source, holdout):
    part, _ = split(open_data(source), holdout, FEW.seed)
    return part.batch(np.arange(len(part)))


def test_draws_of_the_law_itself_score_as_real_data_do(points, monkeypatch):
    lend(monkeypatch, measure, Gaussian(Cosine(), torch.zeros(2), 1.0))
    found = named(quality(points, drawing=Drawing(900, steps=20))[0])
    for score in found.values():
        reach = (
            0.1 if score.low is None else (score.high - score.low)
        )  # two intervals' width: many scores are looked at
        assert abs(score.value - score.real) <= reach + 0.02, score
    assert found["Frechet distance, infinite samples"].low < 0 < found["Frechet distance, infinite samples"].high
    assert found["energy distance"].low < 0 < found["energy distance"].high
    assert found["told from real data"].low < 0.5 < found["told from real data"].high


@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 1.0), (0.0, 0.5), (0.7, 1.5)])
def test_other_laws_have_the_frechet_distance_of_the_closed_form(points, monkeypatch, mean, deviation):
    """``|mean|^2 + 2 (1 - deviation)^2`` in the plane, in units of the data's deviation."""
    lend(monkeypatch, measure, Gaussian(Cosine(), torch.tensor([mean, 0.0]), deviation**2))
    found = named(quality(points, drawing=Drawing(2000, steps=20))[0])
    score, truth = found["Frechet distance, infinite samples"], mean**2 + 2 * (1 - deviation) ** 2
    # The data are a draw, too: their mean and deviation are off by 1 / sqrt(900), the distance by twice its root that.
    assert score.value == pytest.approx(truth, abs=3 * 2 * truth**0.5 * (1 / 900 + 1 / 2000) ** 0.5 + 0.01)
    assert found["Frechet distance"].low > found["Frechet distance"].real
    assert found["energy distance"].low > 0
    assert found["told from real data"].low > 0.5
    if deviation < 1:
        assert found["recall"].value < found["recall"].real - 0.1
        assert found["precision"].value > found["precision"].real - 0.02
    if deviation > 1:
        assert found["precision"].value < found["precision"].real - 0.05


def test_a_model_that_knows_its_training_data_by_heart_is_found_out(points, monkeypatch):
    x, _ = training(points, str(points.parent / "points.npy"), 0.3)
    lend(monkeypatch, measure, Dataset(Cosine(), x))
    found, paths = quality(points, drawing=Drawing(300, steps=60))
    scores = named(found)
    assert scores["authentic"].value < 0.05 < scores["authentic"].real
    assert scores["nearer than held-out data"].value > 0.95
    assert any("repeats what it saw" in warning for warning in found.warnings)
    assert scores["Frechet distance"].value < 2 * scores["Frechet distance"].real + 0.02  # which this score cannot see
    assert all(path.is_file() for path in paths)


def test_classes_are_asked_for_in_their_shares_and_judged(digits, monkeypatch):
    x, labels = training(digits, "digits", 0.25)
    lend(monkeypatch, measure, Dataset(Cosine(), x, labels))
    found, _ = quality(digits, drawing=Drawing(600, steps=30))
    scores = named(found)
    assert found.sampled.conditional
    assert scores["class agreement"].value > 0.98
    assert scores["classification accuracy score"].value > scores["classification accuracy score"].real - 0.05
    assert scores["fine detail"].value == pytest.approx(1, abs=0.15)
    drawn = drawing.shares(split(open_data("digits"), 0.25, FEW.seed)[0], 5000, 0)
    real = np.bincount(labels, minlength=10) / len(labels)
    assert np.bincount(drawn, minlength=10) / 5000 == pytest.approx(real, abs=0.005)  # without replacement, no chance


def test_samples_of_wrong_classes_teach_nothing(digits, monkeypatch):
    """The classification accuracy score is that of samples: with labels at random a tenth is right."""
    x, labels = training(digits, "digits", 0.25)
    lend(monkeypatch, measure, Dataset(Cosine(), x, torch.from_numpy(np.random.default_rng(0).permutation(labels))))
    scores = named(quality(digits, drawing=Drawing(600, steps=20))[0])
    assert scores["classification accuracy score"].value < 0.35
    assert scores["classification accuracy score"].real > 0.9
    assert scores["class agreement"].value < 0.2


def test_tables_are_measured_as_a_user_gets_them(tmp_path, monkeypatch):
    """An exact denoiser's samples cannot be told from data with categories and whole numbers; copies are copies."""
    rng = np.random.default_rng(0)
    kind, number = rng.integers(3, size=900), rng.normal(size=900)
    rows = [f"{'abc'[k]},{int(rng.poisson(4 + 3 * k))},{n + k:.6f}" for k, n in zip(kind, number, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["kind,count,number", *rows]))
    train(str(tmp_path / "table.csv"), tmp_path / "run", recipe(holdout=0.3))
    x, _ = training(tmp_path / "run", str(tmp_path / "table.csv"), 0.3)
    lend(monkeypatch, measure, Dataset(Cosine(), x))
    scores = named(quality(tmp_path / "run", drawing=Drawing(500, steps=40))[0])
    assert scores["told from real data"].low < 0.6
    assert scores["authentic"].value < 0.1
    assert scores["column distance, worst"].value < 0.15


def test_of_more_samples_than_are_kept_the_frechet_distance_counts_all(points, monkeypatch):
    monkeypatch.setattr(drawing, "KEPT", 2 * 100.0)  # a hundred points of two entries
    lend(monkeypatch, measure, Gaussian(Cosine(), torch.zeros(2), 1.0))
    found, _ = quality(points, drawing=Drawing(1000, steps=8, batch_size=64))
    monkeypatch.setattr(drawing, "KEPT", 1e9)
    whole, _ = quality(points, drawing=Drawing(1000, steps=8, batch_size=64))
    assert found.samples == whole.samples == 1000
    few, all_ = named(found)["Frechet distance"], named(whole)["Frechet distance"]
    assert few.value == pytest.approx(all_.value, rel=1e-6)
    assert (few.samples, all_.samples) == (1000, 1000)
    assert few.real is None
    assert few.high - few.low > all_.high - all_.low
    assert named(found)["precision"].samples == 100


def test_the_command_that_is_stored_measures_the_same_again(points, osmotic):
    code, _, _ = osmotic("evaluate", points, "--steps", 2)
    first = kept(points, "quality", Quality)
    assert f"--count {first.samples}" in first.command
    code, _, _ = osmotic(*shlex.split(first.command)[1:])
    assert code == 0
    again = kept(points, "quality", Quality)
    assert [s.value for s in again.scores] == [s.value for s in first.scores]
    told, _ = quality(points, drawing=Drawing(20, steps=2, seed=7, guidance=1.0))
    assert told.command == f"osmotic evaluate {points} --count 20 --seed 7 --steps 2"


def test_the_share_nearer_to_the_training_data_is_as_uncertain_as_both_counts_make_it(points, monkeypatch):
    """Of 60 draws of the law itself beside 900 held-out points, the intervals hold 1/2 in all but a few."""
    rng = np.random.default_rng(0)
    missed = 0
    for trial in range(60):
        train_, held, mine = rng.normal(size=(400, 2)), rng.normal(size=(150, 2)), rng.normal(size=(500, 2))
        made = [Set(x, x, x) for x in (mine, held, train_)]
        context = Context(open_data("moons").spec, *made, None, False, trial)
        found = catalog.nearer(made[0], made[1], context)
        missed += not found.low <= 0.5 <= found.high
    assert missed <= 9  # of 5 %: 3, and four deviations of the binomial


def test_an_untrained_network_is_found_out_on_every_kind(digits, osmotic, wine, tmp_path):
    code, out, err = osmotic("evaluate", digits, "--count", 64, "--steps", 4, "--features", "learned")
    assert code == 0, err
    found = kept(digits, "quality", Quality)
    scores = named(found)
    assert "features of a classifier trained on these data" in found.features
    assert scores["Frechet distance"].low > scores["Frechet distance"].real
    assert scores["class agreement"].high < 0.9
    assert found.samples == 64
    assert found.command == f"osmotic evaluate {digits} --count 64 --steps 4 --features learned"
    assert [line for line in out.splitlines() if line.startswith("classifier score")]
    assert out.splitlines()[-4:] == [str(digits / "evaluation" / n) for n in ("quality.json", *found.pictures)]
    train(str(wine), tmp_path / "table", recipe(holdout=0.3, reading={"label": "cultivar"}))
    code, _, err = osmotic("evaluate", tmp_path / "table", "--count", 80, "--steps", 4)
    assert code == 0, err
    scores = named(kept(tmp_path / "table", "quality", Quality))
    assert {"column distance, mean", "correlation gap", "trained on samples, tested on real"} <= set(scores)
    waves = np.sin(np.linspace(0, 6, 32) + np.random.default_rng(0).uniform(0, 6, (200, 1)))[:, None]
    np.save(tmp_path / "waves.npy", waves)
    train(str(tmp_path / "waves.npy"), tmp_path / "waves", recipe(holdout=0.3))
    assert osmotic("evaluate", tmp_path / "waves", "--count", 80, "--steps", 4)[0] == 0
    scores = named(kept(tmp_path / "waves", "quality", Quality))
    assert scores["autocorrelation distance"].low > scores["autocorrelation distance"].real
    assert scores["spectrum distance"].low > scores["spectrum distance"].real


def test_the_same_seed_gives_the_same_scores_whatever_the_batch(points):
    one = quality(points, drawing=Drawing(40, steps=3, seed=5))[0]
    two = quality(points, drawing=Drawing(40, steps=3, seed=5, batch_size=7))[0]
    other = quality(points, drawing=Drawing(40, steps=3, seed=6))[0]
    for a, b, c in zip(one.scores, two.scores, other.scores, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-3, abs=1e-6), a.name
        assert a.name == c.name
    assert one.scores[0].value != pytest.approx(other.scores[0].value, rel=1e-3)


def test_two_processes_measure_what_one_does(points):
    """Each draws a part of the samples, unequal ones here; one judges."""
    words = ["evaluate", str(points), "--count", "41", "--steps", "3", "--batch-size", "10"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*launcher, "-m", "osmotic", *words],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("quality.json") == 1
    both = kept(points, "quality", Quality)
    alone, _ = quality(points, drawing=Drawing(41, steps=3, batch_size=10))
    for a, b in zip(both.scores, alone.scores, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-4, abs=1e-6), a.name


def test_a_run_that_was_stopped_is_measured_at_its_last_checkpoint_and_says_so(points):
    recipe_path = points / "recipe.json"
    text = recipe_path.read_text()
    try:
        recipe_path.write_text(text.replace('"steps": 2,', '"steps": 50,'))
        found, _ = quality(points, drawing=Drawing(40, steps=2))
    finally:
        recipe_path.write_text(text)
    assert found.step == 2
    assert any("stopped at step 2 of 50; this is its newest whole checkpoint" in w for w in found.warnings)
    assert "note: training stopped" in "\n".join(lines(found))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_measured(points, tmp_path, osmotic):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(points, run)
    (newest,) = run.joinpath("checkpoints").glob("step-*2")
    shutil.copytree(newest, newest.with_name("step-00000009"))
    (newest.with_name("step-00000009") / "model.safetensors").write_bytes(b"cut")
    code, _, err = osmotic("evaluate", run, "--count", 40, "--steps", 2, "--data", points.parent / "points.npy")
    assert code == 0
    assert "step-00000009" in err
    assert "Trying the checkpoint before it" in err


def test_where_the_only_checkpoint_is_damaged_none_before_it_is_promised(points, tmp_path, osmotic):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(points, run)
    for weights in run.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(b"cut")
    for older in sorted(run.glob("checkpoints/*"))[:-1]:
        shutil.rmtree(older)
    code, _, err = osmotic("evaluate", run, "--count", 40, "--steps", 2, "--data", points.parent / "points.npy")
    assert code == 2
    assert "is whole" in err
    assert "before it" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", 0.1], "--noise is about the likelihood, which is not measured; add --likelihood"),
        (
            ["--likelihood", "--guidance", 2],
            "--guidance is about samples, which --likelihood does not draw; leave it out",
        ),
        (["--count", 3], "At least 10 samples are needed"),
        (["--features", "random"], "are for pictures, and these data are none"),
        (["--features", "learned"], "learned without labels from images only"),
        (["--inception", "nowhere.pth"], "nowhere.pth is no file"),
        (["--inception", __file__, "--features", "learned"], "not learned; leave one out"),
        (["--features", "lerned"], "did you mean 'learned'?"),
        (["--guidance", 2], "Guidance leads towards a class"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(points, osmotic, words, message):
    code, _, err = osmotic("evaluate", points, *words)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert not err.count("Traceback")


def test_a_file_that_is_not_the_inception_network_is_refused(digits, osmotic, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"something else")
    code, _, err = osmotic("evaluate", digits, "--inception", tmp_path / "weights.pth", "--count", 20)
    assert code == 2
    assert "is not the FID Inception file: its SHA-256 begins with" in err.splitlines()[-1]


def test_weights_that_cannot_be_fetched_are_named_with_the_way_out(digits, osmotic, monkeypatch):
    from osmotic.metrics.features import inception

    def nothing(folder):
        raise OSError("https://somewhere cannot be had: no route to host")

    monkeypatch.setattr(inception, "fetch", nothing)
    code, _, err = osmotic("evaluate", digits, "--features", "inception")
    assert code == 2
    assert "cannot be had: no route to host; name it with --inception FILE then." in err.splitlines()[-1]


def test_every_measure_has_a_name_of_its_own_and_says_what_it_tells():
    names = [m.name for m in catalog.MEASURES]
    assert len(set(names)) == len(names)
    assert all(m.about and not m.about.endswith(".") for m in catalog.MEASURES)


def test_no_more_features_than_the_held_out_data_bear():
    x = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1)).astype(np.uint8)
    seen = features.Seen(open_data("digits").spec, x, None, 100)
    assert features.usual(seen).dimensions == 20
    assert features.pixels(seen).name == "20 principal components of pixels"
    assert features.usual(features.Seen(seen.spec, x, None, 5000)).dimensions == 256
