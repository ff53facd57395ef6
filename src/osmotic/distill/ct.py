"""Consistency training: neighbouring noisings of one sample must give the same sample; no teacher is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, single
from osmotic.distill.draws import noised
from osmotic.distill.gap import LIFT, Intervals, closeness, difference, squared
from osmotic.distill.shadow import Shadow
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Noise, Stream

FEWEST, MOST = 2, 150  # levels at the start and at the end of training: s0 and s1
# Of the target network at the start, mu0, in a run of so many steps. Its lag is kept as a share of the run: 700 steps,
# as the published end has them, are half of a short run, and a lag counts once for every level.
DECAY, LONG = 0.9, 800_000


def training(
    student: Denoiser,
    target: Denoiser,
    x0: Tensor,
    t: Tensor,
    u: Tensor,
    eps: Tensor,
    cond: object = None,
    sigma_data: float = 0.5,
) -> Tensor:
    """``w(t, u) mean((f(x_t, t) - sg f(x_u, u))^2) / sd^2`` with x_t and x_u of the same x0 and eps.

    Song et al. 2023 (arXiv 2303.01469), with w :func:`~osmotic.distill.gap.closeness`, lifted, for unit weight. x_u is
    a random point whose mean given x_t is an Euler step of the exact denoiser, so the optimum is a blurred Euler chain,
    and only a squared error keeps the masses of unequal modes: a robust one goes to the median.

    Args:
        student: whose f is trained.
        target: whose f is looked at: the student as it is, or a slow copy.
        x0: clean samples ``(B, *S)``.
        t: times ``(B,)``.
        u: cleaner times ``(B,)``; 0 makes the clean sample the target.
        eps: unit noise ``(B, *S)``.
        cond: handed to both.
        sigma_data: sd.

    Returns:
        ``(B,)``.
    """
    schedule = student.schedule
    x, y = noised(schedule, x0, t, eps), noised(schedule, x0, u, eps)
    loss = squared(difference(student, target, x, t, y, u, cond), sigma_data)
    return loss * closeness(schedule, t, u, sigma_data, LIFT).to(loss)


def levels(step: int, steps: int) -> int:
    """``N(k) = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1``: s0 at first, s1 + 1 at last."""
    share = min(step / steps, 1.0)
    return math.ceil(math.sqrt(share * ((MOST + 1) ** 2 - FEWEST**2) + FEWEST**2) - 1) + 1


def decay(count: int, steps: int) -> float:
    """``mu(k) = exp(s0 log(mu0) / N(k))`` for K = 800,000 steps: the more levels, the slower the target.

    In a run of other length the exponent is as much larger as the run is shorter.
    """
    return math.exp(FEWEST * math.log(DECAY) / count * LONG / steps)


class ConsistencyTraining(FewStep):
    """Consistency training with its published curriculum: more levels, and a slower target, as it goes on.

    Levels are drawn as in improved consistency training, where the paper draws them uniformly.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.sigma_data, self.steps = setting.start.sigma_data, setting.steps
        self.shadow = Shadow(self.denoiser, DECAY)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        # Measured on the last grid, so that held-out losses can be compared over the run.
        count = levels(batch.step if batch.training else self.steps, self.steps)
        t, u = Intervals(self.denoiser.schedule, self.sigma_data, count).draw(batch.noise)
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        target = self.shadow.denoiser.train(self.denoiser.training)
        return training(self.student(modules), target, batch.x0, t, u, eps, self.shown(batch), self.sigma_data)

    def update(self, player: str, noise: Noise, losses: Tensor) -> None:
        self.shadow.update(self.denoiser, decay(levels(noise.step, self.steps), self.steps))

    def state(self) -> dict[str, Tensor]:
        return self.shadow.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.shadow.load_state(state)


STUDENT = Student(method="ct", form="consistency", sampler="consistency", steps=1)

METHOD = Method(
    name="ct",
    what="consistency training: neighbouring noisings of a sample give the same sample; needs no teacher",
    stages=single(STUDENT, ConsistencyTraining),
    teacher=False,
    steps=2500,
    compiles=False,  # the target network is an eager copy, whose dropout is drawn in another order
)
