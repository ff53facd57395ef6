"""Encoder, decoder and prior trained end to end: the bound against a closed form, and the runs that they give."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from osmotic.codecs import Mixed
from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import Karras
from osmotic.nn import MLP, Autoencoder, Embedding, Gaussian
from osmotic.objectives import Continuous
from osmotic.oracles import Gaussian as Normal
from osmotic.recipes.adapt import adapt
from osmotic.recipes.distill import distill
from osmotic.recipes.evaluate import likelihood
from osmotic.recipes.train import train
from osmotic.schedules import VE
from osmotic.training.errors import RunError
from osmotic.training.lsgm import BLUR, LSGM, EndToEnd, Generative
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.task import Batch, Noise

FEW = Options(steps=4, batch_size=16, warmup=1, checkpoint_every=2, preview_every=4, evaluate_every=4, ema=(2.0,))
RECIPE = Recipe(options=FEW, architecture=Architecture(widths=(8,), blocks=1), process=Process(objective=LSGM))
CPU = torch.device("cpu")


def batch(x, step=0, seed=0):
    rows = np.arange(len(x))
    return Batch(x, None, rows, rows, step, Noise(seed, step, len(x), 0, len(x), CPU))


def linear(gain, spread, shift=0.0):
    """``x = gain z + spread n`` with z ~ N(0, 1) in the plane, and an encoder that knows the posterior but for a shift
    of its means, in its own deviations."""
    auto = Autoencoder.dense((2,), (), (2,), Gaussian())
    variance = spread**2 / (gain**2 + spread**2)
    with torch.no_grad():
        for layer in (auto.encoder.out, auto.decoder.out):
            layer.weight.zero_()
            layer.bias.zero_()
        auto.encoder.out.weight[:2] = gain / (gain**2 + spread**2) * torch.eye(2)
        auto.encoder.out.bias[:2] = shift * math.sqrt(variance)
        auto.encoder.out.bias[2:] = math.log(variance)
        auto.decoder.out.weight[:] = gain * torch.eye(2)
    return Generative(auto, spread)


def bound(task, gain, spread, n=40_000):
    """(the mean of the bound minus the closed form of -log p(x), its standard error)."""
    x = math.hypot(gain, spread) * torch.randn(n, 2, generator=torch.Generator().manual_seed(5))
    variance = gain**2 + spread**2
    exact = (x.square() / variance + math.log(2 * math.pi * variance)).sum(1) / 2
    with torch.no_grad():
        gap = (task.terms(task.generative, batch(x), None).total - exact).double()
    return float(gap.mean()), float(gap.std() / math.sqrt(n))


ORACLE = Normal(VE(40.0), torch.zeros(2), 1.0)


def test_the_bound_is_the_likelihood_where_encoder_and_prior_are_exact():
    gain, spread = 1.2, 0.5
    task = EndToEnd(linear(gain, spread), ORACLE, Continuous(), warm=1)
    gap, error = bound(task, gain, spread)
    # The decoder reads a blurred latent, whose noise costs about this; the rest is the draws.
    cost = (gain * BLUR / spread) ** 2 * 2
    assert -4 * error < gap < 4 * error + cost


def test_a_wrong_encoder_costs_its_divergence_and_a_wrong_prior_its_own():
    gain, spread, shift = 1.2, 0.5, 0.7
    task = EndToEnd(linear(gain, spread, shift), ORACLE, Continuous(), warm=1)
    gap, error = bound(task, gain, spread)
    assert gap == pytest.approx(2 * shift**2 / 2, abs=4 * error + 0.01)  # KL of two normals of one variance
    wide = Normal(VE(40.0), torch.zeros(2), 2.25)
    gap, error = bound(EndToEnd(linear(gain, spread), wide, Continuous(), warm=1), gain, spread)
    # The aggregated posterior is N(0, 1), and KL(N(0, 1) || N(0, 2.25)) = (log 2.25 + 1 / 2.25 - 1) / 2 an entry.
    assert gap == pytest.approx(math.log(2.25) + 1 / 2.25 - 1, abs=4 * error + 0.01)


def small_task():
    torch.manual_seed(0)
    net = MLP((2,), (16,), embedding=Embedding(16))
    prior = Mixed(NeuralDenoiser(net, VE(40.0), Karras(1.0), sigma_data=1.0), 2)
    return EndToEnd(linear(1.0, 0.5), prior, Continuous(), warm=3)


def test_the_encoder_learns_from_all_terms_and_the_prior_from_its_own():
    task = small_task()
    x = torch.randn(64, 2)
    task.loss("autoencoder", batch(x, step=9), task.players).mean().backward()
    assert all(p.grad is not None for p in task.generative.parameters())
    task.prior.zero_grad()
    task.generative.zero_grad()
    task.loss("denoiser", batch(x), task.players).mean().backward()
    assert all(p.grad is None or not p.grad.any() for p in task.generative.parameters())
    assert task.prior.logit.grad is not None


def test_the_divergence_grows_to_its_whole_weight():
    task, x = small_task(), torch.randn(16, 2)
    terms = task.terms(task.generative, batch(x), None)
    for step, weight in ((0, 1 / 3), (1, 2 / 3), (2, 1.0), (9, 1.0)):
        keyed = batch(x, step)
        terms = task.terms(task.generative, keyed, None)
        expected = (terms.reconstruction + weight * terms.kl) / 2
        assert torch.allclose(task.loss("autoencoder", keyed, task.players), expected, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train("digits", tmp_path_factory.mktemp("runs") / "run", RECIPE)


def test_a_finished_run_is_a_model_of_latents_as_any_other(run, tmp_path):
    model = load(run.directory)
    assert isinstance(model.denoiser, Mixed)
    assert model.sample(3, [1, 2, 3], steps=2).shape == (3, 1, 8, 8)
    assert model.recipe.codec.fingerprint == model.codec.fingerprint()
    student = distill(run.directory, tmp_path / "student", "consistency", options=Options(steps=2, batch_size=8))
    assert load(student.directory).sample(2, [1, 2], steps=1).shape == (2, 1, 8, 8)
    with pytest.raises(RunError, match="end to end, and is not adapted"):
        adapt(run.directory, "digits", tmp_path / "lora")


def test_its_likelihood_is_its_bound(run):
    report = likelihood(run.directory, count=64, draws=2)
    parts = [report.settings[name] for name in ("reconstruction", "negative entropy", "cross-entropy")]
    assert sum(parts) == pytest.approx(-report.nats.mean, abs=1e-3)
    assert report.bits.mean == pytest.approx(-report.nats.mean / 64 / math.log(2), rel=1e-6)
    assert json.loads((run.directory / "evaluation" / "likelihood.json").read_text())["count"] == 64
    with pytest.raises(ValueError, match="its own bound; leave out"):
        likelihood(run.directory, noise=0.1)


def test_a_killed_run_goes_on_with_the_same_bits(run, tmp_path):
    short = train("digits", tmp_path / "short", RECIPE)
    shutil.rmtree(sorted(short.checkpoints.glob("step-*"))[-1])  # as if it had been killed after two steps
    again = train("digits", tmp_path / "short", Recipe(options=Options(steps=4)), resume=True)
    ours, theirs = load(again.directory), load(run.directory)
    for one, other in ((ours.denoiser, theirs.denoiser), (ours.codec, theirs.codec)):
        state = other.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_an_unfinished_run_and_wrong_settings_are_refused(run, tmp_path, osmotic):
    recipe = json.loads(run.recipe_path.read_text())
    recipe["codec"]["fingerprint"] = ""
    before = run.recipe_path.read_text()
    run.recipe_path.write_text(json.dumps(recipe))
    try:
        with pytest.raises(RunError, match="is not finished, so it has no codec yet"):
            load(run.directory)
    finally:
        run.recipe_path.write_text(before)
    for words, why in (
        (["--law", "uniform"], "takes no --law"),
        (["--bottleneck", "vq"], "--bottleneck kl"),
        (["--perceptual", "1"], "takes no --perceptual"),
        (["--codec", "haar"], "reads the data themselves"),
    ):
        code, _, err = osmotic("train", "digits", "--out", tmp_path / "no", "--objective", LSGM, *words)
        assert code == 2
        assert why in err


def test_trained_further_it_forgets_its_codec_until_it_has_a_new_one(run, tmp_path, monkeypatch):
    shutil.copytree(run.directory, tmp_path / "run")
    before = load(run.directory).codec.fingerprint()
    warm = load(run.directory).recipe.autoencoder.kl_warmup
    with monkeypatch.context() as patch:
        patch.setattr("osmotic.recipes.train.lsgm.finish", lambda run: None)  # as if it had been killed before that
        train("digits", tmp_path / "run", Recipe(options=Options(steps=6)), resume=True)
        with pytest.raises(RunError, match="is not finished, so it has no codec yet"):
            load(tmp_path / "run")
    train("digits", tmp_path / "run", Recipe(options=Options(steps=6)), resume=True)
    model = load(tmp_path / "run")
    assert model.step == 6
    assert model.codec.fingerprint() != before
    assert model.recipe.autoencoder.kl_warmup == warm
    assert load(tmp_path / "run", "model").codec.fingerprint() != model.codec.fingerprint()
