"""Shortcut models: the identity of halves on exact flow maps, the flow below the shortest jump, times, state."""

import pytest
import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.base import Setting, Start
from osmotic.distill.meanflow import latest, line, straight, velocity
from osmotic.distill.shortcut import LEVELS, METHOD, SHARE, Shortcut, halves, shortcut, times
from osmotic.estimate import Estimate
from osmotic.flow_map import FlowMap
from osmotic.nn import MLP, Embedding
from osmotic.oracles import Gaussian
from osmotic.schedules import CATALOG
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill import toys

SD = 0.7
PATH = line(SD)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=toys.generator(seed), dtype=torch.float64)


def gaussian(path: str = "ve", d: int = 3) -> Gaussian:
    root = draws(d, d, seed=4) * 0.4
    return Gaussian(CATALOG[path](), draws(d, seed=3), root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64))


def jumps(n: int, latest: float = 1.0) -> tuple[Tensor, Tensor]:
    """Times t and aims below them, t = latest and s = 0 among them."""
    t = latest * torch.linspace(0.05, 1.0, n, dtype=torch.float64)
    return t, torch.where(torch.arange(n) % 3 == 0, 0.0, t * 0.6)


class Exact(Denoiser):
    """A Gaussian's flow map with its diagonal, which the oracle's own algebra divides by zero at."""

    def __init__(self, oracle: Gaussian, c: Tensor | float = 0.0) -> None:
        super().__init__()
        self.around(oracle)
        self.oracle, self.c = oracle, c

    def forward(self, x, t, cond=None, s=None) -> Estimate:
        mean = self.oracle(x, t)
        same = torch.ones_like(t, dtype=torch.bool) if s is None else (s - t).abs() < 1e-12
        aimed = self.oracle(x, t, None, torch.where(same, t / 2, t if s is None else s))
        x0, eps = (torch.where(same[:, None], a, b) for a, b in zip(mean, aimed, strict=True))
        alpha, sigma = (n.reshape(-1, 1) for n in self.schedule(t))
        step = self.c / (sigma + alpha * SD)  # the average velocity is off by c
        return Estimate(x0 - sigma * step, eps + alpha * step)


@pytest.mark.parametrize("path", list(CATALOG))
def test_loss_is_zero_at_the_exact_flow_map_and_its_gradient_points_back(path):
    oracle = gaussian(path)
    exact = Exact(oracle)
    t, s = jumps(12, latest(oracle, PATH))
    x0, eps = oracle.sample(12, toys.generator(0)), draws(12, 3, seed=5)
    assert float(shortcut(exact, exact, PATH, x0, t, s, eps, 0.0, teacher=oracle).max()) < 1e-10
    assert float(shortcut(exact, exact, PATH, x0, t, t, eps, 0.0, teacher=oracle).max()) < 1e-10
    c = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss = shortcut(Exact(oracle, c), exact, PATH, x0, t, s, eps, 0.0, teacher=oracle)
    assert torch.allclose(loss, torch.full_like(loss, 0.09 / SD**2), rtol=1e-5)
    (slope,) = torch.autograd.grad(loss.mean(), c)
    assert float(slope) == pytest.approx(2 * 0.3 / SD**2, rel=1e-5)


def test_the_shortest_jumps_are_two_euler_steps():
    """Rectified data of one unit: ``x - (t - s) u`` after two steps of half the length along the velocity."""
    oracle, n = gaussian("rectified"), 8
    t = torch.linspace(0.2, 0.9, n, dtype=torch.float64)
    s, x, path = t - 0.1, draws(n, 3), line(1.0)

    def v(x: Tensor, t: Tensor) -> Tensor:
        return oracle(x, t).at(-1.0, 1.0)

    y = x - 0.05 * v(x, t)
    y = y - 0.05 * v(y, t - 0.05)
    found = halves(Exact(oracle), path, x, t, s, 0.1)
    assert torch.allclose(x - 0.1 * found, y, atol=1e-12)
    longer = halves(Exact(oracle), path, x, t, s, 0.09)
    assert not torch.allclose(longer, found, atol=1e-4), "longer jumps go by the map, which is exact"
    assert torch.allclose(x - 0.1 * longer, oracle.flow(x, t, s), atol=1e-12)


def test_without_a_teacher_the_flow_is_regressed_on_the_data():
    exact, n = Exact(gaussian()), 6
    t = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    x0, eps = draws(n, 3), draws(n, 3, seed=1)
    alpha, sigma = (v[:, None] for v in PATH(t))
    u = velocity(straight(exact, PATH)(alpha * x0 + sigma * eps, t), PATH)
    expected = (u - (SD * eps - x0)).square().mean(1) / SD**2
    assert torch.allclose(shortcut(exact, exact, PATH, x0, t, t, eps, 0.0), expected, atol=1e-12)


def test_the_target_belongs_to_its_own_sample_and_condition():
    """A batch of flow and jumps gives what each sample gives alone."""
    model, n = network(), 6
    t, s = jumps(n, 0.9)
    s = torch.where(torch.arange(n) % 2 == 0, t, s)
    x0, eps = draws(n, 2).float(), draws(n, 2, seed=1).float()
    cond = Condition(vector=torch.arange(n) % 3)
    whole = shortcut(model, model, PATH, x0, t, s, eps, 0.1, cond)
    for i in range(n):
        one = slice(i, i + 1)
        alone = shortcut(model, model, PATH, x0[one], t[one], s[one], eps[one], 0.1, cond[one])
        assert torch.allclose(whole[one], alone, rtol=1e-4)


def test_jumps_and_their_halves_are_trained():
    n = 6000
    t, s = times(Noise(0, 0, n, 0, n, toys.CPU), 0.8)
    assert float(t.max()) <= 0.8
    assert bool(((s >= 0) & (s <= t)).all())
    jump = s < t
    assert float(jump.double().mean()) == pytest.approx(SHARE, abs=0.03)
    length = (t - s)[jump] / 0.8
    assert float(length.min()) >= 2.0**-LEVELS - 1e-12
    level = torch.ceil(-torch.log2(length) - 1e-9)
    even = ((t[jump] / 0.8 / length) % 1 + 1e-9) % 1 < 1e-6
    shares = torch.stack([(level[even] == k).double().mean() for k in range(LEVELS)])
    assert torch.allclose(shares, torch.full_like(shares, 1 / LEVELS), atol=0.04)
    # Two steps even in angle end at no even multiple: such jumps must be among those trained.
    assert 0.3 < float(even.double().mean()) < 0.7
    assert float(((t == 0.8) & (s == 0)).double().mean()) > 0.02


def network() -> FlowMap:
    torch.manual_seed(0)
    body = MLP((2,), (16, 16), embedding=Embedding(16, classes=3, aims=True))
    for p in body.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return FlowMap(body, toys.SCHEDULE, toys.Karras(SD), sigma_data=SD)


def task(teacher: Denoiser | None = None) -> Shortcut:
    return Shortcut(Setting(network(), teacher, Start(toys.SCHEDULE, SD, 1, False, Distillation()), 10, Drop()))


def batch(domain: Domain = Domain.TRAINING) -> Batch:
    return Batch(draws(8, 2).float(), None, None, None, 0, Noise(0, 0, 8, 0, 8, toys.CPU, domain))


@pytest.mark.parametrize("teacher", [None, "oracle"])
def test_the_task_trains_and_is_measured_without_gradients(teacher):
    made = task(Gaussian(toys.SCHEDULE, torch.zeros(2), 0.5) if teacher else None)
    made.loss("denoiser", batch(), made.players).mean().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in made.denoiser.parameters())
    assert all(p.grad is None for p in made.shadow.denoiser.parameters())
    with torch.no_grad():
        held = made.loss("denoiser", batch(Domain.HELD_OUT), {"denoiser": made.denoiser.eval()})
    assert held.shape == (8,)
    assert bool(held.isfinite().all())


def test_the_shadow_follows_and_is_part_of_the_state():
    made, other = task(), task()
    with torch.no_grad():
        for p in made.denoiser.parameters():
            p.add_(1.0)
    before = {k: v.clone() for k, v in made.state().items()}
    made.update("denoiser", batch().noise, torch.zeros(8))
    assert any(not torch.equal(before[k], v) for k, v in made.state().items())
    other.load_state({k: v.clone() for k, v in made.state().items()})
    other.denoiser.load_state_dict(made.denoiser.state_dict())
    assert torch.equal(*(m.loss("denoiser", batch(), m.players) for m in (made, other)))


def test_the_method_makes_a_flow_map_and_needs_no_teacher():
    (stage,) = METHOD.stages(Start(toys.SCHEDULE, SD, 1, False, Distillation()))
    student = stage.student(Start(toys.SCHEDULE, SD, 1, False, Distillation()))
    assert (student.form, student.sampler, METHOD.teacher) == ("flow-map", "jump", False)
