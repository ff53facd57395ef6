"""Learning the reverse variance: L_simple teaches the mean, the bound the variance."""

from __future__ import annotations

from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.objectives.bound import nats
from osmotic.objectives.decoders import Decoder
from osmotic.objectives.denoising import error, gap, squared
from osmotic.objectives.weights import Weight


def hybrid(
    denoiser: Denoiser,
    x0: Tensor,
    times: Tensor,
    index: Tensor,
    eps: Tensor,
    decoder: Decoder,
    cond: object = None,
    weight: Weight | None = None,
    scale: float = 1e-3,
) -> Tensor:
    """``L_simple + scale n L_{t-1} / d`` with no gradient to the mean in the second term, from one evaluation.

    ``L_hybrid = L_simple + 0.001 L_vlb`` of Nichol & Dhariwal 2021 (arXiv 2102.09672, eq. 16): the bound's nats per
    dimension, estimated by one of its n steps, teach the learned variance alone. At an index that is uniform over the
    steps the second term is unbiased for ``scale`` times the sum of the bound's steps.

    Args:
        denoiser: a model whose estimates have a learned variance.
        x0: clean samples, ``(B, *S)``.
        times: the grid, ``(n + 1,)``, decreasing to 0.
        index: of each sample's step, ``(B,)`` int64 on the CPU.
        eps: unit noise, ``(B, *S)``.
        decoder: of the last step.
        cond: handed to the denoiser.
        weight: of each time in the first term; Unit by default.
        scale: of the bound, 0.001 in the paper.

    Returns:
        Losses ``(B,)``.

    Raises:
        ValueError: if the denoiser has no learned variance.
    """
    t = times[index]
    estimate, wrong = error(denoiser, x0, t, eps, cond)
    if estimate.v is None:
        raise ValueError("The hybrid loss teaches a variance; give a NeuralDenoiser made with learned_variance=True.")
    known = gap(denoiser, wrong.detach(), t)
    step = nats(denoiser.schedule, x0, known, times, index, decoder, estimate.v)
    return squared(denoiser, wrong, t, weight) + scale * (len(times) - 1) / x0[0].numel() * step
