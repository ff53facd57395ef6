"""The divergence of a field on samples of any shape: exactly, or by random probes that stay fixed for a solve."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from osmotic.noise import Generators, normal

Field = Callable[[Tensor], Tensor]

# Backward passes run side by side until they hold so many samples.
ROWS = 1024


def rademacher(z: Tensor) -> Tensor:
    """Plus or minus one by the sign of standard normal numbers: no variance from the Jacobian's diagonal."""
    return torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z))


def gaussian(z: Tensor) -> Tensor:
    """Standard normal numbers as they are: for a symmetric Jacobian J the estimate has variance ``2 |J|^2``, against
    ``2 sum_{i != j} J_ij^2`` of :func:`rademacher`.
    """
    return z


class Trace(ABC):
    """A divergence made ready for one solve on one batch: the same linear functional of the Jacobian at every call.

    Attributes:
        columns: how many estimates it gives per sample; their mean is the divergence.
    """

    columns: int

    @abstractmethod
    def __call__(self, pull: Field) -> Tensor:
        """``(B, columns)`` from the map of cotangents ``(K, B, *S)`` to their products with the Jacobian."""

    def of(self, field: Field, x: Tensor, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """``field(x)``, ``(B, *S)``, and its divergence, ``(B, columns)`` float64.

        Row i of the field may depend on row i of x alone. Works under ``no_grad`` and ``inference_mode``; any field
        will do that autograd can differentiate.

        Args:
            field: ``(B, *S)`` to the same.
            x: where, ``(B, *S)``.
            differentiable: keep the graph of both results, for a loss; else they are detached.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x = x if differentiable and x.requires_grad else x.detach().clone().requires_grad_()
            y = field(x)

            def product(v: Tensor, batched: bool) -> Tensor:
                (found,) = torch.autograd.grad(
                    y, x, v, retain_graph=True, create_graph=differentiable, is_grads_batched=batched, allow_unused=True
                )
                return torch.zeros_like(v) if found is None else found

            def pull(v: Tensor) -> Tensor:
                if not differentiable:
                    return product(v, True)
                # Side by side, convolutions and normalisations have no second derivative in torch: one by one they do.
                return torch.stack([product(each, False) for each in v])

            with torch.set_grad_enabled(differentiable):
                traces = self(pull)
        return (y if differentiable else y.detach()), traces


class Divergence(ABC):
    """How a divergence is found; a new way is one class with one method (and the trace that it makes)."""

    @abstractmethod
    def fixed(self, x: Tensor) -> Trace:
        """The divergence for a whole solve on a batch like x ``(B, *S)``; whatever is random is drawn here."""


class Exact(Divergence):
    """``sum_i dy_i / dx_i``: d backward passes, in chunks that run side by side.

    Args:
        rows: the most samples that the passes of a chunk hold together: memory, not results.
    """

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows

    def fixed(self, x: Tensor) -> Trace:
        return _Diagonal(x, self.rows)


class Hutchinson(Divergence):
    """``mean_p v_p^T J v_p`` with probes v of unit covariance: unbiased, P backward passes.

    Hutchinson 1990 (Commun. Stat. Simul. 19:433); Grathwohl et al. 2019 (arXiv 1810.01367). The probes are drawn once
    per solve: the solver then sees a smooth equation, and the error is the probes' alone.

    Args:
        probes: P, at least 1; from 2 on their scatter gives the standard error.
        generator: one, or one per sample (then sample i does not depend on the batch).
        law: what makes probes of normal numbers.
        rows: as in :class:`Exact`.
    """

    def __init__(
        self, probes: int = 1, generator: Generators = None, law: Field = rademacher, rows: int = ROWS
    ) -> None:
        if probes < 1:
            raise ValueError(f"Hutchinson needs at least one probe; got {probes}.")
        self.probes, self.generator, self.law, self.rows = probes, generator, law, rows

    def fixed(self, x: Tensor) -> Trace:
        z = normal((len(x), self.probes, *x.shape[1:]), self.generator, x.device, x.dtype)
        return _Probed(self.law(z).transpose(0, 1), self.rows)


class _Diagonal(Trace):
    columns = 1

    def __init__(self, x: Tensor, rows: int) -> None:
        self.like, self.rows = x, rows

    def __call__(self, pull: Field) -> Tensor:
        shape, d = self.like.shape, math.prod(self.like.shape[1:])
        total = self.like.new_zeros(len(self.like), dtype=torch.float64)
        for part in chunks(d, len(self.like), self.rows):
            rows = torch.arange(part.start, part.stop, device=self.like.device)
            basis = torch.zeros(len(rows), d, dtype=self.like.dtype, device=self.like.device)
            basis[torch.arange(len(rows)), rows] = 1
            found = pull(basis.reshape(-1, 1, *shape[1:]).expand(-1, *shape)).flatten(2)
            total += found[torch.arange(len(rows)), :, rows].double().sum(0)
        return total[:, None]


class _Probed(Trace):
    def __init__(self, probes: Tensor, rows: int) -> None:
        self.probes, self.rows, self.columns = probes, rows, len(probes)

    def __call__(self, pull: Field) -> Tensor:
        parts = [self.probes[part] for part in chunks(self.columns, self.probes.shape[1], self.rows)]
        return torch.cat([(pull(v) * v).flatten(2).double().sum(2) for v in parts]).T


def chunks(count: int, batch: int, rows: int) -> Iterator[slice]:
    """Consecutive parts of ``count`` passes over a batch, each of at most ``rows`` samples but at least one pass."""
    size = max(1, rows // max(batch, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
