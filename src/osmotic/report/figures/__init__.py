"""The figures of the theory, drawn from plain arrays; a drawing takes ``(numbers, path)`` and writes one PNG."""

from osmotic.report.figures.chain import skipping, unit_chain
from osmotic.report.figures.densities import diffusion, fokker_planck, forward_reverse
from osmotic.report.figures.digits import digits
from osmotic.report.figures.equations import equations, particles
from osmotic.report.figures.fields import manifold, score_field
from osmotic.report.figures.paths import log_snr, schedules, timeline
from osmotic.report.figures.solvers import eta, euler_heun, orders, sde_ode
from osmotic.report.figures.style import Draw, Numbers

__all__ = [
    "Draw",
    "Numbers",
    "diffusion",
    "digits",
    "equations",
    "eta",
    "euler_heun",
    "fokker_planck",
    "forward_reverse",
    "log_snr",
    "manifold",
    "orders",
    "particles",
    "schedules",
    "score_field",
    "sde_ode",
    "skipping",
    "timeline",
    "unit_chain",
]
