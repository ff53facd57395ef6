"""Continuous-time consistency: the student's answer must not change along a trajectory, in exact derivatives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser, Rescheduled
from osmotic.distill.base import FewStep, Method, Setting, single
from osmotic.distill.draws import noised
from osmotic.distill.expected import expected, told_alike
from osmotic.distill.gap import FLOOR, LIFT, spread
from osmotic.distill.slope import along
from osmotic.distill.twin import Twin
from osmotic.estimate import Estimate, like
from osmotic.schedules import Cosine, Scaled
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

WARM, ALONE = 0.15, 0.5  # share of the steps over which the unstable part of the tangent is faded in, and untaught
SOFT = 0.1  # c of the tangent's normalisation g / (|g| + c)
CROWD = 8  # samples told the same, from which on a batch's expectation of a slope is hardly random
SMALL, PLAIN = 64, 100.0  # dimensions up to which a random tangent is all but not normalised, and c there


def trig(sigma_data: float) -> Scaled:
    """``x_t = cos(theta) x0 + sin(theta) sd eps`` with theta = pi t / 2: as large as the data at every level.

    Lu & Song 2024 (arXiv 2410.11081), TrigFlow.

    Args:
        sigma_data: sd, positive.
    """
    return Scaled(Cosine(), sigma_data)


def velocity(estimate: Estimate, theta: Tensor, sigma_data: float) -> Tensor:
    """``F = (cos(theta) eps sd - sin(theta) x0) / sd``: the estimate as the trajectory's slope, in units of sd.

    For a consistency function ``x0 = f`` it is ``(cos(theta) x - f) / (sd sin(theta))``, without that division.
    """
    return estimate.at(-theta.sin() / sigma_data, theta.cos())


def tangent(
    student: Denoiser, x: Tensor, t: Tensor, slope: Tensor, cond: object = None, warm: float = 1.0
) -> tuple[Tensor, Tensor]:
    """F and ``g = -cos^2 (F - slope) - r cos sin (x / sd + dF/dtheta)``, ``(B, *S)`` each.

    With r = 1, g is ``cos(theta) / sd`` times the derivative of f along the trajectory: 0 at an exact consistency
    function. dF/dtheta is the student's exact forward-mode derivative in the direction (sd slope, 1).

    Args:
        student: on :func:`trig`'s path.
        x: noisy samples.
        t: times ``(B,)``.
        slope: ``dx / dtheta / sd``, of the data and noise at hand or of a teacher.
        cond: handed to the student.
        warm: r in [0, 1].
    """
    sd = _trig(student).scale
    theta = math.pi / 2 * t
    (scale,) = like(x, theta.cos() * theta.sin())

    def output(x: Tensor, theta: Tensor) -> Tensor:
        return velocity(aimed(student, x, 2 / math.pi * theta, cond), theta, sd)

    # Scaled by cos sin before the derivative is taken: a clock's own slope may be as large as 1 / (cos sin).
    out, change = along(output, x, theta, scale * slope * sd, theta.cos() * theta.sin())
    (square,) = like(x, theta.cos().square())
    return out, -square * (out - slope) - warm * (scale * x / sd + change)


def aimed(student: Denoiser, x: Tensor, t: Tensor, cond: object) -> Estimate:
    """The student's estimate aimed at the data."""
    estimate: Estimate = student(x, t, cond, torch.zeros((), dtype=t.dtype))
    return estimate


def continuous(
    student: Denoiser,
    frozen: Denoiser,
    teacher: Denoiser | None,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    cond: object = None,
    warm: float = 1.0,
) -> Tensor:
    """``w mean((F - sg(F + g / (|g| + c)))^2)``, g along a teacher's slope (sCD) or the data's (sCT).

    Lu & Song 2024 (arXiv 2410.11081), with ``|g|`` the root mean square over a sample and w :func:`importance` without
    a learned weight of each level. Dividing by ``|g|`` makes the metric robust. With a teacher the slope is a function
    of x_t and that does no harm; with a random slope the smaller of two modes loses mass, and without dividing the few
    samples between modes, whose tangents are far larger, leave little for the rest to be learned. So the data's slope
    is what the batch expects of it, :func:`~osmotic.distill.expected.expected`: of the same mean, and all but a
    function of x_t at the noise where mode masses are decided, if several samples are told the same. Where each is told
    something of its own it stays random, and c grows towards a plain square (:func:`softness`), which learns slowly.

    Args:
        student: whose f is trained, on :func:`trig`'s path (an :class:`~osmotic.denoiser.Rescheduled` of the model).
        frozen: the same, as it is called without gradients.
        teacher: of the slope, on the same path; None for the slope of the data.
        x0: clean samples ``(B, *S)``.
        t: times ``(B,)``, float64.
        eps: unit noise ``(B, *S)``.
        cond: handed to all.
        warm: r in [0, 1], by which the tangent's second part is faded in.

    Returns:
        ``(B,)``.
    """
    schedule = _trig(student)
    sd, theta = schedule.scale, math.pi / 2 * t
    x = noised(schedule, x0, t, eps)
    c: Tensor | float = SOFT
    with torch.no_grad():
        if teacher is None:
            groups = told_alike(cond, x)
            known = expected(schedule, x0, x, t, eps, groups)
            (c,) = like(x, softness(groups, x0[0].numel()))
        else:
            known = teacher(x, t, cond)
    twin = Twin(x.device)
    out = velocity(aimed(student, x, t, cond), theta, sd)
    with torch.no_grad():
        slope = velocity(known, theta, sd)
        with twin.again():
            same, g = tangent(frozen, x, t, slope, cond, warm)
        size = g.square().flatten(1).mean(1).sqrt()
        goal = same + g / (like(g, size)[0] + c)
    loss: Tensor = (out - goal).square().flatten(1).mean(1)
    return loss * importance(theta).to(loss)


def importance(theta: Tensor) -> Tensor:
    """``(1 + tan^2(theta))^(1/4) / tan(theta)`` and a little, ``(B,)``.

    The paper's ``1 / tan(theta)`` with the noisiest levels, where sampling starts, lifted as they are in
    :func:`~osmotic.distill.gap.closeness`: its factor is 1/80 there, and mode masses are decided there.
    """
    tan = theta.tan()
    return (1 + tan.square()) ** (LIFT / 2) / tan + FLOOR


def softness(groups: Tensor, dimension: int) -> Tensor:
    """c without a teacher, ``(B,)``: the paper's 0.1 where at least :data:`CROWD` samples are told the same.

    Elsewhere 100 (a square) up to 64 dimensions, falling as their inverse square to 0.1: with a random slope and c = 1
    a mode of 0.3 came out as 0.19 in one dimension and in 16, after 3,000 steps; with 10 as 0.27 and 0.24.
    """
    few = max(SOFT, min(PLAIN, PLAIN * (SMALL / dimension) ** 2))
    counts = torch.bincount(groups)[groups]
    return torch.where(counts >= CROWD, SOFT, few)


def _trig(student: Denoiser) -> Scaled:
    schedule = student.schedule
    if not (isinstance(schedule, Scaled) and isinstance(schedule.base, Cosine)):
        raise ValueError(
            f"Continuous-time consistency is stated on the trigonometric path, and this student lies on "
            f"{type(schedule).__name__}; pass Rescheduled(student, trig(sigma_data))."
        )
    return schedule


class Continuous(FewStep):
    """Continuous-time consistency distillation, or training where there is no teacher, with a tangent warm-up.

    Times follow the law of the other consistency losses, :func:`~osmotic.distill.gap.spread`: the paper's, of deviation
    1.4 and without an even part, hardly ever sees the levels where sampling starts.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        sd = setting.start.sigma_data
        share = ALONE if setting.teacher is None else WARM
        self.trig, self.warm = trig(sd), max(1.0, share * setting.steps)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        noise, path = batch.noise, self.trig
        student, frozen = Rescheduled(self.student(modules), path), Rescheduled(self.denoiser, path)
        teacher = None if self.teacher is None else Rescheduled(self.teacher, path)
        t = spread(path, path.scale, noise)
        # A path that ends less noisy than the law is trained at its end; the whole tangent is what is measured.
        t = t.clamp(max=min(d.start for d in (student, teacher) if d is not None))
        warm = min(1.0, batch.step / self.warm) if batch.training else 1.0
        eps = noise.normal(Stream.NOISE, batch.x0.shape[1:])
        return continuous(student, frozen, teacher, batch.x0, t, eps, self.shown(batch), warm)


STUDENT = Student(method="scm", form="consistency", sampler="consistency", steps=1, smooth=True)

METHOD = Method(
    name="scm",
    what="continuous-time consistency: the answer does not change along a trajectory, in exact derivatives",
    stages=single(STUDENT, Continuous),
    teacher=False,
    steps=1350,
    reads=frozenset({"guidance"}),
    compiles=False,
)
