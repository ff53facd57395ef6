"""Samplers, their catalogue by name, and the one loop that runs them.

To add a sampler, write a :class:`Sampler` in its family's file and enter it below; the conformance tests measure the
order it declares, its marginals and its independence of the batch.
"""

from collections.abc import Callable

from osmotic.samplers.adaptive import RK45
from osmotic.samplers.adaptive_dpm import DPMSolverAdaptive
from osmotic.samplers.adaptive_sde import AdaptiveSDE
from osmotic.samplers.base import Sampler, prepare, prior, refuse_no_samples, sample, trajectory
from osmotic.samplers.corrector import LevelRatio, NormRatio, PredictorCorrector
from osmotic.samplers.dps import DPS
from osmotic.samplers.flow import Euler, Heun, Midpoint
from osmotic.samplers.jump import DDIM, DDPM, Gamma
from osmotic.samplers.langevin import AnnealedLangevin, langevin
from osmotic.samplers.lines import DataLogSNR, Flow, Line, NoiseLogSNR, NoiseRho, NoiseTime
from osmotic.samplers.multistep import Adams, DPMSolverPP2M, DPMSolverPP3MPublished
from osmotic.samplers.particles import Particles
from osmotic.samplers.pseudo import PNDM
from osmotic.samplers.repaint import RePaint
from osmotic.samplers.restart import Interval, Restart
from osmotic.samplers.runge_kutta import (
    EULER,
    HEUN,
    MIDPOINT,
    RK4,
    InAngle,
    InLogSNR,
    InRho,
    InTime,
    Picture,
    RungeKutta,
    Tableau,
)
from osmotic.samplers.sde import EulerMaruyama, NativeEulerMaruyama, ReverseDiffusion
from osmotic.samplers.singlestep import DPMSolverFast, Singlestep, dpm_solver, dpm_solver_pp, res
from osmotic.samplers.stochastic import SDEAdams

CATALOG: dict[str, Callable[[], Sampler]] = {
    "ddim": DDIM,
    "ddim-half": lambda: DDIM(eta=0.5),
    "ddpm": DDPM,
    "ddpm-large": lambda: DDPM(v=1.0),
    "euler": Euler,
    "midpoint": Midpoint,
    "heun": Heun,
    "heun-churn": lambda: Heun(churn=0.2),
    "euler-time": lambda: RungeKutta(EULER, InTime()),
    "heun-time": lambda: RungeKutta(HEUN, InTime()),
    "heun-rho": lambda: RungeKutta(HEUN, InRho()),
    "midpoint-rho": lambda: RungeKutta(MIDPOINT, InRho()),
    "rk4": lambda: RungeKutta(RK4, InAngle()),
    "rk4-rho": lambda: RungeKutta(RK4, InRho()),
    "rk4-log-snr": lambda: RungeKutta(RK4, InLogSNR()),
    "rk4-time": lambda: RungeKutta(RK4, InTime()),
    "rk45": RK45,
    "flow-2m": lambda: Adams(Flow(), 2),
    "flow-3m": lambda: Adams(Flow(), 3),
    "flow-2pc": lambda: Adams(Flow(), 2, correct=True),
    "flow-3pc": lambda: Adams(Flow(), 3, correct=True),
    "lms-2": lambda: Adams(NoiseRho(), 2),
    "lms-3": lambda: Adams(NoiseRho(), 3),
    "lms-4": lambda: Adams(NoiseRho(), 4),
    "plms": PNDM,
    "pndm": lambda: PNDM(runge_kutta=True),
    "deis-time-2": lambda: Adams(NoiseTime(), 2),
    "deis-time-3": lambda: Adams(NoiseTime(), 3),
    "deis-log-rho-2": lambda: Adams(NoiseLogSNR(), 2),
    "deis-log-rho-3": lambda: Adams(NoiseLogSNR(), 3),
    "dpm-solver-1": lambda: dpm_solver(1),
    "dpm-solver-2": lambda: dpm_solver(2),
    "dpm-solver-3": lambda: dpm_solver(3),
    "dpm-solver-fast": DPMSolverFast,
    "dpm-solver-12": lambda: DPMSolverAdaptive(2),
    "dpm-solver-23": DPMSolverAdaptive,
    "dpmpp-2s": lambda: dpm_solver_pp(2),
    "dpmpp-3s": lambda: dpm_solver_pp(3),
    "dpmpp-2m": DPMSolverPP2M,
    "dpmpp-3m": lambda: Adams(DataLogSNR(), 3),
    "dpmpp-3m-published": DPMSolverPP3MPublished,
    "unipc-1": lambda: Adams(DataLogSNR(), 1, correct=True),
    "unipc-2": lambda: Adams(DataLogSNR(), 2, correct=True),
    "unipc-3": lambda: Adams(DataLogSNR(), 3, correct=True),
    "res-2s": res,
    "res-2m": lambda: Adams(DataLogSNR(), 2),
    "sde-dpmpp-1": lambda: SDEAdams(1),
    "sde-dpmpp-2m": lambda: SDEAdams(2),
    "sde-dpmpp-3m": lambda: SDEAdams(3),
    "sa-solver": lambda: SDEAdams(2, correct=True),
    "euler-maruyama": EulerMaruyama,
    "euler-maruyama-half": lambda: EulerMaruyama(tau=0.5),
    "euler-maruyama-time": NativeEulerMaruyama,
    "reverse-diffusion": ReverseDiffusion,
    "predictor-corrector": lambda: PredictorCorrector(rule=LevelRatio()),
    "restart": lambda: Restart([Interval(0.14, 0.30, 2, 2)]),
    "annealed-langevin": lambda: AnnealedLangevin(updates=20),
    "jump": Gamma,
    "consistency": lambda: Gamma(gamma=1.0),
}

DEFAULT = "flow-2pc"
"""What samples where nothing is said: one evaluation a step, third order, regular from pure noise to the data."""

__all__ = [
    "CATALOG",
    "DDIM",
    "DDPM",
    "DEFAULT",
    "DPS",
    "EULER",
    "HEUN",
    "MIDPOINT",
    "PNDM",
    "RK4",
    "RK45",
    "Adams",
    "AdaptiveSDE",
    "AnnealedLangevin",
    "DPMSolverAdaptive",
    "DPMSolverFast",
    "DPMSolverPP2M",
    "DPMSolverPP3MPublished",
    "DataLogSNR",
    "Euler",
    "EulerMaruyama",
    "Flow",
    "Gamma",
    "Heun",
    "InAngle",
    "InLogSNR",
    "InRho",
    "InTime",
    "Interval",
    "LevelRatio",
    "Line",
    "Midpoint",
    "NativeEulerMaruyama",
    "NoiseLogSNR",
    "NoiseRho",
    "NoiseTime",
    "NormRatio",
    "Particles",
    "Picture",
    "PredictorCorrector",
    "RePaint",
    "Restart",
    "ReverseDiffusion",
    "RungeKutta",
    "SDEAdams",
    "Sampler",
    "Singlestep",
    "Tableau",
    "dpm_solver",
    "dpm_solver_pp",
    "langevin",
    "prepare",
    "prior",
    "refuse_no_samples",
    "res",
    "sample",
    "trajectory",
]
