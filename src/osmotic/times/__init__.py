"""Where a sampler stops: grids of n + 1 times from a start down to exactly 0, and their catalogue by name.

To add a grid, write a :class:`Grid` with its ``inner`` and enter it below; the conformance tests check it with all
others.
"""

from collections.abc import Callable

from osmotic.times.base import Fixed, Given, Grid, given
from osmotic.times.grids import Beta, Levels, Quadratic, TimePower, Uniform
from osmotic.times.ratio import (
    AYS_DEEPFLOYD,
    AYS_SD15,
    AYS_SDXL,
    AYS_SVD,
    Cosine,
    ImprovedDDPM,
    Karras,
    LogSNR,
    PolyExponential,
    Power,
    Span,
    Table,
    suggested,
)
from osmotic.times.search import Teacher, optimized

GRIDS: dict[str, Callable[[], Grid]] = {
    "uniform": Uniform,
    "quadratic": Quadratic,
    "cubic": lambda: TimePower(3.0),
    "beta": Beta,
    "cosine": Cosine,
    "karras": Karras,
    "log-snr": LogSNR,
    "poly-exponential": PolyExponential,
    "power": Power,
    "span": Span,
    "iddpm": ImprovedDDPM,
    "ays-sd15": lambda: Table(AYS_SD15),
    "ays-sdxl": lambda: Table(AYS_SDXL),
    "ays-deepfloyd": lambda: Table(AYS_DEEPFLOYD),
    "ays-svd": lambda: Table(AYS_SVD),
    "levels": lambda: Levels(1000),
}

__all__ = [
    "AYS_DEEPFLOYD",
    "AYS_SD15",
    "AYS_SDXL",
    "AYS_SVD",
    "GRIDS",
    "Beta",
    "Cosine",
    "Fixed",
    "Given",
    "Grid",
    "ImprovedDDPM",
    "Karras",
    "Levels",
    "LogSNR",
    "PolyExponential",
    "Power",
    "Quadratic",
    "Span",
    "Table",
    "Teacher",
    "TimePower",
    "Uniform",
    "given",
    "optimized",
    "suggested",
]
