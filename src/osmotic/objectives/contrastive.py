"""The contrastive loss of two encoders: each sample finds its text among the others, and each text its sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(pictures: Tensor, texts: Tensor, scale: Tensor | float, same: Tensor | None = None) -> Tensor:
    """``-1/2 [log softmax_j(s <p_i, t_j>) + log softmax_j(s <t_i, p_j>)]`` at ``j = i``: symmetric InfoNCE.

    Of N pairs, equal within a pair and orthonormal between pairs, it is ``log(1 + (N - 1) e^-s)``, and log N where all
    are alike. The mutual information of a sample and its text is at least log N minus its mean (van den Oord et al.
    2018, arXiv 1807.03748); symmetric with a learned scale: Radford et al. 2021 (arXiv 2103.00020).

    Args:
        pictures: ``(B, D)`` of unit norm.
        texts: of the same pairs, likewise.
        scale: s, one over the temperature, positive.
        same: ``(B, B)`` bool, True for pairs i, j that are no negatives of each other, such as two of one text; the
            diagonal is not read.

    Returns:
        ``(B,)`` nats; it depends on the whole batch, which must be that of the step.

    Raises:
        ValueError: for embeddings of different shapes.
    """
    if pictures.shape != texts.shape or pictures.ndim != 2:
        raise ValueError(
            f"Pairs have two embeddings of one width: found {tuple(pictures.shape)} and {tuple(texts.shape)}."
        )
    logits = scale * (pictures @ texts.T)
    own = torch.arange(len(logits), device=logits.device)
    if same is not None:
        alike = (same | same.T).fill_diagonal_(False)
        logits = logits.masked_fill(alike, -torch.inf)
    return (F.cross_entropy(logits, own, reduction="none") + F.cross_entropy(logits.T, own, reduction="none")) / 2
