"""The reverse SDE with steps chosen by the error, for each sample by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from osmotic.brownian import Brownian, Motion
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.noise import Generators
from osmotic.samplers.adaptive import filled
from osmotic.samplers.base import Sampler, State
from osmotic.samplers.lines import half_log_snr


@dataclass
class _Run:
    """What the steps of a trajectory share: one Brownian motion and one step size per sample."""

    motions: list[Motion]
    h: Tensor


class AdaptiveSDE(Sampler):
    """Euler-Maruyama and its Heun correction; their difference is the error, and each sample has its own step.

    With the SDE of :class:`~osmotic.samplers.sde.EulerMaruyama`, ``du = d(u, lam) dlam + g(lam) dw``: ``K1 = h d(u,
    lam) + g(lam) sqrt(h) xi``, ``K2 = h d(u + K1, lam + h) + g(lam + h) sqrt(h) xi``, ``E`` the root mean square over
    the sample of ``(K2 - K1) / 2`` divided by ``max(absolute, relative max(|u'|, |u'_before|))`` with ``u' = u + K1``.
    A step with E <= 1 is taken, to ``u + (K1 + K2) / 2``; then ``h <- 0.9 h E^-0.9``. Jolicoeur-Martineau et al. 2021
    (arXiv 2105.14080), here in half log-SNR and the variance-preserving picture, so that tolerances mean the same on
    all paths. Unlike theirs, a rejected step is tried again on the same Brownian path (one is made from the generators
    if it is not given), so that rejections do not bias the noise.

    A step reaches s with all samples; at sigma_s = 0 it goes to ``rho_min`` and ends with the estimate of x0 there.
    From alpha = 0 it starts by one jump to the level where all signal is below the absolute tolerance. Which samples
    need how many evaluations is read on the host. A sample does not depend on its batch mates: to the last bit where
    the denoiser gives the same bits in every batch, else to its rounding.

    Args:
        absolute: tolerance in units of u, for data of unit scale; the paper's 2/256 suits pictures in [-1, 1].
        relative: tolerance relative to u, 0.01 to 0.05 in the paper.
        tau: noise level of the SDE, at least 0; 1 is the reverse SDE.
        rho_min: the ratio sigma / alpha at which it jumps to the data.
        first: the first h.
        most: how many evaluations a step from t to s may take before it gives up.

    Attributes:
        order: 2, of the law in the steps taken; they are not the grid's.
        evaluations: 0, since the error decides.
    """

    order = 2
    stochastic = True
    evaluations = 0
    remembers = True

    def __init__(
        self,
        absolute: float = 2 / 256,
        relative: float = 0.02,
        tau: float = 1.0,
        rho_min: float = 0.002,
        first: float = 0.05,
        most: int = 10_000,
    ) -> None:
        if not (absolute > 0 and relative >= 0 and tau >= 0 and rho_min > 0 and first > 0 and most >= 4):
            raise ValueError(
                "AdaptiveSDE needs absolute > 0, relative >= 0, tau >= 0, rho_min > 0, first > 0 and most >= 4; got "
                f"{absolute}, {relative}, {tau}, {rho_min}, {first} and {most}."
            )
        self.absolute, self.relative, self.tau = absolute, relative, tau
        self.rho_min, self.first, self.most = rho_min, first, most

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: _Run | None = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        schedule = denoiser.schedule
        pair_t, pair_s = schedule.scalars(t), schedule.scalars(s)
        run = state or _Run(Brownian.of(generator, len(x)).motions, torch.full((len(x),), self.first).double())
        lam, last = half_log_snr(pair_t), -math.log(self.rho_min)
        # Cleaner than rho_min already, the estimate of x0 is made at t.
        end = half_log_snr(pair_s) if pair_s[1] > 0 else max(last, lam)
        level = schedule.time(torch.tensor(2 * end, dtype=torch.float64)) if end - lam > _SHORTEST else t
        u = x / math.hypot(*pair_t)
        if math.isinf(lam):
            lam = min(end, math.log(self.absolute))
            u = self._leave(denoiser, x, t, lam, cond, run)
        u, run = self._integrate(denoiser, u, lam, end, cond, run)
        if pair_s[1] > 0:
            return u * math.hypot(*pair_s), run
        estimate: Estimate = denoiser(u * math.hypot(*schedule.scalars(level)), level, cond)
        return estimate.at(*pair_s), run

    def _leave(self, denoiser: Denoiser, x: Tensor, t: Tensor, lam: float, cond: object, run: _Run) -> Tensor:
        """From alpha = 0 to a level: the exact step while the estimate of x0, there the data's mean, stays."""
        x0, eps = denoiser(x, t, cond)
        alpha, c = _vp(torch.tensor(lam, dtype=torch.float64))
        q = math.exp(2 * lam)
        xi = torch.stack([m.unit(x.shape[1:], 0.0, q) for m in run.motions]).to(x) if self.tau > 0 else eps
        return torch.add(x0 * float(alpha), xi, alpha=float(c))

    def _integrate(
        self, denoiser: Denoiser, u: Tensor, start: float, end: float, cond: object, run: _Run
    ) -> tuple[Tensor, _Run]:
        """u at half log-SNR ``end`` from u at ``start``, and the run with its new step sizes."""
        lam, step, before = torch.full((len(u),), start, dtype=torch.float64), run.h, u
        for _ in range(self.most // 2):
            active = torch.gt(end - lam, _SHORTEST)
            if not bool(active.any()):
                return u, _Run(run.motions, step)
            h = torch.where(active, torch.minimum(step, end - lam), 0.0)
            xi = _increments(run.motions, u, lam, h)
            k1 = self._move(denoiser, u, lam, h, cond, xi)
            there = u + k1
            k2 = self._move(denoiser, there, lam + h, h, cond, xi)
            scale = torch.maximum(there.abs(), before.abs()).mul(self.relative).clamp(min=self.absolute)
            error = ((k2 - k1) / (2 * scale)).flatten(1).square().mean(1).sqrt().to("cpu", torch.float64)
            step = torch.where(active, 0.9 * h * (filled(error) ** -0.9)[: len(u)], step)
            if not bool((step > _SHORTEST).all()):
                raise ValueError(
                    f"AdaptiveSDE's step fell to {float(step.min()):.3g} at log(alpha / sigma) = "
                    f"{float(lam.min()):.4g}: the estimate is not finite there, or the tolerances are too tight."
                )
            taken = active.logical_and(error <= 1)
            mask = torch.as_tensor(like(u, taken.to(torch.float64))[0], dtype=torch.bool)
            u, before = torch.where(mask, u + (k1 + k2) / 2, u), torch.where(mask, there, before)
            lam = torch.where(taken, lam + h, lam)
        raise ValueError(
            f"AdaptiveSDE took {self.most} evaluations and is at log(alpha / sigma) = {float(lam.min()):.4g} of "
            f"{end:.4g}; loosen its tolerances, or raise most."
        )

    def _move(self, denoiser: Denoiser, u: Tensor, lam: Tensor, h: Tensor, cond: object, xi: Tensor) -> Tensor:
        """``h d(u, lam) + g(lam) sqrt(h) xi``, with lam and h per sample."""
        n, schedule = len(u), denoiser.schedule
        full = filled(lam)
        t, c = schedule.time(2 * full).clamp(max=denoiser.start), _vp(full)[1][:n]
        size, t = torch.hypot(*schedule(t))[:n], t[:n]
        scale, keep, drift, spread = like(u, size, h * c**2, -h * (1 + self.tau**2) * c, self.tau * (2 * h).sqrt() * c)
        eps = denoiser(u * scale, t, cond).eps
        moved: Tensor = keep * u + drift * eps + spread * xi
        return moved


# Steps in half log-SNR below this are taken as none; Brownian motions are told apart down to a tenth of it.
_SHORTEST = 1e-8


def _vp(lam: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) of the variance-preserving picture."""
    return torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()


def _increments(motions: list[Motion], u: Tensor, lam: Tensor, h: Tensor) -> Tensor:
    """Unit noise for each sample's step, like u; none where h = 0."""
    shape = u.shape[1:]
    first, last = (torch.exp(2 * filled(v)).tolist()[: len(u)] for v in (lam, lam + h))
    ends = zip(motions, first, last, h.tolist(), strict=True)
    zero = torch.zeros(shape, dtype=torch.float64)
    return torch.stack([motion.unit(shape, a, b) if length > 0 else zero for motion, a, b, length in ends]).to(u)
