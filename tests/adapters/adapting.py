"""What the tests of adapters share: networks with all ports but the image's, and adapters that learned something."""

from __future__ import annotations

from dataclasses import replace

import torch
from nn_family import CLASSES, FAMILY, FEATURES, Member, condition, settled
from torch import nn

from osmotic.condition import Condition
from osmotic.nn import Embedding


def pick(*names: str) -> list[Member]:
    return [member for member in FAMILY if member.name in names]


NETWORKS = pick("unet-37", "unet-7x13", "unet-5x6x7", "dit-37", "dit-7x13", "dit-3x4x5", "mlp-2", "mlp-3x9")
GRIDS = [member for member in NETWORKS if not member.name.startswith("mlp")]


def base(member: Member, seed: int = 0, width: int = 20) -> nn.Module:
    """A network as after some training."""
    return settled(member, Embedding(width, classes=CLASSES, token_features=FEATURES), seed)


def told(member: Member) -> Condition:
    """A condition for such a network."""
    return replace(condition(member), image=None)


def stir(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with normal weights, as if it had learned something; only what requires gradients."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) * max(p[0].numel(), 1) ** -0.5)
    return module


def bits(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all its tensors."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether names, order and bits agree."""
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)
