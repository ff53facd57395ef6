"""Few-step methods on data that are known exactly: a teacher in closed form, small students, seconds of training."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from osmotic.clocks import Angle
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.distill import METHODS
from osmotic.distill.base import Setting, Stage, Start
from osmotic.distill.begin import begin
from osmotic.estimate import Karras, Target
from osmotic.laws import LAWS
from osmotic.nn import MLP, Embedding
from osmotic.objectives import denoising
from osmotic.oracles import GaussianMixture
from osmotic.samplers import CATALOG, prior, sample
from osmotic.schedules import VE
from osmotic.times import Cosine
from osmotic.training import build
from osmotic.training.denoise import Drop
from osmotic.training.recipe import Distillation, Student
from osmotic.training.task import Batch, Noise, Task

CPU = torch.device("cpu")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"))
devices = pytest.mark.parametrize("device", ["cpu", CUDA])
"""Masks of dropout are drawn on the accelerator by its own generator, so what two branches share is tested on both."""

WIDTH, BLOCKS = 64, 3
SCHEDULE = VE(40.0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def five() -> GaussianMixture:
    """Five narrow modes in the plane, unequal, in two classes, of deviation about 0.5."""
    means = torch.tensor([[0.6, 0.2], [-0.5, 0.6], [-0.6, -0.4], [0.3, -0.7], [0.0, 0.0]])
    variances, weights = torch.tensor([0.01, 0.02, 0.01, 0.015, 0.01]), [0.3, 0.25, 0.2, 0.15, 0.1]
    return GaussianMixture(SCHEDULE, means, variances, weights, [0, 0, 1, 1, 1])


def two_modes(d: int) -> GaussianMixture:
    """Two far modes of one class with weights 0.3 and 0.7, deviation 0.1 each, in d dimensions."""
    step = torch.ones(1, d) * 0.5 / math.sqrt(d) * math.sqrt(min(d, 4))
    return GaussianMixture(SCHEDULE, torch.cat([-step, step]), 0.01, [0.3, 0.7], [0, 0])


def deviation(oracle: GaussianMixture) -> float:
    return float(oracle.sample(20_000, generator(0)).std())


def masses(oracle: GaussianMixture, x: Tensor) -> tuple[Tensor, float]:
    """The shares of samples nearest to each mode ``(K,)``, and the share that lies near to one.

    Near is within ``sqrt(d) + 2`` deviations; a mode's own samples lie about ``sqrt(d)`` of them away from its middle.
    """
    distance, index = torch.cdist(x, oracle.means).min(1)
    deviation, d = oracle.variances[index].mean(1).sqrt(), x.shape[1]
    shares = torch.bincount(index, minlength=len(oracle.means)) / len(x)
    return shares.double(), float((distance < (math.sqrt(d) + 2) * deviation).double().mean())


def energy(x: Tensor, y: Tensor) -> float:
    """The energy distance ``2 E|x - y| - E|x - x'| - E|y - y'|``, unbiased."""
    n, m = len(x), len(y)
    return float(
        2 * torch.cdist(x, y).mean() - torch.cdist(x, x).sum() / (n * (n - 1)) - torch.cdist(y, y).sum() / (m * (m - 1))
    )


def labels(oracle: GaussianMixture, n: int, draws: torch.Generator) -> Tensor:
    """Classes as often as the data have them, ``(n,)`` int64."""
    return oracle.classes[torch.multinomial(oracle.log_weights.exp(), n, replacement=True, generator=draws)]


def network(d: int, student: Student | None = None, width: int = WIDTH, classes: int | None = None) -> MLP:
    told = Embedding(width, classes)
    if student is not None:
        aims, scales = student.form == "flow-map", student.scales is not None
        told = Embedding(width, classes, aims=aims, scales=scales, latents=student.latents)
    return MLP((d,), (width,) * BLOCKS, embedding=told)


@cache
def trained(name: str, d: int, width: int = WIDTH, steps: int = 1000) -> NeuralDenoiser:
    """A network that learned the oracle's denoiser: where students start."""
    oracle = five() if name == "five" else two_modes(d)
    sd = deviation(oracle)
    torch.manual_seed(1)
    model = NeuralDenoiser(network(d, width=width), SCHEDULE, Karras(sd), Angle(), sigma_data=sd)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    law, draws = LAWS["log-normal"](sd), generator(2)
    for _ in range(steps):
        t, _ = law.draw(SCHEDULE, 256, draws)
        high = torch.rand(256, generator=draws, dtype=torch.float64) < 0.15  # the noisiest levels matter to students
        t = torch.where(high, SCHEDULE.time(torch.empty(256).double().uniform_(-7.3, 8, generator=draws)), t)
        x0 = oracle.sample(256, draws)
        loss = denoising(model, x0, t, torch.randn(x0.shape, generator=draws)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return model.eval().requires_grad_(False)


class Trained:
    """A finished student and what it is."""

    def __init__(self, denoiser: Denoiser, student: Student, oracle: GaussianMixture, sd: float) -> None:
        self.denoiser, self.student, self.oracle, self.sd = denoiser.eval(), student, oracle, sd

    def sample(self, n: int, steps: int = 1, seed: int = 7) -> Tensor:
        """n samples in this many jumps, at stops even in angle."""
        grid = Cosine(2 * self.sd)(SCHEDULE, steps)
        if self.student.stops is not None:
            grid = torch.tensor([*self.student.stops, 0.0], dtype=torch.float64)
            assert steps == len(self.student.stops), "a student with its own stops is drawn in as many steps"
        cond = None
        if self.student.scales is not None:
            cond = Condition(vector=labels(self.oracle, n, generator(seed + 2)), scale=torch.ones(n))
        x = prior(self.denoiser, (n, self.oracle.means.shape[1]), generator(seed))
        return sample(CATALOG[self.student.sampler](), self.denoiser, x, grid, cond, generator(seed + 1))


def train(
    method: str,
    oracle: GaussianMixture,
    first: NeuralDenoiser | None = None,
    steps: int = 1500,
    seed: int = 0,
    batch: int = 256,
    numbers: Distillation | None = None,
    rate: float = 1e-3,
    width: int = WIDTH,
    alone: bool = False,
    target: Target | None = None,
) -> Trained:
    """Run all stages of a method with the oracle as the teacher, in memory.

    Args:
        first: whose weights students start from; None starts from random ones.
        alone: train without a teacher.
        target: of the students' networks, Karras' by default.
    """
    sd, d = deviation(oracle), oracle.means.shape[1]
    guided = "largest_guidance" in METHODS[method].reads
    classes = int(oracle.classes.max()) + 1 if guided else None
    start = Start(SCHEDULE, sd, 1, guided, numbers or Distillation(pairs=4096))
    stages = METHODS[method].stages(start)
    teacher: Denoiser | None = None if alone else oracle
    total = sum(stage.share for stage in stages)
    for number, stage in enumerate(stages):
        student = stage.student(start)
        torch.manual_seed(seed + 100)
        settings = {"sigma_data": sd}
        denoiser = build.few_step(
            student, network(d, student, width, classes), SCHEDULE, target or Karras(sd), settings
        )
        if first is not None:
            begin(denoiser, first)
        count = max(1, round(steps * stage.share / total))
        setting = Setting(denoiser, teacher, start, count, Drop())
        run(stage, setting, oracle, count, seed + 1000 * number, batch, rate)
        teacher, first = denoiser.eval(), denoiser
    return Trained(denoiser, student, oracle, sd)


def run(
    stage: Stage, setting: Setting, oracle: GaussianMixture, steps: int, seed: int, batch: int, rate: float
) -> Task:
    """A plain loop over a task: Adam with a falling rate, and an average of the weights at the end."""
    task = stage.task(setting)
    data, draws = None, generator(seed + 5)
    if stage.pairs:
        from osmotic.distill.pairs import make

        data = make(setting.taught, (oracle.means.shape[1],), setting.start, setting.start.numbers.pairs, seed=seed)
    # Lists: walking over modules at every step costs a tenth of it.
    parts = {name: list(module.parameters()) for name, module in task.players.items()}
    optimizers = {
        name: torch.optim.Adam(part, lr=rate * task.tuning(name).rate, betas=task.tuning(name).betas, fused=True)
        for name, part in parts.items()
    }
    weights = [p.detach() for p in setting.student.parameters()]
    average = [p.clone() for p in weights]
    torch.manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(data), (batch,), generator=draws) if data is not None else None
        cond = Condition(vector=labels(oracle, batch, draws)) if setting.start.told else None
        x0 = oracle.sample(batch, draws, cond) if data is None else data[rows]
        noise = Noise(seed, step, batch, 0, batch, CPU)
        rows = np.arange(batch)
        falling = 0.5 * (1 + math.cos(math.pi * step / steps))
        for name, part in parts.items():
            if not task.active(name, step):
                continue
            for other, theirs in parts.items() if len(parts) > 1 else ():
                for parameter in theirs:
                    parameter.requires_grad_(other == name)
            for group in optimizers[name].param_groups:
                group["lr"] = rate * task.tuning(name).rate * max(falling, 1e-3)
            losses = task.loss(name, Batch(x0, cond, rows, rows, step, noise), task.players)
            assert losses.shape == (batch,)
            optimizers[name].zero_grad()
            losses.mean().backward()
            torch.nn.utils.clip_grad_norm_(part, 1.0)
            optimizers[name].step()
            task.update(name, noise, losses.detach().double())
        beta = min(0.99, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, weights, 1 - beta)
    torch._foreach_copy_(weights, average)
    return task
