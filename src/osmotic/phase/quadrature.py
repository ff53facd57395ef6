"""Integrals and propagators of 2x2 matrices along a phase path, in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from osmotic.levels import as_time
from osmotic.phase.matrix import Matrix
from osmotic.phase.path import PhasePath

_COUNT = 32
_POINTS, _SHARES = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(_COUNT))


def graded(path: PhasePath, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Times from t down to s, and ``dt / dx`` there for Gauss-Legendre points x from -1 (at t) to 1 (at s).

    ``t = knee sinh^2 u`` with u linear in x: dense where the path bends, and smooth down to s = 0, where rates go as
    ``t^{-1/2}``.
    """
    first, last = (torch.asinh((as_time(float(v)) / path.knee).sqrt()) for v in (t, s))
    half = (last - first) / 2
    u = (first + last) / 2 + half * _POINTS
    return path.knee * torch.sinh(u) ** 2, path.knee * torch.sinh(2 * u) * half


def lagrange(nodes: Sequence[float], times: Tensor) -> list[Tensor]:
    """The Lagrange polynomials of the nodes, at times ``(n,)``."""
    found = []
    for k, node in enumerate(nodes):
        ell = torch.ones_like(times)
        for other in (*nodes[:k], *nodes[k + 1 :]):
            ell = ell * (times - other) / (node - other)
        found.append(ell)
    return found


def adams(path: PhasePath, t: Tensor, s: Tensor, nodes: Sequence[float]) -> tuple[Matrix, list[Matrix]]:
    """The exponential Adams step from t to s: ``u_s = Psi u_t + sum_k C_k e_k``, e_k being eps at the k-th node.

    ``Psi = A_s A_t^{-1}`` and ``C_k = int_t^s Psi(s, tau) (1/2) G G^T R_tau^{-T} l_k(tau) dtau`` with l_k the Lagrange
    polynomials in time (Zhang, Tao & Chen 2022, arXiv 2206.05564, eq. 19). Nodes t and before make it explicit
    (Adams-Bashforth), s among them implicit (Adams-Moulton).
    """
    times, speed = graded(path, t, s)
    end, start = path.matrices(s)[0], path.matrices(t)[0]
    a, _, drive = path.driven(times)
    driven = end.tensor @ torch.linalg.solve(a, drive) * (speed * _SHARES)[:, None, None]
    weights = [(driven * ell[:, None, None]).sum(0) for ell in lagrange(nodes, times)]
    return end * start.inverse, [Matrix.of(w) for w in weights]


def point_flow(path: PhasePath, t: Tensor, s: Tensor, strength: float) -> Tensor:
    """The propagator over ``u - A u_0`` from t to s > 0 for a single point u_0, ``(2, 2)``.

    It belongs to ``F + (1/2)(1 + lambda^2) G G^T Sigma^{-1}``, the reverse SDE of strength lambda. At lambda = 0 it is
    ``R_s R_t^{-1}`` with the flow's root, at lambda = 1 the posterior's ``Sigma_s Psi(t, s)^T Sigma_t^{-1}``. In
    between there is no closed form, so the linear ODE is collocated at the Gauss points: one small linear solve, of
    spectral accuracy.

    Args:
        strength: lambda, at least 0.
    """
    times, speed = graded(path, t, s)
    _, r, drive = path.driven(times)
    rate = path.drift(times) + (1 + strength**2) * drive @ torch.linalg.inv(r)
    rate = rate * speed[:, None, None]
    # X_i = I + sum_j S_ij rate_j X_j with S the integrals from -1 to x_i of the interpolation at the Gauss points.
    system = torch.eye(2 * _COUNT, dtype=torch.float64) - torch.einsum("ij,jab->iajb", _integration(), rate).reshape(
        2 * _COUNT, 2 * _COUNT
    )
    start = torch.eye(2, dtype=torch.float64).repeat(_COUNT, 1)
    x: Tensor = torch.linalg.solve(system, start).reshape(_COUNT, 2, 2)
    grown: Tensor = (rate @ x * _SHARES[:, None, None]).sum(0)
    return grown + torch.eye(2, dtype=torch.float64)


def _integration() -> Tensor:
    """``S_ij``: the integral from -1 to x_i of the polynomial that is 1 at x_j and 0 at the other Gauss points."""
    points, shares = _POINTS.numpy(), _SHARES.numpy()
    values = np.polynomial.legendre.legvander(points, _COUNT)
    k = np.arange(1, _COUNT)
    integrals = np.empty((_COUNT, _COUNT))
    integrals[:, 0] = points + 1
    integrals[:, 1:] = (values[:, 2:] - values[:, : _COUNT - 1]) / (2 * k + 1)
    analysis = (np.arange(_COUNT) + 0.5)[:, None] * values[:, :_COUNT].T * shares
    return torch.from_numpy(integrals @ analysis)


def root(covariance: Tensor) -> Tensor:
    """A square root of a positive semidefinite ``(2, 2)``; rounding below zero is taken as zero."""
    variances, axes = torch.linalg.eigh((covariance + covariance.mT) / 2)
    found: Tensor = axes * variances.clamp(min=0).sqrt()
    return found
