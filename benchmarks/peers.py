"""Endpoint error beside diffusers on one closed-form problem: python benchmarks/peers.py (needs `pip install
diffusers`)

Two Gaussian mixtures with exact denoisers, DDPM's linear and latent diffusion's scaled linear betas, the same starting
noise, the same number of evaluations, RMS distance to the exact flow at sigma = 0. Each scheduler of diffusers is told
its own noise level exactly, on each of its own grids; the best of all of them is shown. osmotic's grid knows the scale
of the data (`times.suggested`), which diffusers' have no way to be told.
"""

import math
import sys
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


def schedulers(betas: dict):
    """(name, scheduler, calls per step) of diffusers in the settings that matter."""
    import diffusers as d

    spacings = ("linspace", "leading", "trailing")
    for spacing in spacings:
        yield f"DDIM {spacing}", d.DDIMScheduler(**betas, clip_sample=False, timestep_spacing=spacing)
        yield f"PNDM {spacing}", d.PNDMScheduler(**betas, skip_prk_steps=True, timestep_spacing=spacing)
        yield f"Heun {spacing}", d.HeunDiscreteScheduler(**betas, timestep_spacing=spacing)
        yield f"LMS {spacing}", d.LMSDiscreteScheduler(**betas, timestep_spacing=spacing)
    yield "Heun karras", d.HeunDiscreteScheduler(**betas, use_karras_sigmas=True)
    yield "LMS karras", d.LMSDiscreteScheduler(**betas, use_karras_sigmas=True)
    grids = [{"timestep_spacing": s} for s in spacings] + [
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
    ]
    for order in (2, 3):
        for grid in grids:
            for final in ("zero", "sigma_min"):
                name = f"{order}, {_named(grid)} grid, to {final}"
                yield (
                    f"UniPC {name}",
                    d.UniPCMultistepScheduler(**betas, solver_order=order, final_sigmas_type=final, **grid),
                )
                for kind in ("dpmsolver++", "dpmsolver"):
                    if kind == "dpmsolver" and final == "zero":
                        continue  # diffusers refuses it
                    yield (
                        f"{kind} {name}",
                        d.DPMSolverMultistepScheduler(
                            **betas, solver_order=order, algorithm_type=kind, final_sigmas_type=final, **grid
                        ),
                    )
        for final in ("zero", "sigma_min"):
            yield (
                f"dpmsolver++ {order}, log-SNR grid, to {final}",
                d.DPMSolverMultistepScheduler(
                    **betas, solver_order=order, use_lu_lambdas=True, final_sigmas_type=final
                ),
            )
        for grid in grids[:4]:
            name = f"{order}, {_named(grid)} grid"
            yield f"DEIS {name}", d.DEISMultistepScheduler(**betas, solver_order=order, **grid)


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
            rho = float(scheduler.sigmas[scheduler.step_index or 0])
        else:
            signal = float(scheduler.alphas_cumprod[int(t)])
            rho = math.sqrt((1 - signal) / signal)
        eps = oracle(seen * math.sqrt(1 + rho**2), rho / oracle.schedule.sigma_max).eps
        y, used = scheduler.step(eps, t, y).prev_sample, used + 1
    return y, used


def _leveled(scheduler) -> bool:
    return type(scheduler).__name__ not in ("DDIMScheduler", "PNDMScheduler")


def best(betas: dict, oracle, x: torch.Tensor, truth: torch.Tensor, budget: int) -> tuple[float, str]:
    """The least error that any scheduler reaches within a budget of evaluations."""
    found = []
    for name, scheduler in schedulers(betas):
        for steps in (budget, (budget + 1) // 2):
            try:
                y, used = run(scheduler, oracle, x, steps)
            except Exception:  # some settings of some schedulers cannot run
                continue
            error = float((y - truth).square().mean().sqrt())
            if used <= budget and math.isfinite(error):
                found.append((error, name))
    return min(found)


def main() -> None:
    """Print and store the table."""
    lines = ["| betas | mixture | evaluations | osmotic's default | best of diffusers | which |", "|" + "---|" * 6]
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
                theirs, name = best(betas, seen, x, truth, budget)
                row = [path, make.__name__, str(budget), f"{error:.1e}", f"{theirs:.1e}", name]
                lines.append("| " + " | ".join(row) + " |")
                print(lines[-1], flush=True)
    text = "# Beside diffusers\n\n" + (__doc__ or "").split("\n", 2)[2].strip() + "\n\n"
    text += "`python benchmarks/peers.py`\n\n" + "\n".join(lines) + "\n"
    (Path(__file__).parent.parent / "docs" / "peers.md").write_text(text)


if __name__ == "__main__":
    main()
