"""Tuning a solver and a grid to a run: what is counted, what is chosen, what is stored and what uses it."""

import json
import math
import shutil
import warnings

import numpy as np
import pytest
import torch

import osmotic
from osmotic.recipes import search, tune
from osmotic.recipes.search import Counted, Search, solvers, steps_within
from osmotic.samplers import CATALOG
from osmotic.schedules import VE
from osmotic.times import Karras, LogSNR, Span
from osmotic.training.errors import RunError
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe
from osmotic.training.run import Run
from osmotic.training.sampling import SAMPLER, STEPS, Entry, Tuned, Tuning

SMALL = Recipe(
    options=Options(steps=40, batch_size=32, checkpoint_every=40, preview_every=40, evaluate_every=40),
    architecture=Architecture(widths=(16, 16)),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on two rings of points, by class."""
    g = np.random.default_rng(0)
    labels = np.arange(256) % 2
    angle = g.uniform(0, 2 * np.pi, 256)
    x = (1 + 2 * labels[:, None]) * np.stack([np.cos(angle), np.sin(angle)], 1)
    out = tmp_path_factory.mktemp("tune") / "run"
    osmotic.train((x.astype(np.float32), labels), out, SMALL)
    return out


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    """The same, tuned for 4 evaluations with two of the rounds made shorter."""
    run = tmp_path_factory.mktemp("tune") / "tuned"
    shutil.copytree(trained, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "SEMIFINAL", 2)
        patch.setattr(search, "OPTIMIZED", 1)
        tune.tune(run, 4, count=8)
    return run


@pytest.fixture
def run(tuned, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(tuned, tmp_path / "run")


def entry(**changes):
    return Entry(
        **{"sampler": "heun", "grid": "x", "steps": 3, "evaluations": 5, "error": 0.1, "confirmed": 0.1} | changes
    )


def choice(nfe, **changes):
    values = {"nfe": nfe, "choice": entry(), "log_snr": (0.0, 1.0), "step": 40, "weights": "ema-500", "guidance": 1.0}
    return Tuned(**values | {"count": 8, "seed": 0, "reference": 0.0, "default": entry(), **changes})


@pytest.mark.parametrize(
    ("name", "nfe", "steps"), [("heun", 8, 4), ("heun", 7, 4), ("midpoint", 8, 4), ("midpoint", 7, 3), ("ddim", 8, 8)]
)
def test_steps_that_fit_are_counted(name, nfe, steps):
    """Heun looks once in the step to the data, 2 N - 1 calls; the midpoint rule always twice."""
    assert steps_within(CATALOG[name], nfe, VE(80.0), Karras()) == steps


def test_candidates_are_the_deterministic_solvers_with_an_order():
    found = solvers()
    assert {"ddim", "heun", "unipc-2", SAMPLER} <= set(found)
    assert not {"ddpm", "ddim-half", "jump", "consistency", "sde-dpmpp-2m"} & set(found)


def test_every_row_stays_within_the_budget_and_the_choice_is_no_worse_than_the_default(tuned):
    stored = Tuning(Run.open(tuned)).read(4)
    assert len(stored.table) > 30
    assert all(1 <= row.evaluations <= 4 and math.isfinite(row.error) for row in stored.table)
    assert "optimized" in {row.grid for row in stored.table}
    confirmed = [row for row in stored.table if row.confirmed is not None]
    worse = {max(row.error, row.confirmed) for row in confirmed}
    assert max(stored.choice.error, stored.choice.confirmed) == min(worse)
    assert max(stored.choice.error, stored.choice.confirmed) <= max(stored.default.error, stored.default.confirmed)
    assert stored.default.sampler == SAMPLER
    assert (tuned / "tuning" / "nfe-4.png").stat().st_size > 5000


def test_the_error_is_the_distance_to_converged_samples_of_fresh_noise(tuned):
    """The stored numbers again, by the model itself: its samples against a thousand Euler steps from the same noise."""
    stored, model = Tuning(Run.open(tuned)).read(4), osmotic.load(tuned)
    labels, sd = [i % 2 for i in range(8)], model.recipe.process.sigma_data
    for first, error in [(search.FIRST, stored.choice.error), (search.FIRST + 8, stored.choice.confirmed)]:
        fine = model.sample(8, labels, sampler="midpoint", steps=400, grid=LogSNR(sd / 300, 80.0), first=first)
        here = model.sample(8, labels, nfe=4, first=first)
        found = float((here - fine).square().mean().sqrt()) / sd
        assert found == pytest.approx(error, abs=3 * stored.reference + 1e-3)


def test_a_sample_takes_the_counted_evaluations(tuned):
    model, stored = osmotic.load(tuned), Tuning(Run.open(tuned)).read(4)
    model.denoiser = Counted(model.denoiser)
    model.sample(2, [0, 1])
    assert model.denoiser.calls == stored.choice.evaluations


def test_the_same_seed_finds_the_same(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "solvers", lambda: {n: CATALOG[n] for n in (SAMPLER, "ddim", "heun")})
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        shutil.copytree(trained, tmp_path / name)
        tune.tune(tmp_path / name, 3, count=4, seed=seed)
    a, b, c = (Tuning(Run.open(tmp_path / name)).read(3).model_copy(update={"at": ""}) for name in "abc")
    assert a == b
    assert a.table != c.table


def test_the_choice_is_used_unless_something_else_is_said(tuned):
    model, stored = osmotic.load(tuned), Tuning(Run.open(tuned)).read(4)
    c = stored.choice
    for said in ({}, {"sampler": c.sampler}, {"steps": c.steps}, {"sampler": c.sampler, "steps": c.steps}, {"nfe": 4}):
        plan = model.plan(**said)
        assert (plan.steps, plan.grid.log_snr, plan.tuned.nfe) == (c.steps, stored.log_snr, 4)
    assert type(model.plan().sampler) is type(CATALOG[c.sampler]())
    for said in ({"steps": c.steps + 1}, {"sampler": "midpoint"}, {"grid": "karras"}, {"sampler": CATALOG["ddim"]()}):
        assert model.plan(**said).tuned is None
    assert model.plan(sampler="midpoint").steps == STEPS
    assert type(model.plan(steps=c.steps + 1).grid) is Span
    assert model.plan(grid=osmotic.times.given([1.0, 0.1, 0.0])).steps == 2
    with pytest.raises(ValueError, match="name it alone"):
        model.plan(steps=3, nfe=4)
    with pytest.raises(RunError, match=r"not tuned for 9 evaluations \(it is tuned for 4\); run `osmotic tune"):
        model.sample(1, nfe=9)
    assert not torch.equal(model.sample(3, 0), model.sample(3, 0, steps=2))
    assert torch.isfinite(model.sample(2, 0, schedule=VE(0.5))).all()  # the path begins after the grid's first stops


def test_several_budgets_are_kept_and_the_last_is_used(run):
    tuning = Tuning(Run.open(run))
    tuning.store(choice(5))
    model = osmotic.load(run)
    assert tuning.budgets() == [4, 5]
    assert model.plan().tuned.nfe == 5
    assert model.plan(nfe=4).tuned.nfe == 4
    tuning.store(tuning.read(4))
    assert model.plan().tuned.nfe == 4


def test_training_on_is_said(run):
    model = osmotic.load(run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(1, 0)
    other = osmotic.load(run, weights="model")
    with pytest.warns(
        UserWarning, match="tuned on ema-.* at step 40, and this is model at step 40; `osmotic tune RUN --nfe 4`"
    ):
        other.sample(1, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"steps"', '"stops"', 1),
        lambda text: json.dumps(json.loads(text) | {"log_snr": [1.0, 0.0, 2.0, 3.0, 4.0, 5.0]}),
        lambda text: "[]",
    ],
)
def test_a_damaged_choice_is_named_and_can_be_avoided(osmotic, run, damage):
    path = run / "tuning" / "nfe-4.json"
    path.write_text(damage(path.read_text()))
    code, _, err = osmotic("sample", run, "--count", 2)
    assert code == 2
    assert f"{path} cannot be used" in err
    assert "osmotic tune" in err
    assert osmotic("sample", run, "--count", 2, "--sampler", "ddim", "--grid", "uniform")[0] == 0


def test_the_command_line_says_what_it_uses(osmotic, run):
    code, out, err = osmotic("sample", run, "--count", 2)
    assert code == 0
    assert err.startswith("osmotic: sampling as tuned for 4 evaluations: ")
    assert err.count("\n") == 1
    assert "found at guidance 1" in osmotic("sample", run, "--count", 2, "--guidance", 2)[2]
    assert osmotic("sample", run, "--count", 2, "--steps", 2)[2] == ""
    assert "trained on" not in err
    assert "not tuned for 7" in osmotic("sample", run, "--count", 2, "--nfe", 7)[2]
    assert "tunes it again" in osmotic("sample", run, "--count", 2, "--weights", "model")[2]
    lines = [line for line in osmotic("info", run)[1].splitlines() if line.startswith("tuned for 4 evaluations")]
    assert len(lines) == 1
    assert lines[0].endswith("used by `osmotic sample`")
    assert out


def test_tuning_from_the_command_line(trained, tmp_path, capsys, monkeypatch):
    from osmotic.cli import tune as command

    monkeypatch.setattr(search, "solvers", lambda: {n: CATALOG[n] for n in (SAMPLER, "ddim", "unipc-2")})
    run = shutil.copytree(trained, tmp_path / "run")
    assert command.main([str(run), "--nfe", "3", "--count", "4", "--guidance", "2"]) == 0
    out = capsys.readouterr().out
    assert "ema-500 at step 40, 3 evaluations, guidance 2" in out
    assert f"= {SAMPLER}" in out
    assert str(run / "tuning" / "nfe-3.json") in out
    assert "now uses" in out
    with pytest.raises(ValueError, match="nfe"):
        command.main([str(run), "--nfe", "0"])


def test_when_time_is_over_the_rest_is_left_out(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "solvers", lambda: {n: CATALOG[n] for n in (SAMPLER, "ddim")})
    run, said = shutil.copytree(trained, tmp_path / "run"), []
    tuned, _ = tune.tune(run, 3, count=2, minutes=1e-9, tell=said.append)
    assert (tuned.choice.sampler, len(tuned.table)) == (SAMPLER, 1)
    assert any("minutes were over" in line for line in said)


def test_the_bar_expects_about_what_happens(trained):
    class Bar:
        n, total = 0, 0

        def update(self):
            self.n += 1

    bar = Bar()
    found = Search(osmotic.load(trained), 5, 1.0, 2, 0, 10.0, bar)
    found.confirm(found.run())
    assert bar.n == found.denoiser.calls
    assert 0.75 * bar.total < bar.n < 1.25 * bar.total


@pytest.mark.parametrize("wrong", [{"nfe": 0}, {"count": 0}, {"minutes": 0.0}])
def test_impossible_wishes_are_refused(trained, wrong):
    with pytest.raises(ValueError, match="Tuning needs"):
        tune.tune(trained, **wrong)
