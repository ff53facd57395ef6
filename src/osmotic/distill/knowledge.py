"""Knowledge distillation: the whole trajectory, from noise to data, learned as one function by regression."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, Stage, Start
from osmotic.distill.pairs import begun
from osmotic.training.recipe import Student
from osmotic.training.task import Batch


def knowledge(student: Denoiser, x0: Tensor, noise: Tensor, cond: object = None) -> Tensor:
    """``|f(x_1, 1) - x0|^2`` with ``x_1 = hypot(alpha_1, sigma_1) noise``: the map from noise to the teacher's sample.

    Luhman & Luhman 2021 (arXiv 2101.02388). The target is no random variable given the noise, so the squared loss has
    no bias but the blur where a student cannot follow the map's jumps between modes; mode masses survive.

    Args:
        student: asked at its start, aiming at the data.
        x0: the teacher's samples, ``(B, *S)``.
        noise: what it made them from, unit normal ``(B, *S)``.
        cond: what it was told.

    Returns:
        ``(B,)``, the mean over a sample's dimensions.
    """
    times = torch.full((len(x0),), student.start, dtype=torch.float64)
    found: Tensor = student(begun(student, noise), times, cond, torch.zeros_like(times)).x0
    return (found - x0).square().flatten(1).mean(1)


class Knowledge(FewStep):
    """:func:`knowledge` on pairs ``(B, 2, *S)``, in units of the data's variance.

    Labels are never hidden: a pair belongs to its label.

    Args:
        setting: student and start; the teacher has made the pairs.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.variance = setting.start.sigma_data**2

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        x0, noise = batch.x0.unbind(1)
        return knowledge(self.student(modules), x0, noise, self.shown(batch)) / self.variance


def one_jump(method: str) -> Student:
    """A student that goes from noise to data in one jump and knows nothing else."""
    return Student.model_validate({"method": method, "form": "consistency", "stops": (1.0,)})


def _stages(start: Start) -> tuple[Stage, ...]:
    return (Stage("", lambda _: one_jump("knowledge"), Knowledge, pairs=True, hides=False),)


METHOD = Method(
    name="knowledge",
    what="regression of the teacher's samples on their noise, for one step",
    stages=_stages,
    teacher=True,
    steps=2600,
    reads=frozenset({"guidance", "pairs"}),
)
