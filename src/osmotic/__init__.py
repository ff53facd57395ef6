"""osmotic: one toolkit for diffusion models. Any denoiser works with any sampler, guidance and data shape."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names are imported when first used, so that `osmotic --help` does not pay for torch.
_HOMES = {
    "Condition": "osmotic.condition",
    "Denoiser": "osmotic.denoiser",
    "Estimate": "osmotic.estimate",
    "Model": "osmotic.training.model",
    "NeuralDenoiser": "osmotic.denoiser",
    "Rescheduled": "osmotic.denoiser",
    "load": "osmotic.training.cascade",
    "load_codec": "osmotic.training.codec",
    "prior": "osmotic.samplers",
    "sample": "osmotic.samplers",
    "train": "osmotic.recipes.train",
    "trajectory": "osmotic.samplers",
}
_ROOMS = [
    "adapters",
    "brownian",
    "cascade",
    "clocks",
    "codecs",
    "condition",
    "data",
    "denoiser",
    "dequantize",
    "divergence",
    "estimate",
    "fokker_planck",
    "guidance",
    "inverse",
    "inversion",
    "laws",
    "levels",
    "likelihood",
    "metrics",
    "nn",
    "noise",
    "objectives",
    "ode",
    "oracles",
    "phase",
    "recipes",
    "report",
    "samplers",
    "schedules",
    "tiled",
    "times",
    "training",
]

if TYPE_CHECKING:
    from osmotic.condition import Condition as Condition
    from osmotic.denoiser import Denoiser as Denoiser
    from osmotic.denoiser import NeuralDenoiser as NeuralDenoiser
    from osmotic.denoiser import Rescheduled as Rescheduled
    from osmotic.estimate import Estimate as Estimate
    from osmotic.samplers import prior as prior
    from osmotic.samplers import sample as sample
    from osmotic.samplers import trajectory as trajectory


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"osmotic.{name}")
    raise AttributeError(f"module 'osmotic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_ROOMS, "__version__"])
