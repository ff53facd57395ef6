"""Drawings of densities in one dimension."""

from __future__ import annotations

from pathlib import Path

from osmotic.report.figures.style import BLUE, INK, ORANGE, Numbers, canvas, counts, heat, shades, steps


def diffusion(numbers: Numbers, path: Path) -> Path:
    """One panel a time: the exact density as a line, the samples' histogram beneath."""
    times, x = numbers["t"], numbers["x"]
    with canvas(path, 4.2, 2, 3, sharex=True) as panels:
        for i, panel in enumerate(panels.flat):
            steps(panel, numbers["edges"], numbers["histogram"][i], BLUE, "20,000 samples" if i == 0 else None)
            panel.plot(x, numbers["density"][i], color=INK, label="exact density" if i == 0 else None)
            panel.set_title(f"t = {times[i]:g}")
            panel.set(yticks=[], xlim=(-3.5, 3.5), ylim=(0, 1.12 * numbers["density"][i].max()))
            panel.spines["left"].set_visible(False)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        panels[0, 0].figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return path


def forward_reverse(numbers: Numbers, path: Path) -> Path:
    """Two heat maps that meet at the noise: forward in time on the left, back again on the right."""
    t, x, down = numbers["t"], numbers["x"], numbers["reverse_t"]
    density = (numbers["density"] / numbers["density"].max(1, keepdims=True)).T
    with canvas(path, 4.1, 1, 2, sharey=True) as panels:
        left, right = panels[0]
        for panel in (left, right):
            panel.imshow(density, origin="lower", extent=(0, 1, x[0], x[-1]), cmap=heat(), interpolation="bilinear")
            panel.set(xlim=(0, 1), ylim=(x[0], x[-1]), aspect="auto")
        left.plot(t, numbers["forward"], color=ORANGE, linewidth=0.9)
        right.plot(down, numbers["reverse_sde"], color=ORANGE, linewidth=0.9)
        right.plot(down, numbers["reverse_ode"], color=INK, linewidth=1.3)
        right.invert_xaxis()
        left.set(xlabel="t, data to noise", ylabel="x")
        right.set(xlabel="t, noise to data")
        left.set_title("Noising")
        right.set_title("Generation")
        right.plot([], [], color=ORANGE, label="paths of the SDE")
        right.plot([], [], color=INK, label="of the ODE")
        right.figure.legend(loc="outside lower center", ncols=2)
    return path


def fokker_planck(numbers: Numbers, path: Path) -> Path:
    """Forward and back beside the exact densities, and the error over the number of cells."""
    x, times = numbers["x"], numbers["t"]
    with canvas(path, 3.4, 1, 3, width_ratios=(1.25, 1.25, 1)) as panels:
        there, back, order = panels[0]
        for shade, t, solved, exact in zip(shades(len(times)), times, numbers["solved"], numbers["exact"], strict=True):
            there.plot(x, solved, color=shade, linewidth=2.4, label=f"t = {t:g}")
            there.plot(x, exact, color=INK, linewidth=0.9, linestyle=(0, (2, 3)))
        there.set_title("Solved forward")
        there.legend(loc="upper left", handlelength=1.2)
        back.plot(x, numbers["back"], color=ORANGE, linewidth=2.4, label=f"back at t = {numbers['start']:g}")
        back.plot(x, numbers["exact_start"], color=INK, linewidth=0.9, linestyle=(0, (2, 3)), label="exact")
        back.set_title("Solved back, with the score")
        back.legend(loc="upper left", handlelength=1.2)
        for panel in (there, back):
            panel.set(xlim=(-2.6, 2.6), xlabel="x", yticks=[], ylim=(0, 1.3 * panel.dataLim.y1))
            panel.spines["left"].set_visible(False)
        order.loglog(numbers["cells"], numbers["error"], "o-", color=BLUE)
        counts(order, numbers["cells"])
        order.set(ylim=(1e-6, 1e-3), ylabel="total variation")
        order.set(xlabel="cells (and steps)")
        order.set_title(f"Error: slope {-numbers['slope']:.2f}")
        order.grid(axis="y", color="#eeeeee")
    return path
