"""The objectives by name: what their tasks measure against closed forms, and that training moves towards them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import osmotic
from osmotic.data.encoding import Pixels, Standard
from osmotic.data.spec import Spec
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import TARGETS, Eps, Estimate, V
from osmotic.laws import Adaptive, Stratified, Uniform
from osmotic.nn import MLP, DiT, UNet
from osmotic.objectives import Continuous, Discretised, bound
from osmotic.objectives.posterior import step
from osmotic.objectives.score_matching import half_square, score_of
from osmotic.oracles import Gaussian
from osmotic.samplers import DDPM
from osmotic.schedules import CATALOG, VE, VP, Discrete, Rectified
from osmotic.times import Levels, LogSNR
from osmotic.training import build
from osmotic.training.denoise import PLAYER, Denoising
from osmotic.training.hybrid import Bound, Hybrid
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.score import NCSN, SlicedScore, ladder, ratio
from osmotic.training.task import Batch, Domain, Noise

CPU = torch.device("cpu")
N = 4096
S2 = 0.25


def batch(x0: Tensor, step: int = 0, domain: Domain = Domain.TRAINING) -> Batch:
    rows = np.arange(len(x0))
    return Batch(x0, None, rows, rows, step, Noise(0, step, len(x0), 0, len(x0), CPU, domain))


def data(n: int = N, d: int = 2) -> Tensor:
    return math.sqrt(S2) * torch.randn(n, d, generator=torch.Generator().manual_seed(5))


class Exact(Denoiser):
    """The exact denoiser of the data, with a fraction of learned variance that may be a parameter per level."""

    def __init__(self, schedule, v: float | None = None, d: int = 2) -> None:
        super().__init__()
        self.schedule = schedule
        self.inner = Gaussian(schedule, torch.zeros(d), S2)
        self.v = None if v is None else nn.Parameter(torch.tensor(float(v)))

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        estimate = self.inner(x, t)
        return Estimate(estimate.x0, estimate.eps, None if self.v is None else self.v.expand_as(x))


def mean_and_error(loss: Tensor) -> tuple[float, float]:
    return float(loss.double().mean()), 5 * float(loss.double().std()) / math.sqrt(len(loss))


# Measures.


def test_the_bound_task_is_the_bound_without_its_prior() -> None:
    """Uniform over the levels: its mean is (steps + reconstruction) / d of the whole bound; also for an adapted law."""
    schedule = Discrete.linear(20, 1e-3, 0.4)
    times, x0 = Levels()(schedule, 20), data()
    draws = torch.Generator().manual_seed(8)
    model = Exact(schedule, 0.4)
    many = data(8 * N)
    parts = bound(model, many, times, (torch.randn(many.shape, generator=draws) for _ in range(20)), Continuous())
    whole = (parts.steps.sum(0) + parts.reconstruction) / 2
    for law in (Stratified(Uniform()), Adaptive(Uniform(), bins=5)):
        task = Bound(model, law, times, Continuous())
        if isinstance(law, Adaptive):
            for k in range(6):
                this = batch(x0, k)
                task.update(PLAYER, this.noise, task.loss(PLAYER, this, task.players).double())
            assert float(task.law.law.probabilities.std()) > 0.02
        losses = [task.loss(PLAYER, batch(x0, 9 + k), task.players).detach() for k in range(60)]
        found, error = mean_and_error(torch.cat(losses))
        expected, other = mean_and_error(whole.detach())
        assert found == pytest.approx(expected, abs=error + other)
        assert error + other < 0.2 * abs(expected)


def test_importance_sampling_makes_the_bound_less_noisy() -> None:
    """Improved DDPM's reason for it: the variance of one step's estimate falls when steps are drawn by their size."""
    schedule, x0 = Discrete.linear(1000), data()
    times = Levels()(schedule, 1000)
    task = Bound(Exact(schedule, 0.4), Adaptive(Uniform()), times, Continuous())
    before = task.loss(PLAYER, batch(x0, 0), task.players).detach().std()
    for k in range(12):
        this = batch(x0, k)
        task.update(PLAYER, this.noise, task.loss(PLAYER, this, task.players).double())
    after = task.loss(PLAYER, batch(x0, 99), task.players).detach().std()
    assert float(after) < 0.5 * float(before)


@pytest.mark.parametrize("path", ["ve", "vp", "ddpm-linear", "ddpm-zero-terminal", "cosine"])
def test_the_variance_that_hybrid_learns_is_the_best(path: str) -> None:
    """Adam on one fraction, trained at one step of the grid: V* = V_small + (coefficient of x0)^2 Var[x0 | x_t]."""
    schedule = CATALOG[path]()
    full = build.levels(schedule, math.sqrt(S2))
    times = full[[0, len(full) // 3, len(full) // 2, -1]]
    model = Exact(schedule, 0.5)
    task = Hybrid(model, One(times[1]), times, Continuous(), scale=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for k in range(150):
        optimizer.zero_grad()
        task.loss(PLAYER, batch(data(), k), task.players).mean().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.05 * 0.97**k
    numbers = step(schedule, times[1], times[2])
    alpha, sigma = (float(v) for v in schedule(times[1]))
    best = float(numbers.small) + float(numbers.x0) ** 2 * S2 * sigma**2 / (sigma**2 + alpha**2 * S2)
    found = math.exp(float(model.v.detach()) * math.log(float(numbers.large / numbers.small))) * float(numbers.small)
    # The average of (x0 - x0_hat)^2 over 2 N draws, which it sees in the last steps many times over.
    assert found == pytest.approx(best, rel=5 * math.sqrt(2 / (2 * N)))
    assert float(numbers.small) < best < float(numbers.large)


class One(Stratified):
    """All times alike."""

    def __init__(self, t: Tensor) -> None:
        super().__init__(Uniform())
        self.t = t

    def quantile(self, schedule, u: Tensor) -> Tensor:
        return torch.full_like(u, float(self.t))


def test_every_time_of_the_grid_finds_its_own_step() -> None:
    for schedule in (VE(80.0), VP(), Discrete.linear(1000), Rectified()):
        times = build.levels(schedule, 0.5)
        task = Hybrid(Exact(schedule, 0.5), Uniform(), times, Continuous())
        assert torch.equal(task.index(times[:-1]), torch.arange(len(times) - 1))
        t, _ = task.law.draw(schedule, 5000, torch.Generator().manual_seed(0))
        assert torch.equal(times[task.index(t)], t)


@pytest.mark.parametrize("target", ["eps", "score", "v", "karras"])
def test_ncsn_measures_the_closed_form_on_every_target(target: str) -> None:
    """sigma^2 |s + eps / sigma|^2 / d averages to s0^2 / (s0^2 + sigma^2) over the ladder."""
    model = Exact(CATALOG["geometric-ve"]())
    model.target = TARGETS[target](0.5)
    task = NCSN(model, (2,), 0.5)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    found, error = mean_and_error(task.loss(PLAYER, batch(data()[order]), task.players))
    sigma = model.schedule(ladder(model.schedule, 2, 0.5)[:-1])[1]
    assert found == pytest.approx(float((S2 / (S2 + sigma**2)).mean()), abs=error)


def test_the_ladder_is_geometric_and_as_close_as_the_criterion_asks() -> None:
    """NCSNv2 technique 2, by scipy; the paper's 232 levels from 50 to 0.01 of 32 x 32 x 3 pixels overlap a bit more."""
    for d in (64, 3072):
        g, middle = ratio(d), math.sqrt(2 * d) * (ratio(d) - 1)
        assert stats.norm.cdf(middle + 3 * g) - stats.norm.cdf(middle - 3 * g) == pytest.approx(0.5, abs=1e-9)
    assert ratio(3072) == pytest.approx(5000 ** (1 / 231), rel=0.01)
    assert ratio(2) == pytest.approx(2)
    times = ladder(VE(50.0), 3072, 0.5)
    sigma = 50 * times[:-1]
    assert torch.allclose(sigma.log().diff(), sigma.log().diff()[0].expand(len(sigma) - 1), rtol=1e-8)
    assert float(sigma[0]) == pytest.approx(50)
    assert float(sigma[-1]) == pytest.approx(0.01)
    assert math.exp(-float(sigma.log().diff()[0])) <= ratio(3072)


def test_sliced_scores_measure_hyvarinens_rule() -> None:
    """At the exact score its mean is -sigma^2 E|s|^2 / (2 d); nothing is lower; also where gradients are off."""
    schedule = VP()
    model = Exact(schedule)
    task = SlicedScore(model, Uniform())
    this = batch(data())
    with torch.no_grad():
        loss = task.loss(PLAYER, this, task.players)
        assert not loss.requires_grad
    t = schedule.time(task.levels(this)[0])
    alpha, sigma = schedule(t)
    expected = -(sigma**2 / (S2 * alpha**2 + sigma**2)) / 2
    found, error = mean_and_error(loss.double() - expected)
    assert found == pytest.approx(0, abs=error)

    class Scaled(Exact):
        def forward(self, x, t, cond=None, s=None):
            estimate = super().forward(x, t)
            return Estimate(estimate.x0, 1.3 * estimate.eps)

    # A wrong score costs its Fisher divergence more, exactly in the mean.
    wrong = SlicedScore(Scaled(schedule), Uniform()).loss(PLAYER, this, {PLAYER: Scaled(schedule)})
    surplus = 0.3**2 * sigma**2 / (S2 * alpha**2 + sigma**2) / 2
    found, error = mean_and_error(wrong.detach().double() - expected - surplus)
    assert found == pytest.approx(0, abs=error)
    assert float(surplus.mean()) > error / 5
    assert half_square(score_of(model, 0.5)(data(4))).shape == (4,)


# From names to tasks.


def spec(kind: str = "vectors", shape: tuple[int, ...] = (2,), encoding: object = None) -> Spec:
    return Spec(
        kind=kind,
        shape=shape,
        source="here",
        count=100,
        encoding=encoding or Standard(dtype="float64", mean=(0.0,), std=(1.0,)),
    )


def test_names_make_their_tasks() -> None:
    kinds = {
        "denoising": Denoising,
        "hybrid": Hybrid,
        "bound": Bound,
        "ncsn": NCSN,
        "sliced-score": SlicedScore,
    }
    assert kinds.keys() == build.OBJECTIVES.keys()
    for name, kind in kinds.items():
        recipe = Recipe(
            architecture=Architecture(network="mlp", widths=(8,)), process=Process(objective=name, sigma_data=0.5)
        )
        task = build.task(recipe, spec(), CPU)
        assert type(task) is kind
        assert task.denoiser.learned_variance == (name in build.LEARNED_VARIANCE)
        assert isinstance(task.denoiser, NeuralDenoiser)
        loss = task.loss(PLAYER, batch(data(64)), task.players)
        assert loss.shape == (64,)
        loss.mean().backward()
        # Only the last layer moves at first; all else is behind its zeros.
        assert float(task.denoiser.network.out.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("bound", {"weight": "min-snr"}, "--objective bound takes no --weight"),
        ("ncsn", {"law": "uniform"}, "--objective ncsn takes no --law"),
        ("ncsn", {"weight": "karras"}, "--objective ncsn takes no --weight"),
        ("sliced-score", {"weight": "karras"}, "--objective sliced-score takes no --weight"),
    ],
)
def test_settings_without_use_are_refused(name: str, changes: dict[str, str], words: str) -> None:
    recipe = Recipe(architecture=Architecture(network="mlp", widths=(8,)), process=Process(objective=name, **changes))
    with pytest.raises(ValueError, match=words):
        build.task(recipe, spec(), CPU)


def test_the_decoder_is_chosen_by_the_data() -> None:
    assert isinstance(build.decoder(spec()), Continuous)
    for high, levels in ((255.0, 256), (16.0, 17)):
        found = build.decoder(spec("images", (1, 8, 8), Pixels(high=high)))
        assert isinstance(found, Discretised)
        assert found.levels == levels
    assert isinstance(build.decoder(spec("images", (1, 8, 8), Pixels(high=1.0))), Continuous)


def test_the_bounds_levels_are_those_of_a_discrete_path() -> None:
    assert torch.allclose(build.levels(Discrete.linear(300), 0.5), torch.arange(300, -1, -1).double() / 300)
    sigma = 80 * build.levels(VE(80.0), 0.5)[:-1]
    assert float(sigma[0]) == pytest.approx(80)
    assert float(sigma[-1]) == pytest.approx(0.002)


@pytest.mark.parametrize(
    "network",
    [
        MLP((3, 4), (8,), out_channels=6),
        UNet(3, (8, 8), ndim=1, out_channels=6),
        DiT(3, (2,), 16, 1, 16, out_channels=6),
    ],
    ids=lambda net: type(net).__name__,
)
def test_networks_may_give_twice_the_channels(network: nn.Module) -> None:
    """The first half is the output as before, the second the fraction of the variance; both reach every element."""
    x, time = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)), torch.full((5,), 300.0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.3)
    y = network(x, time).detach()
    assert y.shape == (5, 6, 4)
    estimate = NeuralDenoiser(network, VP(), V(), learned_variance=True)(x, 0.4)
    assert estimate.x0.shape == estimate.v.shape == x.shape
    assert float(y.flatten(1).std(0).min()) > 0
    alpha, sigma = (float(n) for n in VP()(0.4))
    raw = NeuralDenoiser(network, VP(), V(), learned_variance=True).output(x, torch.tensor(0.4).double())
    assert torch.allclose(estimate.at(-sigma, alpha), raw[:, :3], atol=1e-5)
    assert torch.allclose(estimate.v, (raw[:, 3:] + 1) / 2)


# End to end.

TINY = Options(steps=6, batch_size=16, checkpoint_every=6, preview_every=6, evaluate_every=6)


def recipe_of(objective: str, schedule: str = "ve", law: str = "log-normal") -> Recipe:
    process = Process(objective=objective, schedule=schedule, law=law)
    return Recipe(options=TINY, architecture=Architecture(widths=(16, 16)), process=process)


@pytest.mark.parametrize(
    ("objective", "schedule"), [*((name, "ve") for name in build.OBJECTIVES), ("hybrid", "ddpm-linear")]
)
def test_every_objective_trains_and_samples(objective: str, schedule: str, tmp_path: Path) -> None:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    osmotic.train(x, tmp_path / "run", recipe_of(objective, schedule))
    model = osmotic.load(tmp_path / "run")
    assert model.recipe.process.objective == objective
    learned = objective in build.LEARNED_VARIANCE
    assert (model.denoiser(x[:2], 0.5).v is not None) == learned
    for sampler in ("ddpm", "ddim"):
        assert torch.isfinite(model.sample(5, sampler=sampler, steps=4)).all()
    # A learned variance takes the place of the sampler's own choice, and acts on nothing else.
    fixed = [model.sample(5, sampler=DDPM(v), steps=4) for v in (0.0, 1.0)]
    assert torch.equal(*fixed) == learned


def test_an_adapted_law_of_the_bound_is_resumed(tmp_path: Path) -> None:
    """Six and six more steps are twelve, bit for bit: the law under the rounding is part of the state."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    asked = recipe_of("bound", law="adaptive")
    osmotic.train(x, tmp_path / "a", asked)
    osmotic.train(x, tmp_path / "a", Recipe(options=Options(steps=12)), resume=True)
    osmotic.train(x, tmp_path / "b", asked.model_copy(update={"options": TINY.model_copy(update={"steps": 12})}))
    one, other = (osmotic.load(tmp_path / name).sample(5, sampler="ddpm", steps=4) for name in "ab")
    assert torch.equal(one, other)


def test_a_network_learns_its_variance(tmp_path) -> None:
    """Of point-like data nothing is uncertain but at large noise: v falls towards 0 from its 1/2 at the start."""
    schedule = VP()
    torch.manual_seed(0)
    network = MLP((2,), (32, 32), out_channels=4)
    model = NeuralDenoiser(network, schedule, Eps(), learned_variance=True)
    times = LogSNR(0.05, 5.0)(schedule, 8)
    point = torch.full((256, 2), 0.3)
    task = Hybrid(model, Stratified(Uniform()), times, Continuous(), scale=0.1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for k in range(300):
        optimizer.zero_grad()
        loss = task.loss(PLAYER, batch(point, k), task.players).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    alpha, sigma = (float(n) for n in schedule(times[2]))
    x = alpha * point + sigma * torch.randn(256, 2, generator=torch.Generator().manual_seed(1))
    estimate = model(x, times[2])
    assert float(estimate.v.detach().mean()) < 0.3
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) / 4
