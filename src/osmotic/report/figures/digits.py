"""Drawings of real digits, noised and brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from osmotic.report.figures.style import Array, Numbers, canvas

GAP = 1


def digits(numbers: Numbers, path: Path) -> Path:
    """Two strips of pictures: forward, and back from noise."""
    with canvas(path, 7.4, 2, 1) as panels:
        _strip(panels[0, 0], numbers["forward"], numbers["t"])
        panels[0, 0].set_title("Noising four digits")
        _strip(panels[1, 0], numbers["reverse"], numbers["reverse_t"])
        panels[1, 0].set_title("Noise brought back by the exact denoiser of all 1,797 digits")
    return path


def _strip(panel: Any, frames: Array, times: Array) -> None:
    """Frames ``(rows, columns, H, W)`` as one picture with the time under each column."""
    rows, columns, height, width = frames.shape
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), 255, np.uint8)
    for i in range(rows):
        for j in range(columns):
            sheet[i * (height + GAP) :, j * (width + GAP) :][:height, :width] = 255 - frames[i, j]
    panel.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    panel.set_xticks([j * (width + GAP) + (width - 1) / 2 for j in range(columns)], [f"{t:g}" for t in times])
    panel.set(yticks=[], xlabel="t")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
