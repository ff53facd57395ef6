"""What the tests of prompts share: networks that read token ids, and two texts for them."""

from __future__ import annotations

import torch
from nn_family import CLASSES, FAMILY, Member, settled
from torch import Tensor

from osmotic import schedules, times
from osmotic.condition import Condition
from osmotic.denoiser import Denoiser, NeuralDenoiser
from osmotic.estimate import V
from osmotic.flow_map import FlowMap
from osmotic.nn import Embedding
from osmotic.prompts import Edit, Text

LENGTH, B = 5, 3
GRIDS = [m for m in FAMILY if m.name in ("unet-37", "unet-7x13", "unet-5x6x7", "dit-37", "dit-7x13", "dit-3x4x5")]
SMALL = next(m for m in FAMILY if m.name == "unet-8")
SOURCE, SWAP, MORE = [3, 4, 5], [3, 6, 5], [3, 7, 4, 5]


def text(ids: list[int], length: int = LENGTH) -> Text:
    return Text([(str(i), 1) for i in ids], torch.tensor(ids + [0] * (length - len(ids))))


def told(ids: list[int], count: int = 1, length: int = LENGTH) -> Condition:
    """A text for some samples, with classes that differ."""
    tokens = text(ids, length).tokens.expand(count, -1)
    mask = torch.arange(length).expand(count, -1) < len(ids)
    return Condition(vector=torch.arange(count) % CLASSES, tokens=tokens, mask=mask)


def edit(source: list[int], target: list[int], length: int = LENGTH, **scales: float) -> Edit:
    return Edit.of(text(source, length), text(target, length), {k.removeprefix("w"): v for k, v in scales.items()})


def denoiser(member: Member = SMALL, aims: bool = False, path: str = "vp") -> Denoiser:
    """A network in float64 as after some training, whose texts matter."""
    net = settled(member, Embedding(20, classes=CLASSES, vocabulary=9, reader=1, aims=aims)).double()
    kind = FlowMap if aims else NeuralDenoiser
    return kind(net, schedules.CATALOG[path](), V()).eval()


def noise(member: Member = SMALL, seed: int = 0) -> Tensor:
    return torch.randn(B, *member.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(schedule: schedules.Schedule, steps: int = 4) -> Tensor:
    return times.Span()(schedule, steps, 0.9)  # from where four steps are stable for every solver
