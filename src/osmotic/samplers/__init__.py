"""Samplers, their catalogue by name, and the one loop that runs them.

To add a sampler, write a :class:`Sampler` in its family's file and enter it below; the conformance tests measure the
order it declares, its marginals and its independence of the batch.
"""

from collections.abc import Callable

from osmotic.samplers.base import Sampler, prepare, prior, sample, trajectory
from osmotic.samplers.flow import Euler, Heun, Midpoint
from osmotic.samplers.jump import DDIM, DDPM, Gamma
from osmotic.samplers.multistep import DPMSolverPP2M

CATALOG: dict[str, Callable[[], Sampler]] = {
    "ddim": DDIM,
    "ddim-half": lambda: DDIM(eta=0.5),
    "ddpm": DDPM,
    "ddpm-large": lambda: DDPM(v=1.0),
    "euler": Euler,
    "midpoint": Midpoint,
    "heun": Heun,
    "dpmpp-2m": DPMSolverPP2M,
    "jump": Gamma,
    "consistency": lambda: Gamma(gamma=1.0),
}

__all__ = [
    "CATALOG",
    "DDIM",
    "DDPM",
    "DPMSolverPP2M",
    "Euler",
    "Gamma",
    "Heun",
    "Midpoint",
    "Sampler",
    "prepare",
    "prior",
    "sample",
    "trajectory",
]
