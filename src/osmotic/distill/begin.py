"""A student that starts as its teacher."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from osmotic.denoiser import NeuralDenoiser
from osmotic.nn.embedding import AimEmbedding, TimeEmbedding

AIM = "embedding.aim."
"""In the names of the weights that read the time aimed at."""

M = TypeVar("M", bound=nn.Module)

FITTED, LEVELS, SPREAD = 1500, 1024, 2.0
"""Steps and levels of the fit of a smooth time embedding, and how wide the levels lie in log(sigma / sigma_data)."""


@torch.no_grad()
def begin(student: NeuralDenoiser, teacher: NeuralDenoiser) -> None:
    """Give a student its teacher's weights; what it reads besides (aim, guidance scale, draws) stays as it was made.

    The aim and the scale change nothing at first, so the student is its teacher then. A teacher that learned a variance
    gives the half of its output that is the mean. Where the student's clock turns more slowly, or the teacher is a flow
    map and the student none, the student's time embedding is fitted to what the teacher is told on its diagonal, level
    by level.

    Raises:
        ValueError: if the networks differ in anything else, the conditions that they read for one.
    """
    own, theirs = student.network.state_dict(), teacher.network.state_dict()
    aims = [name for name in theirs if AIM in name]
    slower = repr(student.clock) != repr(teacher.clock)
    fitted = slower or any(name not in own for name in aims)
    if fitted:  # what the aim says on the diagonal goes into the time embedding
        theirs = {name: value for name, value in theirs.items() if name not in aims}
    lacking = [name for name in theirs if name not in own]
    if lacking:
        raise ValueError(
            f"The teacher's network has {lacking[0]!r} and the student's has not: they read other conditions; distil "
            "with the data and classes that the teacher was trained on."
        )
    for name, value in theirs.items():
        mine = own[name]
        if mine.shape != value.shape and not (teacher.learned_variance and _half(mine, value)):
            raise ValueError(
                f"The teacher's {name!r} is {tuple(value.shape)} and the student's {tuple(mine.shape)}: they are made "
                "for other data or classes; distil with those that the teacher was trained on."
            )
        mine.copy_(value if mine.shape == value.shape else value[: len(mine)])
    if fitted:
        smooth(student, teacher)


def _half(mine: Tensor, theirs: Tensor) -> bool:
    return mine.shape[1:] == theirs.shape[1:] and 2 * mine.shape[0] == theirs.shape[0]


@torch.enable_grad()
def smooth(student: NeuralDenoiser, teacher: NeuralDenoiser) -> None:
    """Fit the student's time embedding, on its own clock, to what the teacher's network is told at the same levels."""
    mine, theirs = _find(student.network, TimeEmbedding), _find(teacher.network, TimeEmbedding)
    aim = _find(teacher.network, AimEmbedding)
    if mine is None or theirs is None:
        raise ValueError("This network has no time embedding to fit; distil it by a method without derivatives.")
    device = next(student.parameters()).device
    sd = student.sigma_data or 1.0
    u = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    log_snr = -2 * (math.log(sd) - 0.5 + SPREAD * torch.special.ndtri(u))
    t = teacher.schedule.time(log_snr).clamp(1e-12, 1.0)
    told, known = (d.clock(d.schedule, t).float().to(device) for d in (student, teacher))
    goal = (theirs(known) if aim is None else theirs(known) + aim(known, known)).detach()
    optimizer = torch.optim.Adam(mine.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FITTED)
    for _ in range(FITTED):
        optimizer.zero_grad()
        torch.autograd.backward((mine(told) - goal).square().mean())
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()


def _find(network: nn.Module, kind: type[M]) -> M | None:
    return next((module for module in network.modules() if isinstance(module, kind)), None)
