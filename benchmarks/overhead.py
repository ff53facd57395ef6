"""What a sampler costs beside the network, next to others: python benchmarks/overhead.py

A trivial network, batch 1, 50 steps, one thread; CPU time of the process a step, less that of the bare network; all
loops in one process, interleaved, each warm (one run before those timed), without garbage collection as in timeit;
medians. "Loop" is a run on a grid prepared before (diffusers: after set_timesteps, k-diffusion: after its sigmas),
"whole run" includes the preparation. diffusers and azula are optional; the k-diffusion-style loop is a restatement of
its method: tensors of sigmas, a model call on x / sqrt(sigma^2 + 1), a callback's worth of host reads left out.
"""

import gc
import itertools
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from osmotic import samplers
from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import Eps
from osmotic.schedules import Discrete
from osmotic.times import Levels

STEPS, ROUNDS, REPEATS = 50, 21, 5


class Tiny(nn.Module):
    """A network that is nothing but a call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x, time, cond=None):
        return self.layer(x)


def ours(name: str, network: nn.Module, x: torch.Tensor):
    """(loop, whole run) of osmotic."""
    denoiser = NeuralDenoiser(network, Discrete.linear(), Eps())
    times, sampler = Levels()(denoiser.schedule, STEPS), samplers.CATALOG[name]()
    levels = samplers.prepare(denoiser, times, sampler=sampler)
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def loop():
        y, state = x, None
        for t, s in itertools.pairwise(levels):
            y, state = sampler.step(denoiser, y, t, s, None, state, generator)

    return loop, lambda: samplers.sample(sampler, denoiser, x, times, generator=generator)


def diffusers_loop(name: str, network: nn.Module, x: torch.Tensor):
    """(loop, whole run) of the same method with diffusers' scheduler."""
    import diffusers

    scheduler = {
        "ddim": diffusers.DDIMScheduler,
        "ddpm": diffusers.DDPMScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    }[name](1000)

    @torch.no_grad()
    def loop():
        y = x
        scheduler._step_index = None  # the state that a run leaves behind
        for t in scheduler.timesteps:
            y = scheduler.step(network(scheduler.scale_model_input(y, t), t), t, y).prev_sample

    def whole():
        scheduler.set_timesteps(STEPS)
        loop()

    scheduler.set_timesteps(STEPS)
    return loop, whole


def k_style(name: str, network: nn.Module, x: torch.Tensor):
    """(loop, whole run) in the manner of k-diffusion: 0-dimensional tensors, the model wrapped for its noise."""

    def denoise(y, sigma):
        return y - network(y / (sigma**2 + 1) ** 0.5, sigma) * sigma.reshape(-1, *[1] * (y.ndim - 1))

    def grid():
        return torch.cat([torch.linspace(14.6, 0.03, STEPS), torch.zeros(1)])

    @torch.no_grad()
    def run(sigmas):
        y, old, ones = x * sigmas[0], None, x.new_ones([x.shape[0]])
        for i in range(STEPS):
            denoised = denoise(y, sigmas[i] * ones)
            if name == "euler":
                y = y + (y - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
                continue
            t, s = -sigmas[i].log(), -sigmas[i + 1].log()
            h = s - t
            if old is None or sigmas[i + 1] == 0:
                mixed = denoised
            else:
                ratio = (t + sigmas[i - 1].log()) / h
                mixed = (1 + 1 / (2 * ratio)) * denoised - 1 / (2 * ratio) * old
            y, old = (sigmas[i + 1] / sigmas[i]) * y - (-h).expm1() * mixed, denoised

    sigmas = grid()
    return lambda: run(sigmas), lambda: run(grid())


def azula_loop(name: str, network: nn.Module, x: torch.Tensor):
    """(loop, whole run) with azula's sampler, whose loop prepares itself."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler, EulerSampler

    class Body(nn.Module):
        def forward(self, x_t, c_time, **kwargs):
            return network(x_t, c_time)

    sampler = {"ddim": DDIMSampler, "euler": EulerSampler}[name](
        KarrasDenoiser(Body(), VPSchedule()), steps=STEPS, silent=True
    )

    @torch.no_grad()
    def run():
        sampler(x)

    return run, run


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
    runs = {("bare", "", ""): bare(network, x)}
    makers = {
        "osmotic": (ours, ["ddim", "euler", "ddpm", "dpmpp-2m", "flow-2pc"]),
        "k-diffusion style": (k_style, ["euler", "dpmpp-2m"]),
        "diffusers": (diffusers_loop, ["ddim", "euler", "ddpm", "dpmpp-2m"]),
        "azula": (azula_loop, ["ddim", "euler"]),
    }
    for library, (make, names) in makers.items():
        for name in names:
            try:
                loop, whole = make(name, network, x)
                loop()
            except (ImportError, TypeError, AttributeError) as error:
                print(f"{library} is left out: {error}")
                break
            runs[name, library, "loop"], runs[name, library, "whole"] = loop, whole
    spent: dict = {key: [] for key in runs}
    gc.disable()
    for _ in range(ROUNDS):
        for key, run in runs.items():
            run()  # what the loop before it left in the caches is not its own
            start = time.process_time()
            for _ in range(REPEATS):
                run()
            spent[key].append((time.process_time() - start) / (STEPS * REPEATS) * 1e6)
    middle = {key: statistics.median(values) for key, values in spent.items()}
    base = middle[("bare", "", "")]
    lines = ["| sampler | library | loop, us a step | whole run, us a step |", "|---|---|---|---|"]
    for name, library, part in sorted(runs):
        if part == "loop":
            values = [middle[name, library, p] - base for p in ("loop", "whole")]
            lines.append(f"| {name} | {library} | {values[0]:.1f} | {values[1]:.1f} |")
    text = "\n".join(lines)
    print(text)
    (Path(__file__).parent / "results" / "overhead.md").write_text(f"`python benchmarks/overhead.py`\n\n{text}\n")


if __name__ == "__main__":
    main()
