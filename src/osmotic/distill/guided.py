"""Guided distillation: one student of a guided teacher at every guidance scale, then of its own longer jumps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, Stage, Start
from osmotic.distill.draws import noised, stratified
from osmotic.distill.progressive import SPREAD, Progressive, rounds
from osmotic.guidance import ClassifierFree
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Noise, Stream

SCALE = 100
"""The stream of the scales."""

SHARE = 2.0
"""The first stage learns a new input from nothing and gets as much as the longest round."""


def guided(
    student: Denoiser,
    teacher: Denoiser,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    cond: Condition,
    sigma_data: float = 1.0,
) -> Tensor:
    """``(snr + 1 / sd^2) |x0_hat(x_t, c, w) - (x0_u + w (x0_c - x0_u))|^2``: one pass for the guided teacher's two.

    Meng et al. 2023 (arXiv 2210.03142), stage one, with w = 1 for the plain conditional; the weight is EDM's on any
    target. A deterministic target: the optimum is the guided estimate itself. What the guided flow's modes weigh is
    guidance's doing, not the student's.

    Args:
        student: reads ``cond.scale``.
        teacher: reads ``cond`` and was trained with dropped conditions.
        x0: data ``(B, *S)``.
        t: times ``(B,)`` in (0, 1].
        eps: unit noise ``(B, *S)``.
        cond: labels and the scale of each sample.
        sigma_data: sd, the data's standard deviation.

    Returns:
        ``(B,)``, the mean over a sample's dimensions.
    """
    schedule = student.schedule
    x = noised(schedule, x0, t, eps)
    assert cond.scale is not None
    with torch.no_grad():
        goal = ClassifierFree(teacher, cond.scale)(x, t, replace(cond, scale=None)).x0
    error: Tensor = student(x, t, cond).x0 - goal
    weight = schedule.log_snr(t).exp() + sigma_data**-2
    return error.square().flatten(1).mean(1) * weight.to(error)


def scaled(batch: Batch, largest: float) -> Condition:
    """The batch's labels, none hidden, each with a guidance scale uniform between 1 and the largest.

    Raises:
        ValueError: if there are no labels.
    """
    if batch.cond is None:
        raise ValueError("Guided distillation needs labels, and these data have none; use --method progressive.")
    return replace(batch.cond, scale=(1 + (largest - 1) * batch.noise.uniform(SCALE)).to(batch.x0))


class Scales(FewStep):
    """:func:`guided` at times even in ``atan2(sigma, 2 sd alpha)``, where the jumps of the next stages begin.

    Args:
        setting: a student that reads the scale, and a teacher of both kinds.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.sigma_data, self.largest = setting.start.sigma_data, setting.start.numbers.largest_guidance

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        t, eps = self._times(batch.noise), batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        assert self.teacher is not None
        cond = scaled(batch, self.largest)
        return guided(self.student(modules), self.teacher, batch.x0, t, eps, cond, self.sigma_data)

    def _times(self, noise: Noise) -> Tensor:
        schedule, scale = self.denoiser.schedule, SPREAD * self.sigma_data
        alpha, sigma = schedule(1.0)
        angle = noise.own(stratified(noise)) * torch.atan2(sigma, scale * alpha)
        return schedule.time(-2 * torch.log(scale * torch.tan(angle)))


class Guided(Progressive):
    """:func:`~osmotic.distill.progressive.progressive` with a scale a sample, the same for both jumps."""

    def __init__(self, setting: Setting, jumps: int, first: bool) -> None:
        super().__init__(setting, jumps, first)
        self.largest = setting.start.numbers.largest_guidance

    def shown(self, batch: Batch) -> Condition:
        return scaled(batch, self.largest)


def _stages(start: Start) -> tuple[Stage, ...]:
    if not start.told:
        raise ValueError(
            "Guided distillation needs a teacher that was told classes or texts, and this one was not; use --method "
            "progressive."
        )
    return (Stage("scales", _student, Scales, SHARE), *rounds(start, "guided", Guided, guided=True))


def _student(start: Start) -> Student:
    scales = 1.0, start.numbers.largest_guidance
    return Student(method="guided", form="denoiser", scales=scales, sampler="flow-2pc", steps=20)


METHOD = Method(
    name="guided",
    what="progressive distillation of a student that follows any guidance scale",
    stages=_stages,
    teacher=True,
    from_noise=False,
    dropout=False,
    steps=2000,
    reads=frozenset({"jumps", "last_jumps", "largest_guidance"}),
)
