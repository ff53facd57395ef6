"""The adversarial term of an autoencoder: hinge losses of two players, balanced at the decoder's last layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

STILL = 1e-6
"""Added to the norm of the adversary's gradient (Esser et al. 2021)."""

MOST = 1e4
"""Of the adaptive weight."""


def hinge_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """``mean max(0, 1 - real) + mean max(0, 1 + made)`` ``(B,)``: a patch that is told by a margin counts no more.

    Lim & Ye 2017 (arXiv 1705.02894).

    Args:
        real: logits of data, ``(B, *P)``; the discriminator raises them.
        made: logits of reconstructions without gradient, likewise; the discriminator lowers them.
    """
    return per_sample(F.relu(1 - real)) + per_sample(F.relu(1 + made))


def hinge_generator(made: Tensor) -> Tensor:
    """``-mean made`` ``(B,)``: the autoencoder raises the logits ``(B, *P)`` of its reconstructions."""
    return -per_sample(made)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """``|grad reconstruction| / (|grad adversarial| + 1e-6)`` at the last layer, within [0, 1e4], without gradient.

    With it the two terms pull equally hard at what makes the pixels, whatever the discriminator's scale (Esser et al.
    2021, arXiv 2012.09841, eq. 7). It is one number for the pass it is computed in.

    Args:
        reconstruction: losses ``(B,)``, all that pulls besides the adversary.
        adversarial: losses ``(B,)`` of the generator.
        last: the weight of the decoder's last layer, on which both depend.

    Returns:
        0-dimensional; the graph is kept for the backward pass.
    """
    pulls = [
        torch.autograd.grad(loss.mean(), last, retain_graph=True)[0].float().norm()
        for loss in (reconstruction, adversarial)
    ]
    weight: Tensor = (pulls[0] / (pulls[1] + STILL)).clamp(0, MOST)
    return weight


@dataclass(frozen=True)
class Adversarial:
    """The autoencoder's adversarial term: ``weight adaptive_weight hinge_generator``, from a step on.

    An adversary that begins with the autoencoder judges noise; it waits until there are pictures (Esser et al. 2021).

    Args:
        weight: beside the adaptive one, at least 0; 0.75 by default.
        start: the first optimizer step, from 0, in which it counts.

    Raises:
        ValueError: for a negative weight or start.
    """

    weight: float = 0.75
    start: int = 0

    def __post_init__(self) -> None:
        if self.weight < 0 or self.start < 0:
            raise ValueError(
                f"An adversarial term has a weight and a first step of at least 0, found {self.weight:g} and "
                f"{self.start}."
            )

    def active(self, step: int) -> bool:
        """Whether the term counts in this step; before, neither it nor its player need be computed."""
        return self.weight > 0 and step >= self.start

    def __call__(self, step: int, reconstruction: Tensor, made: Tensor, last: Tensor) -> Tensor:
        """The term ``(B,)``; exactly 0 where it is not active.

        Args:
            step: the optimizer step, from 0.
            reconstruction: losses ``(B,)``, all that pulls besides the adversary.
            made: logits ``(B, *P)`` of the reconstructions, with gradients to them.
            last: the weight of the decoder's last layer.
        """
        if not self.active(step):
            return torch.zeros_like(reconstruction)
        loss = hinge_generator(made)
        return loss * (self.weight * adaptive_weight(reconstruction, loss, last))


def per_sample(logits: Tensor) -> Tensor:
    """The mean over patches: ``(B, *P)`` to ``(B,)``."""
    return logits.reshape(len(logits), -1).mean(1)
