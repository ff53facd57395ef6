"""The denoising task against exact denoisers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_toys import OPTIONS, Points, denoising, start

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import Eps, Estimate, V, like
from osmotic.laws import Adaptive, Law, Steps, Stratified, Uniform
from osmotic.objectives.weights import MinSNR
from osmotic.schedules import VP, Cosine, Rectified, Schedule
from osmotic.training.denoise import PLAYER, Denoising, Drop
from osmotic.training.loop import fit
from osmotic.training.options import Options
from osmotic.training.task import Batch, Domain, Noise

CPU = torch.device("cpu")
N = 4096


def batch(x0: Tensor, step: int = 0, domain: Domain = Domain.TRAINING, cond: Condition | None = None) -> Batch:
    rows = np.arange(len(x0))
    return Batch(x0, cond, rows, rows, step, Noise(0, step, len(x0), 0, len(x0), CPU, domain))


class Zero(nn.Module):
    def forward(self, x: Tensor, time: Tensor, cond: Condition | None) -> Tensor:
        return torch.zeros_like(x)


class Point(Denoiser):
    """The exact denoiser of data that is one point."""

    def __init__(self, schedule: Schedule, point: Tensor) -> None:
        super().__init__()
        self.schedule, self.point = schedule, point

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Estimate:
        alpha, sigma = like(x, *self.schedule(t))
        return Estimate(self.point.expand_as(x), (x - alpha * self.point) / sigma)


@pytest.mark.parametrize("schedule", [Rectified(), VP(), Cosine()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("law", [Uniform(), Stratified(Uniform()), Steps(10)], ids=lambda law: type(law).__name__)
def test_the_exact_denoiser_has_no_loss(schedule: Schedule, law: Law) -> None:
    point = torch.tensor([0.3, -1.2])
    task = Denoising(Point(schedule, point), law)
    loss = task.loss(PLAYER, batch(point.expand(256, 2)), task.players)
    assert loss.shape == (256,)
    assert loss.max() < 1e-6


@pytest.mark.parametrize("weight", [None, MinSNR(5.0)])
def test_of_normal_data_nothing_can_be_learned_about_v(weight: MinSNR | None) -> None:
    """x and v = alpha eps - sigma x0 are independent standard normals on a VP path, so zero is exact and costs w(t)."""
    schedule = VP()
    task = Denoising(NeuralDenoiser(Zero(), schedule, V()), Uniform(), weight)
    x0 = torch.randn(N, 8, generator=torch.Generator().manual_seed(1))
    this = batch(x0)
    loss = task.loss(PLAYER, this, task.players).double()
    snr = task.levels(this)[0].exp()
    expected = torch.ones(N, dtype=torch.float64) if weight is None else snr.clamp(max=5) / (snr + 1)
    # Per sample the loss is w(t) chi^2_8 / 8, of variance w(t)^2 / 4.
    deviation = (expected.square().sum() / 4).sqrt() / N
    assert abs(loss.mean() - expected.mean()) < 5 * deviation


def test_an_adaptive_law_learns_from_all_slots_and_keeps_the_mean() -> None:
    """With the eps target and a zero network the loss is |eps|^2: the adapted law must still report 1."""
    task = Denoising(NeuralDenoiser(Zero(), Cosine(), V()), Adaptive(Uniform(), bins=8))
    draw = torch.Generator().manual_seed(2)
    for step in range(6):
        this = batch(3 * torch.randn(N, 4, generator=draw), step)  # the loss then depends on t: alpha^2 + 9 sigma^2
        task.update(PLAYER, this.noise, task.loss(PLAYER, this, task.players).double())
    assert int(task.state()["law.seen"].sum()) == 6 * N
    this = batch(3 * torch.randn(N, 4, generator=draw), 6)
    loss, (_, importance) = task.loss(PLAYER, this, task.players).double(), task.levels(this)
    assert importance.std() > 0.1
    assert importance.mean().item() == pytest.approx(1, abs=5 * float(importance.std()) / N**0.5)
    assert loss.mean().item() == pytest.approx(
        5, abs=5 * float(loss.std()) / N**0.5
    )  # (1 + 9) / 2: alpha^2 averages to 1/2


def test_held_out_times_do_not_follow_the_adapted_law() -> None:
    task = Denoising(NeuralDenoiser(Zero(), Cosine(), V()), Adaptive(Uniform(), bins=8))
    held, train = batch(torch.zeros(64, 2), 1, Domain.HELD_OUT), batch(torch.zeros(64, 2), 1)
    before = [task.levels(b)[0].clone() for b in (held, train)]
    t = torch.rand(5000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    task.law.update(task.denoiser.schedule, t, 10 * t)
    assert torch.equal(before[0], task.levels(held)[0])
    assert not torch.equal(before[1], task.levels(train)[0])
    assert not torch.equal(before[0], before[1])


def test_the_state_goes_there_and_back() -> None:
    one, other = denoising(), denoising()
    one.law.update(one.denoiser.schedule, torch.rand(500, dtype=torch.float64), torch.rand(500))
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    assert one.state().keys() == other.state().keys() != set()
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in one.state().items())


class Spy(nn.Module):
    """Tells which conditions it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Condition | None] = []

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None) -> Tensor:
        self.shown.append(cond)
        return x


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.5, 1.0])
def test_conditions_are_dropped_at_the_stated_rate_and_never_in_measurements(drop: float) -> None:
    spy = Spy()
    task = Denoising(NeuralDenoiser(spy, VP(), V()), Uniform(), drop=Drop(drop))
    cond = Condition(vector=torch.arange(N))
    for domain in Domain:
        task.loss(PLAYER, batch(torch.zeros(N, 1), 0, domain, cond), task.players)
    shown, measured = spy.shown
    assert shown is not None
    assert measured is not None
    assert measured.keep is None
    share = 0.0 if shown.keep is None else 1 - shown.keep.double().mean().item()
    assert share == pytest.approx(drop, abs=5 * (drop * (1 - drop) / N) ** 0.5)
    assert torch.equal(shown.vector, cond.vector)


def test_each_part_of_a_condition_is_dropped_on_its_own_and_all_together() -> None:
    spy, parts = Spy(), (0.0, 0.2, 0.5)
    task = Denoising(NeuralDenoiser(spy, VP(), V()), Uniform(), drop=Drop(0.1, parts))
    cond = Condition(vector=torch.zeros(N, 3))
    for domain in Domain:
        task.loss(PLAYER, batch(torch.zeros(N, 1), 0, domain, cond), task.players)
    shown, measured = spy.shown
    assert measured.keep is None
    kept = shown.keep.double()
    for i, rate in enumerate(parts):
        expected = 0.9 * (1 - rate)
        assert kept[:, i].mean().item() == pytest.approx(expected, abs=5 * (expected * (1 - expected) / N) ** 0.5)
    # The first part is hidden only where everything is; the others are hidden independently given that.
    whole = kept[:, 0] == 0
    assert kept[whole].sum() == 0
    both = (kept[~whole][:, 1] * kept[~whole][:, 2]).mean().item()
    assert both == pytest.approx(0.8 * 0.5, abs=5 * (0.4 * 0.6 / N) ** 0.5)


def test_the_core_is_the_network() -> None:
    task = denoising()
    assert task.core(PLAYER) is task.denoiser.network
    point = Point(VP(), torch.zeros(2))
    assert Denoising(point, Uniform()).core(PLAYER) is point


class Linear(nn.Module):
    """``y = k x`` with one weight for each of eight slices of time."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor, time: Tensor, cond: Condition | None) -> Tensor:
        t = (time / time.new_tensor(1000.0)).clamp(0, 0.999)
        return self.k[(t * 8).long()][:, None] * x


class Share:
    """A clock of thousandths."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return 1000 * t


class Normal:
    """Standard normal data."""

    x = 0.5 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(4))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, None]:
        return self.x[torch.from_numpy(indices)], None

    def told(self, indices: np.ndarray) -> dict[str, Tensor]:
        return {}

    def name(self, index: int) -> str:
        return str(index)


def test_training_finds_the_exact_denoiser_of_a_gaussian(tmp_path: Path) -> None:
    """E[eps | x] = sigma x / (alpha^2 s^2 + sigma^2) for data of deviation s: eight slices of it are learned."""
    schedule = VP()
    network = Linear()
    task = Denoising(NeuralDenoiser(network, schedule, Eps(), clock=Share()), Stratified(Uniform()))
    options = Options(steps=600, batch_size=512, learning_rate=0.02, ema=(50.0,), checkpoint_every=600, log_every=600)
    fit(task, Normal(), start(tmp_path), options, device="cpu")
    s2 = float(Normal.x.square().mean())
    t = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    alpha, sigma = schedule(t)
    variance = alpha**2 * s2 + sigma**2
    # In a slice the best k minimises the mean of E (k x - eps)^2 = k^2 variance - 2 k sigma + 1.
    best = sigma.reshape(8, -1).sum(1) / variance.reshape(8, -1).sum(1)
    torch.testing.assert_close(network.k.detach().double(), best, atol=0.02, rtol=0)


def test_the_levels_reported_are_those_trained(tmp_path: Path) -> None:
    run = fit(denoising(), Points(), start(tmp_path), OPTIONS, held_out=Points(40), device="cpu")
    line = [line["held_out"]["raw"] for line in run.metrics() if "held_out" in line][-1]
    bins = {name: value for name, value in line.items() if name.startswith("log_snr")}
    assert list(bins) == [f"log_snr {a}..{b}" for a, b in (("", -8), (-8, -4), (-4, 0), (0, 4), (4, 8), (8, ""))]
    # The law is uniform in t; log((1 - t)^2 / t^2) passes the edges at t = 1 / (1 + exp(edge / 2)).
    times = 1 / (1 + np.exp(np.array([-np.inf, -8, -4, 0, 4, 8, np.inf]) / 2))
    shares = -np.diff(times)
    assert shares.sum() == pytest.approx(1)
    assert float(np.dot(shares, list(bins.values()))) == pytest.approx(line["loss"], rel=0.1)
