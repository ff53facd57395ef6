"""Consistency trajectory models: jumps from any time to any earlier one that agree along a teacher's trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.distill.adversarial import TUNING, discriminator_loss, discriminator_of, generator_loss, lazily, penalty
from osmotic.distill.base import FewStep, Method, Setting, Stage, Start
from osmotic.distill.draws import noised, shares
from osmotic.distill.gap import Intervals, difference
from osmotic.distill.shadow import Shadow
from osmotic.estimate import Karras, like
from osmotic.nn import Discriminator
from osmotic.samplers import Heun
from osmotic.schedules import Schedule
from osmotic.training.denoise import PLAYER
from osmotic.training.optim import Tuning
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Noise, Stream

INTERVALS = 40
"""Of the grid of teacher steps; with the published 18 Heun overshoots by 5 % on a Gaussian, with 40 by 1 %."""
EVEN = 0.3
"""Share of draws that is spread evenly over the intervals; the rest follows improved consistency training's law."""
WHOLE = 0.4
"""Share of jumps that aim at the data, s = 0: one step is what is asked for most."""
DECAY = 0.9
"""Of the target network. The published 0.999 is for 100 000 steps: the target lags behind through all intervals."""
DENOISING = 0.5
"""Weight of the denoising term. Both terms are squared errors of the network's output, so their gradients are of the
same size by construction, and the paper's balance by the last layer's gradients is not needed."""
LONGEST = 3
"""Teacher steps between the two jumps that are compared, at most. The paper goes up to all of them, which costs 35
evaluations a step instead of 15 and pays in long runs."""
REACH = 102
"""The stream of the numbers of teacher steps."""
ADVERSARY = "discriminator"


def trajectory(
    student: Denoiser,
    target: Denoiser,
    teacher: Denoiser,
    x0: Tensor,
    t: Tensor,
    u: Tensor,
    s: Tensor,
    eps: Tensor,
    cond: object = None,
    sigma_data: float = 0.5,
    between: Sequence[Tensor] = (),
) -> Tensor:
    """``w(t, s) |G(x_t, t, s) - sg G'(x_u, u, s)|^2``, x_u where the teacher's Heun steps lead from x_t.

    CTM's soft consistency (Kim et al. 2024, arXiv 2310.02279): u lies any number of teacher steps below t, from the
    next (local consistency) to s (global). Compared at s and not, pushed there by another jump, at the data, which
    serves perceptual metrics. w makes it the squared error of the output of a network with EDM's target: see
    :func:`output_scale`. The target is a function of x_t, hence without bias towards larger modes.

    Args:
        student: a flow map on the teacher's path, called for gradients.
        target: whose jump is looked at: a slow copy, or the student itself.
        teacher: of the trajectory.
        x0: clean samples, ``(B, *S)``.
        t: times ``(B,)``.
        u: where the teacher stops, cleaner times, ``(B,)``.
        s: times aimed at, ``(B,)`` in [0, u] and below t.
        eps: unit noise, ``(B, *S)``.
        cond: handed to all.
        sigma_data: sd.
        between: times ``(B,)`` at which the teacher stops on the way, falling.

    Returns:
        Losses ``(B,)``, the mean over a sample's dimensions.
    """
    schedule = student.schedule
    x = noised(schedule, x0, t, eps)
    y, solver = x, Heun()
    with torch.no_grad():
        for here, there in pairwise((t, *between, u)):
            y, _ = solver.step(teacher, y, here, there, cond)
    (scale,) = like(x, output_scale(schedule, t, s, sigma_data))
    loss: Tensor = (difference(student, target, x, t, y, u, cond, s) * scale).square().flatten(1).mean(1)
    return loss


def output_scale(schedule: Schedule, t: Tensor, s: Tensor, sigma_data: float) -> Tensor:
    """``|dF / dG|``: the error of EDM's output F per error of the jump G from t to s, ``(B,)``.

    ``sqrt(sigma_t^2 + alpha_t^2 sd^2) / (sd (alpha_s sigma_t - sigma_s alpha_t))``; for alpha = 1 and s = 0 its square
    is EDM's weight ``(sigma^2 + sd^2) / (sigma sd)^2``. Small jumps and small noise then count as all others do.
    """
    (alpha, sigma), (alpha_s, sigma_s) = schedule(t), schedule(s)
    return torch.hypot(sigma, alpha * sigma_data) / (sigma_data * (alpha_s * sigma - sigma_s * alpha))


def diagonal(
    student: Denoiser,
    teacher: Denoiser,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    cond: object = None,
    sigma_data: float = 0.5,
) -> Tensor:
    """The denoising term: the squared distance of the student's posterior mean to the teacher's, in EDM's output.

    The paper regresses on x0 itself, whose mean given x_t is the same; the teacher's has no variance, which is most of
    that loss and would drown the other term. Arguments and shapes are those of :func:`trajectory`.
    """
    schedule = student.schedule
    x = noised(schedule, x0, t, eps)
    row = Karras(sigma_data).numbers(schedule, t)
    with torch.no_grad():
        goal = teacher(x, t, cond).at(*row)
    loss: Tensor = (student(x, t, cond).at(*row) - goal).square().flatten(1).mean(1)
    return loss


class Ctm(FewStep):
    """:func:`trajectory` and :func:`diagonal`, and an adversary of the samples G(x_t, t, 0) if asked for.

    Args:
        setting: student and teacher.
        adversarial: weight of the adversarial term; 0 has none.
        discriminator: the adversary, told that it sees clean samples.

    Raises:
        ValueError: for an adversarial term without an adversary.
    """

    def __init__(self, setting: Setting, adversarial: float = 0.0, discriminator: Discriminator | None = None) -> None:
        super().__init__(setting)
        if adversarial > 0 and discriminator is None:
            raise ValueError(
                f"CTM's adversarial term has weight {adversarial:g} and no discriminator; give one, such as "
                "adversarial.discriminator_of(setting), or the weight 0."
            )
        self.taught, self.sigma_data = setting.taught, setting.start.sigma_data
        self.intervals = Intervals(self.denoiser.schedule, self.sigma_data, INTERVALS, EVEN)
        self.shadow = Shadow(self.denoiser, DECAY)
        self.adversarial, self.discriminator = adversarial, discriminator if adversarial > 0 else None
        if self.discriminator is not None:
            self.players = {PLAYER: self.denoiser, ADVERSARY: self.discriminator}

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        t, *between, u = self.intervals.chain(batch.noise, reach(batch.noise))
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        cond = self.shown(batch)
        if player == ADVERSARY:
            return self._judge(batch, t, eps, cond, modules[ADVERSARY])
        s = aims(self.denoiser.schedule, batch.noise, u)
        target = self.shadow.denoiser.train(self.denoiser.training)
        student, sd = self.student(modules), self.sigma_data
        loss = trajectory(student, target, self.taught, batch.x0, t, u, s, eps, cond, sd, between)
        loss = loss + DENOISING * diagonal(student, self.taught, batch.x0, t, eps, cond, sd)
        if self.discriminator is not None:
            fake = self._made(student, batch.x0, t, eps, cond)
            loss = loss + self.adversarial * generator_loss(self._logits(modules[ADVERSARY], fake, cond))
        return loss

    def _made(self, student: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, cond: object) -> Tensor:
        """One-step samples from every level, ``(B, *S)``."""
        made: Tensor = student(noised(student.schedule, x0, t, eps), t, cond, torch.zeros_like(t)).x0
        return made

    def _logits(self, discriminator: nn.Module, x: Tensor, cond: object) -> Tensor:
        logits: Tensor = discriminator(x / self.sigma_data, x.new_zeros(len(x), dtype=torch.float32), cond)
        return logits

    def _judge(self, batch: Batch, t: Tensor, eps: Tensor, cond: object, discriminator: nn.Module) -> Tensor:
        """The adversary's loss ``(B,)``, in some steps with the penalty of its slope at the data."""
        with torch.no_grad():
            fake = self._made(self.denoiser, batch.x0, t, eps, cond)
        weight = lazily(batch.step) if batch.training else 0.0
        real = (batch.x0 / self.sigma_data).detach().requires_grad_(weight > 0)
        logits = discriminator(real, real.new_zeros(len(real), dtype=torch.float32), cond)
        loss = discriminator_loss(logits, self._logits(discriminator, fake, cond))
        return loss + weight * penalty(logits, real) if weight > 0 else loss

    def tuning(self, player: str) -> Tuning:
        return TUNING if player == ADVERSARY else super().tuning(player)

    def update(self, player: str, noise: Noise, losses: Tensor) -> None:
        if player == PLAYER:
            self.shadow.update(self.denoiser)

    def state(self) -> dict[str, Tensor]:
        return self.shadow.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.shadow.load_state(state)


def reach(noise: Noise) -> int:
    """How many teacher steps a batch is led by: h in 1 .. LONGEST with a probability in proportion to h, as published.

    One number for the whole batch, so that the teacher's evaluations are spent on all of it.
    """
    odds = torch.arange(1, LONGEST + 1, dtype=torch.float64)
    return 1 + int(torch.multinomial(odds, 1, generator=noise.generator(REACH)))


def aims(schedule: Schedule, noise: Noise, u: Tensor) -> Tensor:
    """Where to aim from below u, ``(B,)``: at the data, or evenly in the angle between signal and noise, in [0, u]."""
    kind, share = (shares(noise, 100 + k) for k in range(2))
    alpha, sigma = schedule(u)
    angle = torch.atan2(sigma, alpha) * share
    between = torch.minimum(schedule.time(-2 * torch.tan(angle).log()), u)
    return torch.where((kind < WHOLE) | (u == 0), torch.zeros_like(u), between)


def _stages(start: Start) -> tuple[Stage, ...]:
    student = Student(method="ctm", form="flow-map", sampler="jump", steps=1)

    def task(setting: Setting) -> Ctm:
        weight = start.numbers.adversarial
        return Ctm(setting, weight, discriminator_of(setting) if weight > 0 else None)

    return (Stage("", lambda start: student, task),)


METHOD = Method(
    name="ctm",
    what="jumps between any two times, consistent along the teacher's trajectory",
    stages=_stages,
    teacher=True,
    steps=1050,
    reads=frozenset({"guidance", "adversarial"}),
    compiles=False,
)
