"""Vector quantisation: latents that are entries of a codebook, which follows the data by moving averages."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from osmotic.nn.bottleneck import Bottleneck

ROOM = 1 << 24
"""Distances that are worked on at once: 64 MB of float32."""

DEAD = 0.03
"""A code is dead where it is met less often than this share of the average code."""


class Quantised(NamedTuple):
    """What a codebook made of a batch.

    Args:
        h: what the encoder gave, ``(B, C, *P)``.
        nearest: the nearest vectors, likewise, without gradient.
        indices: which they are, ``(B, *P)`` int64.
    """

    h: Tensor
    nearest: Tensor
    indices: Tensor

    def drawn(self, eps: Tensor | None = None) -> Tensor:
        """The nearest vectors to the bit, with the gradient of h: the straight-through estimator. eps is not used."""
        return self.nearest + (self.h - self.h.detach())

    def latent(self, eps: Tensor | None = None) -> Tensor:
        """h itself, which has a density; decoding snaps it, as in Rombach et al. 2022 (arXiv 2112.10752)."""
        return self.h


class Health(NamedTuple):
    """How a codebook is used.

    Args:
        perplexity: ``exp(-sum p log p)`` of the shares p of the codes: how many equally frequent codes are worth as
            much, from 1 to K; 0-dimensional.
        used: the share of codes that were met at all, in [0, 1]; 0-dimensional.
    """

    perplexity: Tensor
    used: Tensor


class Codebook(Bottleneck):
    """Each latent vector becomes the nearest of K: ``z = e_k``, ``k = argmin_j |h - e_j|`` (VQ autoencoders).

    The vectors are means of what they stand for, by moving averages, ``n_k <- d n_k + (1 - d) count_k``,
    ``m_k <- d m_k + (1 - d) sum_k h``, ``e_k = m_k / n_k`` (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1).
    That is k-means as it goes, whatever the encoder's learning rate, and n_k tells which codes are dead: a codebook
    trained by its gradient needs a rate of its own and the same counts beside it. Codes that are dead begin again at
    vectors of the data (Dhariwal et al. 2020, arXiv 2005.00341, section 3.1); all are at first, so the codebook begins
    there.

    Nothing changes while it is called. After a step, ``codebook.learn(codebook.seen(law), codebook.candidates(law.h,
    generator))``; with several processes the first argument is summed over them, the second is one of theirs.

    Args:
        size: K.
        channels: C of the latents.
        decay: d, in [0, 1).

    Raises:
        ValueError: for arguments out of range, and for latents of other channels.
    """

    outputs = 1
    counts: Tensor

    def __init__(self, size: int, channels: int, decay: float = 0.99) -> None:
        super().__init__()
        if size < 1 or channels < 1 or not 0 <= decay < 1:
            raise ValueError(
                f"A codebook needs entries, channels and a decay in [0, 1), found {size}, {channels} and {decay:g}."
            )
        self.decay = decay
        # Random until the first step is learned from, for a decoder that reads zeros has no gradient worth the name. A
        # parameter without gradients: averages of weights take it in, for averaged encoders need averaged codes.
        self.vectors = nn.Parameter(torch.randn(size, channels), requires_grad=False)
        self.register_buffer("counts", torch.zeros(size))

    def forward(self, h: Tensor) -> Quantised:
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        indices = self.indices(h)
        return Quantised(h, self.look_up(indices), indices)

    def snap(self, z: Tensor) -> Tensor:
        return self(z).drawn()  # type: ignore[no-any-return]

    @torch.no_grad()
    def indices(self, h: Tensor) -> Tensor:
        """The nearest codes ``(B, *P)`` of ``(B, C, *P)``, the first of equals."""
        if h.shape[1:2] != self.vectors.shape[1:]:
            raise ValueError(f"This codebook has vectors of {self.vectors.shape[1]} channels, found {tuple(h.shape)}.")
        vectors = self.vectors.to(h.dtype)
        with torch.autocast(h.device.type, enabled=False):
            half = vectors.square().sum(1) / 2
            found = [
                torch.addmm(half, part, vectors.T, alpha=-1).argmin(1)
                for part in torch.split(rows(h), max(1, ROOM // len(vectors)))
            ]
        return torch.cat(found).view(len(h), *h.shape[2:])

    def look_up(self, indices: Tensor) -> Tensor:
        """The vectors ``(B, C, *P)`` of codes ``(B, *P)``."""
        return self.vectors[indices].movedim(-1, 1)

    def count(self, indices: Tensor) -> Tensor:
        """How often each code is met, ``(K,)`` int64; sums over batches are what :func:`health` reads."""
        return torch.bincount(indices.flatten(), minlength=len(self.vectors))

    @torch.no_grad()
    def seen(self, law: Quantised) -> Tensor:
        """What the codebook learns from: how often each code was met, and the sum of what it stood for, ``(K, 1 + C)``.

        Sums over passes and processes are what one large batch gives.
        """
        h = rows(law.h.detach()).to(self.vectors.dtype)
        sums = torch.zeros_like(self.vectors).index_add_(0, law.indices.flatten(), h)
        return torch.cat([self.count(law.indices)[:, None].to(h.dtype), sums], dim=1)

    @torch.no_grad()
    def candidates(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """Vectors of the data for codes to begin at, ``(K, C)``, each taken once where there are enough.

        Args:
            h: ``(B, C, *P)``.
            generator: of the choice, on the CPU.
        """
        flat = rows(h.detach())
        return flat[self.chosen(len(flat), generator).to(flat.device)].to(self.vectors.dtype)

    def chosen(self, count: int, generator: torch.Generator) -> Tensor:
        """Which of so many vectors codes may begin at, ``(K,)`` int64, each once where there are enough."""
        size = len(self.vectors)
        if count >= size:
            return torch.randperm(count, generator=generator)[:size]
        return torch.randint(count, (size,), generator=generator)

    @torch.no_grad()
    def learn(self, seen: Tensor, candidates: Tensor) -> Tensor:
        """Move the averages by what was seen, and begin dead codes again.

        A code is dead where its count is below ``DEAD`` times the average count of a batch. It gets that average, so
        that it has ``log(DEAD) / log(decay)`` steps to be met.

        Args:
            seen: ``(K, 1 + C)`` of the whole batch, from :meth:`seen`.
            candidates: ``(K, C)``, from :meth:`candidates`.

        Returns:
            How many codes had died, 0-dimensional int64.
        """
        number, sums = seen[:, 0], seen[:, 1:]
        total = self.vectors * self.counts[:, None]
        counts = torch.lerp(number, self.counts, self.decay)
        means = torch.lerp(sums, total, self.decay) / counts.clamp(min=torch.finfo(counts.dtype).tiny)[:, None]
        dead = counts < DEAD * number.mean()
        first = self.counts.sum() == 0
        died, dead = (dead & ~first).sum(), dead | first
        self.vectors.copy_(torch.where(dead[:, None], candidates, means))
        self.counts.copy_(torch.where(dead, number.mean(), counts))
        return died


def health(counts: Tensor) -> Health:
    """Perplexity and share of used codes, from how often each was met, ``(K,)``, in any unit."""
    share = counts.double() / counts.sum()
    return Health(torch.special.entr(share).sum().exp(), (counts > 0).double().mean())


def rows(h: Tensor) -> Tensor:
    """``(B, C, *P)`` as ``(N, C)``, a row for each position."""
    return h.movedim(1, -1).reshape(-1, h.shape[1])
