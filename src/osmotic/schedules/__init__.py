"""Noise schedules, and their catalogue by name.

To add a schedule, write a :class:`Schedule` with its ``pair`` and enter it below; the conformance tests check it with
all others.
"""

from collections.abc import Callable

from osmotic.schedules.base import Number, Schedule, numbers
from osmotic.schedules.continuous import VE, VP, Cosine, GeometricVE, Rectified, Scaled, Shifted, Sigmoid, SubVP
from osmotic.schedules.discrete import Discrete

CATALOG: dict[str, Callable[[], Schedule]] = {
    "rectified": Rectified,
    "cosine": Cosine,
    "vp": VP,
    "sub-vp": SubVP,
    "ve": VE,
    "geometric-ve": GeometricVE,
    "sigmoid": Sigmoid,
    "ddpm-linear": Discrete.linear,
    "ddpm-scaled-linear": Discrete.scaled_linear,
    "ddpm-cosine": Discrete.cosine,
    "ddpm-sigmoid": Discrete.sigmoid,
    "ddpm-zero-terminal": lambda: Discrete.linear().zero_terminal(),
    "rectified-shifted": lambda: Shifted(Rectified(), 3.0),
    "cosine-shifted": lambda: Shifted(Cosine(), 2.0),
}

__all__ = [
    "CATALOG",
    "VE",
    "VP",
    "Cosine",
    "Discrete",
    "GeometricVE",
    "Number",
    "Rectified",
    "Scaled",
    "Schedule",
    "Shifted",
    "Sigmoid",
    "SubVP",
    "numbers",
]
