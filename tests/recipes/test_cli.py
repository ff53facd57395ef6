"""The command line from a user's data to the user's files, and what it says when it cannot."""

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from osmotic.data.dataset import open_data
from osmotic.recipes import plan
from osmotic.recipes.train import resolve
from osmotic.training import build
from osmotic.training.recipe import Process, Recipe

from .conftest import SMALL_NET, TINY


def test_pictures_become_pictures(osmotic, pictures, picture_run):
    code, out, _ = osmotic("info", pictures)
    assert code == 0
    assert "60 good samples" in out
    code, out, _ = osmotic("sample", picture_run, "--count", 6, "--steps", 3, "--guidance", 2)
    assert code == 0
    folder = picture_run / "samples" / "seed-0"
    files = sorted((folder / "pictures").glob("*.png"))
    assert [f.name for f in files] == [f"{i:06d}.png" for i in range(6)]
    with Image.open(files[3]) as picture:
        assert (picture.size, picture.mode) == ((12, 16), "RGB")
        assert picture.info["seed"] == "0:3"
        assert "osmotic sample" in picture.info["command"]
        pixels = np.asarray(picture)
    with np.load(folder / "samples_6x16x12x3.npz", allow_pickle=False) as stored:
        assert np.array_equal(stored["arr_0"][3], pixels)
        assert stored["arr_1"].tolist() == [0, 1, 2, 0, 1, 2]
    assert (folder / "grid.png").exists()
    assert all(line in out for line in (str(folder / "grid.png"), str(folder / "pictures")))


def test_a_run_holds_what_was_promised(picture_run):
    names = {path.name for path in picture_run.iterdir()}
    assert {"recipe.json", "data.json", "metrics.jsonl", "checkpoints", "samples"} <= names
    assert {p.name for p in (picture_run / "samples").glob("step-*.png")} == {"step-00000000.png", "step-00000004.png"}
    records = [json.loads(line) for line in (picture_run / "metrics.jsonl").read_text().splitlines()]
    assert any("held_out" in r for r in records)
    recipe = json.loads((picture_run / "recipe.json").read_text())
    assert recipe["architecture"]["widths"] == [8, 16]
    assert recipe["process"]["sigma_data"] > 0


def test_a_plan_is_printed_before_training(osmotic, pictures, tmp_path):
    code, out, _ = osmotic("train", pictures, "--out", tmp_path / "run", *TINY, *SMALL_NET)
    assert code == 0
    for word in ("parameters", "MFLOP", "MiB", "time: about", "4 steps of 8", "60 images", "3 classes: one, two, zero"):
        assert word in out


@pytest.mark.parametrize("objective", build.OBJECTIVES)
def test_the_plan_names_the_objective_and_what_of_the_process_it_uses(objective):
    """What an objective refuses to be told is not in its plan, and what it takes is."""
    dataset = open_data("moons")

    def made(**more) -> Process:
        process = Process(objective=objective, sigma_data=1.0, **more)
        build.task(resolve(Recipe(process=process), dataset), dataset.spec, torch.device("cpu"))
        return process

    assert plan.objective(made()).startswith(f"{objective}, ")
    for name, value, words in [("law", "logit-normal", "times"), ("weight", "likelihood", "weight")]:
        if refuses(made, name, value):
            assert f"{Process.model_fields[name].default} {words}" not in plan.objective(made())
        else:
            assert f", {value} {words}" in plan.objective(made(**{name: value}))


def refuses(made, name: str, value: str) -> bool:
    """Whether an objective takes no such setting."""
    try:
        made(**{name: value})
    except ValueError as error:
        return f"takes no --{name}" in str(error)
    return False


def test_the_plan_that_is_printed_has_the_objective(osmotic, tmp_path):
    words = ["train", "moons", "--widths", 8, "--objective", "hybrid", *TINY]
    code, out, _ = osmotic(*words, "--out", tmp_path / "run")
    assert code == 0
    assert "objective: hybrid, log-normal times, unit weight\n" in out


def test_sample_i_is_the_same_in_any_batch_and_count(osmotic, picture_run, tmp_path):
    for name, extra in {
        "a": ["--count", 7, "--batch-size", 3],
        "b": ["--count", 5],
        "c": ["--count", 5, "--seed", 1],
    }.items():
        words = ["sample", picture_run, "--out", tmp_path / name, "--class", "zero", "--steps", 3, "--sampler", "ddpm"]
        assert osmotic(*words, *extra)[0] == 0
    pixels = {
        name: [np.asarray(Image.open(tmp_path / name / "pictures" / f"{i:06d}.png")) for i in range(5)]
        for name in "abc"
    }
    assert all(np.array_equal(a, b) for a, b in zip(pixels["a"], pixels["b"], strict=True))
    assert not np.array_equal(pixels["b"][0], pixels["c"][0])


def test_tables_come_back_as_tables(osmotic, wine, tmp_path):
    run = tmp_path / "run"
    assert osmotic("train", wine, "--out", run, "--label", "cultivar", "--widths", 16, 16, *TINY)[0] == 0
    assert osmotic("sample", run, "--count", 30, "--steps", 3, "--class", "class_1", "class_2")[0] == 0
    with (run / "samples" / "seed-0" / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["alcohol", "ash", "magnesium", "strong", "cultivar"]
    assert {row["cultivar"] for row in rows} == {"class_1", "class_2"}
    assert {row["strong"] for row in rows} <= {"yes", "no"}
    assert all(row["magnesium"].isdigit() for row in rows)
    assert (run / "samples" / "seed-0" / "grid.png").exists()


@pytest.mark.parametrize(("shape", "kind"), [((40, 2, 25), "sequences"), ((40, 2), "vectors"), ((40, 5), "vectors")])
def test_arrays_come_back_in_their_units(osmotic, tmp_path, shape, kind):
    raw = 100 + 5 * np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "data.npy", raw)
    run = tmp_path / "run"
    widths = ["--widths", 8, 16, "--attention", 1] if kind == "sequences" else ["--widths", 16, 16]
    assert osmotic("train", tmp_path / "data.npy", "--out", run, *widths, *TINY)[0] == 0
    assert json.loads((run / "data.json").read_text())["kind"] == kind
    assert osmotic("sample", run, "--count", 9, "--steps", 3)[0] == 0
    with np.load(run / "samples" / "seed-0" / "samples.npz", allow_pickle=False) as stored:
        x = stored["x"]
    assert x.shape == (9, *shape[1:])
    assert x.dtype == raw.dtype
    # An untrained network denoises to about the mean, in the data's own units.
    assert 80 < x.mean() < 120


def test_a_dit_and_other_processes_train(osmotic, pictures, tmp_path):
    words = ["--network", "dit", "--width", 32, "--depth", 1, "--schedule", "rectified", "--target", "velocity"]
    words += ["--law", "logit-normal", "--weight", "min-snr", "--flip", "--upend", "--shift", 1]
    assert osmotic("train", pictures, "--out", tmp_path / "run", *words, *TINY)[0] == 0
    assert osmotic("sample", tmp_path / "run", "--count", 2, "--sampler", "heun", "--grid", "uniform")[0] == 0


def test_resume_goes_on_and_refuses_other_data(osmotic, pictures, wine, tmp_path):
    run = tmp_path / "run"
    assert osmotic("train", pictures, "--out", run, *TINY, *SMALL_NET)[0] == 0
    code, _, err = osmotic("train", pictures, "--out", run, *TINY, *SMALL_NET)
    assert code == 2
    assert "--resume" in err
    assert osmotic("train", pictures, "--out", run, "--resume", "--steps", 6)[0] == 0
    code, out, _ = osmotic("info", run)
    assert "at step 6 of 6" in out
    assert osmotic("train", pictures, "--out", run, "--resume")[0] == 0
    code, _, err = osmotic("train", pictures, "--out", run, "--resume", "--target", "eps")
    assert code == 2
    assert "was trained with --target karras" in err
    code, _, err = osmotic("train", pictures, "--out", run, "--resume", "--steps", 3)
    assert code == 2
    assert "is at step 6 already" in err
    code, _, err = osmotic("train", wine, "--label", "cultivar", "--out", run, "--resume")
    assert code == 2
    assert "other data" in err


WRONG = {
    "no such data": (["train", "digitz", "--out", "RUN"], "did you mean 'digits'"),
    "no such column": (["train", "WINE", "--label", "cultiva", "--out", "RUN"], "did you mean 'cultivar'"),
    "no such class": (["sample", "TRAINED", "--class", "seven"], "the 3 classes are one, two, zero"),
    "class number out of range": (["sample", "TRAINED", "--class", "3"], "There is no class '3'"),
    "no run": (["sample", "EMPTY"], "is not a run"),
    "no directory": (["sample", "RUN"], "is no run"),
    "not a number of samples": (["sample", "TRAINED", "--count", "0"], "--count should be greater than or equal to 1"),
    "no weights of that name": (["sample", "TRAINED", "--weights", "ema-7"], "it has ema-500, model"),
    "an unknown flag": (["train", "digits", "--out", "RUN", "--stepz", "3"], "did you mean --steps?"),
    "no number": (["train", "digits", "--out", "RUN", "--steps", "abc"], "`osmotic train --help`"),
    "a missing flag": (["train", "digits"], "--out"),
    "mirrored tables": (["train", "wine", "--out", "RUN", "--flip"], "are for pictures, not for table"),
    "turned oblongs": (["train", "PICTURES", "--out", "RUN", "--turn"], "Quarter turns need square pictures"),
    "one sample": (["train", "ONE", "--out", "RUN"], "leaves none to train on"),
    "guidance that is no number": (["sample", "TRAINED", "--guidance", "nan"], "--guidance should be a finite number"),
    "a superscript as class": (["sample", "TRAINED", "--class", "²"], "There is no class"),
    "an impossible seed": (["sample", "TRAINED", "--seed", "99999999999999999999"], "--seed should be less than"),
    "an occupied place for samples": (["sample", "TRAINED", "--out", "FULL"], "is not an empty directory"),
    "a sampler that needs a flow map": (["sample", "TRAINED", "--sampler", "jump"], "has no flow map"),
    "an impossible option": (
        ["train", "digits", "--out", "RUN", "--learning-rate", "-1"],
        "--learning-rate should be greater than 0",
    ),
    "a directory with other things": (["train", "digits", "--out", "FULL"], "is not empty and holds no run"),
    "a network that does not fit": (["train", "moons", "--network", "unet", "--out", "RUN"], "use --network mlp"),
    "a target that cannot start": (
        ["train", "moons", "--schedule", "rectified", "--target", "eps", "--out", "RUN"],
        "cannot be decoded at t = 1 on Rectified",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_errors_are_one_sentence_and_leave_nothing_behind(case, osmotic, pictures, wine, picture_run, tmp_path):
    words, expected = WRONG[case]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "one.npy", np.zeros((1, 3), np.float32))
    places = {
        "PICTURES": pictures,
        "ONE": tmp_path / "one.npy",
        "RUN": tmp_path / "run",
        "WINE": wine,
        "TRAINED": picture_run,
        "EMPTY": tmp_path / "empty",
        "FULL": tmp_path / "full",
    }
    code, _, err = osmotic(*[places.get(w, w) for w in words])
    assert code == 2
    assert expected in " ".join(err.split())
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("osmotic: ")
    assert not (tmp_path / "run").exists()
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_damaged_checkpoint_is_noticed(osmotic, pictures, tmp_path):
    run = tmp_path / "run"
    assert osmotic("train", pictures, "--out", run, *TINY, *SMALL_NET)[0] == 0
    weights = run / "checkpoints" / "step-00000004" / "ema-500.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, err = osmotic("sample", run)
    assert code == 2
    assert "step-00000004" in err


def test_ctrl_c_saves_and_says_how_to_go_on(pictures, tmp_path):
    run = tmp_path / "run"
    words = ["train", pictures, "--out", run, "--steps", 100000, "--batch-size", 8, *SMALL_NET]
    process = subprocess.Popen(
        [sys.executable, "-m", "osmotic", *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    metrics = run / "metrics.jsonl"
    while time.monotonic() < deadline and not (metrics.exists() and '"loss": ' in metrics.read_text()):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert list((run / "checkpoints").glob("step-*"))


def test_samples_of_two_commands_never_mix(osmotic, picture_run):
    folder = picture_run / "samples" / "seed-3"
    assert osmotic("sample", picture_run, "--seed", 3, "--count", 6, "--steps", 2)[0] == 0
    assert osmotic("sample", picture_run, "--seed", 3, "--count", 2, "--steps", 2)[0] == 0
    assert len(list((folder / "pictures").iterdir())) == 2
    assert [p.name for p in folder.glob("*.npz")] == ["samples_2x16x12x3.npz"]


def test_a_full_disk_ends_the_previews_and_not_the_training(osmotic, pictures, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = osmotic("train", pictures, "--out", tmp_path / "run", *TINY, *SMALL_NET)
    assert code == 0
    assert "No space left on device" in err
    assert (tmp_path / "run" / "checkpoints" / "step-00000004").is_dir()
    assert not list((tmp_path / "run" / "samples").glob("*"))


def test_reading_options_hold_for_the_continuation(osmotic, wine, tmp_path):
    run = tmp_path / "run"
    assert osmotic("train", wine, "--out", run, "--label", "cultivar", "--widths", 16, 16, *TINY)[0] == 0
    assert osmotic("train", wine, "--out", run, "--resume", "--steps", 5)[0] == 0
    code, _, err = osmotic("train", wine, "--out", run, "--resume", "--label", "strong", "--steps", 6)
    assert code == 2
    assert "trained on other data" in err


def test_two_processes_train_from_the_command_line(pictures, tmp_path):
    """The same samples and steps as one process; torchrun is how users start it."""
    words = ["train", str(pictures), "--out", str(tmp_path / "run"), *map(str, [*TINY, *SMALL_NET])]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "osmotic", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: ") == 1
    assert (tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").is_file()
