"""The chain of unit steps: ``q(x_t | x_{t-1}) = N(x_{t-1}, I)``, the simplest diffusion, and its three readings.

Levels i = 1..T carry the noise variance i, so ``q(x_i | x0) = N(x0, i I)``. Everything is in one noise scale: the
network estimates unit noise, ``x_i = x0 + sqrt(i) eps``. The smallest noise is 1, so data should be much larger.

The objective may be read as a reweighted variational bound, as many autoencoders with a fixed encoder, or as many
denoising autoencoders; the three differ by known weights of each level, hence have the same minimum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.levels import as_time
from osmotic.objectives.denoising import error, gap
from osmotic.schedules import Number, Schedule


class UnitSteps(Schedule):
    """``alpha = 1, sigma = sqrt(T t)``: variance i at ``t = i / T``.

    The posterior of the level below is ``N((1 - 1/i) x_i + x0 / i, (1 - 1/i) I)``, its forward variance 1: the two
    fixed variances of DDPM on this path.

    Args:
        steps: T, at least 1.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"UnitSteps needs at least one step; got {steps}.")
        self.steps = steps

    def pair(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), (self.steps * t).sqrt()

    def time(self, log_snr: Number) -> Tensor:
        return torch.exp(-as_time(log_snr)) / self.steps

    def prior(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(d,)`` and covariance ``(d, d)`` of x_T: ``N(mean, covariance + T I)``, exact in both moments for any
        data.
        """
        return mean, covariance + self.steps * torch.eye(len(mean), dtype=covariance.dtype)


def reweighted_bound(denoiser: Denoiser, x0: Tensor, level: Tensor, eps: Tensor, cond: object = None) -> Tensor:
    """``|x0 - x0_hat|^2 / (2 i^2)``: the KL divergence of the reverse step from level i with unit covariance.

    Without the part that no model can change, ``KL(N(0, (1 - 1/i) I) || N(0, I))``.

    Args:
        denoiser: on a :class:`UnitSteps` path.
        x0: clean samples, ``(B, *S)``.
        level: i, ``(B,)``, in 1..T.
        eps: unit noise, ``(B, *S)``.
        cond: handed to the denoiser.

    Returns:
        ``(B,)``.
    """
    return _square(denoiser, x0, level, eps, cond) / (2 * level.to(x0) ** 2)


def many_autoencoders(denoiser: Denoiser, x0: Tensor, level: Tensor, eps: Tensor, cond: object = None) -> Tensor:
    """``-log p_i(x0 | z)`` at ``z ~ q_i(z | x0) = N(x0, i I)``: one variational autoencoder per level.

    The encoder is fixed, the decoder is ``N(z - sqrt(i) eps_hat(z), i I)``, and the loss is ``|x0 - x0_hat|^2 / (2
    i)``, without the normalisation, which is the same for all models. It is ``i`` times :func:`reweighted_bound`;
    arguments as there.
    """
    return _square(denoiser, x0, level, eps, cond) / (2 * level.to(x0))


def many_denoisers(denoiser: Denoiser, x0: Tensor, level: Tensor, eps: Tensor, cond: object = None) -> Tensor:
    """``|x0 - g_i(x0 + sqrt(i) eps)|^2``: one denoising autoencoder per level, ``g_i(z) = z - sqrt(i) eps_hat(z)``.

    It is ``2 i^2`` times :func:`reweighted_bound`; arguments as there.
    """
    return _square(denoiser, x0, level, eps, cond)


def ancestral(denoiser: Denoiser, x: Tensor, level: int, noise: Tensor, cond: object = None) -> Tensor:
    """``x_{i-1} = x_i - eps_hat / sqrt(i) + z`` with z of the forward covariance I, and no noise into level 0.

    On this path ``samplers.DDPM(v=1)``, the large variance; DDPM(v=0) has the posterior's, ``1 - 1/i``.

    Args:
        denoiser: on a :class:`UnitSteps` path.
        x: samples at the level, ``(B, *S)``.
        level: i, in 1..T.
        noise: z, ``(B, *S)``.
        cond: handed to the denoiser.
    """
    mean: Tensor = x - denoiser(x, _time(denoiser, level), cond).eps / level**0.5
    return mean if level == 1 else mean + noise


def whole_numbers(x: Tensor, low: int, high: int) -> Tensor:
    """The nearest integers in ``[low, high]``: the last step for data that are integers, such as pixels in 0..255."""
    return x.round().clamp(low, high)


def _time(denoiser: Denoiser, level: Tensor | int) -> Tensor:
    schedule = denoiser.schedule
    if not isinstance(schedule, UnitSteps):
        raise ValueError(f"The chain of unit steps needs the path UnitSteps; this one is {type(schedule).__name__}.")
    return torch.as_tensor(level, dtype=torch.float64) / schedule.steps


def _square(denoiser: Denoiser, x0: Tensor, level: Tensor, eps: Tensor, cond: object) -> Tensor:
    """``|x0 - x0_hat|^2``, which is ``i |eps - eps_hat|^2``, per sample."""
    t = _time(denoiser, level)
    wrong = gap(denoiser, error(denoiser, x0, t, eps, cond)[1], t)
    square: Tensor = wrong.square().flatten(1).sum(1)
    return square
