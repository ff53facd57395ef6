"""The family that the property tests run over: every network, in every dimension, with every port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.nn import MLP, DiT, Embedding, UNet

CHANNELS, CLASSES, FEATURES, PICTURE, LENGTH, BATCH = 3, 5, 6, 2, 4, 3


@dataclass(frozen=True)
class Member:
    name: str
    shape: tuple[int, ...]
    build: Callable[[Embedding], nn.Module]

    def __str__(self) -> str:
        return self.name


def _unet(*size: int) -> Member:
    shape = (CHANNELS, *size)

    def build(embedding: Embedding) -> nn.Module:
        return UNet(CHANNELS, (8, 12), len(size), attention={1}, head_width=4, embedding=embedding)

    return Member(f"unet-{'x'.join(map(str, size))}", shape, build)


def _dit(*size: int) -> Member:
    shape = (CHANNELS, *size)

    def build(embedding: Embedding) -> nn.Module:
        return DiT(CHANNELS, (2,) * len(size), width=24, depth=2, head_width=12, embedding=embedding)

    return Member(f"dit-{'x'.join(map(str, size))}", shape, build)


def _mlp(*shape: int) -> Member:
    return Member(f"mlp-{'x'.join(map(str, shape))}", shape, lambda e: MLP(shape, (16, 24), embedding=e))


# Sizes that do not divide evenly, are not square, or are a single position.
FAMILY = [
    *(_unet(*size) for size in [(37,), (8,), (1,), (7, 13), (8, 8), (5, 6, 7)]),
    *(_dit(*size) for size in [(37,), (8,), (7, 13), (8, 8), (3, 4, 5)]),
    *(_mlp(*shape) for shape in [(2,), (CHANNELS, 9), (CHANNELS, 3, 5)]),
]
SPATIAL = [member for member in FAMILY if len(member.shape) > 1 and max(member.shape[1:]) > 1]


def full_embedding(width: int = 20) -> Embedding:
    return Embedding(width, classes=CLASSES, token_features=FEATURES, image_channels=PICTURE)


def network(member: Member, embedding: Embedding | None = None, seed: int = 0) -> nn.Module:
    """A member of the family as it is initialised."""
    torch.manual_seed(seed)
    return member.build(full_embedding() if embedding is None else embedding)


def settled(member: Member, embedding: Embedding | None = None, seed: int = 0) -> nn.Module:
    """The same with no weight at zero, as after some training, so that everything acts on the output."""
    net = network(member, embedding, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in net.parameters():
            scale = 0.3 if p.dim() == 1 else p[0].numel() ** -0.5
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return net.eval()


def inputs(member: Member, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, *member.shape, generator=generator)
    return x, torch.rand(batch, generator=generator) * 1000


def condition(member: Member, batch: int = BATCH, seed: int = 0) -> Condition:
    """A condition in all ports but ``valid``; every text has a real token."""
    generator = torch.Generator().manual_seed(100 + seed)
    mask = torch.rand(batch, LENGTH, generator=generator) > 0.4
    mask[:, 0] = True
    return Condition(
        vector=torch.randint(CLASSES, (batch,), generator=generator),
        tokens=torch.randn(batch, LENGTH, FEATURES, generator=generator),
        mask=mask,
        image=torch.randn(batch, PICTURE, *member.shape[1:], generator=generator),
    )


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the size of the second."""
    return float(((a - b).abs().max() / b.abs().max()).detach())
