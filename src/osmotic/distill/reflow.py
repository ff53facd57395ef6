"""Rectified flow: a model retrained on straight lines between its own noise and samples, then learned in one step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, Stage, Start
from osmotic.distill.draws import noised
from osmotic.distill.knowledge import Knowledge, one_jump
from osmotic.distill.pairs import chord
from osmotic.laws import Law, Stratified
from osmotic.schedules import Schedule
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

STEEP = 4.0
"""Of the U-shaped law: the ends are cosh(2) = 3.8 times likelier than the middle (RF++, a = 4)."""

NEAREST = 1e-4
"""The least noise that is trained, relative to the data: below it float32 has lost the velocity."""


def straightness(denoiser: Denoiser, x0: Tensor, eps: Tensor, t: Tensor, cond: object = None) -> Tensor:
    """``|(eps - x0) - v|^2`` at ``x_t``, v being the velocity on the rectified path: 0 where the flow is straight.

    Liu et al. 2023 (arXiv 2209.03003). Any path: the estimate does not depend on it, and v = eps_hat - x0_hat.

    Args:
        denoiser: with a posterior mean.
        x0: samples ``(B, *S)``.
        eps: the noise that they are paired with ``(B, *S)``, :func:`~osmotic.distill.pairs.chord` of a sampler's.
        t: times ``(B,)`` in (0, 1].
        cond: what the denoiser is told.

    Returns:
        ``(B,)``, the mean over a sample's dimensions.
    """
    return rectified(denoiser, x0, eps, t, cond, 1.0)


def rectified(
    student: Denoiser, x0: Tensor, eps: Tensor, t: Tensor, cond: object = None, sigma_data: float = 1.0
) -> Tensor:
    """``|(eps - x0 / sd) - (eps_hat - x0_hat / sd)|^2``: velocity regression on straight lines, data in unit deviation.

    With pairs that are independent it is flow matching, with a model's own it is reflow (Liu et al. 2023, arXiv
    2209.03003). Where lines cross the target is a random variable given x_t, so only the squared loss finds its mean
    and keeps the mode masses; a robust one would follow the majority.

    Args:
        student: with a posterior mean.
        x0: samples ``(B, *S)``.
        eps: the noise that they are paired with ``(B, *S)``; shuffling it undoes the reflow.
        t: times ``(B,)`` in (0, 1].
        cond: what the student is told.
        sigma_data: sd, the data's standard deviation.

    Returns:
        ``(B,)``, the mean over a sample's dimensions.
    """
    estimate = student(noised(student.schedule, x0, t, eps), t, cond)
    error: Tensor = (eps - x0 / sigma_data) - estimate.at(-1 / sigma_data, 1.0)
    return error.square().flatten(1).mean(1)


class Ends(Law):
    """A U-shaped law of the rectified time ``tau = rho / (rho + sd)``: density ~ ``cosh(a (tau - 1/2))``.

    Lee et al. 2024 (arXiv 2405.20320): the two ends of a straight line are what is hard to learn. Where a path ends
    before tau = 1, the share beyond is trained at its end, where sampling starts.

    Args:
        sigma_data: sd, the data's standard deviation, positive.
        steep: a, positive.
    """

    def __init__(self, sigma_data: float, steep: float = STEEP) -> None:
        super().__init__()
        self.sigma_data, self.steep = sigma_data, steep

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        tau = 0.5 + torch.asinh((2 * u - 1) * math.sinh(self.steep / 2)) / self.steep
        tau = tau.clamp(NEAREST, 1 - 1e-12)  # at 1 some paths cannot invert an infinite log-SNR
        log_rho = math.log(self.sigma_data) + torch.log(tau) - torch.log1p(-tau)
        return schedule.time(-2 * log_rho).clamp(max=1.0)


class Reflow(FewStep):
    """:func:`rectified` on pairs ``(B, 2, *S)``.

    Args:
        setting: student and start; the teacher has made the pairs.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.sigma_data = setting.start.sigma_data
        self.law = Stratified(Ends(self.sigma_data))

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        schedule = self.denoiser.schedule
        whole, _ = self.law.draw(schedule, batch.noise.total, batch.noise.generator(Stream.TIME))
        x0, noise = batch.x0.unbind(1)
        eps = chord(schedule, x0, noise, self.denoiser.start)
        student, t = self.student(modules), batch.noise.own(whole)
        return rectified(student, x0, eps, t, self.shown(batch), self.sigma_data)


def _stages(start: Start) -> tuple[Stage, ...]:
    flows = range(1, start.numbers.rounds + 1)
    return (
        *(Stage(f"flow-{number}", lambda _: _flow(), Reflow, 2.0, pairs=True) for number in flows),
        Stage("", lambda _: one_jump("reflow"), Knowledge, pairs=True, hides=False),
    )


def _flow() -> Student:
    return Student(method="reflow", form="denoiser", sampler="ddim", steps=4)


METHOD = Method(
    name="reflow",
    what="the flow straightened on the teacher's own pairs, then learned in one step",
    stages=_stages,
    teacher=True,
    steps=2200,
    reads=frozenset({"guidance", "pairs", "rounds"}),
)
