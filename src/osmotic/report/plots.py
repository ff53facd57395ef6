"""Plots of what is no picture: points, sequences, tables, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmotic.data.whole import whole

Array = NDArray[Any]
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#999999"
MOST_PANELS = 12
MOST_LINES = 24


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """An empty figure drawn without a display, and its panels as an array."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _panels(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure of up to four panels a row, and the ``count`` of them that are used."""
    columns = min(4, count)
    figure, grid = _figure(-(-count // columns), columns, width, height)
    panels = list(grid.flat)
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels[:count]


def _write(figure: Any, path: Path) -> Path:
    with whole(path) as part:
        figure.savefig(part, format="png")
    return path


def scatter(samples: Array, path: Path, real: Array | None = None) -> Path:
    """Points ``(N, 2)``, with real ones beneath in grey."""
    figure, panels = _figure(1, 1, 5, 5)
    panel = panels[0, 0]
    if real is not None:
        panel.plot(*real.T, ".", color=GREY, markersize=3, alpha=0.5, label="data")
    panel.plot(*samples.T, ".", color=BLUE, markersize=3, alpha=0.7, label="samples")
    panel.set_aspect("equal", adjustable="datalim")
    panel.legend(frameon=False, markerscale=3)
    return _write(figure, path)


def histograms(
    samples: Array, names: Sequence[str], categories: Sequence[Sequence[str]], path: Path, real: Array | None = None
) -> Path:
    """One panel a column of ``(N, D)``, with the real one as a line; the first columns if there are many.

    Args:
        samples: values in the columns' units, category numbers where there are categories.
        names: of the columns.
        categories: of each column, empty for numbers.
        path: of the PNG.
        real: rows to compare with, of the same columns.
    """
    figure, panels = _panels(min(len(names), MOST_PANELS), 3, 2.2)
    for i, panel in enumerate(panels):
        _column(panel, samples[:, i], categories[i], None if real is None else real[:, i])
        panel.set_title(names[i], fontsize=9)
        panel.set_yticks([])
    panels[0].legend(frameon=False, fontsize=8)
    return _write(figure, path)


def _column(panel: Any, samples: Array, categories: Sequence[str], real: Array | None) -> None:
    """The histogram of one column: bars by name for categories, up to thirty bins for numbers."""
    both = samples if real is None else np.concatenate([samples, real])
    both = both[np.isfinite(both)]
    if not len(both):
        return
    # Few numbers in many bins look like a fence.
    count = int(np.clip(2 * min(len(samples), len(both) if real is None else len(real)) ** 0.5, 8, 30))
    bins = np.arange(len(categories) + 1) - 0.5 if categories else np.linspace(both.min(), both.max() + 1e-9, count + 1)
    panel.hist(samples, bins, density=True, color=BLUE, alpha=0.6, label="samples", rwidth=0.8 if categories else 1)
    if real is not None:
        panel.hist(real, bins, density=True, histtype="step", color="black", label="data")
    if categories:
        panel.set_xticks(range(len(categories)), [c[:12] for c in categories], fontsize=7, rotation=30)


def lines(samples: Array, path: Path) -> Path:
    """Sequences ``(N, C, L)``, one panel each, a line a channel."""
    figure, panels = _panels(min(len(samples), MOST_LINES), 3, 1.6)
    for sample, panel in zip(samples, panels, strict=False):
        panel.plot(sample.T, linewidth=1)
        panel.tick_params(labelsize=7)
    return _write(figure, path)


def pairs(samples: Array, others: Array, path: Path) -> Path:
    """Sequences ``(N, C, L)``, one panel each, with another one beneath in grey; the first channel of many."""
    figure, panels = _panels(len(samples), 3, 1.6)
    for sample, other, panel in zip(samples, others, panels, strict=True):
        panel.plot(other[0], linewidth=1.5, color=GREY, label="training")
        panel.plot(sample[0], linewidth=1, color=BLUE, label="sample")
        panel.tick_params(labelsize=7)
    panels[0].legend(frameon=False, fontsize=7)
    return _write(figure, path)


def beside(samples: Array, real: Array, path: Path) -> Path:
    """Eight sequences ``(N, C, L)`` in blue above eight real ones in grey, a line a channel."""
    rows = [s for part in (samples, real) for start in (0, 4) for s in (part[start : start + 4],)]
    figure, panels = _figure(4, 4, 3, 1.4)
    for row, line, color in zip(rows, panels, (BLUE, BLUE, GREY, GREY), strict=True):
        for panel in line:
            panel.tick_params(labelsize=7)
        for sample, panel in zip(row, line, strict=False):
            panel.plot(sample.T, linewidth=1, color=color)
    panels[0, 0].set_title("samples", fontsize=9, loc="left")
    panels[2, 0].set_title("held-out data", fontsize=9, loc="left")
    return _write(figure, path)


def losses(records: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """The training loss, the held-out loss of raw and averaged weights, and the held-out loss by noise level.

    Args:
        records: the lines of metrics.jsonl.
    """
    figure, panels = _figure(1, 2, 5.5, 3.6)
    training = [(r["step"], r["loss"]) for r in records if "loss" in r]
    held_out = [(r["step"], r["held_out"]) for r in records if "held_out" in r]
    left, right = panels[0]
    if training:
        left.plot(*zip(*training, strict=True), color=GREY, linewidth=1, label="training")
    weights = list(held_out[0][1]) if held_out else []
    for name, color in zip(weights, (ORANGE, BLUE, "black"), strict=False):
        points = [(step, found[name]["loss"]) for step, found in held_out if name in found]
        left.plot(*zip(*points, strict=True), "o-", markersize=3, color=color, label=f"held out, {name}")
    left.set(xlabel="step", ylabel="loss", title="Loss")
    # The first values, of an untrained network, would press everything else together.
    later = [value for _, value in training] + [w["loss"] for step, f in held_out if step for w in f.values()]
    if later:
        left.set_ylim(0.9 * min(later), 1.05 * min(max(later), 2 * float(np.median(later))))
    left.legend(frameon=False, fontsize=8)
    if held_out:
        last = held_out[-1][1][weights[-1]]
        bins = [(name.removeprefix("log_snr "), value) for name, value in last.items() if name.startswith("log_snr")]
        right.bar([name for name, _ in bins], [value for _, value in bins], color=BLUE)
        right.set(xlabel="log-SNR (noise to data)", title=f"Held-out loss by noise level, {weights[-1]}")
        right.tick_params(axis="x", labelsize=8)
    return _write(figure, path)
