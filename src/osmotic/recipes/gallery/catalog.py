"""The list of figures: a name, a sentence, what it measures, how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from osmotic.recipes.gallery import chain, densities, digits, equations, fields, paths, solvers
from osmotic.recipes.gallery.numbers import Numbers
from osmotic.report import figures
from osmotic.report.figures import Draw


@dataclass(frozen=True)
class Figure:
    """One figure of the gallery.

    Args:
        caption: one sentence that says what is seen.
        numbers: ``seed -> numbers``, everything that is drawn, a function of the seed.
        draw: ``(numbers, path)``, which writes the PNG.
    """

    caption: str
    numbers: Callable[[int], Numbers]
    draw: Draw


# By name, in the order of the page; enter a new figure here and the tests ask for its numbers' truth.
FIGURES: dict[str, Figure] = {
    "equations": Figure(
        "An ordinary equation has one path, which Euler's polygon follows with an error in proportion to the step; a "
        "stochastic one has many, of which only the law is known in advance.",
        equations.equations,
        figures.equations,
    ),
    "langevin": Figure(
        "Particles in the well U = x^2 / 2: without noise all fall to the origin, and with noise sqrt(2 kT) dw they "
        "settle at the density exp(-U / kT), so that leaving out the sqrt(2) halves the temperature.",
        equations.particles,
        figures.particles,
    ),
    "manifold": Figure(
        "Data near a curve become a normal cloud as noise is added; where the noise is small the posterior mean "
        "E[x0 | x_t] is nearer to the data than x_t is (the two distances), where it is large it is the data's mean.",
        fields.manifold,
        figures.manifold,
    ),
    "diffusion": Figure(
        "Noising convolves the data's density with an ever wider normal: histograms of noised samples beside the exact "
        "density at six times.",
        densities.diffusion,
        figures.diffusion,
    ),
    "forward-reverse": Figure(
        "The density over time, data to noise and back: the reverse SDE and the probability-flow ODE take different "
        "paths through the same densities, and the paths of the ODE never cross.",
        densities.forward_reverse,
        figures.forward_reverse,
    ),
    "fokker-planck": Figure(
        "The Fokker-Planck equation solved by finite volumes meets the exact density (dotted), and with the score in "
        "its drift goes back; the error falls with the square of the cell's width and the mass is kept to rounding.",
        densities.fokker_planck,
        figures.fokker_planck,
    ),
    "schedules": Figure(
        "Signal alpha and noise sigma of every schedule of the catalogue over time, as shares of hypot(alpha, sigma).",
        paths.schedules,
        figures.schedules,
    ),
    "log-snr": Figure(
        "The same schedules as log-SNR, the clock in which all paths agree: they differ in the levels they visit when.",
        paths.schedules,
        figures.log_snr,
    ),
    "score-field": Figure(
        "The score points uphill: at small noise most of the plane holds no sample to learn it from and Langevin "
        "chains stay on the island they meet first, while annealing brings the islands near their true weights.",
        fields.score_field,
        figures.score_field,
    ),
    "euler-heun": Figure(
        "One large step on a curved solution: Euler follows the slope at the start, Heun the mean of the slopes at the "
        "start and at Euler's end, which raises the order from 1 to 2; at sigma = 0 there is no second slope, and the "
        "last step is Euler's.",
        solvers.euler_heun,
        figures.euler_heun,
    ),
    "sde-ode": Figure(
        "The reverse SDE and the probability-flow ODE from the same noise: different paths, equal marginals at every "
        "time.",
        solvers.sde_ode,
        figures.sde_ode,
    ),
    "orders": Figure(
        "The error of every deterministic solver of the catalogue on a mixture over evaluations, and its measured "
        "order beside the declared one.",
        solvers.orders,
        figures.orders,
    ),
    "eta": Figure(
        "DDIM on data N(0, 0.5^2): the variance of the samples over the number of steps for three shares eta of fresh "
        "noise, in closed form and measured.",
        solvers.eta,
        figures.eta,
    ),
    "skipping": Figure(
        "Why DDPM cannot skip steps: the exact q(x_j | x_500 = 0) of data at -1 and +1 is near the normal that a step "
        "assumes for short skips, and has two peaks for long ones.",
        chain.skipping,
        figures.skipping,
    ),
    "unit-chain": Figure(
        "The simplest chain, unit steps x_t = x_(t-1) + z: four steps have the law of one of variance 4, and the "
        "posterior of x_3 given both ends is N(3/4 x_4 + 1/4 x_0, 3/4).",
        chain.unit_chain,
        figures.unit_chain,
    ),
    "digits": Figure(
        "Real digits noised, and noise brought back by the exact denoiser of the whole set, which can only return its "
        "members: what a trained model must not learn to the end.",
        digits.digits,
        figures.digits,
    ),
    "timeline": Figure(
        "Seven models of the tutorials, by the month they appeared.",
        paths.timeline,
        figures.timeline,
    ),
}
