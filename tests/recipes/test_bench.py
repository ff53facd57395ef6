"""Quality against cost, of exact denoisers whose best solver is known."""

import numpy as np
import pytest
import torch

from osmotic.data.dataset import open_data, split
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.recipes import bench as room
from osmotic.recipes.bench import bench
from osmotic.recipes.scores import Bench, Point, kept
from osmotic.recipes.swept import choices
from osmotic.recipes.train import train
from osmotic.schedules import Cosine, Rectified
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

from .conftest import lend

FEW = Options(steps=2, batch_size=8, evaluate_every=2, preview_every=2, checkpoint_every=2)
NET = Architecture(network="mlp", widths=(8,))


def recipe(**more) -> Recipe:
    return Recipe(options=FEW, architecture=NET, process=Process(schedule="cosine", target="v"), holdout=0.3, **more)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    place = tmp_path_factory.mktemp("points")
    np.save(place / "points.npy", np.random.default_rng(0).normal(size=(2000, 2)))
    train(str(place / "points.npy"), place / "run", recipe())
    return place / "run"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = tmp_path_factory.mktemp("digits") / "run"
    train("digits", run, recipe())
    return run


def test_euler_needs_more_evaluations_than_the_exact_jump(points, monkeypatch):
    """Of a Gaussian's flow Euler's method makes an error that falls with its steps; Heun's comes near at once."""
    lend(monkeypatch, room, Gaussian(Rectified(), torch.zeros(2), 1.0))
    _, paths = bench([points], sampler=["euler-time", "heun"], nfe=[3, 6, 12, 48], count=1000)
    found = kept(points, "bench", Bench)
    values = {(p.sampler, p.evaluations): p.value for p in found.points}
    assert [e for s, e in values if s == "euler-time"] == [3, 6, 12, 48]
    assert [e for s, e in values if s == "heun"] == [3, 5, 11, 47]  # the last step asks once
    assert values["euler-time", 3] > 0.02 + values["euler-time", 12]
    assert values["euler-time", 3] > 0.02 + values["heun", 47]
    assert found.score == "energy distance"
    last = next(p for p in found.points if p.sampler == "heun" and p.evaluations == 47)
    assert last.low < 0.01 < 0.03 + last.high
    assert all(path.is_file() for path in paths)
    front = choices(found)
    assert [p.value for p in front] == sorted((p.value for p in front), reverse=True)
    assert [p.evaluations for p in front] == sorted(p.evaluations for p in front)


def test_guidance_trades_diversity_for_agreement(digits, monkeypatch):
    """Exact guidance of overlapping classes: the judge agrees more, and samples of a class come closer together."""
    part, _ = split(open_data("digits"), 0.3, FEW.seed)
    x, labels = part.batch(np.arange(len(part)))
    means = torch.stack([x[labels == c].mean(0) for c in range(10)])
    # Wide and flat, so that a digit is often taken for another.
    lend(monkeypatch, room, GaussianMixture(Cosine(), means, 0.3))
    bench([digits], sampler=["ddim"], nfe=[16], guidance=[1.0, 2.0, 4.0], count=300)
    points = kept(digits, "bench", Bench).points
    agreement, spread = [[getattr(p, name) for p in points] for name in ("agreement", "spread")]
    assert [p.guidance for p in points] == [1.0, 2.0, 4.0]
    assert agreement == sorted(agreement)
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.95 * spread[0]


def test_guidance_is_swept_where_there_are_classes_and_a_judge_looks_on(digits, osmotic):
    code, out, err = osmotic("bench", digits, "--nfe", 3, "--sampler", "ddim", "--guidance", 1, 3, "--count", 64)
    assert code == 0, err
    found = kept(digits, "bench", Bench)
    assert [(p.guidance, p.evaluations) for p in found.points] == [(1.0, 3), (3.0, 6)]
    assert all(p.agreement is not None and p.spread > 0 and p.seconds > 0 for p in found.points)
    assert found.command == f"osmotic bench {digits} --nfe 3 --sampler ddim --guidance 1 3 --count 64"
    assert "in class" in out
    assert "64 samples each on" in out


def test_a_teacher_and_its_student_stand_in_one_table(points, tmp_path, osmotic):
    student = tmp_path / "run"  # the same last name as the teacher's
    train(str(points.parent / "points.npy"), student, recipe())
    code, out, err = osmotic("bench", points, student, "--nfe", 2, 4, "--sampler", "ddim", "--count", 50)
    assert code == 0, err
    assert {p.run for p in kept(points, "bench", Bench).points} == {str(points), str(student)}
    assert out.count(f"{tmp_path.name}/run ddim") == 2
    assert out.count(f"{points.parent.name}/run ddim") == 2
    assert kept(student, "bench", Bench) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nfe", "x"], "--nfe"),
        (["--count", 3], "At least 10 samples are needed"),
        (["--nfe", 0], "greater than or equal to 1"),
        (["--sampler", "dim"], "did you mean 'ddim'"),
        (["--sampler", "rk4", "--nfe", 1], "No step of rk4 fits into 1 evaluation"),
    ],
)
def test_what_cannot_be_swept_is_said_in_one_sentence(points, osmotic, words, message):
    code, _, err = osmotic("bench", points, *words)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_runs_of_other_data_are_refused(points, digits, osmotic):
    code, _, err = osmotic("bench", points, digits, "--count", 20)
    assert code == 2
    assert "was trained on other data" in err.splitlines()[-1]


def test_a_run_must_be_named(osmotic):
    code, _, err = osmotic("bench")
    assert (code, err) == (2, "osmotic: Name at least one run: osmotic bench RUN [RUN ...].\n")


def test_help_says_what_each_flag_takes(osmotic):
    help_ = osmotic("bench", "--help")[1]
    assert "--sampler TEXT ..." in help_
    assert "--nfe INT ..." in help_
    assert "--guidance FLOAT ..." in help_


def test_guided_samples_cost_twice_the_passes_and_useless_settings_are_no_choice(digits, points, osmotic):
    osmotic("bench", digits, "--nfe", 4, "--sampler", "ddim", "--guidance", 1, 2, "--count", 40)
    assert [(p.guidance, p.evaluations) for p in kept(digits, "bench", Bench).points] == [(1.0, 4), (2.0, 8)]
    code, out, _ = osmotic("bench", points, "--nfe", 4, "--sampler", "ddim", "--guidance", 1, 2, "--count", 40)
    assert code == 0
    assert "guidance is not swept: these data have no classes" in out
    assert "in class" not in out
    again = osmotic("bench", points, "--nfe", 4, "--sampler", "ddim", "--count", 40)[1]
    assert "this replaces what `osmotic bench" in again
    assert ", of 1 setting" in again


def test_what_is_cheap_and_useless_is_not_on_the_frontier():
    made = {"run": "r", "grid": "g", "steps": 1, "seconds": 1.0}
    points = [
        Point(sampler=str(i), evaluations=n, value=v, **made)
        for i, (n, v) in enumerate([(3, 900.0), (5, 9.0), (9, 4.0)])
    ]
    found = Bench(command="c", date="d", seconds=1, score="s", better="lower", features="f", samples=9, points=points)
    assert [p.sampler for p in choices(found)] == ["1", "2"]
