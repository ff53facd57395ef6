"""What makes the figures one family: paper, palette, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from osmotic.data.whole import whole

Array: TypeAlias = NDArray[Any]
Numbers: TypeAlias = Mapping[str, Array]
# Draws a figure's numbers into a PNG.
Draw: TypeAlias = Callable[[Numbers, Path], Path]

INK, GREY, PALE = "#2b2b2b", "#8c8c8c", "#d9d9d9"
BLUE, ORANGE, GREEN, PURPLE = "#2166ac", "#d6604d", "#3f8f4f", "#7b4ea3"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE)
WIDTH = 8.0

SETTINGS: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "mathtext.fontset": "dejavusans",
}


@contextmanager
def canvas(path: Path, height: float, rows: int = 1, columns: int = 1, **layout: Any) -> Iterator[Any]:
    """Panels ``(rows, columns)`` of one figure, written whole to a PNG at the end.

    Args:
        path: of the PNG, 1,200 pixels wide.
        height: in inches, to a width of 8.
        rows: of panels.
        columns: of panels.
        layout: for matplotlib's ``Figure.subplots``.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(SETTINGS):
        engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.05)
        figure = Figure(figsize=(WIDTH, height), layout=engine, dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure.subplots(rows, columns, squeeze=False, **layout)
        with whole(path) as part:
            # No date and no version inside: the same numbers give the same file.
            figure.savefig(part, format="png", metadata={"Software": None})


def shades(count: int) -> list[Any]:
    """Blues from light to dark, for levels in order."""
    from matplotlib import colormaps

    return [colormaps["Blues"](v) for v in np.linspace(0.35, 0.95, count)]


def heat() -> Any:
    """White to blue, for densities under lines."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("heat", ["#ffffff", "#cfe1f2", "#7fb1d8"])


def steps(panel: Any, edges: Array, heights: Array, color: str, label: str | None = None) -> None:
    """A histogram as a filled area."""
    panel.stairs(heights, edges, fill=True, color=color, alpha=0.3, linewidth=0, label=label)


def bare(panel: Any) -> None:
    """Take a panel's frame and ticks away."""
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def counts(panel: Any, values: Array) -> None:
    """A logarithmic axis with plain whole numbers at its points."""
    panel.set_xscale("log")
    panel.set_xticks(values, [f"{v:g}" for v in values])
    panel.minorticks_off()
