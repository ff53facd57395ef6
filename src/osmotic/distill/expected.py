"""What a batch knows of its own noisy samples: the part of a random target that need not be random."""

from __future__ import annotations

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.estimate import Estimate
from osmotic.oracles import Dataset
from osmotic.schedules import Schedule


def expected(schedule: Schedule, x0: Tensor, x: Tensor, t: Tensor, cond: object = None) -> Estimate:
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
        cond: what each is told, as it is shown to the network.
    """
    groups = told_alike(cond, x)
    # In double precision: squared distances are differences, and at the cleanest times small ones.
    found = Dataset(schedule, x0.double(), groups)(x.double(), t, groups)
    return Estimate(found.x0.to(x0), found.eps.to(x0))


def told_alike(cond: object, x: Tensor) -> Tensor:
    """A number for each sample, ``(B,)`` int64: the same for those that are told the same in all ports."""
    if not isinstance(cond, Condition):
        return torch.zeros(len(x), dtype=torch.int64, device=x.device)
    ports = [port.flatten(1).double() if port.ndim > 1 else port[:, None].double() for port in cond.ports().values()]
    which: Tensor = torch.unique(torch.cat(ports, 1), dim=0, return_inverse=True)[1]
    return which.to(x.device)
