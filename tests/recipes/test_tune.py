"""Tuning a solver and a grid to a run: what is counted, what is chosen, what is stored and what uses it."""

import json
import math
import shutil
import warnings
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

import osmotic as library
from osmotic.cli import sample as sampling
from osmotic.oracles import Gaussian
from osmotic.recipes import search, tune
from osmotic.recipes.search import Counted, Search, solvers, steps_within
from osmotic.report import tuning as report
from osmotic.samplers import CATALOG
from osmotic.schedules import VE
from osmotic.times import GRIDS, Karras, LogSNR, Span
from osmotic.training.errors import RunError
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Grid, Recipe
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
    library.train((x.astype(np.float32), labels), out, SMALL)
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
    stored, model = Tuning(Run.open(tuned)).read(4), library.load(tuned)
    labels, sd = [i % 2 for i in range(8)], model.recipe.process.sigma_data
    for first, error in [(search.FIRST, stored.choice.error), (search.FIRST + 8, stored.choice.confirmed)]:
        fine = model.sample(8, labels, sampler="midpoint", steps=400, grid=LogSNR(sd / 300, 80.0), first=first)
        here = model.sample(8, labels, nfe=4, first=first)
        found = float((here - fine).square().mean().sqrt()) / sd
        assert found == pytest.approx(error, abs=3 * stored.reference + 1e-3)


def test_a_sample_takes_the_counted_evaluations(tuned):
    model, stored = library.load(tuned), Tuning(Run.open(tuned)).read(4)
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
    model, stored = library.load(tuned), Tuning(Run.open(tuned)).read(4)
    c = stored.choice
    for said in ({}, {"sampler": c.sampler}, {"steps": c.steps}, {"sampler": c.sampler, "steps": c.steps}, {"nfe": 4}):
        plan = model.plan(**said)
        assert (plan.steps, plan.grid.log_snr, plan.tuned.nfe) == (c.steps, stored.log_snr, 4)
    assert type(model.plan().sampler) is type(CATALOG[c.sampler]())
    for said in ({"steps": c.steps + 1}, {"sampler": "midpoint"}, {"grid": "karras"}, {"sampler": CATALOG["ddim"]()}):
        assert model.plan(**said).tuned is None
    assert model.plan(sampler="midpoint").steps == STEPS
    assert type(model.plan(steps=c.steps + 1).grid) is Span
    assert model.plan(grid=library.times.given([1.0, 0.1, 0.0])).steps == 2
    with pytest.raises(ValueError, match="name it alone"):
        model.plan(steps=3, nfe=4)
    with pytest.raises(RunError, match=r"not tuned for 9 evaluations \(it is tuned for 4\); run `osmotic tune"):
        model.sample(1, nfe=9)
    assert not torch.equal(model.sample(3, 0), model.sample(3, 0, steps=2))
    assert torch.isfinite(model.sample(2, 0, schedule=VE(0.5))).all()  # the path begins after the grid's first stops


def test_several_budgets_are_kept_and_the_last_is_used(run):
    tuning = Tuning(Run.open(run))
    tuning.store(choice(5))
    model = library.load(run)
    assert tuning.budgets() == [4, 5]
    assert model.plan().tuned.nfe == 5
    assert model.plan(nfe=4).tuned.nfe == 4
    tuning.store(tuning.read(4))
    assert model.plan().tuned.nfe == 4


def test_training_on_is_said(run):
    model = library.load(run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(1, 0)
    other = library.load(run, weights="model")
    with pytest.warns(
        UserWarning, match="tuned on ema-.* at step 40, and this is model at step 40; `osmotic tune RUN --nfe 4`"
    ):
        other.sample(1, 0)


def with_choice(text, **changes):
    """A stored choice with other entries."""
    value = json.loads(text)
    return value | {"choice": value["choice"] | changes}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"steps"', '"stops"', 1),
        lambda text: json.dumps(json.loads(text) | {"log_snr": [1.0, 0.0, 2.0, 3.0, 4.0, 5.0]}),
        lambda text: "[]",
        lambda text: "",
        lambda text: json.dumps(json.loads(text) | {"step": "forty"}),
        lambda text: json.dumps(with_choice(text, sampler="magic")),
        lambda text: json.dumps(with_choice(text, steps=3) | {"log_snr": [-50.0, 3.0]}),
    ],
)
def test_a_damaged_choice_is_named_and_can_be_avoided(osmotic, run, damage):
    path = run / "tuning" / "nfe-4.json"
    path.write_text(damage(path.read_text()))
    code, _, err = osmotic("sample", run, "--count", 2)
    assert code == 2
    assert f"{path} cannot be used" in err
    assert "osmotic tune" in err
    assert err.count("\n") == 1
    assert osmotic("sample", run, "--count", 2, "--sampler", "ddim", "--grid", "uniform")[0] == 0


@pytest.mark.parametrize("name", ["nfe-4.json", "last.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"nfe": "x"}', b'{"nfe": 1e400}'])
def test_a_damaged_tuning_is_one_line_of_the_runs_description(osmotic, run, name, content):
    (run / "tuning" / name).write_bytes(content)
    code, out, err = osmotic("info", run)
    assert (code, err) == (0, "")
    about = [line for line in out.splitlines() if "cannot be used" in line]
    assert len(about) == 1
    assert about[0].startswith(f"{run / 'tuning' / name} cannot be used (")
    assert about[0].endswith(f"run `osmotic tune {run}` again, or delete {run / 'tuning'}.")
    assert f"{run}: a run at step 40 of 40" in out


def test_a_choice_that_was_never_confirmed_is_described_without_its_error(osmotic, run):
    path = run / "tuning" / "nfe-4.json"
    path.write_text(json.dumps(with_choice(path.read_text(), confirmed=None)))
    code, out, _ = osmotic("info", run)
    assert code == 0
    assert "tuned for 4 evaluations" in out
    assert "by default" not in out


def test_every_grid_that_tuning_names_is_one_that_sample_takes(trained, osmotic):
    """And means the same by it, the catalogue's names the catalogue's grids."""
    model = library.load(trained)
    tried = search.tried(model)
    schedule, start = model.denoiser.schedule, model.denoiser.start
    for name, grid in tried.items():
        plan = model.plan(grid=name)
        assert torch.equal(grid(schedule, 6, start), plan.grid(schedule, 6, start)), name
        if name in GRIDS:
            assert torch.equal(grid(schedule, 6, start), GRIDS[name]()(schedule, 6, start)), name
        assert osmotic("sample", trained, "--count", 1, "--steps", 3, "--grid", name)[0] == 0
    assert set(get_args(sampling.GridName)) == set(tried) | set(get_args(Grid))


def test_optimized_stops_have_no_name_and_the_table_says_so(osmotic, run):
    named = {row.grid for row in Tuning(Run.open(run)).read(4).table}
    assert named - set(get_args(sampling.GridName)) == {"optimized"}
    code, _, err = osmotic("sample", run, "--count", 1, "--grid", "optimized")
    assert (code, err.count("\n")) == (2, 1)
    row = report.Row("heun", "optimized", 3, 5, 0.1, 0.2)
    assert report.table([row], row)[-1].startswith("optimized: a list of stops made for its solver")
    other = row._replace(grid="karras")
    assert not any("optimized" in line for line in report.table([other], other))


def test_of_equal_methods_the_default_is_chosen(trained, tmp_path):
    """One evaluation is one step from the same start, whatever the grid: nothing beats anything."""
    run = shutil.copytree(trained, tmp_path / "run")
    tuned, _ = tune.tune(run, 1, count=4)
    assert (tuned.choice.sampler, tuned.choice.grid) == (SAMPLER, "suggested")
    assert len({(row.sampler, row.grid) for row in tuned.table}) == len({f"{row.error:.3g}" for row in tuned.table})


def raising(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("late", ["optimize", "confirm"])
def test_ctrl_c_keeps_what_was_found(late, trained, tmp_path, monkeypatch, osmotic):
    monkeypatch.setattr(search, "solvers", lambda: {n: CATALOG[n] for n in (SAMPLER, "ddim")})
    run, own = shutil.copytree(trained, tmp_path / "run"), Search.confirm
    said = iter([raising, own])
    if late == "optimize":
        monkeypatch.setattr(Search, "optimize", raising)
    else:
        monkeypatch.setattr(Search, "confirm", lambda *args: next(said)(*args))
    code, out, err = osmotic("tune", run, "--nfe", 3, "--count", 4)
    stored = Tuning(Run.open(run)).read(3)
    best = min(row.error for row in stored.table)
    assert code == 130
    assert f"osmotic: Interrupted; the best of {len(stored.table)} combinations tried by then is stored in {run}" in err
    assert "Traceback" not in err
    assert "Ctrl-C again leaves without" in out
    assert stored.choice.confirmed is not None
    assert best <= stored.choice.error <= stored.default.error
    assert len(stored.table) > 8
    assert osmotic("sample", run, "--count", 1)[2].startswith("osmotic: sampling as tuned for 3 evaluations")


@pytest.mark.parametrize("early", ["__init__", "attempt"])
def test_ctrl_c_before_every_solver_was_tried_stores_nothing(early, trained, tmp_path, monkeypatch, osmotic):
    run = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(Search, early, raising)
    code, _, err = osmotic("tune", run, "--nfe", 3, "--count", 4)
    assert code == 130
    assert err.strip().endswith("nothing was stored. A smaller --count takes less time.")
    assert "Traceback" not in err
    assert not (run / "tuning").exists()


def test_a_second_ctrl_c_leaves_at_once(trained, tmp_path, monkeypatch, osmotic):
    monkeypatch.setattr(search, "solvers", lambda: {n: CATALOG[n] for n in (SAMPLER, "ddim")})
    run = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(Search, "confirm", raising)
    assert osmotic("tune", run, "--nfe", 3, "--count", 4)[0] == 130
    assert not (run / "tuning").exists()


def test_the_picture_has_a_logarithmic_axis_and_explains_itself(tmp_path, monkeypatch):
    rows = [report.Row("heun", "karras", 3, 5, 0.02, 0.03), report.Row("ddim", "uniform", 1, 1, 0.5, 0.4)]
    drawn = []
    monkeypatch.setattr(report, "_write", lambda figure, path: drawn.append(figure) or path)
    assert report.draw(rows, rows[1]._replace(confirmed=0.0), tmp_path / "x.png", "Tuned") == tmp_path / "x.png"
    (figure,) = drawn
    (panel,) = figure.axes
    figure.canvas.draw()
    assert panel.get_xscale() == "log"
    low, high = panel.get_xlim()
    assert 0 < low < 0.02 < 0.5 < high
    labels = [text.get_text() for text in panel.get_yticklabels()]
    assert labels == ["heun, 3 steps, karras", "ddim, 1 step, uniform", "default: ddim, 1 step"]
    places = [panel.transData.transform((0.1, place))[1] for place in range(3)]
    assert places == sorted(places, reverse=True)  # the first on top
    legend = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    assert "on fresh noise" in legend
    assert "tuned on" in legend
    assert "best first by the larger of the two errors" in panel.get_title(loc="left")


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


def test_tuning_from_the_command_line(trained, tmp_path, capsys, monkeypatch, osmotic):
    from osmotic.cli import tune as command

    monkeypatch.setattr(search, "solvers", lambda: {n: CATALOG[n] for n in (SAMPLER, "ddim", "unipc-2")})
    run = shutil.copytree(trained, tmp_path / "run")
    assert command.main([str(run), "--nfe", "3", "--count", "4", "--guidance", "2"]) == 0
    out = capsys.readouterr().out
    assert "ema-500 at step 40, 3 evaluations, guidance 2" in out
    assert f"= {SAMPLER}" in out
    assert str(run / "tuning" / "nfe-3.json") in out
    assert f"`osmotic sample {run}` now uses" in out
    without = "naming --grid, or another --sampler or --steps, leaves the tuning out"
    assert f"{without}; deleting {run / 'tuning'} forgets it" in out
    assert without in osmotic("sample", run, "--count", 1)[2]
    shutil.rmtree(run / "tuning")
    assert osmotic("sample", run, "--count", 1)[::2] == (0, "")
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
    found = Search(library.load(trained), 5, 1.0, 2, 0, 10.0, bar)
    found.confirm(found.run())
    assert bar.n == found.denoiser.calls
    assert 0.75 * bar.total < bar.n < 1.25 * bar.total


class Silent:
    """A bar that shows nothing."""

    total = 0

    def update(self):
        pass


def test_a_model_that_gives_no_numbers_is_refused_before_all_the_work(trained):
    model = library.load(trained)
    for weight in model.denoiser.parameters():
        weight.data.fill_(math.nan)
    found = Search(model, 3, 1.0, 2, 0, 10.0, Silent())
    before = found.denoiser.calls
    with pytest.raises(ValueError, match="not finite numbers, so there is nothing to tune"):
        found.run()
    assert found.denoiser.calls - before <= 3


def test_the_worse_of_two_errors_decides(trained, monkeypatch):
    """Lucky on the noises it was tuned on, a candidate falls behind on fresh ones."""
    found = Search(library.load(trained), 3, 1.0, 2, 0, 10.0, Silent())
    found.attempt(SAMPLER, search.SUGGESTED)
    usual = found.found[SAMPLER, search.SUGGESTED]
    lucky, steady = (replace(usual, sampler=name, error=error) for name, error in (("ddim", 0.1), ("euler", 0.2)))
    fresh = {"ddim": 0.9, "euler": 0.15, SAMPLER: 5.0}
    monkeypatch.setattr(found, "measure", lambda teacher, name, stops: (fresh[name], 3))
    best, default = found.confirm([lucky, steady])
    assert [c.sampler for c in best] == ["euler", "ddim", SAMPLER]
    assert [c.worse for c in best] == [0.2, 0.9, 5.0]
    assert default.confirmed == 5.0


def test_a_pure_flow_map_stays_one_when_its_calls_are_counted():
    inner = Gaussian(VE(), torch.zeros(1), 1.0)
    inner.diagonal = False
    assert not Counted(inner).diagonal


def test_guidance_needs_classes(tmp_path):
    library.train(np.random.default_rng(0).normal(size=(40, 2)), tmp_path / "run", SMALL)
    with pytest.raises(ValueError, match="trained without classes, so there is nothing to guide to"):
        tune.tune(tmp_path / "run", 3, guidance=2.0)


@pytest.mark.parametrize("wrong", [{"nfe": 0}, {"count": 0}, {"minutes": 0.0}])
def test_impossible_wishes_are_refused(trained, wrong):
    with pytest.raises(ValueError, match="Tuning needs"):
        tune.tune(trained, **wrong)
