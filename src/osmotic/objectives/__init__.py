"""Training objectives: pure functions in which noise and time are arguments."""

from osmotic.objectives.denoising import denoising

__all__ = ["denoising"]
