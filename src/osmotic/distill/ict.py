"""Improved consistency training: pseudo-Huber metric, log-normal levels, doubling curriculum, no slow target."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, single
from osmotic.distill.draws import noised
from osmotic.distill.gap import LIFT, Intervals, closeness, difference, huber
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

FEWEST, MOST = 10, 160  # intervals: s0, and s1, which is 1280 in the paper; small data gain nothing beyond 160
SHORTEST = 400  # steps on one grid: with fewer the noisiest levels lag behind what the others have learned
HUBER = 0.00108  # the paper's 0.00054 sqrt(dimension), over the root of the dimension and for data of deviation 1
SMALL = 64  # dimensions up to which the metric is a square


def improved(
    student: Denoiser,
    target: Denoiser,
    x0: Tensor,
    t: Tensor,
    u: Tensor,
    eps: Tensor,
    cond: object = None,
    sigma_data: float = 0.5,
    c: float | None = None,
) -> Tensor:
    """``w(t, u) d(f(x_t, t), sg f(x_u, u))`` with x_t and x_u of the same x0 and eps.

    Song & Dhariwal 2023 (arXiv 2310.14189), d being their pseudo-Huber metric over the whole sample and w
    :func:`~osmotic.distill.gap.closeness`. x_u is random given x_t, so a robust metric goes to the median and not to
    the mean: two modes of 0.3 and 0.7 become about 0.12 and 0.88 in one dimension, 0.23 and 0.77 in 64, and nearly
    right in 1000, where distances concentrate. Hence c depends on the dimension (:func:`constant`): with the paper's c
    mode masses do not survive below some hundred dimensions.

    Args:
        student: whose f is trained.
        target: whose f is looked at: the student as it is.
        x0: clean samples ``(B, *S)``.
        t: times ``(B,)``.
        u: cleaner times ``(B,)``; 0 makes the clean sample the target.
        eps: unit noise ``(B, *S)``.
        cond: handed to both.
        sigma_data: sd.
        c: of the metric, relative to sd and to the root of the dimension; :func:`constant` by default.

    Returns:
        ``(B,)``.
    """
    schedule = student.schedule
    x, y = noised(schedule, x0, t, eps), noised(schedule, x0, u, eps)
    c = constant(x0[0].numel()) if c is None else c
    loss = huber(difference(student, target, x, t, y, u, cond), sigma_data, c)
    # The weight is lifted as far as the metric is a square.
    return loss * closeness(schedule, t, u, sigma_data, LIFT * c).to(loss)


def constant(dimension: int) -> float:
    """The metric's c: 1 (a square) up to 64 dimensions, falling as their inverse square to the paper's at 2000."""
    return min(max((SMALL / dimension) ** 2, HUBER), 1.0)


def intervals(step: int, steps: int) -> int:
    """``N(k) - 1 = min(s0 2^floor(k / K'), s1)`` with ``K' = floor(K / (log2 floor(s1 / s0) + 1))``.

    K' is at least :data:`SHORTEST`, so a short run ends on a coarser grid.
    """
    each = max(SHORTEST, math.floor(steps / (math.log2(MOST // FEWEST) + 1)))
    doublings = min(step // each, math.ceil(math.log2(MOST / FEWEST)))
    return min(FEWEST << doublings, MOST)


class ImprovedConsistencyTraining(FewStep):
    """Improved consistency training; works with a teacher's weights as the start and without."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.sigma_data, self.steps = setting.start.sigma_data, setting.steps

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        # Measured on the last grid, so that held-out losses can be compared over the run.
        count = intervals(batch.step if batch.training else self.steps, self.steps)
        t, u = Intervals(self.denoiser.schedule, self.sigma_data, count).draw(batch.noise)
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        student = self.student(modules)
        return improved(student, self.denoiser, batch.x0, t, u, eps, self.shown(batch), self.sigma_data)


STUDENT = Student(method="ict", form="consistency", sampler="consistency", steps=1)

METHOD = Method(
    name="ict",
    what="improved consistency training: pseudo-Huber, log-normal levels, doubling curriculum; needs no teacher",
    stages=single(STUDENT, ImprovedConsistencyTraining),
    teacher=False,
    steps=2500,
)
