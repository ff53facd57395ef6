"""Drawings of chains of noising steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from osmotic.report.figures.style import BLUE, GREY, INK, ORANGE, Numbers, canvas, steps


def skipping(numbers: Numbers, path: Path) -> Path:
    """The exact reverse kernel for longer and longer skips, beside the normal that a DDPM step assumes."""
    x = numbers["x"]
    with canvas(path, 3.1, 1, 4, sharex=True) as panels:
        for i, panel in enumerate(panels[0]):
            exact, normal, count = numbers["density"][i], numbers["normal"][i], int(numbers["modes"][i])
            panel.fill_between(x, exact, color=BLUE, alpha=0.2, linewidth=0)
            panel.plot(x, exact, color=BLUE, label="exact")
            panel.plot(x, normal, color=ORANGE, linestyle=(0, (3, 2)), label="normal of equal mean and variance")
            panel.set_title(f"500 to {numbers['j'][i]}\n{count} peak{'s' if count > 1 else ''}", loc="center")
            panel.set(xlim=(-2, 2), xticks=[-1, 0, 1], xlabel=r"$x_j$")
            panel.set(yticks=[], ylim=(0, 1.12 * max(exact.max(), normal.max())))
            panel.spines["left"].set_visible(False)
        panels[0, 0].figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return path


def unit_chain(numbers: Numbers, path: Path) -> Path:
    """Walks of four unit steps, their end beside one large step's, and the posterior one level down."""
    with canvas(path, 3.6, 1, 3, width_ratios=(1, 1, 1.3)) as panels:
        walks, ends, posterior = panels[0]
        walks.plot(range(5), numbers["walks"], color=BLUE, linewidth=0.7, alpha=0.6)
        walks.set(xlabel="step", ylabel="x", xticks=range(5), xlim=(0, 4))
        walks.set_title("Four steps of variance 1 ...")
        steps(ends, numbers["edges"], numbers["many"], BLUE, f"four steps: variance {numbers['variance'][-1]:.2f}")
        one = f"one step: variance {numbers['one_variance']:.2f}"
        ends.stairs(numbers["one"], numbers["edges"], color=ORANGE, linewidth=1.3, label=one)
        ends.plot(numbers["x"], numbers["exact"], color=INK, linewidth=1.2, label="exact: variance 4")
        ends.set(xlim=(-7, 7), ylim=(0, 0.31), xlabel=r"$x_4$")
        ends.set_title("... are one of variance 4")
        ends.legend(loc="upper center", handlelength=1.2)
        _posterior(posterior, numbers)
        for panel in (ends, posterior):
            panel.set_yticks([])
            panel.spines["left"].set_visible(False)
    return path


def _posterior(panel: Any, numbers: Numbers) -> None:
    """The two normals that meet, and what they make."""
    x, (noisy, clean) = numbers["x"], numbers["posterior_weights"]
    panel.plot(x, numbers["prior"], color=GREY, label=r"$q(x_3|x_0)$, variance 3")
    panel.plot(x, numbers["likelihood"], color=ORANGE, label=r"$q(x_4|x_3)$, variance 1")
    panel.fill_between(x, numbers["product"], color=BLUE, alpha=0.25, linewidth=0, label="their product, normalised")
    found = rf"{noisy:g} $x_4$ + {clean:g} $x_0$, variance {float(numbers['posterior_variance']):g}"
    panel.plot(x, numbers["posterior"], color=BLUE, label=found)
    for name, place in (("x_0", numbers["x0"]), ("x_4", numbers["x4"])):
        panel.plot(place, 0, "o", color=INK, markersize=5, clip_on=False, zorder=5)
        panel.annotate(rf"${name}$", (float(place), 0), xytext=(0, 6), textcoords="offset points", ha="center")
    panel.set(xlim=(-5.5, 8), ylim=(0, 0.92), xlabel=r"$x_3$")
    panel.set_title(r"The posterior of $x_3$ given both ends")
    panel.legend(loc="upper left", handlelength=1.2)
