"""CTM: its losses on exact flow maps, the teacher's error and nothing else, dropout, the adversary, its state."""

import pytest
import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.adversarial import discriminator_of
from osmotic.distill.base import Setting, Start
from osmotic.distill.ctm import ADVERSARY, METHOD, WHOLE, Ctm, aims, diagonal, output_scale, trajectory
from osmotic.estimate import Estimate, Karras
from osmotic.flow_map import FlowMap
from osmotic.nn import MLP, Embedding
from osmotic.objectives.weights import Karras as Weight
from osmotic.oracles import Gaussian
from osmotic.samplers import Heun
from osmotic.schedules import CATALOG, VE
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill import toys

SD = 0.7


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=toys.generator(seed), dtype=torch.float64)


def point(path: str) -> Gaussian:
    """Data that are one point: every solver is exact."""
    return Gaussian(CATALOG[path](), draws(3, seed=3), 0.0)


def three(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Times t > u > s, s = 0 among them."""
    t = torch.linspace(0.1, 1.0, n, dtype=torch.float64)
    return t, t * 0.8, torch.where(torch.arange(n) % 3 == 0, 0.0, t * 0.3)


class Off(Denoiser):
    """Another flow map whose jump is off by c in the output of EDM's network."""

    def __init__(self, denoiser: Denoiser, c: Tensor) -> None:
        super().__init__()
        self.around(denoiser)
        self.denoiser, self.c = denoiser, c

    def forward(self, x, t, cond=None, s=None) -> Estimate:
        x0, eps = self.denoiser(x, t, cond, s)
        alpha, sigma = self.schedule(t)
        a, b = Karras(SD)(self.schedule, t)
        step = (self.c / (alpha * b - sigma * a)).reshape(-1, 1)
        return Estimate(x0 - sigma[:, None] * step, eps + alpha[:, None] * step)


@pytest.mark.parametrize("path", list(CATALOG))
def test_losses_are_zero_at_the_exact_map_and_their_gradients_point_back(path):
    oracle, (t, u, s) = point(path), three(12)
    x0, eps = oracle.sample(12, toys.generator(0)), draws(12, 3, seed=5)
    assert float(trajectory(oracle, oracle, oracle, x0, t, u, s, eps, None, SD).max()) < 1e-10
    assert float(diagonal(oracle, oracle, x0, t, eps, None, SD).max()) < 1e-10
    c = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for loss in (
        trajectory(Off(oracle, c), oracle, oracle, x0, t, u, s, eps, None, SD),
        diagonal(Off(oracle, c), oracle, x0, t, eps, None, SD),
    ):
        assert torch.allclose(loss, torch.full_like(loss, 0.09), rtol=1e-6)
        (slope,) = torch.autograd.grad(loss.mean(), c)
        assert float(slope) == pytest.approx(0.6, rel=1e-6)


@pytest.mark.parametrize("path", ["ve", "vp", "rectified"])
def test_at_the_exact_map_the_loss_is_the_error_of_the_teachers_step(path):
    """Heun's local error has order 3, so the root of the loss falls by 8 when the gap is halved."""
    oracle = Gaussian(CATALOG[path](), draws(3, seed=3), torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64))
    t = torch.full((1,), 0.5 if path != "ve" else 0.02, dtype=torch.float64)
    x0, eps = oracle.sample(1, toys.generator(0)), draws(1, 3, seed=5)

    def root(gap: float) -> float:
        return float(trajectory(oracle, oracle, oracle, x0, t, t * (1 - gap), t * 0.2, eps, None, SD).sqrt())

    assert root(0.02) / root(0.01) == pytest.approx(8, rel=0.1)


def test_a_wrong_flow_map_is_seen():
    oracle = Gaussian(VE(40.0), draws(3, seed=3), 0.5)
    other, (t, u, s) = Gaussian(VE(40.0), draws(3, seed=3), 0.4), three(12)
    x0, eps = oracle.sample(12, toys.generator(0)), draws(12, 3, seed=5)
    u = t * 0.97
    assert float(trajectory(other, other, oracle, x0, t * 0.02, u * 0.02, s * 0.02, eps, None, SD).min()) > 1e-7
    assert float(trajectory(oracle, oracle, oracle, x0, t * 0.02, u * 0.02, s * 0.02, eps, None, SD).max()) < 1e-7


def network(path: str = "ve", dropout: float = 0.0) -> FlowMap:
    torch.manual_seed(0)
    body = MLP((2,), (16, 16), dropout, embedding=Embedding(16, aims=True))
    for p in body.parameters():
        nn.init.normal_(p, std=0.2)
    return FlowMap(body, CATALOG[path](), Karras(SD), sigma_data=SD)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.y = 0.0

    def forward(self, x, time, cond=None, aim=None) -> Tensor:
        return torch.full_like(x, self.y)


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_weight_is_what_the_networks_output_is_worth(path):
    body, (t, _, s) = Constant(), three(9)
    model, x, ends = FlowMap(body, CATALOG[path](), Karras(SD)), draws(9, 2), []
    for body.y in (0.0, 1.0):
        ends.append(model(x, t, None, s).at(*model.schedule.numbers(s)))
    scale = output_scale(model.schedule, t, s, SD)[:, None]
    assert torch.allclose((ends[1] - ends[0]).abs() * scale, torch.ones_like(x), rtol=1e-6)
    assert bool((scale > 0).all())


def test_at_the_data_end_the_weight_is_edms():
    t = torch.linspace(0.01, 1, 7, dtype=torch.float64)
    path = VE(40.0)
    sigma = path(t)[1]
    assert torch.allclose(output_scale(path, t, 0 * t, SD) ** 2, (sigma**2 + SD**2) / (sigma * SD) ** 2)
    assert torch.allclose(Weight(SD)(path, Karras(SD), t), torch.ones_like(t)), "the same, on this target"


@toys.devices
def test_equal_times_with_dropout_give_exactly_nothing(device):
    model, n = network(dropout=0.5).to(device), 32
    teacher = Gaussian(VE(), torch.zeros(2), 0.5).to(device)
    t = torch.linspace(0.01, 0.9, n, dtype=torch.float64)
    x0, eps = draws(n, 2).float().to(device), draws(n, 2, seed=1).float().to(device)
    states = torch.get_rng_state if device == "cpu" else torch.cuda.get_rng_state
    before = states()
    assert float(trajectory(model, model, teacher, x0, t, t, t * 0.4, eps, None, SD).max()) == 0
    other = network(dropout=0.5).eval().to(device)
    assert float(trajectory(model, other, teacher, x0, t, t, t * 0.4, eps, None, SD).max()) > 0, "dropout was on"
    assert not torch.equal(before, states())


class Wary(Denoiser):
    """A flow map that refuses to be asked where there is no noise."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.around(denoiser)
        self.denoiser = denoiser

    def forward(self, x, t, cond=None, s=None) -> Estimate:
        assert bool((t > 0).all())
        return self.denoiser(x, t, cond, s)


def test_where_the_step_ends_at_the_aim_the_goal_is_the_teachers_point():
    model, teacher, n = network(), Gaussian(VE(), torch.zeros(2), 0.5), 6
    t = torch.linspace(0.01, 0.9, n, dtype=torch.float64)
    u = torch.where(torch.arange(n) < 3, 0.0, t / 2)
    x0, eps = draws(n, 2).float(), draws(n, 2, seed=1).float()
    loss = trajectory(model, Wary(model), teacher, x0, t, u, u, eps, None, SD)
    alpha, sigma = (v[:, None].float() for v in model.schedule(t))
    x = x0 * alpha + eps * sigma
    y, _ = Heun().step(teacher, x, t, u)
    scale = output_scale(model.schedule, t, u, SD)[:, None].float()
    expected = ((model(x, t, None, u).at(*model.schedule(u)) - y) * scale).square().mean(1)
    assert torch.allclose(loss, expected, rtol=1e-4)


def test_aims_lie_below_and_hold_the_data():
    n = 4000
    u = torch.linspace(0, 1, n, dtype=torch.float64)
    for path in ("ve", "rectified", "ddpm-cosine"):
        s = aims(CATALOG[path](), Noise(0, 0, n, 0, n, toys.CPU), u)
        assert bool(((s >= 0) & (s <= u)).all())
        assert float((s == 0).double().mean()) == pytest.approx(WHOLE, abs=0.03)
        assert len(s.unique()) > n / 2


def setting(**numbers: float) -> Setting:
    start = Start(CATALOG["ve"](), SD, 1, False, Distillation(**numbers))
    return Setting(network(dropout=0.2), Gaussian(VE(), torch.zeros(2), 0.5), start, 10, Drop())


def batch(domain: Domain = Domain.TRAINING, step: int = 0) -> Batch:
    return Batch(draws(8, 2).float(), None, None, None, step, Noise(0, step, 8, 0, 8, toys.CPU, domain))


def made(**numbers: float) -> Ctm:
    given = setting(**numbers)
    (stage,) = METHOD.stages(given.start)
    task = stage.task(given)
    assert isinstance(task, Ctm)
    return task


def test_the_task_trains_and_is_measured_without_gradients():
    task = made()
    assert list(task.players) == ["denoiser"]
    task.loss("denoiser", batch(), task.players).mean().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in task.denoiser.parameters())
    with torch.no_grad():
        held = task.loss("denoiser", batch(Domain.HELD_OUT), {"denoiser": task.denoiser.eval()})
    assert held.shape == (8,)
    assert bool(held.isfinite().all())


def test_an_adversary_is_a_second_player_and_the_student_learns_to_please_it():
    task = made(adversarial=0.5)
    student, judge = task.players["denoiser"], task.players[ADVERSARY]
    student.requires_grad_(False)
    task.loss(ADVERSARY, batch(step=0), task.players).mean().backward()
    assert any(bool(p.grad.any()) for p in judge.parameters() if p.grad is not None)
    with torch.no_grad():  # the penalty needs gradients: it is left out of what is measured
        assert bool(task.loss(ADVERSARY, batch(Domain.HELD_OUT), task.players).isfinite().all())
    student.requires_grad_(True)
    judge.requires_grad_(False)
    torch.manual_seed(0)
    with_judge = task.loss("denoiser", batch(), task.players)
    task.discriminator = None
    torch.manual_seed(0)
    assert bool((with_judge > task.loss("denoiser", batch(), task.players)).all()), "-log D is positive"
    assert task.tuning(ADVERSARY) != task.tuning("denoiser")


def test_an_adversarial_term_without_an_adversary_is_refused():
    with pytest.raises(ValueError, match="no discriminator; give one"):
        Ctm(setting(), adversarial=0.1)
    assert Ctm(setting(), 0.0, discriminator_of(setting())).players.keys() == {"denoiser"}


def test_the_shadow_follows_the_student_alone_and_is_part_of_the_state():
    task, other = made(), made()
    with torch.no_grad():
        for p in task.denoiser.parameters():
            p.add_(0.1)
    before = {k: v.clone() for k, v in task.state().items()}
    task.update(ADVERSARY, batch().noise, torch.zeros(8))
    assert all(torch.equal(before[k], v) for k, v in task.state().items())
    task.update("denoiser", batch().noise, torch.zeros(8))
    assert any(not torch.equal(before[k], v) for k, v in task.state().items())
    other.load_state({k: v.clone() for k, v in task.state().items()})
    other.denoiser.load_state_dict(task.denoiser.state_dict())
    losses = []
    for each in (task, other):
        torch.manual_seed(1)
        losses.append(each.loss("denoiser", batch(), each.players))
    assert torch.equal(*losses)
