"""A latent denoiser as one of the data: what is known in data space, gaps and measurements, reaches it unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.codecs.base import Affine, Codec
from osmotic.codecs.composed import Composed
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.levels import Level, as_time
from osmotic.schedules import Number


class Decoded(Denoiser):
    """The denoiser of ``x = decode(z)`` given one of z, for an orthonormal codec ``z = A (x - shift)``.

    ``z_t = A (x_t - alpha shift)``, then ``x0 = shift + A' z0`` and ``eps = A' eps_z``: a rotation keeps white noise
    white, so this is the exact denoiser of the decoded data on the same path, and a flow map where the latent's is one.
    A learned variance belongs to the latents' own axes and is not carried over.

    Args:
        denoiser: of latents, guided or not.
        codec: a rotation, such as Haar, DCT, PCA of all components, or several composed.

    Raises:
        ValueError: for a codec that is none, or a path whose numbers are matrices.
    """

    def __init__(self, denoiser: Denoiser, codec: Codec) -> None:
        super().__init__()
        parts = codec.parts() if isinstance(codec, Composed) else [codec]
        turns = [part for part in parts if isinstance(part, Affine) and part.orthonormal]
        if len(turns) < len(parts):
            raise ValueError(
                f"Decoded needs a codec under which white noise stays white, and {type(codec).__name__} is no rotation "
                "of the whole space; sample the latents and decode them."
            )
        if denoiser.schedule.matrix_valued:
            raise ValueError(
                f"Decoded needs a path of two numbers, and on {type(denoiser.schedule).__name__} they are matrices; "
                "decode the denoiser of positions alone, and lift that."
            )
        self.denoiser, self.codec, self._turns = denoiser, codec, turns
        self.around(denoiser)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        t = as_time(t)
        self.codec.latent(tuple(x.shape[1:]))
        z = x
        for turn in self._turns:
            if turn.shift is not None:
                (scale,) = like(z, self.schedule.numbers(t)[0])
                z = z - scale * turn.shift.to(z)
            z = turn.analyse(z)
        estimate: Estimate = self.denoiser(z, t, cond, s)
        eps = estimate.eps
        for turn in reversed(self._turns):
            eps = turn.synthesise(eps)
        return Estimate(self.codec.decode(estimate.x0), eps)
