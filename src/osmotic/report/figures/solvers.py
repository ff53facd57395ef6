"""Drawings of solvers and their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from osmotic.report.figures.style import BLUE, CYCLE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, Numbers, canvas, counts


def euler_heun(numbers: Numbers, path: Path) -> Path:
    """One large step of each beside the exact curve, and the errors over the number of steps."""
    n = numbers["steps"]
    with canvas(path, 3.8, 1, 2) as panels:
        left, right = panels[0]
        _one_step(left, numbers)
        for i, (name, color) in enumerate((("Euler", ORANGE), ("Heun", BLUE))):
            error, text = numbers["error"][i], f"{name}, order {numbers['slope'][i]:.2f}"
            right.loglog(n, error, "o-", color=color, markersize=4)
            right.annotate(text, (n[2], error[2]), xytext=(6, 6), textcoords="offset points", color=color)
        counts(right, n)
        right.set(xlabel="steps (Heun: two evaluations each)", ylabel="error at the end")
        right.grid(axis="y", color="#eeeeee")
        right.set_title("Error over steps")
    return path


def _one_step(panel: Any, numbers: Numbers) -> None:
    """The exact curve, both steps, and the slope that Heun adds."""
    sigma, euler, heun = numbers["sigma"], float(numbers["euler"]), float(numbers["heun"])
    low, high = sigma[0], sigma[-1]
    panel.plot(sigma, numbers["exact"], color=INK, linewidth=2.4, label="exact")
    panel.plot([high, low], [1, euler], color=ORANGE, label="Euler: the slope at the start")
    around = np.array([-0.02, 0.11])
    panel.plot(low + around, euler + numbers["slope_end"] * around, color=GREY, label="the slope at Euler's end")
    panel.plot([high, low], [1, heun], color=BLUE, label="Heun: the mean of both slopes")
    for y, color in ((numbers["exact"][0], INK), (euler, ORANGE), (heun, BLUE)):
        panel.plot(low, y, "o", color=color, markersize=5, zorder=5)
    panel.plot(high, 1, "o", color=INK, markersize=5, zorder=5)
    panel.set(xlim=(high + 0.03, low - 0.03), ylim=(0.3, 1.05), xlabel=r"noise level $\sigma$", ylabel="x")
    panel.set_title("One step on the probability-flow ODE")
    panel.legend(loc="lower left")


def sde_ode(numbers: Numbers, path: Path) -> Path:
    """A row for each equation: paths, and histograms on the way beside the exact density."""
    kinds = (("sde", "Reverse SDE", ORANGE), ("ode", "Probability-flow ODE", BLUE))
    with canvas(path, 5.4, 2, 4, width_ratios=(2.4, 1, 1, 1)) as panels:
        for row, (key, name, color) in zip(panels, kinds, strict=True):
            row[0].plot(numbers["path_t"], numbers[f"{key}_paths"], color=color, linewidth=0.9)
            row[0].set(xlim=(1, 0), ylim=(-3, 3), ylabel="x", xlabel="t, noise to data" if key == "ode" else "")
            row[0].set_title(f"{name}, from the same noise")
            for panel, stop in zip(row[1:], (1, 3, 4), strict=True):
                _marginal(panel, numbers, key, stop, color)
    return path


def _marginal(panel: Any, numbers: Numbers, key: str, stop: int, color: str) -> None:
    """A histogram and the exact density, on their side."""
    shares, density = numbers[f"{key}_histogram"][stop], numbers["density"][stop]
    panel.stairs(shares, numbers["edges"], orientation="horizontal", fill=True, color=color, alpha=0.4, linewidth=0)
    panel.plot(density, numbers["x"], color=INK, linewidth=1.2)
    panel.set(xticks=[], yticks=[], ylim=(-3, 3), xlim=(0, 1.12 * density.max()))
    panel.spines["bottom"].set_visible(False)
    panel.set_title(f"t = {numbers['t'][stop]:g}", loc="center")
    found, exact = numbers[f"{key}_variance"][stop], numbers["variance"][stop]
    panel.set_xlabel(f"variance {found:.3f}\n(exact {exact:.3f})", fontsize=9)


def orders(numbers: Numbers, path: Path) -> Path:
    """Errors over evaluations by declared order, and every solver's measured order beside the declared."""
    declared = numbers["declared"]
    colors = dict(zip((1, 2, 3, 4), (ORANGE, GREEN, BLUE, PURPLE), strict=True))
    with canvas(path, 0.9 + 0.2 * len(declared), 1, 2, width_ratios=(1.5, 1)) as panels:
        left, right = panels[0]
        for order, calls, error in zip(declared, numbers["evaluations"], numbers["error"], strict=True):
            color = colors.get(int(order), GREY)
            left.loglog(calls, error, "o-", color=color, linewidth=1, markersize=2.5, alpha=0.75)
        for order in sorted(set(declared.astype(int))):
            left.plot([], [], "o-", color=colors.get(order, GREY), markersize=4, label=f"order {order}")
        counts(left, 40 * 2 ** np.arange(5))
        left.legend(loc="lower left")
        left.set(xlabel="denoiser evaluations", ylabel="root mean square error")
        left.grid(color="#eeeeee")
        left.set_title("Error of every deterministic solver")
        _measured(right, numbers, colors)
    return path


def _measured(panel: Any, numbers: Numbers, colors: dict[int, str]) -> None:
    """A row a solver: a bar at the declared order, a point at the measured one."""
    declared, measured, names = numbers["declared"], numbers["measured"], numbers["name"]
    ranks = np.lexsort((names, declared))[::-1]
    for place, i in enumerate(ranks):
        panel.plot([declared[i]] * 2, [place - 0.35, place + 0.35], color=PALE, linewidth=3, solid_capstyle="butt")
        panel.plot(measured[i], place, "o", color=colors.get(int(declared[i]), GREY), markersize=5)
    panel.set_yticks(range(len(ranks)), [str(names[i]) for i in ranks])
    panel.tick_params(axis="y", length=0)
    panel.set(xlim=(0.5, declared.max() + 0.6), xticks=range(1, int(declared.max()) + 1), ylim=(-0.8, len(ranks) - 0.2))
    panel.set_xlabel("measured order (bar: declared)")
    panel.spines["left"].set_visible(False)
    panel.set_title("Order of convergence")


def eta(numbers: Numbers, path: Path) -> Path:
    """The samples' variance over the number of steps for each eta: closed form as lines, measured as points."""
    n, data = numbers["steps"], float(numbers["data_variance"])
    with canvas(path, 3.8) as panels:
        panel = panels[0, 0]
        panel.axhline(1, color=INK, linewidth=1, linestyle=(0, (2, 3)))
        panel.annotate("the data", (n[0], 1), xytext=(0, 5), textcoords="offset points", fontsize=9)
        for i, color in enumerate(CYCLE[: len(numbers["eta"])]):
            name, found = rf"$\eta$ = {numbers['eta'][i]:g}", numbers["sampled_variance"][i] / data
            panel.plot(n, numbers["variance"][i] / data, color=color)
            panel.plot(n, found, "o", color=color, markersize=5, markerfacecolor="white", label=name)
        counts(panel, n)
        panel.set(xlabel="steps", ylabel="variance of samples / of data", ylim=(0, 1.12))
        panel.set_title("DDIM: less fresh noise needs fewer steps (lines: closed form, points: 10,000 samples)")
        panel.legend(loc="lower right")
    return path
