"""What a sampler costs beside the network, next to diffusers: python benchmarks/overhead.py

A trivial network, batch 1, 50 steps; CPU time of the process a step, less that of the bare network; both libraries in
one process, interleaved, medians. diffusers is optional: `pip install diffusers`.
"""

import statistics
import time
from pathlib import Path

import torch
from torch import nn

from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import Eps
from osmotic.samplers import CATALOG, sample
from osmotic.schedules import Discrete
from osmotic.times import Levels

STEPS, ROUNDS = 50, 15


class Tiny(nn.Module):
    """A network that is nothing but a call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x, time, cond=None):
        return self.layer(x)


def ours(name: str, network: nn.Module, x: torch.Tensor):
    """A sampling run of osmotic."""
    denoiser = NeuralDenoiser(network, Discrete.linear(), Eps())
    times = Levels()(denoiser.schedule, STEPS)
    return lambda: sample(CATALOG[name](), denoiser, x, times, generator=torch.Generator().manual_seed(0))


def theirs(name: str, network: nn.Module, x: torch.Tensor):
    """The same method's loop with diffusers' scheduler."""
    import diffusers

    scheduler = {
        "ddim": diffusers.DDIMScheduler,
        "ddpm": diffusers.DDPMScheduler,
        "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    }[name](1000)

    @torch.no_grad()
    def run():
        scheduler.set_timesteps(STEPS)
        y = x
        for t in scheduler.timesteps:
            y = scheduler.step(network(scheduler.scale_model_input(y, t), t), t, y).prev_sample
        return y

    return run


def bare(network: nn.Module, x: torch.Tensor):
    """The network alone, as often."""

    @torch.no_grad()
    def run():
        for _ in range(STEPS):
            network(x, None)

    return run


def main() -> None:
    """Print and store the table."""
    torch.set_num_threads(1)
    network, x = Tiny(), torch.randn(1, 16)
    runs = {("network", "bare"): bare(network, x)}
    for name in ("ddim", "ddpm", "dpmpp-2m"):
        runs[name, "osmotic"] = ours(name, network, x)
        try:
            runs[name, "diffusers"] = theirs(name, network, x)
        except ImportError:
            print("diffusers is not installed; only ours is timed")
    spent: dict = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            start = time.process_time()
            run()
            spent[key].append((time.process_time() - start) / STEPS * 1e6)
    middle = {key: statistics.median(values) for key, values in spent.items()}
    base = middle.pop(("network", "bare"))
    lines = ["| sampler | library | CPU us a step beside the network |", "|---|---|---|"]
    lines += [f"| {name} | {library} | {value - base:.1f} |" for (name, library), value in middle.items()]
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "results" / "overhead.md").write_text(f"`python benchmarks/overhead.py`\n\n{text}\n")


if __name__ == "__main__":
    main()
