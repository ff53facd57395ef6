"""What a training run will cost, measured before it starts."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from osmotic.condition import Condition
from osmotic.data.errors import plural
from osmotic.data.spec import Spec
from osmotic.flow_map import FlowMap
from osmotic.nn import count, gradient_checkpointing
from osmotic.recipes.memory import free
from osmotic.training.autoencoding import AUTOENCODER, Autoencoding
from osmotic.training.build import CLASSIFIER, CONTRASTIVE
from osmotic.training.conditions import blank
from osmotic.training.feed import Samples, fetch
from osmotic.training.player import held
from osmotic.training.recipe import Process, Recipe, Student
from osmotic.training.task import Batch, Noise, Task

PROBE, ENTRIES = 32, 32 * 3 * 64 * 64
"""Samples in a trial pass, and their numbers in all: as many as 32 pictures of 64 pixels have, but one at least."""
QUICK = 0.5

NETWORKS = {CLASSIFIER: "convolutions and a mean", AUTOENCODER: "convolutions of patches"}
"""Of objectives that choose no network."""

WEIGHTED = ("denoising", "hybrid")
"""The objectives whose weight is chosen; the others have their own."""


@dataclass(frozen=True)
class Plan:
    """The size and price of a run.

    Args:
        parameters: trainable.
        flops: of one evaluation of one sample.
        seconds: of one optimizer step on this process.
        memory: bytes for weights, optimizer, averages and what one pass keeps for its gradient.
        least: the same under gradient checkpointing, with what recomputing the largest block takes.
    """

    parameters: int
    flops: int
    seconds: float
    memory: int
    least: int

    def lines(self, recipe: Recipe) -> list[str]:
        """The plan for a person."""
        options, process, architecture = recipe.options, recipe.process, recipe.architecture
        shape = f"widths {'-'.join(str(w) for w in architecture.widths)}" if architecture.widths else ""
        if architecture.network == "dit":
            shape = f"width {architecture.width}, depth {architecture.depth}"
        network = NETWORKS.get(process.objective) if architecture.network != "mlp" else "mlp"
        network = network or architecture.network
        total = duration(self.seconds * options.steps)
        return [
            f"network: {network}, {shape}, {self.parameters:,} parameters, {self.flops / 1e6:,.1f} MFLOP a sample",
            *aim(recipe),
            f"training: {plural(options.steps, 'step')} of {options.batch_size}, "
            f"learning rate {options.learning_rate:g}",
            f"memory: about {self._memory(options.gradient_checkpointing)} beside the data and the library",
            f"time: about {total} ({self.seconds * 1e3:.0f} ms a step) on this machine",
        ]

    def _memory(self, checkpointing: bool) -> str:
        if not checkpointing:
            return mebibytes(self.memory)
        return f"{mebibytes(self.least)} with gradient checkpointing ({mebibytes(self.memory)} without)"


def mebibytes(count: int) -> str:
    """Bytes in words: "1,234 MiB"."""
    return f"{count / 2**20:,.0f} MiB"


def told(
    task: Task, dataset: Samples, recipe: Recipe, spec: Spec, device: torch.device, tell: Callable[[str], None]
) -> Recipe:
    """Measure a run, tell its plan, and give the recipe, with gradient checkpointing where it would not fit without."""
    tell("measuring what a step costs")
    plan, room = measure(task, dataset, recipe, spec, device), free(device)
    options = recipe.options
    if room is not None and plan.memory > room and plan.least < plan.memory and not options.gradient_checkpointing:
        recipe = recipe.model_copy(update={"options": options.model_copy(update={"gradient_checkpointing": True})})
        plan = replace(plan, seconds=plan.seconds * 4 / 3)  # a step is three passes, and becomes four
        tell(f"gradient checkpointing is on, for a step takes {mebibytes(plan.memory)}, and {mebibytes(room)} are free")
    for line in plan.lines(recipe):
        tell(line)
    return recipe


def aim(recipe: Recipe) -> list[str]:
    """The lines of what is learned."""
    process, how = recipe.process, recipe.autoencoder
    if how is not None and process.objective == AUTOENCODER:
        return [f"objective: {autoencoding(how)}"]
    if how is not None:
        return [
            f"process: {process.schedule} path, {process.target} target, mixed with a normal's",
            f"objective: {process.objective}, a bound on the likelihood of data and of latents learned with it, "
            f"{plural(how.latent_channels or 0, 'channel')} of them",
        ]
    path = f"process: {process.schedule} path, {process.target} target, sigma_data {process.sigma_data}"
    return [
        *([] if process.objective == CONTRASTIVE else [path]),
        f"objective: {objective(process) if recipe.student is None else student(recipe.student)}",
    ]


def autoencoding(how: Autoencoding) -> str:
    """The latents of an autoencoder, and what its reconstructions are judged by."""
    channels = plural(how.latent_channels or 0, "latent channel")
    held = f"KL weight {how.kl_weight:g}" if how.bottleneck == "kl" else plural(how.codes, "code")
    sides = "" if how.halvings is None else f", sides halved {plural(how.halvings, 'time')}"
    weights = {"perceptual": how.perceptual, "adversarial": how.adversarial}
    more = "".join(f", {name} weight {weight:g}" for name, weight in weights.items() if weight)
    return f"{channels}{sides}, {held}, {how.reconstruction} error{more}"


def objective(process: Process) -> str:
    """The objective and what of the process it uses: the others have times or weights of their own."""
    if process.objective == CONTRASTIVE:
        return "contrastive, each picture among the captions of a step and each caption among its pictures"
    times = "every level of its own ladder equally often" if process.objective == "ncsn" else f"{process.law} times"
    weight = f", {process.weight} weight" if process.objective in WEIGHTED else ""
    coupling = "" if process.coupling == "independent" else f", noise coupled by {process.coupling}"
    return f"{process.objective}, {times}{weight}{coupling}"


def student(made: Student) -> str:
    """What a few-step model learns, and in how many steps it is drawn."""
    jumps = plural(made.steps if made.stops is None else len(made.stops), "step")
    return f"{made.method}: a {made.form.replace('-', ' ')} drawn by {made.sampler} in {jumps}"


def duration(seconds: float) -> str:
    """Seconds in words: "2 h 5 min", "3 min", "40 s"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{max(1, round(seconds))} s"


def measure(task: Task, dataset: Samples, recipe: Recipe, spec: Spec, device: torch.device) -> Plan:
    """Run a few passes on copies and scale them up; nothing of the task changes."""
    task = copy.deepcopy(task)
    name = next(iter(task.players))
    player, network = task.players[name].to(device), task.core(name)
    options = recipe.options
    whole = min(-(-options.batch_size // options.accumulate), len(dataset))
    probe = max(1, min(PROBE, whole, ENTRIES // math.prod(spec.shape)))
    few = -(-probe // 4)
    with torch.random.fork_rng([]):
        kept = []
        for forgetting in (False, True):
            for each in task.players.values():
                gradient_checkpointing(each, forgetting)
            kept.append(_kept(task, _batch(dataset, spec, few, device)))
        for each in task.players.values():
            gradient_checkpointing(each, options.gradient_checkpointing)
        seconds = _seconds(task, dataset, spec, probe, device)
        if seconds < QUICK:
            # Small passes are mostly overhead; where it costs nothing, a real one is timed.
            probe, seconds = whole, min(_seconds(task, dataset, spec, whole, device) for _ in range(3))
    parameters = count.parameters(player)
    (plain, largest), (outside, _) = kept
    # Weights, gradients and AdamW's two moments, and one copy per average, four bytes each, of every player.
    fixed = 4 * sum(count.parameters(each) for each in task.players.values()) * (4 + len(options.ema))
    memory, least = (fixed + round(n * whole / few) for n in (plain, outside + largest))
    seconds = seconds * options.batch_size / probe
    return Plan(parameters, _flops(network, player, recipe, spec), seconds, memory, least)


def _flops(network: nn.Module, player: nn.Module, recipe: Recipe, spec: Spec) -> int:
    """Of one evaluation of one sample."""
    if recipe.process.objective == AUTOENCODER:
        return count.called(network, torch.zeros(1, *spec.shape))
    known = None if recipe.process.objective == CLASSIFIER else _told(spec, recipe)
    return count.flops(network, spec.shape, known, aims=isinstance(player, FlowMap))


def _told(spec: Spec, recipe: Recipe) -> Condition | None:
    """One condition as the network is told it."""
    student, known = recipe.student, blank(spec, 1)
    scale = None if student is None or student.scales is None else torch.ones(1)
    latent = None if student is None or not student.latents else torch.zeros(1, student.latents)
    if scale is None and latent is None:
        return known
    return replace(known or Condition(), scale=scale, latent=latent)


def _kept(task: Task, batch: Batch) -> tuple[int, int]:
    """Bytes that the greediest player's turn keeps for its gradient, and that its greediest block does."""
    found = []
    for player in task.players:
        others = [p for name, each in task.players.items() if name != player for p in each.parameters()]
        with held([p for p in others if p.requires_grad]), ExitStack() as watching:
            seen = [watching.enter_context(count.watched(task.core(each))) for each in task.players]
            torch.autograd.backward(task.loss(player, batch, task.players).mean())
        found.append((sum(each.total for each in seen), max(each.largest for each in seen)))
    return max(found)


def _batch(dataset: Samples, spec: Spec, n: int, device: torch.device) -> Batch:
    """n samples, of the largest size where there are several."""
    slots = indices = np.arange(n)
    if (buckets := getattr(dataset, "buckets", None)) is not None:
        area = np.array([math.prod(size) for size in spec.sizes])[buckets]
        largest = np.flatnonzero(buckets == buckets[area.argmax()])
        indices = np.resize(largest, n)
    return fetch(dataset, indices, slots, Noise(0, 0, n, 0, n, device))


def _seconds(task: Task, dataset: Samples, spec: Spec, n: int, device: torch.device) -> float:
    """The time of one pass forward and back with n samples."""
    batch = _batch(dataset, spec, n, device)
    start = time.perf_counter()
    for player in task.players:
        torch.autograd.backward(task.loss(player, batch, task.players).mean())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
