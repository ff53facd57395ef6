"""Drawings of points and fields in the plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from osmotic.report.figures.style import BLUE, INK, ORANGE, Numbers, bare, canvas, shades


def score_field(numbers: Numbers, path: Path) -> Path:
    """Arrows over contours at two levels, and the ends of chains beneath."""
    with canvas(path, 8.2, 2, 2) as panels:
        for i, panel in enumerate(panels[0]):
            _field(panel, numbers, i)
        titles = ("Langevin at the small noise alone", "Annealed from large to small noise")
        for panel, key, title in zip(panels[1], ("plain", "annealed"), titles, strict=True):
            panel.plot(*numbers[f"{key}_ends"].T, ".", color=ORANGE, markersize=3)
            panel.set_title(title)
            for place, share, weight in zip((-2.5, 2.5), numbers[f"{key}_shares"], numbers["weights"], strict=True):
                side = "left" if place < 0 else "right"
                panel.text(-0.1 * place, place, f"{share:.0%}\n(true {weight:.0%})", ha=side, va="center")
        for panel in panels.flat:
            panel.set(xlim=(-5, 5), ylim=(-5, 5), xticks=[-4, 0, 4], yticks=[-4, 0, 4], aspect="equal")
    return path


def _field(panel: Any, numbers: Numbers, i: int) -> None:
    """The score's arrows over the density at one level."""
    x, arrows, score = numbers["x"], numbers["arrows"], numbers["score"][i]
    density = numbers["density"][i] / numbers["density"][i].max()
    levels = [0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7]
    panel.contourf(x, x, density, levels=[*levels, 1.01], colors=shades(len(levels)), alpha=0.45)
    length = np.linalg.norm(score, axis=-1, keepdims=True)
    # Lengths are compressed: the scores of a small level span decades.
    shown = score / length * np.sqrt(length / length.max())
    panel.quiver(arrows, arrows, *np.moveaxis(shown, -1, 0), color=INK, pivot="mid", scale=19, width=0.004)
    share = f"{numbers['unseen_share'][i]:.0%} of the square"
    panel.set_title(f"Score at noise {numbers['sigma'][i]:g}: {share}\nsees less than one of 1,000 samples")


def manifold(numbers: Numbers, path: Path) -> Path:
    """A row a cloud, a column a noise level: noisy points and their posterior means."""
    with canvas(path, 4.9, 2, 4) as panels:
        for (i, j), panel in np.ndenumerate(panels):
            panel.plot(*numbers["noisy"][i, j].T, ".", color=BLUE, markersize=2, alpha=0.45)
            near = f"{numbers['distance'][i, j]:.2f}"
            if j:
                panel.plot(*numbers["denoised"][i, j].T, ".", color=ORANGE, markersize=2)
                near += f", then {numbers['denoised_distance'][i, j]:.2f}"
            bare(panel)
            panel.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal")
            panel.set_xlabel(f"distance {near}", fontsize=9)
            if i == 0:
                panel.set_title(f"noise {numbers['sigma'][j]:.2f}" if j else "data", loc="center")
        for name, color in (("noisy points", BLUE), ("their posterior means", ORANGE)):
            panels[0, 0].plot([], [], ".", color=color, markersize=7, label=name)
        panels[0, 0].figure.legend(loc="outside lower center", ncols=2)
    return path
