"""Improved consistency training: the published curriculum and law, and a metric that keeps mode masses."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from osmotic.distill.base import Setting, Start
from osmotic.distill.gap import Intervals, huber
from osmotic.distill.ict import HUBER, METHOD, ImprovedConsistencyTraining, constant, improved, intervals
from osmotic.estimate import Karras
from osmotic.flow_map import Consistency
from osmotic.nn import MLP
from osmotic.oracles import Gaussian
from osmotic.schedules import CATALOG, VE
from osmotic.training.denoise import PLAYER, Drop
from osmotic.training.recipe import Distillation
from osmotic.training.task import Batch, Domain, Noise
from tests.distill.test_consistency import SD, Bent, draws


def test_the_curriculum_doubles_as_published() -> None:
    steps = (0, 799, 800, 1600, 2400, 3200, 4000, 9000)
    assert [intervals(step, 4000) for step in steps] == [10, 10, 20, 40, 80, 160, 160, 160]
    assert [intervals(step, 1500) for step in (0, 400, 1499, 1500)] == [10, 20, 80, 80]


def test_the_constant_is_a_squares_in_few_dimensions_and_the_papers_in_many() -> None:
    assert [constant(d) for d in (1, 16, 64)] == [1.0, 1.0, 1.0]
    assert constant(128) == 0.25
    # c = 0.00054 sqrt(dimension) for data of deviation 1/2.
    assert constant(3 * 32 * 32) * SD == pytest.approx(0.00054)
    assert all(constant(d) >= constant(d + 1) for d in range(1, 4000))


def test_the_constant_is_taken_by_default() -> None:
    exact = Gaussian(VE(80.0), torch.zeros(2).double(), 0.25)
    x0, eps = draws(32, 2)
    t, u = (torch.full((32,), z, dtype=torch.float64) for z in (0.02, 0.01))
    default = improved(exact, exact, x0, t, u, eps)
    torch.testing.assert_close(default, improved(exact, exact, x0, t, u, eps, c=constant(2)))
    assert not torch.allclose(default, improved(exact, exact, x0, t, u, eps, c=HUBER))


def centre(c: float, step: float) -> float:
    """Where the metric's mean over a step of -1 with chance 0.3 and of +1 with 0.7 is least, in units of the step."""
    places = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    left, right = (huber(step * SD * (places - end)[:, None], SD, c) for end in (-1.0, 1.0))
    return float(places[(0.3 * left + 0.7 * right).argmin()])


def test_the_metric_goes_to_the_mean_and_the_papers_to_the_larger_mode() -> None:
    assert centre(constant(1), 0.1) == pytest.approx(0.4, abs=0.005)
    assert centre(HUBER, 0.1) > 0.98


@pytest.mark.parametrize("path", sorted(CATALOG))
def test_it_vanishes_at_the_exact_map_of_a_single_point_and_points_back_beside_it(path: str) -> None:
    schedule = CATALOG[path]()
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    exact = Gaussian(schedule, mean, 0.0)
    _, eps = draws(20, 2)
    x0 = mean.expand(20, 2)
    times = Intervals(schedule, SD, 20).times
    for c in (None, HUBER):
        assert float(improved(exact, exact, x0, times[:-1], times[1:], eps, c=c).max()) < 1e-10
        for value in (0.4, -0.4):
            k = torch.tensor(value, dtype=torch.float64, requires_grad=True)
            bent = Bent(exact, k)
            (slope,) = torch.autograd.grad(improved(bent, bent, x0, times[:-1], times[1:], eps, c=c).mean(), k)
            assert float(slope) * value > 0


def test_the_metric_is_of_the_whole_sample() -> None:
    """Not of each element: a turn of the sample changes nothing."""
    schedule = VE(80.0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q

    def loss(turned: Tensor) -> Tensor:
        exact = Gaussian(schedule, torch.zeros(4).double(), 0.25)
        x0, eps = (z @ turned for z in draws(32, 4))
        t, u = (torch.full((32,), z, dtype=torch.float64) for z in (0.02, 0.01))
        return improved(exact, exact, x0, t, u, eps, c=HUBER)

    torch.testing.assert_close(loss(turn), loss(torch.eye(4).double()))


def task(steps: int) -> ImprovedConsistencyTraining:
    torch.manual_seed(0)
    network = MLP((2,), (16, 16), 0.5)
    nn.init.normal_(network.out.weight)
    model = Consistency(network, CATALOG["vp"](), Karras(SD), sigma_data=SD)
    start = Start(model.schedule, SD, 1, False, Distillation())
    return ImprovedConsistencyTraining(Setting(model, None, start, steps, Drop()))


@pytest.mark.parametrize("step", [0, 9])
def test_the_task_trains_and_measures(step: int) -> None:
    one, rows, x0 = task(10), np.arange(256), draws(256, 2)[0].float()
    for domain in Domain:
        one.denoiser.train(domain == Domain.TRAINING)
        noise = Noise(0, step, 256, 0, 256, torch.device("cpu"), domain)
        with torch.set_grad_enabled(domain == Domain.TRAINING):
            losses = one.loss(PLAYER, Batch(x0, None, rows, rows, step, noise), one.players)
        assert losses.shape == (256,)
        assert bool(losses.isfinite().all())
        assert float(losses.detach().min()) > 0


def test_it_needs_no_teacher() -> None:
    start = Start(VE(), SD, 1, False, Distillation())
    made = METHOD.stages(start)[0].student(start)
    assert not METHOD.teacher
    assert made.method == "ict"
    assert made.form == "consistency"
    assert made.sampler == "consistency"
