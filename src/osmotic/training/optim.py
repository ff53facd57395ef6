"""The optimizer and its learning rate, counted in optimizer steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW

from osmotic.training.options import Options


@dataclass(frozen=True)
class Tuning:
    """How one player's optimizer differs from the run's: adversaries want other rates and no momentum.

    Args:
        rate: multiplies the run's learning rate, positive.
        betas: AdamW's.
    """

    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)


PLAIN = Tuning()


def learning_rate(options: Options, step: int) -> float:
    """The rate of step ``0 <= step < options.steps``.

    Linear up to the peak over ``warmup`` steps, then ``floor + (1 - floor) (1 + cos(pi r)) / 2`` of the peak with r
    from 0 towards 1 over the remaining steps (Loshchilov & Hutter 2017, arXiv 1608.03983).
    """
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    share = (step - options.warmup) / max(options.steps - options.warmup, 1)
    cosine = (1 + math.cos(math.pi * share)) / 2
    return options.learning_rate * (options.floor + (1 - options.floor) * cosine)


def optimizer(module: nn.Module, options: Options, tuning: Tuning = PLAIN) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in one fused kernel; only matrices and kernels decay."""
    weights = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(
        [g for g in groups if g["params"]], lr=options.learning_rate * tuning.rate, betas=tuning.betas, fused=True
    )
