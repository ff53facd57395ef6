"""A classifier of noisy samples: its loss and its knowledge against the exact posterior of a mixture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osmotic.condition import Condition
from osmotic.laws import Uniform
from osmotic.oracles import GaussianMixture
from osmotic.recipes.train import train
from osmotic.schedules import VE, VP
from osmotic.training.classify import Classification, NoisyClassifier
from osmotic.training.denoise import PLAYER
from osmotic.training.errors import RunError
from osmotic.training.model import load, load_classifier
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.run import Run
from osmotic.training.task import Batch, Domain, Noise

MEANS, WEIGHTS = torch.tensor([[-0.5, 0.3], [0.6, 0.0], [0.0, -0.7]], dtype=torch.float64), [0.5, 0.3, 0.2]


def mixture(schedule=None) -> GaussianMixture:
    return GaussianMixture(schedule or VP(), MEANS, 0.02, WEIGHTS)


class Exact(torch.nn.Module):
    """The exact logits of a mixture's components at the scale that the classifier shows: a network that knows all."""

    def __init__(self, oracle: GaussianMixture, sigma_data: float) -> None:
        super().__init__()
        self.oracle, self.sigma_data = oracle, sigma_data

    def forward(self, x: torch.Tensor, clock: torch.Tensor) -> torch.Tensor:
        angle = clock.double() / 1000 * torch.pi / 2  # atan2(sigma, alpha)
        t = self.oracle.schedule.time(2 * torch.log(angle.cos() / angle.sin()))
        alpha, sigma = self.oracle.schedule(t)
        scale = (alpha**2 * self.sigma_data**2 + sigma**2).sqrt()
        return self.oracle.posterior(x.double() * scale[:, None], t).log().to(x)


def test_the_loss_of_the_exact_classifier_is_the_entropy_that_is_left():
    """``E -log p(c | x_t)`` is the conditional entropy: no classifier has less, and one that is off has more."""
    oracle, n = mixture(), 6000
    labels = torch.multinomial(torch.tensor(WEIGHTS), n, replacement=True, generator=torch.Generator().manual_seed(0))
    x0 = oracle.sample(n, torch.Generator().manual_seed(1), Condition(vector=labels))
    noise = Noise(0, 0, n, 0, n, torch.device("cpu"))
    batch = Batch(x0, Condition(vector=labels), np.arange(n), np.arange(n), 0, noise)
    classifier = NoisyClassifier(Exact(oracle, 0.5), oracle.schedule, 0.5)
    task = Classification(classifier, Uniform())
    found = task.loss(PLAYER, batch, task.players)
    t = oracle.schedule.time(task.levels(batch)[0])
    entropies = []
    for level in torch.linspace(0.02, 0.98, 25).double():
        alpha, sigma = oracle.schedule(level)
        x = alpha * x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).double()
        p = oracle.posterior(x, level)
        entropies.append(-(p * p.clamp(min=1e-300).log()).sum(1).mean())
    expected = torch.stack(entropies).mean()
    error = float(found.std()) / n**0.5
    assert float(found.mean()) == pytest.approx(float(expected), abs=5 * error + 0.01)
    assert t.shape == (n,)

    class Off(Exact):
        def forward(self, x, clock):
            return super().forward(x, clock) + torch.tensor([0.5, 0.0, -0.5], dtype=x.dtype)

    off = Classification(NoisyClassifier(Off(oracle, 0.5), oracle.schedule, 0.5), Uniform())
    excess = off.loss(PLAYER, batch, off.players) - found
    assert float(excess.mean()) > 5 * float(excess.std()) / n**0.5


def test_a_classifier_reads_other_paths_at_equal_noise():
    oracle = mixture()
    classifier = NoisyClassifier(Exact(oracle, 0.5), oracle.schedule, 0.5)
    other = mixture(VE(20.0))
    t = torch.tensor([0.001, 0.02, 0.3], dtype=torch.float64)
    x = MEANS + other.schedule(t)[1][:, None]
    found = classifier.on(other.schedule)(x, t).softmax(1)
    assert torch.allclose(found, other.posterior(x, t), atol=1e-5)


@pytest.fixture(scope="module")
def points():
    oracle = mixture()
    generator = torch.Generator().manual_seed(3)
    labels = torch.multinomial(torch.tensor(WEIGHTS), 4000, replacement=True, generator=generator)
    return oracle.sample(4000, generator, Condition(vector=labels)).float().numpy(), labels.numpy()


def test_training_finds_the_posterior(points, tmp_path):
    process = Process(objective="classifier", schedule="vp", law="uniform")
    recipe = Recipe(
        options=Options(steps=800, batch_size=256, learning_rate=2e-3, ema=(40.0,)),
        architecture=Architecture(widths=(48, 48)),
        process=process,
    )
    run = train(points, tmp_path / "run", recipe)
    data = run.data()
    from osmotic.data.spec import Spec

    classifier, _ = load_classifier(run.directory, Spec.model_validate(data))
    scale = torch.tensor(data["encoding"]["std"])
    mean = torch.tensor(data["encoding"]["mean"])
    standard = GaussianMixture(
        VP(), (MEANS.float() - mean) / scale, torch.stack([torch.diag(0.02 / scale**2)] * 3), WEIGHTS
    )
    for level in (0.05, 0.3, 0.6):
        t = torch.full((2000,), level)
        x0 = standard.sample(2000, torch.Generator().manual_seed(4))
        alpha, sigma = VP()(level)
        x = float(alpha) * x0 + float(sigma) * torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
        found, exact = classifier(x, t).softmax(1), standard.posterior(x, level)
        assert float((found - exact).abs().mean()) < 0.03, level
    with pytest.raises(RunError, match="is a classifier, which draws nothing"):
        load(run.directory)
    assert not list((run.directory / "samples").glob("*.png"))


def test_what_is_no_classifier_is_refused(points, tmp_path, monkeypatch):
    few = Options(steps=2, batch_size=8, warmup=1)
    plain = train(points, tmp_path / "plain", Recipe(options=few, architecture=Architecture(widths=(8,))))
    from osmotic.data.spec import Spec

    with pytest.raises(RunError, match="is no classifier"):
        load_classifier(plain.directory, Spec.model_validate(plain.data()))
    process = Process(objective="classifier")
    with pytest.raises(ValueError, match="two classes or more"):
        train(points[0], tmp_path / "none", Recipe(options=few, process=process))
    assert not (tmp_path / "none").exists()
    recipe = Recipe(options=few, process=process, architecture=Architecture(widths=(8,)))
    made = train(points, tmp_path / "judge", recipe)
    other = train(torch.randn(60, 5), tmp_path / "other", Recipe(options=few, architecture=Architecture(widths=(8,))))
    with pytest.raises(RunError, match="other data than this model draws"):
        load_classifier(made.directory, Spec.model_validate(other.data()))
    assert Run.open(made.directory).complete()


def test_the_domain_of_held_out_measurement_is_apart(points):
    """Held-out losses draw other noise than training's."""
    classifier = NoisyClassifier(Exact(mixture(), 0.5), VP(), 0.5)
    task, n = Classification(classifier, Uniform()), 8
    cond = Condition(vector=torch.zeros(n, dtype=torch.int64))
    both = [
        Batch(torch.zeros(n, 2), cond, np.arange(n), np.arange(n), 0, Noise(0, 0, n, 0, n, torch.device("cpu"), domain))
        for domain in Domain
    ]
    first, second = (task.loss(PLAYER, batch, task.players) for batch in both)
    assert not torch.equal(first, second)


def test_the_class_is_the_first_of_several_attributes(points):
    """With two classes and one attribute the vector is (B, 2): no class probabilities."""
    classifier = NoisyClassifier(Exact(mixture(), 0.5), VP(), 0.5)
    task, n = Classification(classifier, Uniform()), 16
    x0, labels = torch.from_numpy(points[0][:n]), torch.from_numpy(points[1][:n])
    noise = Noise(0, 0, n, 0, n, torch.device("cpu"))
    told = torch.stack([labels.float(), torch.randn(n), torch.randn(n)], dim=1)
    plain, several = (
        task.loss(PLAYER, Batch(x0, Condition(vector=v), np.arange(n), np.arange(n), 0, noise), task.players)
        for v in (labels, told)
    )
    assert torch.equal(plain, several)
