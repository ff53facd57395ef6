"""Drawings of plain differential equations and of particles in a well."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from osmotic.report.figures.style import BLUE, CYCLE, INK, ORANGE, PALE, Numbers, canvas, shades, steps


def equations(numbers: Numbers, path: Path) -> Path:
    """A direction field with Euler's polygons, and noisy paths within the exact band."""
    t = numbers["t"]
    with canvas(path, 3.7, 1, 2) as panels:
        left, right = panels[0]
        across, up = np.meshgrid(np.linspace(0.1, 2.9, 15), np.linspace(-0.1, 1.15, 11))
        # Arrows of equal length on the page: the slope is scaled by the axes' ratio.
        slope = -up * 3.0 / 1.45
        length = np.hypot(1, slope)
        field = {"color": PALE, "pivot": "mid", "angles": "uv", "scale": 26, "width": 0.004, "headwidth": 4}
        left.quiver(across, up, 1 / length, slope / length, **field)
        left.plot(t, numbers["exact"], color=INK, linewidth=2, label="exact")
        for n, shade in zip(numbers["euler_steps"], shades(3), strict=True):
            y = numbers[f"euler_{n}"]
            left.plot(np.linspace(0, 3, len(y)), y, "o-", color=shade, markersize=3.5, label=f"Euler, {n} steps")
        left.set(xlim=(0, 3), ylim=(-0.2, 1.25), xlabel="t", ylabel="x")
        left.set_title(f"dx/dt = -x: Euler's error falls with order {numbers['euler_slope']:.2f}")
        left.legend(loc="upper right", frameon=True, framealpha=1, edgecolor="white")
        mean, band = numbers["mean"], 2 * np.sqrt(numbers["variance"])
        exact = "exact mean and 2 deviations"
        right.fill_between(t, mean - band, mean + band, color=BLUE, alpha=0.15, linewidth=0, label=exact)
        right.plot(t, numbers["paths"], color=ORANGE, linewidth=0.8, alpha=0.9)
        right.plot([], [], color=ORANGE, label="Euler-Maruyama, step 0.02")
        right.plot(t, mean, color=BLUE)
        right.set(xlim=(0, 3), xlabel="t", ylim=(-3.5, 5.5))
        right.set_title(r"dx = -x dt + $\sqrt{2}$ dw")
        right.legend(loc="upper right")
    return path


def particles(numbers: Numbers, path: Path) -> Path:
    """Paths without and with noise, the variance over time, and where the particles end."""
    t, x = numbers["t"], numbers["x"]
    names = ["kT = 0: no noise", r"kT = 1/2: no $\sqrt{2}$", "kT = 1", "kT = 2"]
    titles = ["Descent alone: all fall to the origin", "With noise of temperature 1: they spread"]
    with canvas(path, 5.6, 2, 2) as panels:
        for panel, index, title in zip(panels[0], (0, 2), titles, strict=True):
            panel.plot(t, numbers["paths"][index], color=CYCLE[index], linewidth=0.7, alpha=0.8)
            panel.set(xlim=(0, t[-1]), ylim=(-5, 5), xlabel="time", ylabel="x")
            panel.set_title(title)
        variance, ends = panels[1]
        for i, (name, color) in enumerate(zip(names, CYCLE, strict=True)):
            variance.plot(t, numbers["variance"][i], color=color, label=name)
            variance.plot(t, numbers["variance_exact"][i], color=INK, linewidth=0.9, linestyle=(0, (2, 3)))
            if i > 0:  # without noise there is no density at the end
                steps(ends, numbers["edges"], numbers["histogram"][i], color)
                ends.plot(x, numbers["density"][i], color=color, label=name)
        variance.set(xlim=(0, t[-1]), ylim=(0, 4.1), xlabel="time", ylabel="variance")
        variance.set_title("The variance settles at kT (dotted: exact)")
        variance.legend(loc="upper right", ncols=2)
        ends.set(yticks=[], xlim=(-5, 5), xlabel="x", ylim=(0, 0.75))
        ends.spines["left"].set_visible(False)
        ends.set_title(r"Where they end: density $\propto$ exp(-U / kT)")
        ends.legend(loc="upper center", ncols=3, columnspacing=1.2, handlelength=1.2)
    return path
