"""Codecs fitted to data: principal components, and whitening."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmotic.codecs.base import Affine, Description, Shape, refuse_shape


class PCA(Affine):
    """Coordinates along the principal axes: ``z = V (x - mean)``, the largest variance first.

    With all axes it is a rotation; with k of them the linear codec of least squared error (Pearson 1901; Eckart & Young
    1936).

    Args:
        mean: ``(*S)``.
        axes: V, ``(k, d)`` with orthonormal rows, d the number of elements of a sample.
    """

    axes: Tensor

    def __init__(self, mean: Tensor, axes: Tensor) -> None:
        super().__init__(mean)
        if axes.ndim != 2 or axes.shape[1] != mean.numel():
            raise ValueError(
                f"Axes of shape {tuple(axes.shape)} do not fit a mean of shape {tuple(mean.shape)}; give (k, "
                f"{mean.numel()})."
            )
        # The order in memory decides the rounding of products: a codec that is read from a file has this one.
        self.register_buffer("axes", axes.contiguous())
        self.shape, self.orthonormal = tuple(mean.shape), axes.shape[0] == axes.shape[1]

    @classmethod
    def fit(cls, x: Tensor, components: int | None = None) -> PCA:
        """The principal axes of data ``(N, *S)``, in x's dtype, found in float64.

        Args:
            x: at least two samples.
            components: k; None for all d axes, those without any variance too.

        Raises:
            ValueError: for k outside 1 to the rank of the data.
        """
        mean, axes, _ = principal(x, components)
        return cls(mean, axes)

    def latent(self, shape: Shape) -> Shape:
        if tuple(shape) != self.shape:
            refuse_shape(self, shape, f"{self.shape}, for which it was fitted")
        return (len(self.axes),)

    def analyse(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.axes.to(x).T

    def synthesise(self, z: Tensor) -> Tensor:
        return (z @ self.axes.to(z)).reshape(len(z), *self.shape)

    def description(self) -> Description:
        return {"kind": "pca"}


class Whitening(PCA):
    """Principal coordinates of unit variance: ``z = D^-1 V (x - mean)``, D their standard deviations.

    The latents of the data have the covariance I, up to the samples that it was fitted to.

    Args:
        mean: ``(*S)``.
        axes: V, ``(k, d)`` with orthonormal rows.
        deviations: D, ``(k,)``, positive.
    """

    deviations: Tensor

    def __init__(self, mean: Tensor, axes: Tensor, deviations: Tensor) -> None:
        super().__init__(mean, axes)
        if deviations.shape != axes.shape[:1] or not bool((deviations > 0).all()):
            raise ValueError(f"{len(axes)} axes need as many positive deviations; got {tuple(deviations.shape)}.")
        self.register_buffer("deviations", deviations)
        self.whole, self.orthonormal = self.orthonormal, False

    @classmethod
    def fit(cls, x: Tensor, components: int | None = None) -> Whitening:
        """The whitening of data ``(N, *S)``, in x's dtype, found in float64.

        Args:
            x: at least two samples.
            components: k; None for all d.

        Raises:
            ValueError: for k outside 1 to the rank of the data: what does not vary cannot have unit variance.
        """
        mean, axes, deviations = principal(x, x[0].numel() if components is None else components)
        return cls(mean, axes, deviations)

    def analyse(self, x: Tensor) -> Tensor:
        return super().analyse(x) / self.deviations.to(x)

    def synthesise(self, z: Tensor) -> Tensor:
        return super().synthesise(z * self.deviations.to(z))

    def log_det(self, shape: Shape) -> float:
        if not self.whole:
            return super().log_det(shape)
        self.latent(shape)
        return -float(self.deviations.double().log().sum())

    def description(self) -> Description:
        return {"kind": "whitening"}


def principal(x: Tensor, components: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(*S)``, axes ``(k, d)`` and deviations ``(k,)`` of data ``(N, *S)``, by a singular value decomposition.

    The data themselves are decomposed, not their covariance, whose small variances would drown in rounding. Signs are
    fixed: the largest entry of an axis is positive. k = None gives all d axes.

    Raises:
        ValueError: for fewer than two samples, numbers that are not finite, and k outside 1 to the rank.
    """
    if len(x) < 2:
        raise ValueError(f"Principal axes need at least two samples; got {len(x)}.")
    flat = x.detach().flatten(1).double()
    if not bool(flat.isfinite().all()):
        raise ValueError("Principal axes need finite data; these have NaN or infinite entries.")
    mean = flat.mean(0)
    centred = flat - mean
    n, d = centred.shape
    # The triangle of a QR decomposition has the same axes as the data and is d x d however many samples there are.
    core = torch.linalg.qr(centred, mode="r").R if n > d else centred
    _, values, axes = torch.linalg.svd(core, full_matrices=True)
    rank = int((values > torch.finfo(x.dtype).eps * max(n, d) * values[0]).sum())
    if components is not None and not 1 <= components <= rank:
        raise ValueError(
            f"{components} components were asked for and the data have rank {rank} in {d} dimensions; ask for 1 to "
            f"{rank}."
        )
    k = d if components is None else components
    axes = axes[:k]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    deviations = torch.cat([values, values.new_zeros(max(0, d - len(values)))])[:k] / math.sqrt(n - 1)
    return mean.reshape(x.shape[1:]).to(x), (axes * largest.sign()).to(x), deviations.to(x)
