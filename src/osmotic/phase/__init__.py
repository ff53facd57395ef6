"""Diffusion of positions and velocities: the first path whose numbers are matrices.

``u_t = A_t (x0, 0) + R_t eps`` with 2x2 matrices acting on dimension 1 of ``(B, 2, *S)``. The smallest extension that
holds it: :class:`PhasePath` is a Schedule whose ``numbers`` are :class:`Matrix` instead of float, and
:class:`PhaseEstimate` is an Estimate whose ``at`` takes them. The loop (``trajectory``, ``sample``), grids, guidance
and, with the Flow root, the core's DDIM, Euler and Midpoint then run as they are; a decoded network output is still one
solve, ``P x0 + Q eps = y``. It is a package of its own because the rest does not carry over: an SDE coefficient, a
score or a posterior in phase space is a matrix, and steps that divide by sigma or take its logarithm have no meaning
here.

gDDIM (Zhang, Tao & Chen 2022, arXiv 2206.05564) and critically damped Langevin diffusion (Dockhorn, Vahdat & Kreis
2021, arXiv 2112.07068). ``Lifted(denoiser, CLD())`` reads any ordinary denoiser in phase space.
"""

from osmotic.phase.denoisers import Lifted, NeuralPhaseDenoiser, diffuse, prior
from osmotic.phase.estimate import PhaseEstimate, solve
from osmotic.phase.flow import Euler, Heun
from osmotic.phase.gddim import GDDIM, StochasticGDDIM
from osmotic.phase.langevin import CLD, Cholesky, Flow, Root
from osmotic.phase.matrix import Matrix
from osmotic.phase.objective import hybrid
from osmotic.phase.oracles import Gaussian
from osmotic.phase.path import Isotropic, PhasePath
from osmotic.phase.sde import SSCS, EulerMaruyama
from osmotic.phase.targets import Mixed, Noise, PhaseTarget, Position, VelocityNoise

__all__ = [
    "CLD",
    "GDDIM",
    "SSCS",
    "Cholesky",
    "Euler",
    "EulerMaruyama",
    "Flow",
    "Gaussian",
    "Heun",
    "Isotropic",
    "Lifted",
    "Matrix",
    "Mixed",
    "NeuralPhaseDenoiser",
    "Noise",
    "PhaseEstimate",
    "PhasePath",
    "PhaseTarget",
    "Position",
    "Root",
    "StochasticGDDIM",
    "VelocityNoise",
    "diffuse",
    "hybrid",
    "prior",
    "solve",
]
