"""Denoising diffusion GAN: a few large reverse steps, each drawn by a generator that a discriminator judges.

Xiao et al. 2022 (arXiv 2112.07804). With few steps q(x_s | x_t) is no Gaussian: its modes are those of q(x0 | x_t). A
generator that draws x0 from q(x0 | x_t), followed by the Gaussian posterior q(x_s | x_t, x0), is exact at any step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.distill.adversarial import TUNING, discriminator_loss, discriminator_of, generator_loss, lazily, penalty
from osmotic.distill.base import FewStep, Method, Setting, Stage, Start
from osmotic.distill.draws import integers, noised
from osmotic.estimate import like
from osmotic.objectives.posterior import forward, posterior
from osmotic.schedules import Schedule
from osmotic.times import Cosine
from osmotic.training.denoise import PLAYER
from osmotic.training.optim import Tuning
from osmotic.training.recipe import Student
from osmotic.training.task import Batch, Stream

JUDGE = "discriminator"
"""The player that tells true pairs ``(x_s, x_t)`` from made ones."""

USUAL = 4
"""Steps, where nothing is said."""

LATENTS = 16
"""Normal numbers that a sample is drawn from, at each step anew. The paper takes 100 for pictures; they
have to say which of the modes that x_t leaves open, and where in it."""

SLOWER = 0.3
"""The generator's rate beside the judge's: only a judge that keeps up gives the gradient of a distance between laws. On
five modes in the plane the energy distance was 0.002 so, and 0.05 at equal rates with memories of (0.5, 0.9)."""

FORWARD, LATENT, REVERSE, INDEX = 100, 101, 102, 103
"""Streams of the step from x_s to x_t, of the latents, of the posterior's noise, and of the steps' numbers."""


def pair(schedule: Schedule, x0: Tensor, t: Tensor, s: Tensor, eps: Tensor, further: Tensor) -> tuple[Tensor, Tensor]:
    """``(x_s, x_t)`` drawn together from data, by the forward step from s to t.

    Args:
        schedule: the path.
        x0: data, ``(B, *S)``.
        t: the noisier times, ``(B,)``.
        s: the less noisy ones; 0 gives the data.
        eps: unit noise of x_s, ``(B, *S)``.
        further: unit noise of the step, ``(B, *S)``.
    """
    x_s = noised(schedule, x0, s, eps)
    scale, variance = forward(schedule, t, s)
    kept, fresh = like(x0, scale, variance.sqrt())
    return x_s, x_s * kept + further * fresh


def drawn(generator: Denoiser, x: Tensor, t: Tensor, s: Tensor, latent: Tensor, xi: Tensor, cond: object) -> Tensor:
    """x_s ``(B, *S)`` from x_t: the generator's draw of x0, then the posterior ``q(x_s | x_t, x0)``; no noise at s = 0.

    Args:
        generator: a denoiser that reads ``cond.latent``.
        x: noisy samples at times t, ``(B, *S)``.
        latent: ``(B, latents)``.
        xi: unit noise of the posterior, ``(B, *S)``.
    """
    told = replace(cond, latent=latent) if isinstance(cond, Condition) else Condition(latent=latent)
    mean, variance = posterior(generator.schedule, generator(x, t, told).x0, x, t, s)
    (deviation,) = like(x, variance.sqrt())
    return mean + deviation * xi


def seen(schedule: Schedule, x: Tensor, t: Tensor, sigma_data: float) -> Tensor:
    """``x / sqrt(alpha^2 sigma_data^2 + sigma^2)`` ``(B, *S)``: of unit variance at every level of every path."""
    alpha, sigma = schedule(t)
    (scale,) = like(x, torch.hypot(sigma, alpha * sigma_data))
    return x / scale


def fooling(judge: nn.Module, made: Tensor, beside: Tensor, time: Tensor, cond: Condition | None) -> Tensor:
    """The generator's loss ``(B,)``: the judge takes the made ``(x_s, x_t)`` for true.

    Args:
        judge: ``judge(pair, time, cond) -> (B,)`` logits, the pair joined along the channels.
        made: x_s of the generator as the judge sees it, ``(B, C, *S)``.
        beside: x_t, likewise.
        time: ``(B,)``, as networks are told it.
    """
    return generator_loss(judge(torch.cat([made, beside], dim=1), time, cond))


def judging(
    judge: nn.Module, real: Tensor, made: Tensor, beside: Tensor, time: Tensor, cond: Condition | None, weight: float
) -> Tensor:
    """The discriminator's loss ``(B,)``: true and made x_s beside the same x_t, and R1 at the true one.

    Both are judged in one call, so that processes exchange gradients once.
    """
    if weight:
        real = real.detach().requires_grad_(True)
    both = torch.cat([torch.cat([real, beside], dim=1), torch.cat([made, beside], dim=1)])
    told = None if cond is None else Condition.cat([cond, cond])
    true, false = judge(both, torch.cat([time, time]), told).chunk(2)
    loss = discriminator_loss(true, false)
    return loss + weight * penalty(true, real) if weight else loss


class DDGAN(FewStep):
    """The generator's and the discriminator's losses at all steps together; it needs no teacher.

    It matches every q(x_s | x_t) and is no map from noise to data: modes keep their masses over its own steps, and a
    draw in one of them alone means nothing, because the others were never trained at t = 1.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        student = setting.student
        assert student.stops is not None
        self.stops, self.sigma_data = torch.tensor([*student.stops, 0.0], dtype=torch.float64), setting.start.sigma_data
        self.judge = discriminator_of(setting, channels=2)
        self.players = {PLAYER: student, JUDGE: self.judge}

    def tuning(self, player: str) -> Tuning:
        return TUNING if player == JUDGE else replace(TUNING, rate=SLOWER)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        noise, schedule, x0 = batch.noise, self.denoiser.schedule, batch.x0
        cond, shape = self.shown(batch), x0.shape[1:]
        index = integers(noise, INDEX, len(self.stops) - 1)
        t, s = self.stops[index], self.stops[index + 1]
        x_s, x_t = pair(schedule, x0, t, s, noise.normal(Stream.NOISE, shape), noise.normal(FORWARD, shape))
        generator = self.student(modules) if player == PLAYER else self.denoiser
        with torch.set_grad_enabled(torch.is_grad_enabled() and player == PLAYER):
            latent, xi = noise.normal(LATENT, (self.denoiser.latents,)), noise.normal(REVERSE, shape)
            made = seen(schedule, drawn(generator, x_t, t, s, latent, xi, cond), s, self.sigma_data)
        beside = seen(schedule, x_t, t, self.sigma_data)
        time = self.denoiser.clock(schedule, t).to(x0.device, torch.float32)
        if player == PLAYER:
            return fooling(modules[JUDGE], made, beside, time, cond)
        weight = lazily(batch.step) if batch.training else 0.0  # held-out losses are measured without gradients
        real = seen(schedule, x_s, s, self.sigma_data)
        return judging(modules[JUDGE], real, made, beside, time, cond, weight)


def _stages(start: Start) -> tuple[Stage, ...]:
    steps = start.numbers.last_jumps or USUAL
    # Even in the angle, as time is on a variance-preserving cosine path, whatever the path and the data's scale.
    stops = tuple(Cosine(2 * start.sigma_data)(start.schedule, steps)[:-1].tolist())

    def student(start: Start) -> Student:
        return Student(method="ddgan", form="denoiser", stops=stops, latents=LATENTS, sampler="ddpm", steps=steps)

    return (Stage("", student, DDGAN),)


METHOD = Method(
    name="ddgan",
    what="a few large reverse steps, drawn by a generator against a discriminator",
    stages=_stages,
    teacher=False,
    steps=1800,
    rate=0.5,
    reads=frozenset({"last_jumps"}),
    compiles=False,
)
