"""The held-out likelihood of a run, from the command line to the file, against closed forms put in a run's place."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from osmotic.cli import evaluate as command
from osmotic.cli.flags import UsageError
from osmotic.data.dataset import open_data, split
from osmotic.divergence import Exact, Hutchinson
from osmotic.oracles import Gaussian
from osmotic.recipes import evaluate, held_out
from osmotic.recipes.train import train
from osmotic.schedules import Cosine
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

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


def with_oracle(monkeypatch, oracle):
    """Every loaded model denoises with an exact denoiser instead of its network."""
    load = evaluate.load

    def loaded(*words):
        model = load(*words)
        oracle.anchor = torch.nn.Parameter(torch.zeros(1))  # a model knows its device by its parameters
        model.denoiser = oracle
        return model

    monkeypatch.setattr(evaluate, "load", loaded)


def test_nats_are_in_the_datas_own_units(vectors, monkeypatch):
    """With the exact denoiser of N(0, I) the density in the file's units is that of its mean and deviation."""
    with_oracle(monkeypatch, Gaussian(Cosine(), torch.zeros(2), 1.0))
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
    with_oracle(monkeypatch, Gaussian(Cosine(), torch.zeros(1, 8, 8), deviation**2))
    report = evaluate.likelihood(digits, count=24, conditional=True, noise=1e-4, batch_size=10, draws=3)
    _, held = split(open_data("digits"), Recipe().holdout, FEW.seed)
    from osmotic.data.counter import permutation

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
    assert said == ["measuring 16 of 100 held-out samples, 1 draw each"]
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
    with pytest.raises(ValueError, match="other data, its count differs"):
        held_out.held_out(run, str(moved))
    np.save(moved, raw + 1)
    with pytest.raises(ValueError, match="other data, its encoding differs"):
        held_out.held_out(run, str(moved))


def test_runs_that_cannot_be_measured_say_why(digits, vectors, tmp_path):
    with pytest.raises(ValueError, match="add --conditional"):
        evaluate.likelihood(digits, count=1)
    with pytest.raises(ValueError, match="leave out --conditional"):
        evaluate.likelihood(vectors / "run", conditional=True)
    with pytest.raises(ValueError, match="no divergence 'guess'"):
        evaluate.likelihood(vectors / "run", divergence="guess")
    with pytest.raises(ValueError, match="At least one draw"):
        evaluate.likelihood(vectors / "run", draws=0)
    array = np.random.default_rng(1).normal(size=(40, 2))
    train(array, tmp_path / "all", recipe(holdout=0.0))
    with pytest.raises(ValueError, match="trained on all of its data"):
        evaluate.likelihood(tmp_path / "all")
    train(array, tmp_path / "array", recipe(holdout=0.5))
    with pytest.raises(ValueError, match="array in memory, which is gone"):
        evaluate.likelihood(tmp_path / "array")
    assert evaluate.likelihood(tmp_path / "array", array, count=4, tolerance=1e-2).count == 4
    with pytest.raises(UsageError, match="--likelihood"):
        command.main([str(digits)])
    with pytest.raises(UsageError, match="--count"):
        command.main([str(digits), "--likelihood", "--count", "0"])
    with pytest.raises(ValueError, match="is not a run"):
        command.main([str(tmp_path), "--likelihood"])


def test_units_and_ways_by_kind_of_data():
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
    assert isinstance(evaluate.tracing(None, 32, 1), Exact)
    assert isinstance(evaluate.tracing(None, 33, 1), Hutchinson)
    assert isinstance(evaluate.tracing("exact", 1000, 1), Exact)
    assert evaluate.tracing("hutchinson", 2, 7).probes == 7
