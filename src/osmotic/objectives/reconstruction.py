"""How far a reconstruction is from what it reconstructs, per sample: by elements, or as a network sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NOTHING = 1e-10
"""Added to squared lengths of features: a position where all are 0 has no direction."""


def absolute(made: Tensor, x: Tensor) -> Tensor:
    """``mean |made - x|`` ``(B,)`` of ``(B, *S)``: L1."""
    loss: Tensor = (made - x).abs().flatten(1).mean(1)
    return loss


def pseudo_huber(made: Tensor, x: Tensor, c: float = 0.05) -> Tensor:
    """``mean(sqrt((made - x)^2 + c^2) - c)`` ``(B,)``: by elements a square below c and a distance above.

    Charbonnier et al. 1997 (IEEE Transactions on Image Processing 6). L1 as c becomes 0, half the square over c as it
    grows.

    Args:
        made: ``(B, *S)``.
        x: likewise.
        c: in the data's units, positive.

    Raises:
        ValueError: for c that is not positive.
    """
    if not c > 0:
        raise ValueError(f"The pseudo-Huber loss bends at a positive c, found {c:g}; use absolute for c = 0.")
    square = (made - x).square()
    # sqrt(square + c^2) - c without the difference of two near numbers.
    loss: Tensor = (square / ((square + c**2).sqrt() + c)).flatten(1).mean(1)
    return loss


def perceptual(features: Callable[[Tensor], Sequence[Tensor]], made: Tensor, x: Tensor) -> Tensor:
    """``sum_l mean_positions |u_l(made) - u_l(x)|^2`` ``(B,)``, with u_l the features of layer l at unit length.

    LPIPS without learned weights of channels (Zhang et al. 2018, arXiv 1801.03924). Directions at each position, not
    sizes, are compared, so layers count the same: each is between 0 and 4.

    Args:
        features: a batch to features ``(B, C, *P)`` of one or more layers; any module, best one that is frozen.
        made: ``(B, *S)``; gradients reach it through the features.
        x: likewise; no gradient.

    Raises:
        ValueError: for features that are none, or have no channels beside the batch.
    """
    with torch.no_grad():
        wanted = features(x)
    found = features(made)
    if isinstance(found, Tensor) or not len(found):
        raise ValueError("Perceptual features are a list of tensors, one a layer; wrap a single one in a list.")
    loss = made.new_zeros(len(made))
    for here, there in zip(found, wanted, strict=True):
        if here.dim() < 2 or len(here) != len(made):
            raise ValueError(f"Perceptual features are (B, C, ...), found {tuple(here.shape)}.")
        loss = loss + (_unit(here) - _unit(there)).square().sum(1).reshape(len(made), -1).mean(1)
    return loss


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + NOTHING).sqrt()
