"""The held-out likelihood of a run, from the command line to the file, against closed forms put in a run's place."""

import io
import json
import math
import re

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from tqdm import tqdm

from osmotic.cli import evaluate as command
from osmotic.cli.evaluate import advance
from osmotic.cli.flags import UsageError
from osmotic.data.counter import permutation
from osmotic.data.dataset import open_data, split
from osmotic.dequantize import Uniform
from osmotic.divergence import Exact, Hutchinson, gaussian
from osmotic.oracles import Gaussian
from osmotic.recipes import dequantisation, evaluate, held_out
from osmotic.recipes.dequantisation import Learned
from osmotic.recipes.draws import ByBound, ByFlow
from osmotic.recipes.error_bars import Mean, comparison, mean
from osmotic.recipes.train import train
from osmotic.schedules import Cosine
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

from .conftest import lend

NET = Architecture(network="mlp", widths=(8,))
FEW = Options(steps=2, batch_size=8, evaluate_every=2, preview_every=2, checkpoint_every=2)
SCALE, SHIFT = np.array([3.0, 0.2]), np.array([10.0, -1.0])


def recipe(**more) -> Recipe:
    return Recipe(options=FEW, architecture=NET, **more)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Real numbers with units, in a file, and a run on them."""
    place = tmp_path_factory.mktemp("vectors")
    raw = stats.norm(SHIFT, SCALE).rvs((400, 2), random_state=np.random.default_rng(0))
    np.save(place / "points.npy", raw)
    train(str(place / "points.npy"), place / "run", recipe(holdout=0.25))
    return place


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = tmp_path_factory.mktemp("digits") / "run"
    train("digits", run, recipe(process=Process(schedule="cosine", target="v", condition_dropout=0.0)))
    return run


def test_nats_are_in_the_datas_own_units(vectors, monkeypatch):
    """With the exact denoiser of N(0, I) the density in the file's units is that of its mean and deviation."""
    lend(monkeypatch, evaluate, Gaussian(Cosine(), torch.zeros(2), 1.0))
    report = evaluate.likelihood(vectors / "run", noise=1e-4, tolerance=1e-6, batch_size=32)
    raw = np.load(vectors / "points.npy")
    _, held = split(open_data(str(vectors / "points.npy")), 0.25, FEW.seed)
    nats = stats.norm(raw.mean(0), raw.std(0)).logpdf(raw[held.indices]).sum(1)
    assert report.count == report.held_out == 100
    assert report.nats.mean == pytest.approx(nats.mean(), abs=1e-4)
    assert report.nats.standard_error == pytest.approx(nats.std(ddof=1) / 10, rel=1e-3)
    assert report.bits.mean == pytest.approx(-nats.mean() / (2 * math.log(2)), abs=1e-4)
    assert report.nats.from_draws is None  # an exact divergence of real numbers: nothing is random
    assert report.settings["draws"] == 1


def test_pictures_get_bits_of_their_levels(digits, monkeypatch):
    """With a broad Gaussian as the model: the mass of every pixel's bin, to within the dequantisation's gap."""
    deviation = 0.8
    lend(monkeypatch, evaluate, Gaussian(Cosine(), torch.zeros(1, 8, 8), deviation**2))
    report = evaluate.likelihood(digits, count=24, conditional=True, noise=1e-4, batch_size=10, draws=3)
    _, held = split(open_data("digits"), Recipe().holdout, FEW.seed)
    x = held.batch(permutation(0, 0, len(held))[:24])[0].double().flatten(1).numpy()
    law = stats.norm(0, deviation)
    bits = -np.log2(law.cdf(x + 1 / 16) - law.cdf(x - 1 / 16)).mean(1)
    # Within a bin log p varies by x u / 64 / var: its mean is below log P by about the variance of that over two.
    gap = ((1 / 8 / deviation**2 * x) ** 2 / 24).mean() / math.log(2)
    assert gap < 0.01
    drawn = report.bits.from_draws
    assert 0 < drawn < report.bits.standard_error
    assert report.bits.mean == pytest.approx(bits.mean() + gap, abs=5 * drawn + 2e-3)
    assert report.bits.standard_error == pytest.approx(bits.std(ddof=1) / math.sqrt(24), rel=0.1)


def test_a_learned_dequantisation_saves_what_there_is_to_save(digits, monkeypatch):
    """A narrow Gaussian as the model: uniform noise loses the divergence to the density within each bin, a sum over
    pixels by quadrature; most of that comes back, and no more."""
    deviation = 0.3
    lend(monkeypatch, evaluate, Gaussian(Cosine(), torch.zeros(1, 8, 8), deviation**2))
    settings = {"count": 24, "conditional": True, "noise": 1e-4, "draws": 2, "divergence": Hutchinson()}
    said = []
    report = evaluate.likelihood(digits, **settings, dequantizer=Learned(steps=300), tell=said.append)
    _, held = split(open_data("digits"), Recipe().holdout, FEW.seed)
    x = held.batch(permutation(0, 0, len(held))[:24])[0].double().flatten(1).numpy()
    law = stats.norm(0, deviation)

    def lost(v: float) -> float:
        mean = integrate.quad(law.logpdf, v - 1 / 16, v + 1 / 16)[0] * 8  # over a bin of width 1/8
        return math.log(law.cdf(1 / 16 - abs(v)) - law.cdf(-1 / 16 - abs(v))) + math.log(8) - mean

    gap = np.vectorize(lost)(x).mean() / math.log(2)
    assert 0.5 * gap < report.saved.mean < gap + 5 * report.saved.standard_error
    assert report.saved.standard_error < 0.1 * gap
    assert report.bits.mean == pytest.approx(report.uniform.mean - report.saved.mean, abs=1e-9)
    assert f"learned noise saves {report.saved}" in "\n".join(report.lines())
    assert "fitted in 300 steps on 1,617 training samples" in report.settings["dequantisation"]
    assert said[0] == "fitting the dequantisation to 1,617 training samples, at most 30 s"
    plain = evaluate.likelihood(digits, **settings, dequantizer=Uniform())
    assert plain.bits == report.uniform
    assert plain.settings["dequantisation"] == "uniform"


def test_a_fit_is_a_function_of_the_seed_sees_training_data_alone_and_ends_in_time(digits):
    train, held = held_out.parts(digits)
    assert not set(train.indices) & set(held.indices)
    model, state = evaluate.load(digits), torch.random.get_rng_state()

    def weights(how: Learned, seed: int) -> torch.Tensor:
        fitted = how.fit(model, train, 1 / 8, 1 / 16, seed, True)
        assert (fitted.steps < how.steps) == fitted.cut
        return torch.cat([p.detach().flatten() for p in fitted.dequantizer.parameters()])

    a, b, c = (weights(Learned(steps=3), seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state)
    cut = Learned(seconds=0.0).fit(model, train, 1 / 8, 1 / 16, 0, True)
    assert (cut.steps, cut.cut) == (0, True)
    assert str(cut).endswith("when the time was over")
    # Every sample is seen once an epoch, in whole batches.
    firsts = [i for _, part in zip(range(3), dequantisation.batches(10, 3, 0), strict=False) for i in part]
    assert len(set(firsts)) == 9
    assert [len(part) for _, part in zip(range(2), dequantisation.batches(2, 128, 0), strict=False)] == [2, 2]


def test_what_does_not_help_is_said():
    none, worse, one = Mean(0.01, 0.006, None), Mean(-0.3, 0.1, None), Mean(0.3, None, None)
    assert comparison(none).startswith("learned noise makes no difference that can be seen")
    assert comparison(worse) == "learned noise is worse, it costs 0.3000 +- 0.1"
    assert comparison(one).startswith("whether learned noise helps cannot be told")


def test_error_bars_are_those_of_the_textbook_and_are_told_consistently():
    found = torch.tensor([[1.0, 4.0, 2.5], [3.0, 2.0, 3.5]], dtype=torch.float64)
    each = np.array([2.0, 3.0, 3.0])
    several = mean(found)
    assert several.standard_error == pytest.approx(each.std(ddof=1) / math.sqrt(3))
    # Pairs 2, 2 and 1 apart have variances 2, 2 and 1/2; the mean is over six draws.
    assert several.from_draws == pytest.approx(math.sqrt(4.5 / 3 / 6))
    assert several.from_draws > several.standard_error  # so it cannot be told as a part of it
    assert str(several) == "2.6667 +- 0.33 (all of it from draws, as far as so few samples tell)"
    assert str(Mean(2.0, 0.5, 0.25)) == "2.0000 +- 0.5 (0.25 of it from draws)"
    assert str(Mean(2.0, 0.5, None)) == "2.0000 +- 0.5"
    alone = mean(found[:, :1])
    assert (alone.mean, alone.standard_error) == (2.0, None)
    assert alone.from_draws == pytest.approx(math.sqrt(2 / 2))
    assert str(alone) == "2.0000 (one sample has no error bar; its draws alone are good to 1)"
    assert str(mean(found[:1, :1])) == "1.0000 (one sample has no error bar)"


@pytest.mark.parametrize("kind", ["digits", "vectors"])
def test_the_bound_is_its_closed_form(kind, digits, vectors, monkeypatch):
    """The exact denoiser of N(0, s^2): prior and diffusion are ``KL(N(x, r^2) || N(0, s^2 + r^2))`` at the first noise
    r, and the reconstruction an integral over one Gaussian; averaged over samples and draws."""
    s, r = (0.8, 1 / 16) if kind == "digits" else (1.0, 0.02)
    run, shape = (digits, (1, 8, 8)) if kind == "digits" else (vectors / "run", (2,))
    lend(monkeypatch, evaluate, Gaussian(Cosine(), torch.zeros(shape), s**2))
    model, (_, held) = evaluate.load(run), held_out.parts(run)
    spacing = held_out.lattice(model.spec)
    chosen, n = permutation(0, 0, len(held))[:100], 10
    found, evaluations = ByBound(model, held, 0, False, spacing, r, levels=40).draw(chosen, n, 100)
    assert evaluations == 40
    x = held.batch(chosen)[0].double().flatten(1).numpy()
    v = s**2 + r**2
    divergence = (np.log(v / r**2) + (r**2 + x**2) / v - 1) / 2
    if kind == "vectors":
        truth = divergence + math.log(2 * math.pi * math.e * r**2) / 2
    else:
        values = np.linspace(-1, 1, 17)

        def decoded(i: int) -> float:
            low = -np.inf if i == 0 else values[i] - 1 / 16
            high = np.inf if i == 16 else values[i] + 1 / 16

            def missed(z: float) -> float:
                inside = stats.norm.cdf(high, z, r) - stats.norm.cdf(low, z, r)
                return -stats.norm.pdf(z, values[i], r) * math.log(inside)

            return integrate.quad(missed, values[i] - 6 * r, values[i] + 6 * r)[0]

        truth = divergence + np.array([decoded(i) for i in range(17)])[np.rint((x + 1) * 8).astype(int)]
    off = found.numpy() + truth.sum(1)
    error = off.std() / math.sqrt(off.size)
    assert abs(off.mean()) < 5 * error
    assert error < 0.03 * np.abs(truth.sum(1)).mean()


def test_the_bound_is_reported_beside_the_flows(vectors, monkeypatch):
    lend(monkeypatch, evaluate, Gaussian(Cosine(), torch.zeros(2), 1.0))
    report = evaluate.likelihood(vectors / "run", tolerance=1e-6, bound=64)
    # The exact model's bound and density are the same numbers, in the data's own units, but for the bound's draws.
    assert report.bound.mean == pytest.approx(report.bits.mean, abs=4 * report.bound.standard_error)
    assert report.bound.standard_error < 0.2
    assert report.bound.mean != report.bits.mean
    assert f"by the variational bound  {report.bound}" in "\n".join(report.lines())
    assert "64 levels" in report.settings["bound"]


def test_both_are_reached_from_the_command(digits, capsys, monkeypatch):
    monkeypatch.setattr(dequantisation, "Learned", lambda: Learned(steps=5))
    words = [str(digits), "--likelihood", "--conditional", "--count", "3", "--tolerance", "0.05", "--draws", "1"]
    assert command.main([*words, "--dequantisation", "variational", "--bound"]) == 0
    out = capsys.readouterr().out
    stored = json.loads((digits / "evaluation" / "likelihood.json").read_text())
    assert f"{stored['uniform']['mean']:.4f}" in out
    assert f"{stored['bound']['mean']:.4f}" in out
    assert "fitted in 5 steps" in stored["settings"]["dequantisation"]
    assert command.main([*words, "--dequantisation", "uniform"]) == 0
    stored = json.loads((digits / "evaluation" / "likelihood.json").read_text())
    assert (stored["uniform"], stored["bound"]) == (None, None)


def test_the_command_prints_and_stores_it(vectors, capsys):
    run = vectors / "run"
    assert command.main([str(run), "--likelihood", "--count", "20", "--tolerance", "0.001"]) == 0
    out = capsys.readouterr().out
    stored = json.loads((run / "evaluation" / "likelihood.json").read_text())
    assert stored["count"] == 20
    assert stored["held_out"] == 100
    assert stored["settings"]["tolerance"] == 0.001
    assert stored["settings"]["step"] == 2
    assert f"{stored['bits']['mean']:.4f}" in out
    assert "20 of 100" in out
    assert str(run / "evaluation" / "likelihood.json") in out


def test_the_result_is_a_function_of_the_seed(digits):
    settings = {"count": 6, "conditional": True, "tolerance": 1e-2, "noise": 0.1, "draws": 1}
    whole, parts = (evaluate.likelihood(digits, batch_size=size, **settings) for size in (6, 4))
    assert parts.nats.mean == pytest.approx(whole.nats.mean, abs=0.05)
    assert evaluate.likelihood(digits, batch_size=6, **settings).nats == whole.nats
    other = evaluate.likelihood(digits, batch_size=6, seed=1, **settings)
    assert other.nats.mean != whole.nats.mean
    assert other.nats.from_draws is None


def test_the_count_follows_from_the_time_a_step_takes(vectors, monkeypatch):
    said = []
    monkeypatch.setattr(evaluate, "SECONDS", 1e-9)
    report = evaluate.likelihood(vectors / "run", batch_size=16, tolerance=1e-2, tell=said.append)
    assert report.count == 16  # a batch at least
    assert len(said) == 1
    assert re.fullmatch(r"measuring 16 of 100 held-out samples, 1 draw each; about \d+ .+ on this machine", said[0])
    monkeypatch.setattr(evaluate, "SECONDS", 1e9)
    assert evaluate.likelihood(vectors / "run", batch_size=100, tolerance=1e-2).count == 100


def test_data_that_have_moved_or_are_others(vectors, tmp_path):
    run = vectors / "run"
    moved = tmp_path / "elsewhere.npy"
    raw = np.load(vectors / "points.npy")
    np.save(moved, raw)
    assert len(held_out.held_out(run, str(moved))) == 100
    (vectors / "points.npy").rename(tmp_path / "gone.npy")
    try:
        with pytest.raises(ValueError, match=r"points\.npy, which is not there; say with --data"):
            held_out.held_out(run)
    finally:
        (tmp_path / "gone.npy").rename(vectors / "points.npy")
    np.save(moved, raw[:399])
    with pytest.raises(ValueError, match="its count differs"):
        held_out.held_out(run, str(moved))
    np.save(moved, raw + 1)
    with pytest.raises(ValueError, match="its encoding differs"):
        held_out.held_out(run, str(moved))


def test_runs_that_cannot_be_measured_say_why(digits, vectors, tmp_path):
    with pytest.raises(ValueError, match="add --conditional"):
        evaluate.likelihood(digits, count=1)
    with pytest.raises(ValueError, match="leave out --conditional"):
        evaluate.likelihood(vectors / "run", conditional=True)
    wrong = {"draws": "one draw", "count": "one held-out", "bound": "one level", "batch_size": "one sample a batch"}
    for nothing, words in [({name: 0}, words) for name, words in wrong.items()]:
        with pytest.raises(ValueError, match=f"At least {words}"):
            evaluate.likelihood(vectors / "run", **nothing)
    with pytest.raises(ValueError, match="Only pictures are dequantised"):
        evaluate.likelihood(vectors / "run", dequantizer=Learned())
    array = np.random.default_rng(1).normal(size=(40, 2))
    train(array, tmp_path / "all", recipe(holdout=0.0))
    with pytest.raises(ValueError, match="trained on all of its data"):
        evaluate.likelihood(tmp_path / "all")
    train(array, tmp_path / "array", recipe(holdout=0.5))
    with pytest.raises(ValueError, match="array in memory, which is gone"):
        evaluate.likelihood(tmp_path / "array")
    assert evaluate.likelihood(tmp_path / "array", array, count=4, tolerance=1e-2).count == 4
    with pytest.raises(UsageError, match="add --likelihood"):
        command.main([str(digits), "--bound"])
    with pytest.raises(UsageError, match="--count"):
        command.main([str(digits), "--likelihood", "--count", "0"])
    with pytest.raises(ValueError, match="is not a run"):
        command.main([str(tmp_path), "--likelihood"])


def test_units_and_ways_by_kind_of_data(tmp_path):
    specs = {name: open_data(name).spec for name in ("digits", "moons", "wine")}
    assert held_out.lattice(specs["digits"]) == 2 / 16
    assert held_out.lattice(specs["moons"]) is None
    floats = open_data(np.random.default_rng(0).random((4, 6, 6, 3)), kind="images").spec
    assert held_out.lattice(floats) == 2 / 255
    stds = specs["moons"].encoding.std
    assert held_out.log_jacobian(specs["moons"]) == pytest.approx(-np.log(stds).sum())
    series = np.random.default_rng(0).normal(size=(30, 2, 5)) * np.array([2.0, 7.0])[:, None]
    spec = open_data(series, kind="sequences").spec
    assert held_out.log_jacobian(spec) == pytest.approx(-5 * np.log(series.std((0, 2))).sum())
    assert held_out.log_jacobian(specs["wine"]) == 0
    assert "17 levels" in held_out.unit(specs["digits"], 2 / 16)
    assert "normal scores" in held_out.unit(specs["wine"], None)
    rows = "colour,count,size,gap\n" + "".join(
        f"{'rgb'[i % 3]},{i % 4},{i * 0.37 + 0.01:.3f},{'' if i % 5 == 0 else i * 0.11 + 0.003}\n" for i in range(60)
    )
    (tmp_path / "t.csv").write_text(rows)
    table = open_data(tmp_path / "t.csv").spec
    assert held_out.without_density(table) == ["colour", "count", "gap"]
    assert "colour, count, gap take separate values, which have no density" in held_out.unit(table, None)
    assert "separate" not in held_out.unit(specs["moons"], None)
    assert isinstance(evaluate.usual_divergence(32), Exact)
    assert isinstance(evaluate.usual_divergence(33), Hutchinson)


def test_names_of_divergences_become_objects_at_the_command():
    def traced(**settings):
        return command.traced(command.Likelihood(**settings))

    assert traced() is None
    assert isinstance(traced(divergence="exact"), Exact)
    assert traced(divergence="hutchinson").probes == 1
    assert traced(probes=7).probes == 7  # who names probes wants them, however small the samples
    with pytest.raises(UsageError, match="has no probes"):
        command.main(["x", "--likelihood", "--divergence", "exact", "--probes", "2"])


def test_the_divergence_that_is_passed_is_the_one_that_measures(vectors, monkeypatch):
    """The flow of N(0, s^2) only scales: signs then give its divergence without scatter, ``v'Jv = j |v|^2``, and normal
    probes scatter about ``d log(1/s)`` by ``log(1/s) sqrt(2 d / P)``."""
    lend(monkeypatch, evaluate, Gaussian(Cosine(), torch.zeros(2), 0.3**2))
    settings = {"count": 20, "draws": 2, "noise": 1e-3}
    signs = evaluate.likelihood(vectors / "run", divergence=Hutchinson(3), **settings)
    normal = evaluate.likelihood(vectors / "run", divergence=Hutchinson(3, law=gaussian), **settings)
    exact = evaluate.likelihood(vectors / "run", **settings)
    assert signs.settings["divergence"] == "hutchinson, 3 probes"
    assert (exact.settings["divergence"], exact.settings["draws"]) == ("exact", 1)
    assert signs.nats.mean == pytest.approx(exact.nats.mean, abs=1e-3)
    assert signs.nats.from_draws < 1e-3
    # A variance from twenty pairs of squared normals is good to about a half.
    scatter = math.log(1 / 0.3) * math.sqrt(2 * 2 / 3) / math.sqrt(2 * 20)
    assert normal.nats.from_draws == pytest.approx(scatter, rel=0.6)


def test_one_sample_has_no_error_bar(vectors, capsys):
    run = vectors / "run"
    assert command.main([str(run), "--likelihood", "--count", "1", "--tolerance", "0.01"]) == 0
    stored = json.loads((run / "evaluation" / "likelihood.json").read_text())
    assert stored["count"] == 1
    assert (stored["nats"]["standard_error"], stored["bits"]["standard_error"]) == (None, None)
    assert "(one sample has no error bar)" in capsys.readouterr().out


def test_a_likelihood_that_is_no_number_is_refused_and_not_stored(digits, monkeypatch, tmp_path):
    class Broken(Gaussian):
        def forward(self, x, t, cond=None, s=None):
            estimate = super().forward(x, t, cond, s)
            return type(estimate)(estimate.x0 * float("nan"), estimate.eps)

    lend(monkeypatch, evaluate, Broken(Cosine(), torch.zeros(1, 8, 8), 1.0))
    (digits / "evaluation" / "likelihood.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"^[^\n]*(finite|NaN)[^\n]*$"):
        evaluate.likelihood(digits, count=2, conditional=True, divergence=Hutchinson())
    assert not (digits / "evaluation" / "likelihood.json").exists()


def test_how_long_it_will_take_is_said_before_it_begins(vectors, monkeypatch):
    """Twice the samples take twice the time, and so do two draws; the pace is put in the clock's place."""
    monkeypatch.setattr(evaluate, "pace", lambda work, indices: 3.0 * len(indices))
    work = evaluate._flow(
        evaluate.load(vectors / "run"), held_out.held_out(vectors / "run"), None, None, 1e-4, 0, False, None
    )
    chosen, seconds = evaluate.part(work, 7, 1.0, 128)
    assert (len(chosen), seconds) == (7, pytest.approx(21.0))
    assert evaluate.part(work, 70, 2.0, 16)[1] == pytest.approx(420.0)
    assert len(evaluate.part(work, None, 1.0, 5)[0]) == 20  # a minute, in whole batches
    assert np.array_equal(chosen, permutation(0, 0, 100)[:7])


@pytest.mark.parametrize("way", ["flow", "bound"])
def test_progress_is_told_within_a_batch_and_adds_up(way, vectors):
    """One batch of 30 and one of 20, twice: told long before the first is over, and rising to exactly their number."""
    model, held = evaluate.load(vectors / "run"), held_out.held_out(vectors / "run")
    made = {"flow": lambda: ByFlow(model, held, 0, False, None, 0.01, tolerance=1e-2)}
    made["bound"] = lambda: ByBound(model, held, 0, False, None, 0.01, levels=9)
    told = []
    made[way]().draw(np.arange(50), 2, 30, lambda done, total: told.append((done, total)))
    done = np.array([d for d, _ in told])
    assert {total for _, total in told} == {100}
    assert done.sum() == pytest.approx(100)
    assert (done >= 0).all()
    assert (done.cumsum() < 30).sum() >= 9
    assert not model.denoiser._forward_hooks


def test_the_bar_begins_anew_with_each_thing_that_is_measured():
    """After one that was cut short, and after one that was finished and is as long."""
    bar = tqdm(disable=False, file=io.StringIO())
    seen = []
    for done, total in [(30, 100), (30, 100), (4, 8), (4, 8), (2, 8)]:
        advance(bar, done, total)
        seen.append((bar.n, bar.total))
    assert seen == [(30, 100), (60, 100), (4, 8), (8, 8), (2, 8)]


def test_ctrl_c_ends_an_evaluation_in_a_sentence(vectors, osmotic, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    stored = vectors / "run" / "evaluation" / "likelihood.json"
    before = stored.read_bytes() if stored.exists() else None
    monkeypatch.setattr(evaluate.ByFlow, "nats", stop)
    code, _, err = osmotic("evaluate", vectors / "run", "--likelihood", "--count", 2)
    assert code == 130
    assert "osmotic: Interrupted; nothing was stored." in err
    assert "Traceback" not in err
    assert (stored.read_bytes() if stored.exists() else None) == before
