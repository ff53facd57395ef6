"""What a batch knows of its own noisy samples: the part of a random target that need not be random."""

from __future__ import annotations

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.estimate import Estimate, like
from osmotic.oracles import Dataset
from osmotic.schedules import Schedule

ALWAYS = ("valid", "scale", "latent")
"""Ports of a condition that are never hidden."""


def expected(schedule: Schedule, x0: Tensor, x: Tensor, t: Tensor, eps: Tensor, groups: Tensor) -> Estimate:
    """``E[x0 | x_t, c]`` and the noise's, over the samples of the batch that are told the same.

    Any of those may have become x_t with some noise, so an average by ``exp(-|x_t - alpha x0|^2 / 2 sigma^2)`` is the
    expectation of the sample and noise at hand, given x_t and the batch. Put in their place it has their mean given
    x_t, exactly and in any batch, and less variance: much less where the noise is large, none where samples are far
    apart. Stable targets, Xu et al. 2023 (arXiv 2302.00670), whose reference batch contains the sample itself.

    The batch is what one pass sees: a step of several processes or passes has the same mean, but other digits.

    Args:
        schedule: the path.
        x0: the batch's clean samples ``(B, *S)``.
        x: each with noise, ``(B, *S)``.
        t: times ``(B,)``, positive.
        eps: the noise, ``(B, *S)``.
        groups: ``(B,)`` int64, of :func:`told_alike`.
    """
    # Squared distances are small differences of large numbers at the cleanest times, hence double precision.
    mean = Dataset(schedule, x0.double(), groups)(x.double(), t, groups).x0
    alpha, sigma = like(mean, *schedule(t))
    return Estimate(mean.to(x0), eps + (alpha / sigma * (x0.double() - mean)).to(eps))


def told_alike(cond: object, x: Tensor) -> Tensor:
    """A number for each sample, ``(B,)`` int64: the same for those that are told the same in all ports, or nothing.

    Where a part is hidden, others of the same kind may be told apart by what it hides: groups are smaller, not wrong.
    """
    if cond is None:
        return torch.zeros(len(x), dtype=torch.int64, device=x.device)
    given = cond if isinstance(cond, Condition) else Condition(vector=torch.as_tensor(cond))
    ports = given.ports()
    keep = ports.pop("keep", torch.ones(len(x), 1, dtype=torch.bool, device=x.device)).reshape(len(x), -1)
    shown = keep.any(1, keepdim=True)
    columns = [keep.double()]
    for name, port in ports.items():
        values = port.reshape(len(x), -1).double()
        values = torch.cat([values.nan_to_num(), values.isnan().double()], 1)
        columns.append(values if name in ALWAYS else values * shown)
    which: Tensor = torch.unique(torch.cat(columns, 1), dim=0, return_inverse=True)[1]
    return which.to(x.device)
