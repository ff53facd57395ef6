"""Classifier guidance: the gradient of a noise-aware classifier leads the denoiser to a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance, refuse_matrices
from osmotic.guidance.energy import tilted
from osmotic.levels import Level
from osmotic.schedules import Number


class Classifier(Guidance):
    """``score + scale grad_x log p(c | x_t)`` (Dhariwal & Nichol 2021, arXiv 2105.05233).

    ``x0 += scale sigma^2 / alpha G`` and ``eps -= scale sigma G``, G the gradient for the class that the condition
    names. Around an unconditional denoiser, with the exact classifier, scale 1 is the conditional; a conditional one is
    told its class too, and led further (``ClassifierFree(denoiser, 0)`` hides it). Samples whose condition is hidden
    are not led. At alpha = 0 nothing is changed, as for :class:`~osmotic.guidance.Energy`.

    Args:
        denoiser: any, guided or not.
        classifier: ``classifier(x, t) -> logits (B, K)`` of noisy samples ``(B, *S)`` and their times ``(B,)`` in x's
            dtype; trained on them. A module becomes a part of this one.
        scale: one for all or one per sample ``(B,)``; 0 is the plain denoiser.

    Raises:
        TypeError: when called with a condition that holds no class labels.
        ValueError: on paths of matrices, and when called with a time s.
    """

    def __init__(self, denoiser: Denoiser, classifier: Callable[[Tensor, Tensor], Tensor], scale: Number = 1.0) -> None:
        super().__init__()
        refuse_matrices(denoiser, "Classifier")
        self.denoiser, self.classifier, self.scale = denoiser, classifier, scale
        self.around(denoiser)

    @property
    def plain(self) -> Denoiser:
        return self.denoiser

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        plain: Estimate = self.denoiser(x, t, cond, s)
        if cond is None:
            return plain, plain
        labels, keep = _labels(cond)

        def log_weight(y: Tensor, time: Tensor) -> Tensor:
            of_classes = torch.log_softmax(self.classifier(y, time), dim=1)
            found = of_classes.gather(1, labels[:, None])[:, 0]
            return found if keep is None else torch.where(keep, found, 0.0)

        return plain, tilted(self, plain, log_weight, self.scale, x, t, s)


def _labels(cond: object) -> tuple[Tensor, Tensor | None]:
    """The class of each sample, and which samples show it; None for all."""
    vector = cond.vector if isinstance(cond, Condition) else None
    if not isinstance(cond, Condition) or vector is None or vector.ndim != 1 or vector.is_floating_point():
        raise TypeError(
            "Classifier guidance leads to a class, Condition(vector=labels) with labels (B,) int64; got "
            f"{'a condition without labels' if isinstance(cond, Condition) else type(cond).__name__}."
        )
    keep = cond.keep
    return vector, keep if keep is None or keep.ndim == 1 else keep[:, 0]
