"""Endpoint error beside diffusers on one closed-form problem: python benchmarks/peers.py (needs `pip install
diffusers`)

Two Gaussian mixtures with exact denoisers, DDPM's linear and latent diffusion's scaled linear betas, the same starting
noise, the same number of evaluations, RMS distance to the exact flow at sigma = 0. Each scheduler of diffusers is told
its own noise level exactly, on each of its own grids; the best (IPNDM is left out) is shown, given the whole budget,
one step less, or two evaluations a step; settings that diffusers refuses or fails on are counted. osmotic's grid
knows the scale of the data (`times.suggested`), which diffusers' have no way to be told.
"""

import itertools
import math
import sys
import warnings
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.core.test_conformance import second
from tests.core.test_samplers import Watching, mixture

from osmotic.samplers import CATALOG, DEFAULT, Adams, Flow, prior, sample
from osmotic.schedules import VE, Discrete
from osmotic.times import Span, suggested

BUDGETS = (5, 10, 20, 50)
PATHS = {
    "linear": (Discrete.linear, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    "scaled linear": (
        Discrete.scaled_linear,
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
}


SPACINGS = ("linspace", "leading", "trailing")
GRIDS = [{"timestep_spacing": s} for s in SPACINGS] + [
    {key: True} for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
]


def schedulers(betas: dict):
    """(name, maker of a scheduler) of diffusers: its deterministic ones but IPNDM, in their orders, grids and ends."""
    import diffusers as d

    for spacing in SPACINGS:
        for kind in (d.DDIMScheduler, d.PNDMScheduler):
            extra = {"clip_sample": False} if kind is d.DDIMScheduler else {"skip_prk_steps": True}
            yield f"{_short(kind)}, {spacing}", partial(kind, **betas, **extra, timestep_spacing=spacing)
    for grid in GRIDS:
        for kind in (d.EulerDiscreteScheduler, d.HeunDiscreteScheduler, d.LMSDiscreteScheduler):
            yield f"{_short(kind)}, {_named(grid)}", partial(kind, **betas, **grid)
    for order, grid in itertools.product((1, 2, 3), [*GRIDS, {"use_lu_lambdas": True}]):
        for final, low, kind, form in itertools.product(
            ("zero", "sigma_min"), (True, False), ("dpmsolver++", "dpmsolver"), ("midpoint", "heun")
        ):
            name = f"{kind} {order} {form}, {_named(grid)}, to {final}{'' if low else ', full order to the end'}"
            yield (
                name,
                partial(
                    d.DPMSolverMultistepScheduler,
                    **betas,
                    **grid,
                    solver_order=order,
                    algorithm_type=kind,
                    solver_type=form,
                    final_sigmas_type=final,
                    lower_order_final=low,
                ),
            )
    ladders = [{f"use_{name}": True} for name in ("karras_sigmas", "exponential_sigmas", "beta_sigmas")]
    for grid in [{"timestep_spacing": spacing} for spacing in SPACINGS] + ladders:
        yield f"KDPM2, {_named(grid)}", partial(d.KDPM2DiscreteScheduler, **betas, **grid)
    for order, grid, final, kind in itertools.product(
        (1, 2, 3), [{}, *ladders], ("zero", "sigma_min"), ("dpmsolver++", "dpmsolver")
    ):
        name = f"{kind} {order} singlestep, {_named(grid) if grid else 'linspace'}, to {final}"
        settings = {"solver_order": order, "algorithm_type": kind, "final_sigmas_type": final}
        yield name, partial(d.DPMSolverSinglestepScheduler, **betas, **grid, **settings)
    for order, grid in itertools.product((1, 2, 3, 4), GRIDS):
        for final, low, data in itertools.product(("zero", "sigma_min"), (True, False), (True, False)):
            name = f"UniPC {order} {'x0' if data else 'eps'}, {_named(grid)}, to {final}"
            yield (
                name + ("" if low else ", full order to the end"),
                partial(
                    d.UniPCMultistepScheduler,
                    **betas,
                    **grid,
                    solver_order=order,
                    predict_x0=data,
                    final_sigmas_type=final,
                    lower_order_final=low,
                ),
            )
    for order, grid, low in itertools.product((1, 2, 3), GRIDS, (True, False)):
        yield (
            f"DEIS {order}, {_named(grid)}{'' if low else ', full order to the end'}",
            partial(d.DEISMultistepScheduler, **betas, **grid, solver_order=order, lower_order_final=low),
        )


def _short(kind: type) -> str:
    return kind.__name__.removesuffix("Scheduler").removesuffix("Discrete")


def _named(grid: dict) -> str:
    """A grid's setting in a word."""
    ((key, value),) = grid.items()
    return value if key == "timestep_spacing" else key.split("_")[1]


def run(scheduler, oracle, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, int]:
    """A run of a scheduler with the exact noise at its own level, and the calls it made. x has unit scale."""
    scheduler.set_timesteps(steps)
    y, used = x * float(scheduler.init_noise_sigma), 0
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(y, t)
        if _leveled(scheduler):
            within = not getattr(scheduler, "state_in_first_order", True) and hasattr(scheduler, "sigmas_interpol")
            sigmas = scheduler.sigmas_interpol if within else scheduler.sigmas
            rho = float(sigmas[scheduler.step_index or 0])
        else:
            signal = float(scheduler.alphas_cumprod[int(t)])
            rho = math.sqrt((1 - signal) / signal)
        eps = oracle(seen * math.sqrt(1 + rho**2), rho / oracle.schedule.sigma_max).eps
        y, used = scheduler.step(eps, t, y).prev_sample, used + 1
    return y, used


def _leveled(scheduler) -> bool:
    return type(scheduler).__name__ not in ("DDIMScheduler", "PNDMScheduler")


def best(
    betas: dict, oracle, x: torch.Tensor, truth: torch.Tensor, budget: int, only=lambda name: True
) -> tuple[float, str, int, int]:
    """The least error within a budget of evaluations, of which setting, how many settings ran, and how many could
    not.
    """
    found, failed = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in schedulers(betas):
            if not only(name):
                continue
            tries = []
            for steps in (budget, budget - 1, (budget + 1) // 2):
                try:
                    y, used = run(make(), oracle, x, steps)
                except Exception:  # a setting that diffusers refuses, or fails on: counted, not hidden
                    continue
                error = float((y - truth).square().mean().sqrt())
                if used <= budget and math.isfinite(error):
                    tries.append((error, name))
            failed += not tries
            found += [min(tries)] if tries else []
    return *min(found), len(found), failed


def main() -> None:
    """Print and store the table."""
    lines = [
        "| betas | mixture | evaluations | osmotic's default | best of diffusers | which | settings (failed) |",
        "|" + "---|" * 7,
    ]
    print("\n".join(lines))
    for path, (make_path, betas) in PATHS.items():
        schedule = make_path()
        for make in (mixture, second):
            oracle, seen = Watching(make(schedule)), make(VE(200.0))
            x = prior(oracle, (64, 2), torch.Generator().manual_seed(2)).double()
            truth = sample(Adams(Flow(), 3, correct=True), oracle.inner, x, Span(0.1, 12)(schedule, 3000))
            sd = float(oracle.inner.sample(4000, torch.Generator().manual_seed(1)).std())
            for budget in BUDGETS:
                oracle.calls = 0
                ours = sample(CATALOG[DEFAULT](), oracle, x, suggested(sd)(schedule, budget))
                assert oracle.calls <= budget
                error = float((ours - truth).square().mean().sqrt())
                theirs, name, ran, failed = best(betas, seen, x, truth, budget)
                row = [path, make.__name__, str(budget), f"{error:.2e}", f"{theirs:.2e}", name, f"{ran} ({failed})"]
                lines.append("| " + " | ".join(row) + " |")
                print(lines[-1], flush=True)
    text = "# Beside diffusers\n\n" + (__doc__ or "").split("\n", 2)[2].strip() + "\n\n"
    text += "`python benchmarks/peers.py`\n\n" + "\n".join(lines) + "\n"
    (Path(__file__).parent.parent / "docs" / "peers.md").write_text(text)


if __name__ == "__main__":
    main()
