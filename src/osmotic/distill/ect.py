"""Easy consistency tuning: from a diffusion model, by gaps that are a small share of the noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from osmotic.distill.base import FewStep, Method, Setting, single
from osmotic.distill.ct import training
from osmotic.distill.gap import spread
from osmotic.schedules import Schedule
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

# The gap is 1 / q of the noise; q doubles from 2, almost a denoiser's loss, to 256 in stages of equal length: coarse
# gaps carry what is learned near the data up to the noise in few steps, fine ones take the blur away.
FIRST, STAGES = 2.0, 8
STEEP, SLOPE = 8.0, 0.5  # k, and b = 1 for data of deviation 1/2, of the factor by which it is larger near the data


def quotient(step: int, steps: int) -> float:
    """``q^a`` with ``a = 1 + floor(stages k / K)``."""
    return FIRST ** (1 + min(STAGES * step // steps, STAGES - 1))


def below(schedule: Schedule, t: Tensor, sigma_data: float, q: float) -> Tensor:
    """The cleaner time: ``rho_u = rho_t max(0, 1 - n / q)``, ``n = 1 + k sigmoid(-b rho_t / sd)``.

    Exactly 0 where n exceeds q.

    Args:
        schedule: the path.
        t: times ``(B,)`` float64.
        sigma_data: sd.
        q: larger is finer.
    """
    log_snr = schedule.log_snr(t)
    ratio = torch.exp(-log_snr / 2) / sigma_data
    kept = 1 - (1 + STEEP * torch.sigmoid(-SLOPE * ratio)) / q
    # log(rho_u) = log(rho_t) + log(kept): no digits are lost where the two nearly agree.
    return torch.where(kept > 0, schedule.time(log_snr - 2 * kept.clamp_min(1e-300).log()), torch.zeros_like(t))


class Easy(FewStep):
    """Easy consistency tuning with doubling q, the squared metric and a student that begins as a denoiser.

    Geng et al. 2024 (arXiv 2406.14548). The loss is consistency training's, :func:`osmotic.distill.ct.training`: the
    paper's plain norm goes to the median of a random target, and with it mode masses do not survive below some hundred
    dimensions. The teacher gives its weights, not its answers.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.sigma_data, self.steps = setting.start.sigma_data, setting.steps

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        schedule, noise = self.denoiser.schedule, batch.noise
        t = spread(schedule, self.sigma_data, noise)
        # Measured at the last stage, so that held-out losses can be compared over the run.
        q = quotient(batch.step if batch.training else self.steps, self.steps)
        u = below(schedule, t, self.sigma_data, q)
        eps = noise.normal(Stream.NOISE, batch.x0.shape[1:])
        student = self.student(modules)
        return training(student, self.denoiser, batch.x0, t, u, eps, self.shown(batch), self.sigma_data)


STUDENT = Student(method="ect", form="consistency", sampler="consistency", steps=1)

METHOD = Method(
    name="ect",
    what="easy consistency tuning: a diffusion model becomes a consistency model on the data alone",
    stages=single(STUDENT, Easy),
    teacher=True,
    steps=2500,
)
