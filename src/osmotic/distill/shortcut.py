"""Shortcut models: a jump equals two jumps of half the length, from jumps of no length (the flow itself) upwards."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.base import FewStep, Method, Setting, single
from osmotic.distill.draws import noised, shares
from osmotic.distill.meanflow import latest, line, straight, velocity
from osmotic.distill.shadow import Shadow
from osmotic.estimate import like
from osmotic.schedules import Scaled
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Noise, Stream

LEVELS = 5
"""Jumps have the lengths 1, 1/2, ... 2^-(LEVELS - 1), the last made of two Euler steps. Errors add up from level to
level, so small runs want few."""
SHARE = 0.5
"""Of each batch that learns jumps; the rest learns the flow. The paper's 1/8 leaves the last level, one step, untrained
in short runs."""
EVEN = 0.5
"""Share of jumps on the grid of halves, where 1, 2, 4, ... even steps are; the others are for steps of other places."""
DECAY = 0.95
"""Of the target network: the published 0.999 lags behind by thousands of steps through all levels."""


def shortcut(
    student: Denoiser,
    shadow: Denoiser,
    path: Scaled,
    x0: Tensor,
    t: Tensor,
    s: Tensor,
    eps: Tensor,
    shortest: float,
    cond: Condition | None = None,
    teacher: Denoiser | None = None,
) -> Tensor:
    """``|u(x, t, s) - sg (u'(x, t, m) + u'(x', m, s)) / 2|^2 / sd^2``, m half-way and x' where the first half leads.

    u is the average velocity on the straight path, u' the shadow's. Where ``s = t`` the goal is the velocity itself:
    the teacher's, or ``sd eps - x0``, whose mean it is. Jumps up to ``shortest`` are made of two Euler steps along the
    shadow's velocity. Frans et al. 2024 (arXiv 2410.12557), without their clipping, which knows one range of data.

    Args:
        student: a flow map on any path, called for gradients.
        shadow: a slow copy of it, in evaluation mode.
        path: on which t and s are meant.
        x0: clean samples, ``(B, *S)``.
        t: times ``(B,)`` in (0, 1].
        s: times aimed at, ``(B,)`` in [0, t].
        eps: unit noise, ``(B, *S)``.
        shortest: jumps up to this long know no shorter ones.
        cond: handed to all.
        teacher: a denoiser on any path.

    Returns:
        Losses ``(B,)``, the mean over a sample's dimensions.
    """
    x = noised(path, x0, t, eps)
    with torch.no_grad():
        goal = eps * path.scale - x0 if teacher is None else velocity(straight(teacher, path)(x, t, cond), path)
        rows = (s < t).nonzero()[:, 0]
        if len(rows):
            own = rows.to(x.device)
            told = None if cond is None else cond[own]
            goal = goal.index_copy(0, own, halves(shadow, path, x[own], t[rows], s[rows], shortest, told))
    u = velocity(straight(student, path)(x, t, cond, s), path)
    return (u - goal).square().flatten(1).mean(1) / path.scale**2


def halves(
    shadow: Denoiser, path: Scaled, x: Tensor, t: Tensor, s: Tensor, shortest: float, cond: Condition | None = None
) -> Tensor:
    """The average velocity of two jumps of half the length, ``(B, *S)``; arguments as in :func:`shortcut`."""
    flow = straight(shadow, path)
    m = (t + s) / 2
    short = t - s <= shortest * (1 + 1e-9)
    first = velocity(flow(x, t, cond, torch.where(short, t, m)), path)
    (half,) = like(x, t - m)
    second = velocity(flow(x - half * first, m, cond, torch.where(short, m, s)), path)
    return (first + second) / 2


class Shortcut(FewStep):
    """:func:`shortcut` over lengths of equal share; with the teacher's velocity if there is a teacher."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.path = line(setting.start.sigma_data)
        self.latest = latest(self.denoiser, self.path)
        # In evaluation mode, as published: what dropout adds to a goal would be halved at each level, not shared.
        self.shadow = Shadow(self.denoiser, DECAY)
        self.shadow.denoiser.eval()

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        t, s = times(batch.noise, self.latest)
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        shortest = self.latest / 2**LEVELS * 2
        return shortcut(
            self.student(modules), self.shadow.denoiser, self.path, batch.x0, t, s, eps, shortest,
            self.shown(batch), self.teacher,
        )  # fmt: skip

    def update(self, player: str, noise: Noise, losses: Tensor) -> None:
        self.shadow.update(self.denoiser)

    def state(self) -> dict[str, Tensor]:
        return self.shadow.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.shadow.load_state(state)


def times(noise: Noise, last: float) -> tuple[Tensor, Tensor]:
    """Times t in (0, last] and aims s in [0, t] on the straight path, two ``(B,)``: ``s = t``, or jumps.

    A jump has a length d in ``(2^-(k+1), 2^-k]``, k uniform in 0 .. LEVELS - 1: the largest, starting at a multiple of
    it, as published, or any, starting anywhere. Both families hold the halves of their jumps.
    """
    which, where, level, shorter = (shares(noise, 100 + k) for k in range(4))
    count = 2.0 ** torch.floor(level * LEVELS)
    length = 2**-shorter / count
    even, free = torch.ceil(where * count) / count, length + where * (1 - length)
    start = torch.where(which < SHARE * EVEN, even, free)
    aim = torch.where(which < SHARE * EVEN, even - 1 / count, free - length)
    return torch.where(which < SHARE, start, where) * last, torch.where(which < SHARE, aim, where) * last


STUDENT = Student(method="shortcut", form="flow-map", sampler="jump", steps=1)

METHOD = Method(
    name="shortcut",
    what="a jump is two jumps of half the length; with or without a teacher",
    stages=single(STUDENT, Shortcut),
    teacher=False,
    steps=2300,
    rate=0.5,
    reads=frozenset({"guidance"}),
)
