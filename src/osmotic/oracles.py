"""Exact denoisers and flow maps, on any path: the truth against which everything else is tested."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, Point, like, solve
from osmotic.levels import as_time
from osmotic.noise import Generators, normal
from osmotic.schedules import Number, Schedule


def _refuse_negative(variances: Tensor) -> None:
    if not bool((variances >= -1e-12 * variances.abs().max()).all()):
        raise ValueError(f"A covariance must have no negative eigenvalue; found {float(variances.min()):.3g}.")


class Gaussian(Denoiser):
    """The exact denoiser, score and flow map of Gaussian data ``N(mean, covariance)``.

    With ``V = alpha^2 C + sigma^2 I``: ``E[eps | x] = sigma V^-1 (x - alpha mean)``, ``E[x0 | x] = mean + alpha C V^-1
    (x - alpha mean)``, and the flow map is ``x_s = alpha_s mean + V_s^{1/2} V_t^{-1/2} (x - alpha_t mean)``.

    Args:
        schedule: the path.
        mean: ``(*S)``.
        covariance: a variance (number), one per element ``(*S)``, or full ``(d, d)`` with d the number of elements.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor | None

    def __init__(self, schedule: Schedule, mean: Tensor, covariance: Tensor | float) -> None:
        super().__init__()
        self.schedule = schedule
        mean = torch.as_tensor(mean)
        covariance = torch.as_tensor(covariance, dtype=mean.dtype)
        d = mean.numel()
        self.shape = mean.shape
        self.register_buffer("mean", mean.flatten())
        full = covariance.shape == (d, d) and covariance.shape != mean.shape
        if not full and covariance.shape not in ((), mean.shape):
            raise ValueError(
                f"A covariance of shape {tuple(covariance.shape)} does not fit a mean of shape "
                f"{tuple(mean.shape)}; use a number, "
                f"one variance per element, or ({d}, {d})."
            )
        variances, axes = torch.linalg.eigh(covariance) if full else (covariance.expand(self.shape).flatten(), None)
        _refuse_negative(variances)
        self.register_buffer("variances", variances.clamp(min=0))
        self.register_buffer("axes", axes)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        t = as_time(t)
        if s is not None:
            return solve(x, self.flow(x, t, s), self.schedule.numbers(t), Point(s).numbers(self.schedule, t))
        alpha, sigma = like(x.flatten(1), *self.schedule.numbers(t))
        z = self._to_axes(x.flatten(1) - alpha * self.mean)
        z = z / (alpha**2 * self.variances + sigma**2)
        eps = self._from_axes(sigma * z)
        x0 = self.mean + self._from_axes(alpha * self.variances * z)
        return Estimate(x0.reshape(x.shape), eps.reshape(x.shape))

    def flow(self, x: Tensor, t: Number, s: Number) -> Tensor:
        """The probability-flow ODE's solution at time s from x at time t, exactly."""
        flat = x.flatten(1)
        alpha, sigma = like(flat, *self.schedule.numbers(t))
        alpha_s, sigma_s = like(flat, *self.schedule.numbers(s))
        z = self._to_axes(flat - alpha * self.mean)
        before, after = (a**2 * self.variances + b**2 for a, b in ((alpha, sigma), (alpha_s, sigma_s)))
        return (alpha_s * self.mean + self._from_axes(z * (after / before).sqrt())).reshape(x.shape)

    def log_prob(self, x: Tensor, t: Number = 0.0) -> Tensor:
        """The log-density of the path's marginal at time t, ``(B,)`` nats."""
        flat = x.flatten(1)
        alpha, sigma = like(flat, *self.schedule.numbers(t))
        variances = alpha**2 * self.variances + sigma**2
        z = self._to_axes(flat - alpha * self.mean)
        return -0.5 * (z**2 / variances + torch.log(2 * math.pi * variances)).sum(1)

    def sample(self, n: int, generator: Generators = None) -> Tensor:
        """n exact data samples, ``(n, *S)``."""
        z = normal((n, self.mean.numel()), generator, self.mean.device, self.mean.dtype)
        return (self.mean + self._from_axes(z * self.variances.sqrt())).reshape(n, *self.shape)

    def _to_axes(self, x: Tensor) -> Tensor:
        return x if self.axes is None else x @ self.axes

    def _from_axes(self, z: Tensor) -> Tensor:
        return z if self.axes is None else z @ self.axes.T


class GaussianMixture(Denoiser):
    """The exact denoiser and density of a Gaussian mixture with full covariances and, optionally, classes.

    ``p(x_t) = sum_k w_k N(alpha m_k, alpha^2 C_k + sigma^2 I)``; estimates are the components' own, averaged by the
    posterior ``p(k | x_t)``. A condition is a :class:`~osmotic.condition.Condition` whose vector holds class labels (a
    bare ``(B,)`` label tensor is taken as one); hidden conditions give the unconditional estimate.

    Args:
        schedule: the path.
        means: ``(K, *S)``.
        covariances: one variance (number), one per component ``(K,)``, or full ``(K, d, d)``.
        weights: ``(K,)``, positive; equal by default.
        classes: ``(K,)`` int64, the class of each component; the component itself by default.
    """

    means: Tensor
    variances: Tensor
    axes: Tensor
    log_weights: Tensor
    classes: Tensor

    def __init__(
        self,
        schedule: Schedule,
        means: Tensor,
        covariances: Tensor | float,
        weights: Tensor | Sequence[float] | None = None,
        classes: Tensor | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.schedule, self.shape = schedule, means.shape[1:]
        k, d = len(means), means[0].numel()
        covariances = torch.as_tensor(covariances, dtype=means.dtype)
        self.round = covariances.ndim < 2  # then axes are the data's own, and nothing is turned
        if self.round:
            covariances = covariances.expand(k)[:, None, None] * torch.eye(d, dtype=means.dtype)
        if covariances.shape != (k, d, d):
            raise ValueError(
                f"{k} components of {d} dimensions need covariances ({k}, {d}, {d}), ({k},) or a number; got "
                f"{tuple(covariances.shape)}."
            )
        weights = torch.ones(k) / k if weights is None else torch.as_tensor(weights)
        if not (len(weights) == k and bool((weights > 0).all())):
            raise ValueError(f"{k} components need {k} positive weights; got {weights.tolist()}.")
        variances, axes = torch.linalg.eigh(covariances)
        _refuse_negative(variances)
        self.register_buffer("means", means.flatten(1))
        self.register_buffer("variances", variances.clamp(min=0))
        self.register_buffer("axes", axes)
        self.register_buffer("log_weights", (weights.to(means.dtype) / weights.sum()).log())
        self.register_buffer("classes", torch.arange(k) if classes is None else torch.as_tensor(classes))

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is not None:
            raise ValueError("A Gaussian mixture has no closed-form flow map; sample it with a solver.")
        t = as_time(t)
        alpha, sigma = self._wide(x, t)
        z, scaled = self._project(x, alpha, sigma)
        posterior = torch.softmax(self._log_joint(z, scaled, cond, len(x)), dim=1)[..., None]
        z = z / scaled
        eps = sigma * self._back(z)
        x0 = self.means + alpha * self._back(z * self.variances)
        return Estimate((posterior * x0).sum(1).reshape(x.shape), (posterior * eps).sum(1).reshape(x.shape))

    def log_prob(self, x: Tensor, t: Number = 0.0, cond: object = None) -> Tensor:
        """The log-density of the path's marginal at time t, given the class if any, ``(B,)`` nats."""
        alpha, sigma = self._wide(x, as_time(t))
        log_joint = self._log_joint(*self._project(x, alpha, sigma), cond, len(x))
        # Given a class, the kept components' weights are renormalised.
        return torch.logsumexp(log_joint, 1) - torch.logsumexp(self._log_prior(cond, len(x)), 1)

    def posterior(self, x: Tensor, t: Number = 0.0, cond: object = None) -> Tensor:
        """``p(k | x_t)``: the responsibility of each component, ``(B, K)``."""
        alpha, sigma = self._wide(x, as_time(t))
        return torch.softmax(self._log_joint(*self._project(x, alpha, sigma), cond, len(x)), dim=1)

    def sample(self, n: int, generator: torch.Generator | None = None, cond: object = None) -> Tensor:
        """n exact data samples, ``(n, *S)``."""
        prior = self._log_prior(cond, n).exp()
        index = torch.multinomial(prior, 1, generator=generator)[:, 0]
        z = normal(self.means[index].shape, generator, self.means.device, self.means.dtype)
        z = z * self.variances[index].sqrt()
        if not self.round:
            turned = torch.empty_like(z)
            for k, axes in enumerate(self.axes):  # a matrix for each sample would be d times the samples
                turned[index == k] = z[index == k] @ axes.T
            z = turned
        return (self.means[index] + z).reshape(n, *self.shape)

    def condition(self, matrix: Tensor, y: Tensor, noise: float = 0.0) -> GaussianMixture:
        """The exact law of x0 given ``A x0 + noise z = y``, itself a mixture on the same path.

        Component k becomes ``N(m_k + G_k (y - A m_k), C_k - G_k A C_k)`` with ``G_k = C_k A' S_k^-1, S_k = A C_k A' +
        noise^2 I``, and its weight is multiplied by ``N(y; A m_k, S_k)``.

        Args:
            matrix: A, ``(m, d)`` on the flattened sample.
            y: ``(m,)``.
            noise: standard deviation, at least 0.

        Raises:
            ValueError: for shapes that do not fit, or where the measurement has no density, as rows of A that depend
                on each other without noise.
        """
        k, d = self.means.shape
        if matrix.ndim != 2 or matrix.shape[1] != d or y.shape != matrix.shape[:1]:
            raise ValueError(
                f"A mixture of {d} dimensions is given a matrix (m, {d}) and y (m,); got {tuple(matrix.shape)} and "
                f"{tuple(y.shape)}."
            )
        covariances = torch.einsum("kcd,kd,ked->kce", self.axes, self.variances, self.axes)
        across = covariances @ matrix.T
        seen = matrix @ across + noise**2 * torch.eye(len(y), dtype=y.dtype, device=y.device)
        factor, failed = torch.linalg.cholesky_ex(seen)
        if bool(failed.any()):
            raise ValueError("This measurement has no density; leave out rows that others determine, or add noise.")
        residual = y - self.means @ matrix.T
        gain = torch.cholesky_solve(across.mT, factor).mT
        means = self.means + torch.einsum("kdm,km->kd", gain, residual)
        white = torch.linalg.solve_triangular(factor, residual[..., None], upper=False)[..., 0]
        log_weights = self.log_weights - white.square().sum(1) / 2 - factor.diagonal(dim1=1, dim2=2).log().sum(1)
        left = covariances - gain @ across.mT
        values, axes = torch.linalg.eigh((left + left.mT) / 2)
        left = axes * values.clamp(min=0)[:, None] @ axes.mT  # what is determined wholly has no variance, nor less
        # A component of weight 0 to rounding is kept: the constructor wants positive weights.
        weights = torch.softmax(log_weights, 0).clamp(min=torch.finfo(y.dtype).tiny)
        return GaussianMixture(self.schedule, means.reshape(k, *self.shape), left, weights, self.classes)

    def _wide(self, x: Tensor, t: Tensor) -> tuple[Number, Number]:
        """(alpha, sigma) broadcastable over ``(B, K, d)``."""
        alpha, sigma = like(x.flatten(1)[:, None], *self.schedule.numbers(t))
        return alpha, sigma

    def _project(self, x: Tensor, alpha: Number, sigma: Number) -> tuple[Tensor, Tensor]:
        """Deviations along each component's axes, and their variances: two ``(B, K, d)``."""
        deviation = x.flatten(1)[:, None] - alpha * self.means
        z = deviation if self.round else torch.einsum("bkc,kcd->bkd", deviation, self.axes)
        return z, alpha**2 * self.variances + torch.as_tensor(sigma**2, dtype=x.dtype)

    def _back(self, z: Tensor) -> Tensor:
        """From each component's axes to the data's, ``(B, K, d)``."""
        return z if self.round else torch.einsum("bkd,kcd->bkc", z, self.axes)

    def _log_joint(self, z: Tensor, variances: Tensor, cond: object, n: int) -> Tensor:
        log_likelihood = -0.5 * (z**2 / variances + torch.log(2 * math.pi * variances)).sum(-1)
        return self._log_prior(cond, n) + log_likelihood

    def _log_prior(self, cond: object, n: int) -> Tensor:
        """Log weights ``(n, K)``, with -inf at components of other classes."""
        allowed = class_mask(self.classes, cond, n)
        return torch.where(allowed, self.log_weights, -math.inf)


class Dataset(Denoiser):
    """The exact denoiser of a finite data set: what a network of unlimited capacity would learn, samples included.

    ``E[x0 | x_t] = sum_i softmax_i(-|x_t - alpha x_i|^2 / (2 sigma^2)) x_i`` (Karras et al. 2022, arXiv 2206.00364,
    appendix B).

    Args:
        schedule: the path.
        points: ``(N, *S)``.
        classes: ``(N,)`` int64 labels, for conditions as in :class:`GaussianMixture`; the point itself by default.
    """

    points: Tensor
    classes: Tensor

    def __init__(self, schedule: Schedule, points: Tensor, classes: Tensor | Sequence[int] | None = None) -> None:
        super().__init__()
        self.schedule, self.shape = schedule, points.shape[1:]
        self.register_buffer("points", points.flatten(1))
        self.register_buffer("classes", torch.arange(len(points)) if classes is None else torch.as_tensor(classes))

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is not None:
            raise ValueError("A finite data set has no closed-form flow map; sample it with a solver.")
        flat = x.flatten(1)
        alpha, sigma = like(flat, *self.schedule.numbers(as_time(t)))
        # |x - alpha x_i|^2 without the term |x|^2, which is the same for all points.
        square = alpha**2 * (self.points**2).sum(1) - 2 * alpha * (flat @ self.points.T)
        logits = torch.where(class_mask(self.classes, cond, len(x)), -square / (2 * sigma**2), -math.inf)
        x0 = torch.softmax(logits, dim=1) @ self.points
        return Estimate(x0.reshape(x.shape), ((flat - alpha * x0) / sigma).reshape(x.shape))


def class_mask(classes: Tensor, cond: object, n: int) -> Tensor:
    """Which components each sample may come from, ``(n, K)`` bool: all where its condition is hidden.

    Raises:
        ValueError: if a label is no class of the oracle.
    """
    everything = torch.ones(n, len(classes), dtype=torch.bool, device=classes.device)
    if cond is None:
        return everything
    given = cond if isinstance(cond, Condition) else Condition(vector=torch.as_tensor(cond))
    if given.vector is None:
        return everything
    mask = given.vector.reshape(-1, 1) == classes
    keep = torch.ones(len(mask), dtype=torch.bool, device=mask.device) if given.keep is None else given.keep
    hidden = ~(keep if keep.ndim == 1 else keep[:, 0])  # labels are the only part that an oracle reads
    if not bool((mask.any(1) | hidden).all()):
        raise ValueError(f"A label has no component; the classes are {sorted(set(classes.tolist()))}.")
    mask = mask.expand(n, -1)
    return mask | hidden[:, None]
