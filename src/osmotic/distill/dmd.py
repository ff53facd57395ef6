"""Distribution matching: the student's samples are moved along the difference of two scores, anchored by pairs.

Yin et al. 2024 (DMD, arXiv 2311.18828) and (DMD2, arXiv 2405.14867).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.distill.base import FewStep, Method, Setting, Stage, Start
from osmotic.distill.draws import integers, noised, rows, shares
from osmotic.estimate import Estimate, like
from osmotic.objectives import denoising
from osmotic.schedules import Schedule
from osmotic.times import Cosine
from osmotic.training.denoise import PLAYER, Called
from osmotic.training.optim import Tuning
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

FAKE = "fake"
"""The player that learns the student's own distribution."""

EVERY = 2
"""The student moves in every so many-th step, the fake score in each: it has to know where the student is now. DMD2
takes 5; with an anchor that holds the student, 2 gives more of its own steps in the same time."""

ANCHOR = 0.25
"""Weight of the regression to the teacher's pairs, beside a gradient of order 1 (DMD's)."""

CLEANEST, NOISIEST, CUT = 0.004, 160.0, 0.02
"""Noise levels in units of the data's deviation, EDM's 0.002 to 80 for 0.5, and the share of their grid that is left
out at either end: the normaliser vanishes at the clean one, where also the score says nothing about the masses of
modes, and at the noisy one both scores are the prior's."""

FLOOR = 0.1
"""The normaliser is at least this share of what it is for Gaussian data. In few dimensions a sample may lie on its
estimate by chance, and its gradient would be all that counts."""

FRESH, INDEX, LEVEL, AGAIN = 100, 101, 102, 103
"""Streams of the student's noise, of its stops, of the levels of scores and of the noise of later stops."""


def difference(
    fake: Denoiser, teacher: Denoiser, x: Tensor, t: Tensor, eps: Tensor, sigma_data: float, cond: object = None
) -> Tensor:
    """The gradient that samples x are moved against, without units: ``(D_fake - D_real) / mean |x - D_real|`` at
    ``x_t``.

    Up to positive weights it is ``grad log p_fake(x_t) - grad log p_real(x_t)``, so its mean times ``dx / d theta`` is
    the gradient of the Kullback-Leibler divergence of the student's noisy samples from the teacher's.

    Args:
        fake: the posterior mean under the student's samples.
        teacher: the posterior mean under the data.
        x: the student's samples, ``(B, *S)``.
        t: times ``(B,)`` with sigma > 0.
        eps: unit noise, ``(B, *S)``.
        sigma_data: the data's standard deviation, for the least that is divided by.

    Returns:
        ``(B, *S)``, without gradients.
    """
    with torch.no_grad():
        noisy = noised(teacher.schedule, x, t, eps)
        real: Tensor = teacher(noisy, t, cond).x0
        moved: Tensor = fake(noisy, t, cond).x0 - real
        size = (x - real).abs().flatten(1).mean(1)
        (unit,) = like(x, torch.maximum(size, FLOOR * _spread(teacher.schedule, t, sigma_data).to(size)))
        return moved / unit


def _spread(schedule: Schedule, t: Tensor, sigma_data: float) -> Tensor:
    """The standard deviation of x0 given x_t where the data are Gaussian."""
    alpha, sigma = schedule(t)
    return sigma * sigma_data / torch.hypot(sigma, alpha * sigma_data)


def pulled(x: Tensor, gradient: Tensor) -> Tensor:
    """``|x - sg(x - gradient)|^2 / 2`` ``(B,)``, the mean over a sample's dimensions: its gradient in x is the given
    one.
    """
    return (x - (x - gradient).detach()).square().flatten(1).mean(1) / 2


def levels(schedule: Schedule, sigma_data: float, u: Tensor) -> Tensor:
    """The times at shares u ``(B,)`` of EDM's ladder, ``rho^(1/7)`` uniform (Karras et al. 2022, arXiv 2206.00364)."""
    last = math.exp(min(-float(schedule.log_snr(1.0)) / 2, math.log(NOISIEST * sigma_data)))
    low, high = (CLEANEST * sigma_data) ** (1 / 7), last ** (1 / 7)
    return schedule.time(-14 * torch.log(low + (high - low) * (CUT + (1 - 2 * CUT) * u)))


def simulate(
    student: Denoiser, start: Tensor, fresh: Sequence[Tensor], index: Tensor, stops: Sequence[float], cond: object
) -> Tensor:
    """What the student sees at its own stops when it is sampled: DMD2's backward simulation, without gradients.

    Args:
        student: the consistency function.
        start: unit noise ``(B, *S)`` for the first stop, which is t = 1.
        fresh: unit noise ``(B, *S)`` for each later stop.
        index: at which stop each sample ends, ``(B,)``.
        stops: times, falling.

    Returns:
        The noisy samples ``(B, *S)`` at ``stops[index]``.
    """
    x = start * math.hypot(*student.schedule.scalars(stops[0]))
    kept, clean = x, torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for number, (before, t) in enumerate(itertools.pairwise(stops), start=1):
            alpha, sigma = student.schedule.scalars(t)
            made: Estimate = student(x, torch.tensor(before, dtype=torch.float64), cond, clean)
            x = made.x0 * alpha + fresh[number - 1] * sigma
            kept = torch.where(rows(index == number, x), x, kept)
    return kept


class DMD(FewStep):
    """The student's and the fake score's losses.

    The reverse divergence alone is mode-seeking: a mode that the student has left pulls no sample back. The anchor to
    the teacher's pairs, a squared error with a deterministic target, is what keeps the modes' masses.

    Batches are noise-sample pairs ``(B, 2, *S)``: data, then unit noise. The pair's noise is what the student is moved
    at, fresh noise is what the fake score learns from.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        student = setting.student
        assert student.stops is not None
        self.stops, self.sigma_data = student.stops, setting.start.sigma_data
        self.real = setting.taught
        self.fake = tracker(student)
        self.players = {PLAYER: student, FAKE: self.fake}

    def active(self, player: str, step: int) -> bool:
        return player != PLAYER or step % EVERY == EVERY - 1

    def tuning(self, player: str) -> Tuning:
        return Tuning(2.0, (0.0, 0.99)) if player == FAKE else Tuning(betas=(0.0, 0.99))

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        x0, noise = batch.x0.unbind(1)
        cond, shape = self.shown(batch), x0.shape[1:]
        t = levels(self.denoiser.schedule, self.sigma_data, shares(batch.noise, LEVEL))
        eps = batch.noise.normal(Stream.NOISE, shape)
        if player == FAKE:
            with torch.no_grad():
                made, _ = self._made(self.denoiser, batch, batch.noise.normal(FRESH, shape), cond)
            return denoising(Called(self.fake, modules[FAKE]), made, t, eps, cond)
        x, first = self._made(self.student(modules), batch, noise, cond)
        sd = self.sigma_data
        loss = pulled(x / sd, difference(self.fake, self.real, x, t, eps, sd, cond))
        return loss + ANCHOR * first * pulled(x / sd, (x - x0) / sd)

    def _made(self, student: Denoiser, batch: Batch, start: Tensor, cond: object) -> tuple[Tensor, Tensor]:
        """The student's samples from this noise, and which of them it made in one jump ``(B,)``."""
        count, shape = len(self.stops), start.shape[1:]
        index = integers(batch.noise, INDEX, count)
        fresh = [batch.noise.normal(AGAIN + number, shape) for number in range(count - 1)]
        x = simulate(self.denoiser, start, fresh, index.to(start.device), self.stops, cond)
        t = torch.tensor(self.stops, dtype=torch.float64)[index]
        made: Estimate = student(x, t, cond, torch.zeros_like(t))
        return made.x0, (index == 0).to(start)


def tracker(student: NeuralDenoiser) -> NeuralDenoiser:
    """A denoiser with the student's weights, for the scores of its samples; it has no dropout, for it is no model."""
    network = copy.deepcopy(student.network)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    settings = student.clock, student.sigma_data, student.autocast
    return NeuralDenoiser(network, student.schedule, student.target, *settings)


def _stages(start: Start) -> tuple[Stage, ...]:
    jumps = start.numbers.last_jumps or 1
    stops = tuple(Cosine(2 * start.sigma_data)(start.schedule, jumps)[:-1].tolist())

    def student(start: Start) -> Student:
        return Student(method="dmd", form="consistency", stops=stops, sampler="consistency", steps=jumps)

    return (Stage("", student, DMD, pairs=True, hides=False),)  # a pair belongs to its condition


METHOD = Method(
    name="dmd",
    what="match the distribution of the teacher's samples, anchored by noise-sample pairs",
    stages=_stages,
    teacher=True,
    steps=1400,
    reads=frozenset({"guidance", "pairs", "last_jumps"}),
)
