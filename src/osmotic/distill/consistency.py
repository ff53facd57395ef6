"""Consistency distillation: two neighbouring points of a teacher's trajectory must give the same sample."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, single
from osmotic.distill.draws import noised
from osmotic.distill.gap import Intervals, closeness, difference, huber
from osmotic.samplers import Heun
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

INTERVALS = 40  # Heun with fewer overshoots: a Gaussian student's deviation is 5 % too large with 18, 1 % with 40
HUBER = 0.001  # improved consistency training's 0.00054 sqrt(dimension) for data of deviation 1/2


def distillation(
    student: Denoiser,
    target: Denoiser,
    teacher: Denoiser,
    x0: Tensor,
    t: Tensor,
    u: Tensor,
    eps: Tensor,
    cond: object = None,
    sigma_data: float = 0.5,
) -> Tensor:
    """``w(t, u) d(f(x_t, t), sg f(x_u, u))``, x_u one Heun step of the teacher from ``x_t = alpha x0 + sigma eps``.

    Song et al. 2023 (arXiv 2303.01469), with d the pseudo-Huber metric and w :func:`~osmotic.distill.gap.closeness`
    for unit weight, which without a perceptual metric fails. The target is a function of x_t, so the robust metric
    brings no bias towards larger modes.

    Args:
        student: whose f is trained, on the teacher's path.
        target: whose f is looked at: the student as it is.
        teacher: of the trajectory.
        x0: clean samples ``(B, *S)``.
        t: times ``(B,)``.
        u: the next, cleaner times ``(B,)``; 0 where the step ends at the data.
        eps: unit noise ``(B, *S)``.
        cond: handed to all.
        sigma_data: sd.

    Returns:
        ``(B,)``.
    """
    x = noised(student.schedule, x0, t, eps)
    with torch.no_grad():
        y, _ = Heun().step(teacher, x, t, u, cond)
    loss = huber(difference(student, target, x, t, y, u, cond), sigma_data, HUBER)
    return loss * closeness(student.schedule, t, u, sigma_data).to(loss)


class Consistency(FewStep):
    """Consistency distillation with the student itself as the target (decay 0), intervals drawn for small problems."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.taught, self.sigma_data = setting.taught, setting.start.sigma_data
        self.intervals = Intervals(self.denoiser.schedule, self.sigma_data, INTERVALS)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        t, u = self.intervals.draw(batch.noise)
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        return distillation(
            self.student(modules),
            self.denoiser,
            self.taught,
            batch.x0,
            t,
            u,
            eps,
            self.shown(batch),
            self.sigma_data,
        )


STUDENT = Student(method="consistency", form="consistency", sampler="consistency", steps=1)

METHOD = Method(
    name="consistency",
    what="consistency distillation: neighbouring points of the teacher's trajectory give the same sample",
    stages=single(STUDENT, Consistency),
    teacher=True,
    steps=2000,
    reads=frozenset({"guidance"}),
)
