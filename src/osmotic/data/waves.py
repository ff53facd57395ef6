"""Sequences of four wave forms, made with a fixed seed, and the detector that says which of them a sequence is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LENGTH = 64
CYCLES = (2.0, 4.0)  # in a sequence
HEIGHTS = (0.7, 1.3)
NOISE = 0.03
GRID = (21, 48)  # cycles and phases that the detector tries

Waves = NDArray[np.float64]


def sine(phase: Waves) -> Waves:
    """``sin(2 pi phase)``."""
    return np.sin(2 * np.pi * phase)


def square(phase: Waves) -> Waves:
    """1 in the first half of a cycle, -1 in the second, with edges of a tenth of a cycle."""
    return np.clip(10 * np.sin(2 * np.pi * phase) / np.pi, -1, 1)


def sawtooth(phase: Waves) -> Waves:
    """From -1 to 1, and back at once."""
    return np.asarray(2 * (phase % 1) - 1)


def beat(phase: Waves) -> Waves:
    """As a heart's electric potential goes: a low wave, a sharp peak between two dips, another low wave."""
    within = phase % 1
    bumps = ((0.2, 0.05, 0.2), (0.36, 0.02, -0.2), (0.42, 0.025, 1.6), (0.48, 0.02, -0.4), (0.72, 0.07, 0.4))
    return np.asarray(sum(height * np.exp(-(((within - at) / wide) ** 2) / 2) for at, wide, height in bumps))


FORMS: dict[str, Callable[[Waves], Waves]] = {"sine": sine, "square": square, "sawtooth": sawtooth, "beat": beat}


def drawn(count: int, seed: int) -> tuple[Waves, NDArray[np.int64]]:
    """Sequences ``(N, 64)`` of random frequency, phase and height, with a little noise, and the form of each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(FORMS), size=count)
    cycles, start, height = (rng.uniform(low, high, (count, 1)) for low, high in (CYCLES, (0.0, 1.0), HEIGHTS))
    phase = start + cycles * np.arange(LENGTH) / LENGTH
    made = np.stack([form(phase) for form in FORMS.values()])[labels, np.arange(count)]
    return height * made + NOISE * rng.standard_normal((count, LENGTH)), labels


def recognise(x: Waves) -> NDArray[np.int64]:
    """The form of each sequence ``(N, 64)``: the one whose drawing, moved and stretched, correlates best with it."""
    cycles, start = np.linspace(*CYCLES, GRID[0]), np.arange(GRID[1]) / GRID[1]
    phase = start[:, None] + cycles[:, None, None] * np.arange(LENGTH) / LENGTH
    known = np.stack([form(phase).reshape(-1, LENGTH) for form in FORMS.values()])
    known, x = (some - some.mean(-1, keepdims=True) for some in (known, x))
    known /= np.linalg.norm(known, axis=-1, keepdims=True)
    return np.asarray((known @ x.T).max(1).argmax(0))
