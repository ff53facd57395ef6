"""Progressive distillation: a student's jump learns two of its teacher's, and becomes the teacher of the next round."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, Stage, Start
from osmotic.distill.draws import noised, stratified
from osmotic.estimate import Estimate, Point, solve
from osmotic.levels import as_time
from osmotic.schedules import Number
from osmotic.times import Cosine
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

SPREAD = 2.0
"""Stops are even in ``atan2(sigma, 2 sd alpha)``. Measured on mixtures, 64 evaluations of the first teacher then miss
the map by 0.003 root mean square in the plane, half as much as with stops even in ``atan2(sigma, sd alpha)``."""

LONGER, LAST = 2.0, 2
"""The last two rounds learn the hardest jumps and get twice the steps, as in Salimans & Ho 2022."""


def progressive(
    student: Denoiser,
    teacher: Denoiser,
    x0: Tensor,
    times: tuple[Tensor, Tensor, Tensor],
    eps: Tensor,
    cond: object = None,
    sigma_data: float = 1.0,
) -> Tensor:
    """The student's jump t -> s against two of its teacher's, t -> u -> s: ``max(snr, 1 / sd^2) |x0_hat - x0~|^2``.

    ``x0~`` and ``eps~`` solve ``alpha_t x0~ + sigma_t eps~ = x_t`` and ``alpha_s x0~ + sigma_s eps~ = x_s``, so the
    student that says them lands where its teacher does. The weight is the larger of the two errors, of x0 in units of
    the data and of eps: the paper's truncated SNR, for any target (Salimans & Ho 2022, arXiv 2202.00512). The target is
    no random variable given x_t, so mode masses survive; what remains is the bias of the first teacher's steps.

    Args:
        student: asked for its jump to s.
        teacher: asked for its jumps to u and from there to s; see :class:`Solved`.
        x0: data ``(B, *S)``.
        times: (t, u, s), each ``(B,)`` and falling; s may be 0.
        eps: unit noise ``(B, *S)``.
        cond: what both are told.
        sigma_data: sd, the data's standard deviation.

    Returns:
        ``(B,)``, the mean over a sample's dimensions.
    """
    schedule, (t, u, s) = student.schedule, times
    path = schedule.numbers(t)
    x = noised(schedule, x0, t, eps)
    with torch.no_grad():
        middle = teacher(x, t, cond, u).at(*schedule.numbers(u))
        landed = teacher(middle, u, cond, s).at(*schedule.numbers(s))
        goal = solve(x, landed, path, Point(s).numbers(schedule, t)).x0
    error: Tensor = student(x, t, cond, s).x0 - goal
    weight = schedule.log_snr(t).exp().clamp(min=sigma_data**-2)
    return error.square().flatten(1).mean(1) * weight.to(error)


class Solved(Denoiser):
    """A denoiser made to jump: its estimate aimed at s lands where one midpoint step of the flow does.

    The first teacher of a chain of students. Its middle lies halfway in ``atan2(sigma, scale alpha)``, hence at the
    same level on every path, and is noisy for s = 0 too.

    Args:
        denoiser: with a posterior mean.
        scale: of the angle, positive.
    """

    diagonal = False

    def __init__(self, denoiser: Denoiser, scale: float) -> None:
        super().__init__()
        self.around(denoiser)
        self.denoiser, self.scale, self.diagonal = denoiser, scale, False

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is None:
            raise ValueError("A solved denoiser knows jumps alone; ask the denoiser inside for the posterior mean.")
        schedule, t, s = self.schedule, as_time(t), as_time(s)
        angle = (self._angle(t) + self._angle(s)) / 2
        u = schedule.time(-2 * torch.log(self.scale * torch.tan(angle)))
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.numbers(t), schedule.numbers(s)
        middle = self.denoiser(x, t, cond).at(*schedule.numbers(u))
        landed = x + self.denoiser(middle, u, cond).at(alpha_s - alpha_t, sigma_s - sigma_t)
        return solve(x, landed, (alpha_t, sigma_t), Point(s).numbers(schedule, t))

    def _angle(self, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule(t)
        return torch.atan2(sigma, self.scale * alpha)


class Progressive(FewStep):
    """:func:`progressive` at all jumps of a round equally often.

    Args:
        setting: the student, a chain of jumps; its teacher is the chain of the round before, or a denoiser.
        jumps: of the student.
        first: whether the teacher is a denoiser still.
    """

    def __init__(self, setting: Setting, jumps: int, first: bool) -> None:
        super().__init__(setting)
        self.sigma_data = setting.start.sigma_data
        self.jumps, self.grid = jumps, stops(setting.start, 2 * jumps)
        taught = setting.taught
        self.teaching = Solved(taught, SPREAD * self.sigma_data) if first else taught

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        # From integers: a stop reached by two divisions would not be the stop that the student is sampled at.
        index = (batch.noise.own(stratified(batch.noise)) * self.jumps).long().clamp(max=self.jumps - 1)
        times = self.grid[2 * index], self.grid[2 * index + 1], self.grid[2 * index + 2]
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        student, cond = self.student(modules), self.shown(batch)
        return progressive(student, self.teaching, batch.x0, times, eps, cond, self.sigma_data)


def stops(start: Start, jumps: int) -> Tensor:
    """The times of a chain of this many jumps, ``(jumps + 1,)``, falling from 1 to 0: every second one of twice as
    many.
    """
    finest = 2 * max(jumps, start.numbers.jumps)
    return Cosine(SPREAD * start.sigma_data)(start.schedule, finest)[:: finest // jumps]


def rounds(start: Start, method: str, task: type[Progressive] = Progressive, guided: bool = False) -> tuple[Stage, ...]:
    """The rounds from ``jumps`` to ``last_jumps``, each with half as many.

    Args:
        start: with both numbers.
        method: whose students these are.
        task: of every round, made from (setting, jumps, first).
        guided: whether the students read a guidance scale.

    Raises:
        ValueError: if the first number does not halve down to the last.
    """
    most, least = start.numbers.jumps, start.numbers.last_jumps or 1
    counts = [most]
    while counts[-1] > least and counts[-1] % 2 == 0:
        counts.append(counts[-1] // 2)
    if counts[-1] != least:
        raise ValueError(
            f"{most} jumps do not halve down to {least}; give --jumps as --last-jumps times 2, 4, 8 or so, such as "
            f"{least * 32}."
        )
    scales = (1.0, start.numbers.largest_guidance) if guided else None

    def stage(number: int, count: int) -> Stage:
        left = len(counts) - number
        return Stage(
            "" if left == 1 else f"jumps-{count}",
            lambda start: _student(start, method, count, scales),
            partial(task, jumps=count, first=number == 0),
            LONGER if left <= LAST else 1.0,
        )

    return tuple(stage(number, count) for number, count in enumerate(counts))


def _student(start: Start, method: str, jumps: int, scales: tuple[float, float] | None) -> Student:
    known = tuple(stops(start, jumps)[:-1].tolist())
    return Student.model_validate(
        {"method": method, "form": "chain", "stops": known, "scales": scales, "sampler": "jump", "steps": jumps}
    )


METHOD = Method(
    name="progressive",
    what="rounds of students that jump twice as far as their teachers",
    stages=lambda start: rounds(start, "progressive"),
    teacher=True,
    from_noise=False,  # any target will do; eps says x0 at pure noise through sigma / alpha, and learns it slowly
    dropout=False,
    steps=2600,
    reads=frozenset({"guidance", "jumps", "last_jumps"}),
)
