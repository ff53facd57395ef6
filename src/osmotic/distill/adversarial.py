"""The adversary of methods that have one: losses, the gradient penalty, and a discriminator that fits a student."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from osmotic.distill.base import Setting
from osmotic.nn import MLP, Discriminator, DiT, UNet
from osmotic.training.optim import Tuning

PENALTY, EVERY = 0.3, 4
"""R1's weight for samples of unit variance, and how rarely it is computed: it costs a second backward pass, and the
penalised slope changes slowly (Karras et al. 2020, arXiv 1912.04958, section 3.1). With 0.05 every 8 steps a mode of
mass 0.3 in 16 dimensions drifted to 0.23 to 0.25, with these it stays."""

TUNING = Tuning(betas=(0.0, 0.9))
"""Of an adversary's optimizer: a memory of gradients lags behind an opponent that moves, and makes both circle."""

WIDEST, COARSEST = 64, 4
"""Channels of a discriminator's finest level at most, and the side at which it stops halving."""

SEED = 0
"""Of a discriminator's first weights: it is thrown away after training, so they need not follow the run's seed."""


def generator_loss(fake: Tensor) -> Tensor:
    """``-log D(fake)`` ``(B,)`` from logits: the non-saturating loss (Goodfellow et al. 2014, arXiv 1406.2661)."""
    return F.softplus(-fake)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """``-log D(real) - log(1 - D(fake))`` ``(B,)`` from logits; ``2 log 2`` where it cannot tell them apart."""
    return F.softplus(-real) + F.softplus(fake)


def penalty(logits: Tensor, x: Tensor) -> Tensor:
    """R1, ``|d logit / d x|^2 / 2`` ``(B,)`` at real samples x, differentiable once more (Mescheder et al. 2018, arXiv
    1801.04406).

    Args:
        logits: ``(B,)``, computed from x.
        x: ``(B, *S)``, requiring gradients.
    """
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1) / 2


def lazily(step: int) -> float:
    """The weight of :func:`penalty` in this step: ``EVERY`` times as much in every so many-th step, else 0."""
    return PENALTY * EVERY if step % EVERY == 0 else 0.0


def discriminator_of(setting: Setting, channels: int = 1) -> Discriminator:
    """A discriminator for the data of a student, about as wide as its network, told the same times and conditions.

    Args:
        setting: the student, and over how many positions its data spread.
        channels: of what is judged, as a multiple of the data's: 2 for pairs of samples.

    Raises:
        ValueError: for a network of a kind whose data it cannot know.
    """
    network, start = setting.student.network, setting.start
    if isinstance(network, MLP):
        count, ndim, width = network.shape[0], len(network.shape) - 1, network.stem.out_features
    elif isinstance(network, UNet):
        count, ndim, width = network.channels, network.ndim, network.norm.weight.shape[0]
    elif isinstance(network, DiT):
        count, ndim, width = network.channels, len(network.patch), network.width
    else:
        raise ValueError(
            f"A discriminator is made for a student that is an MLP, a UNet or a DiT, and this one is a "
            f"{type(network).__name__}; give one of those, or use a method without an adversary."
        )
    if ndim == 0:
        widths = (width,) * 3
    else:
        base, side = min(width, WIDEST), start.positions ** (1 / ndim)
        levels = 1 + max(0, round(math.log2(side / COARSEST)))
        widths = tuple(base * min(2**level, 4) for level in range(levels))
    # What the student is told, the adversary is told too; where it aims, under which scale and draw, is its own affair.
    told = copy.deepcopy(network.embedding).requires_grad_(True)
    told.aim = told.scale = told.latent = None
    with torch.random.fork_rng([]):
        torch.manual_seed(SEED)
        return Discriminator(channels * count, widths, ndim, told)
