"""``osmotic distill`` and few-step objectives of ``osmotic train``: every method on every kind of data, end to end."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill import METHODS
from osmotic.likelihood import log_prob
from osmotic.recipes import plan
from osmotic.recipes.beside import beside
from osmotic.recipes.distill import distill
from osmotic.recipes.stages import under_guidance
from osmotic.recipes.train import train
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Distillation, Process, Recipe
from osmotic.training.run import Run

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=2, preview_every=4, evaluate_every=4, ema=(2.0,))
SMALL = Architecture(widths=(8, 16), blocks=1, attention=())
SCRATCH = [name for name, method in METHODS.items() if not method.teacher]
READS = {"pairs": 64, "jumps": 4}


def sequences():
    """Two classes of sines, 3 channels of 12 positions."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    phase = rng.uniform(0, 6, (80, 1, 1))
    time = np.arange(12)[None, None]
    x = np.sin((1 + labels[:, None, None]) * time / 2 + phase + np.arange(3)[None, :, None])
    return x.astype(np.float32), labels


def source(kind):
    if kind == "images":
        return "digits"
    if kind == "vectors":
        return torch.randn(80, 3, generator=torch.Generator().manual_seed(0)).numpy()
    return sequences()


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A run of four steps on each kind of data: pictures and sequences with classes, vectors without."""
    made = {}
    for kind in ("images", "vectors", "sequences"):
        out = tmp_path_factory.mktemp("teachers") / kind
        recipe = Recipe(
            options=FEW,
            architecture=Architecture(widths=(16, 16)) if kind == "vectors" else SMALL,
            reading={"kind": "sequences"} if kind == "sequences" else {},
        )
        train(source(kind), out, recipe)
        made[kind] = out
    return made


def numbers(method):
    return Distillation(**{name: value for name, value in READS.items() if name in METHODS[method].reads})


def student(teachers, kind, method, tmp_path, **more):
    data = None if kind == "images" else source(kind)
    return distill(
        teachers[kind],
        tmp_path / "student",
        method,
        data=data,
        options=FEW,
        numbers=numbers(method),
        device="cpu",
        **more,
    )


@pytest.mark.parametrize("kind", ["images", "vectors", "sequences"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_distils_every_kind_of_data(method, kind, teachers, tmp_path):
    """It trains, is stored, loads and samples as it was trained; guided students are asked for a scale."""
    if method == "guided" and kind == "vectors":
        with pytest.raises(ValueError, match="class"):
            student(teachers, kind, method, tmp_path)
        return
    run = student(teachers, kind, method, tmp_path)
    model = load(run.directory)
    assert model.recipe.student is not None
    assert model.recipe.student.method == method
    labels = None if kind == "vectors" else [0, 1, 1]
    guidance = 2.0 if model.recipe.student.scales else 1.0
    x = model.sample(3, labels, guidance)
    assert x.shape == (3, *model.spec.shape)
    assert bool(torch.isfinite(x).all())
    assert torch.equal(x, model.sample(3, labels, guidance)), "a sample is a function of the seed"
    assert torch.allclose(x[1:2], model.sample(1, labels and labels[1:2], guidance, first=1), atol=1e-4)
    if model.denoiser.stops is None:
        assert model.sample(3, labels, guidance, steps=3).shape == x.shape
    else:
        assert model.plan().steps == len(model.denoiser.stops)


@pytest.mark.parametrize("objective", SCRATCH)
def test_few_step_objectives_train_from_scratch(objective, tmp_path):
    recipe = Recipe(options=FEW, architecture=Architecture(widths=(16, 16)), process=Process(objective=objective))
    train("moons", tmp_path / "run", recipe)
    model = load(tmp_path / "run")
    assert model.recipe.student.method == objective
    assert plan.student(model.recipe.student).startswith(f"{objective}: ")
    assert bool(torch.isfinite(model.sample(4, 0)).all())
    wrong = recipe.model_copy(update={"process": Process(objective=objective, law="uniform")})
    with pytest.raises(ValueError, match="no --law"):
        train("moons", tmp_path / "law", wrong)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_is_an_ordinary_denoiser_where_it_has_a_diagonal(method, teachers, tmp_path):
    """Solvers, likelihood and another distillation take it; where it has none, the sentence says what to do."""
    if method == "guided":
        pytest.skip("needs classes")
    model = load(student(teachers, "vectors", method, tmp_path).directory)
    assert isinstance(model.denoiser, Denoiser)
    if model.denoiser.diagonal:
        assert bool(torch.isfinite(model.sample(2, sampler="heun", steps=2)).all())
        assert bool(torch.isfinite(log_prob(model.denoiser, torch.zeros(1, 3), rtol=1e-1, atol=1e-1)).all())
        return
    for attempt in (
        lambda: model.sample(2, sampler="heun"),
        lambda: log_prob(model.denoiser, torch.zeros(1, 3)),
        lambda: distill(tmp_path / "student", tmp_path / "again", "consistency", data=source("vectors"), options=FEW),
    ):
        with pytest.raises(ValueError, match="posterior mean"):
            attempt()
    assert not (tmp_path / "again").exists()


def test_a_killed_distillation_goes_on_where_it_stood(teachers, tmp_path):
    """Rounds that are finished are not done again, and the result is the same bits."""
    whole = student(teachers, "vectors", "progressive", tmp_path / "a")
    other = student(teachers, "vectors", "progressive", tmp_path / "b")
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").glob("student/stages/*/checkpoints/*/*")}
    assert marks
    for folder in other.folders():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    again = student(teachers, "vectors", "progressive", tmp_path / "b", resume=True)
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    a, b = load(whole.directory), load(again.directory)
    assert torch.equal(a.sample(4), b.sample(4))


def test_stages_that_had_not_begun_keep_their_length(teachers, tmp_path):
    """Resumed with nothing said, each stage trains as long as it was going to."""
    run = student(teachers, "vectors", "progressive", tmp_path)
    later = [run.directory, run.directory / "stages" / "jumps-2"]
    steps = [Run.open(folder).recipe()["options"]["steps"] for folder in later]
    for folder in later:
        shutil.rmtree(folder / "checkpoints")
    distill(teachers["vectors"], run.directory, "progressive", data=source("vectors"), resume=True, device="cpu")
    assert [Run.open(folder).complete()[0][1].step for folder in later] == steps


def test_resuming_keeps_what_the_run_has_and_refuses_another_teacher(teachers, tmp_path):
    run = student(teachers, "vectors", "consistency", tmp_path)
    kept = run.recipe()["options"]
    before = (run.directory / "recipe.json").read_bytes()
    more, again = Options(steps=6), {"data": source("vectors"), "resume": True, "device": "cpu"}
    distill(teachers["vectors"], run.directory, "consistency", **again)
    assert (run.directory / "recipe.json").read_bytes() == before
    distill(teachers["vectors"], run.directory, "consistency", options=more, **again)
    assert run.recipe()["options"] == {**kept, "steps": 6}
    assert run.complete()[0][1].step == 6
    other = tmp_path / "other"
    train(source("vectors"), other, Recipe(options=FEW, architecture=Architecture(widths=(16, 16))), steps=3)
    rounds = student(teachers, "vectors", "progressive", tmp_path / "rounds")
    for change in ({"seed": 5}, {"batch_size": 16}, {"ema": (3.0,)}, {"steps": 2}):
        recipe = (run.directory / "recipe.json").read_bytes()
        with pytest.raises(ValueError, match=r"cannot become|at step 6 already|keeps its teacher's seed"):
            distill(teachers["vectors"], run.directory, "consistency", options=Options(**change), **again)
        assert (run.directory / "recipe.json").read_bytes() == recipe, "nothing is written"
    for teacher, out, method, options, expected in (
        (other, run, "consistency", None, "another teacher"),
        (teachers["vectors"], run, "ect", None, "cannot become ect"),
        (teachers["vectors"], rounds, "progressive", Options(steps=60), "stages, whose steps cannot change"),
    ):
        with pytest.raises(ValueError, match=expected):
            distill(teacher, out.directory, method, options=options, **again)


@pytest.fixture(scope="module", params=["ctm", "meanflow", "shortcut"])
def taught(request, teachers, tmp_path_factory):
    """A student that has a diagonal."""
    return student(teachers, "vectors", request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("method", ["consistency", "ctm", "scm", "knowledge", "shortcut"])
def test_a_student_with_a_diagonal_teaches_on(method, taught, tmp_path):
    """Whatever the two clocks and aims are: the next student starts as the first one's diagonal."""
    run = distill(
        taught.directory,
        tmp_path / "next",
        method,
        data=source("vectors"),
        options=FEW,
        numbers=numbers(method),
        device="cpu",
    )
    assert bool(torch.isfinite(load(run.directory).sample(2)).all())


def test_what_a_student_never_learned_is_refused(teachers, tmp_path, osmotic):
    """A pair belongs to its class, so a student of pairs knows no "nothing" and no guidance."""
    model = load(student(teachers, "images", "knowledge", tmp_path).directory)
    with pytest.raises(ValueError, match="knows no 'nothing'"):
        model.sample(2, cond=None)
    with pytest.raises(ValueError, match="this student has none; leave the guidance scale at 1"):
        model.sample(2, cond=1, guidance=3.0)
    for words, expected in (
        (["ect", "--guidance", 3], "takes no --guidance"),
        (["scm", "--compile"], "without --compile"),
        (["consistency", "--shard"], "without --shard"),
    ):
        code, _, err = osmotic("distill", teachers["images"], "--out", tmp_path / "x", "--method", *words)
        assert code == 2, words
        assert expected in err
    plain = Recipe(options=FEW, architecture=SMALL, process=Process(condition_dropout=0.0))
    train("digits", tmp_path / "plain", plain)
    with pytest.raises(ValueError, match="never learned guidance"):
        distill(tmp_path / "plain", tmp_path / "x", "guided", options=FEW)
    assert not (tmp_path / "x").exists()


def test_guidance_is_distilled_into_the_student(teachers, tmp_path):
    """The same run but for the scale: what is learned differs, and by the guided teacher's answers."""
    model = load(teachers["images"], device="cpu")
    under = under_guidance(model, 3.0)
    x, t, cond = torch.randn(2, *model.spec.shape), torch.tensor(0.7), Condition(vector=torch.tensor([1, 2]))
    known, unknown = (model.denoiser(x, t, c).x0 for c in (cond, cond.drop(torch.zeros(2, dtype=torch.bool))))
    torch.testing.assert_close(under(x, t, cond).x0, unknown + 3.0 * (known - unknown), rtol=1e-4, atol=1e-4)
    drawn = {}
    for scale in (1.0, 3.0):
        numbers = Distillation(guidance=scale)
        run = distill(teachers["images"], tmp_path / f"{scale}", "consistency", options=FEW, numbers=numbers)
        drawn[scale] = load(run.directory).sample(4, [0, 1, 2, 3])
    assert not torch.equal(drawn[1.0], drawn[3.0])


def test_wrong_use_is_one_sentence_and_writes_nothing(teachers, tmp_path, osmotic):
    vectors, images = teachers["vectors"], teachers["images"]
    out = tmp_path / "out"
    cases = [
        ([vectors, "--method", "progresive"], "progressive"),
        ([vectors, "--method", "consistency", "--pairs", 100], "takes no --pairs"),
        ([images, "--method", "progressive", "--jumps", 12], "power of two|halve"),
        ([images, "--method", "progressive", "--jumps", 8, "--last-jumps", 3], "halve"),
        ([tmp_path, "--method", "consistency"], "not a run"),
        ([vectors, "--method", "consistency", "--guidance", 2], "no classes"),
        ([vectors, "--method", "consistency"], "--data"),
        ([images, "--method", "consistency", "--seed", 5], "keeps its teacher's seed, 0"),
        ([images, "--method", "consistency", "--guidance", -1], "--guidance"),
    ]
    for words, expected in cases:
        code, _, err = osmotic("distill", *words, "--out", out)
        assert code == 2, (words, err)
        assert re.search(expected, err), err
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert not out.exists()


def test_a_target_that_says_nothing_at_pure_noise_is_refused(tmp_path, osmotic):
    """eps on the VP path: an error of the network is 150 times larger in x0; progressive distillation bears it."""
    process = Process(schedule="vp", target="eps", law="uniform")
    recipe = Recipe(options=FEW, architecture=Architecture(widths=(16, 16)), process=process)
    train("moons", tmp_path / "t", recipe)
    code, _, err = osmotic("distill", tmp_path / "t", "--method", "consistency", "--out", tmp_path / "s")
    assert code == 2
    assert "predicts eps" in err
    assert "--target v" in err
    assert not (tmp_path / "s").exists()
    distill(tmp_path / "t", tmp_path / "p", "progressive", options=FEW, numbers=Distillation(jumps=2), device="cpu")


def test_gamma_sampling_is_for_flow_maps(teachers, tmp_path, osmotic):
    run = student(teachers, "images", "ctm", tmp_path)
    drawn = {}
    for words in (["--gamma", 0.5], ["--sampler", "jump"], ["--gamma", 0]):
        out = tmp_path / "_".join(map(str, words))
        code, _, err = osmotic("sample", run.directory, "--steps", 3, "--count", 2, "--out", out, *words)
        assert code == 0, err
        drawn[out.name] = next(out.glob("*.npz")).read_bytes()
    arrays = {name: np.load(tmp_path / name / "samples_2x8x8x1.npz")["arr_0"] for name in drawn}
    assert np.array_equal(arrays["--sampler_jump"], arrays["--gamma_0"])
    assert not np.array_equal(arrays["--sampler_jump"], arrays["--gamma_0.5"])
    other = student(teachers, "vectors", "consistency", tmp_path / "other")
    code, _, err = osmotic("sample", other.directory, "--gamma", 0.5)
    assert code == 2
    assert "flow maps" in err


def test_the_command_prints_the_student_beside_its_teacher(teachers, tmp_path, osmotic):
    words = ["--steps", 4, "--batch-size", 8, "--checkpoint-every", 4, "--preview-every", 4, "--evaluate-every", 4]
    words = ["--method", "consistency", "--out", tmp_path / "s", *words]
    code, out, err = osmotic("distill", teachers["images"], *words)
    assert code == 0, err
    assert "consistency" in out
    assert "evaluations" in out
    stored = json.loads((tmp_path / "s" / "evaluation" / "bench.json").read_text())
    student = [p for p in stored["points"] if p["run"].endswith("/s")]
    assert [p["steps"] for p in student] == [1, 2, 4, 8, 20]
    assert not (teachers["images"] / "evaluation").exists(), "nothing is written into the teacher"
    code, out, err = osmotic("sample", tmp_path / "s", "--steps", 3, "--count", 4)
    assert code == 0, err


def test_tuning_chooses_the_stops_of_a_flow_map(teachers, tmp_path, osmotic):
    run = student(teachers, "images", "consistency", tmp_path)
    code, out, err = osmotic("tune", run.directory, "--nfe", 2, "--minutes", 0.2)
    assert code == 0, err
    assert "energy" in out
    tuned = json.loads((run.directory / "tuning" / "nfe-2.json").read_text())
    assert tuned["choice"]["sampler"] == "consistency"
    assert tuned["choice"]["steps"] == 2


def test_rounds_are_listed_and_measured_beside_the_teacher(teachers, tmp_path, osmotic):
    run = student(teachers, "images", "progressive", tmp_path)
    jumps = [int(folder.name.removeprefix("jumps-")) for folder in run.stages()]
    assert jumps == sorted(jumps, reverse=True)
    assert len(jumps) > 1
    rounds = [line for line in osmotic("info", run.directory)[1].splitlines() if line.startswith("earlier round")]
    assert [line.split(",")[0].removeprefix("earlier round: ") for line in rounds] == [str(f) for f in run.stages()]
    lines, paths = beside(teachers["images"], run.directory, None)
    assert any("jumps-2" in line for line in lines)
    assert any("student" in line and "jumps-" not in line for line in lines)
    assert all(path.is_file() for path in paths)
