"""Small things to train, and a program that trains them: the tests kill it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import V
from osmotic.laws import Adaptive, Uniform
from osmotic.schedules import Rectified
from osmotic.training.denoise import Denoising, Drop
from osmotic.training.errors import Interrupted
from osmotic.training.hooks import Hook, Moment
from osmotic.training.loop import fit
from osmotic.training.options import Options
from osmotic.training.run import Run
from osmotic.training.task import Batch, Stream, Task

OPTIONS = Options(
    steps=24, batch_size=24, warmup=4, ema=(2.0, 8.0), ema_ramp=0.5, log_every=3, evaluate_every=8, checkpoint_every=4
)


class Points:
    """Labelled points on two arcs; some may be spoilt with NaN. Remembers which samples were asked for."""

    def __init__(self, n: int = 100, spoilt: tuple[int, ...] = ()) -> None:
        angles = np.linspace(0, np.pi, n)
        side = np.arange(n) % 2
        x = np.stack([np.cos(angles) + side, np.sin(angles) * (1 - 2 * side)], axis=1).astype(np.float32)
        x[list(spoilt)] = np.nan
        self.x, self.labels = torch.from_numpy(x), torch.from_numpy(side)
        self.asked: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        self.asked.append(indices)
        rows = torch.from_numpy(indices)
        return self.x[rows], self.labels[rows]

    def told(self, indices: np.ndarray) -> dict[str, Tensor]:
        return {"vector": self.labels[torch.from_numpy(indices)]}

    def name(self, index: int) -> str:
        return f"point {index}"


class Net(nn.Module):
    """An MLP with dropout, a tied weight, a scale that is a buffer, and a learned null."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.inside = nn.Linear(3, 16)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Dropout(dropout)) for _ in range(2)]
        )
        self.again = nn.Linear(16, 16)
        self.again.weight = self.blocks[0][0].weight
        self.labels = nn.Embedding(3, 16)
        self.outside = nn.Linear(16, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, time: Tensor, cond: Condition) -> Tensor:
        if self.training:
            self.calls += 1
        h = self.inside(torch.cat([x, time[:, None] / 1000], dim=1))
        label = torch.where(cond.keep, cond.vector, 2) if cond.keep is not None else cond.vector
        h = h + self.labels(label)
        for block in self.blocks:
            h = h + block(h)
        return self.outside(self.again(h))


def denoising(seed: int = 0, dropout: float = 0.1) -> Denoising:
    """The usual task, with an adaptive law: everything a run has to remember is in it."""
    torch.manual_seed(seed)
    return Denoising(NeuralDenoiser(Net(dropout), Rectified(), V()), Adaptive(Uniform(), bins=4), drop=Drop(0.2))


class Regression(Task):
    """``|w - x0 - noise|^2`` for a single weight: everything about it is known in closed form."""

    def __init__(self, start: float = 0.0, noise: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        self.module = nn.Linear(1, 2, bias=False, dtype=dtype)
        nn.init.constant_(self.module.weight, start)
        self.players = {"weight": self.module}
        self.noise = noise
        self.seen: list[Batch] = []

    def loss(self, player: str, batch: Batch, modules: dict[str, nn.Module]) -> Tensor:
        self.seen.append(batch)
        eps = batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        guess = modules[player](torch.ones(len(batch.x0), 1, dtype=self.module.weight.dtype))
        return (guess - batch.x0 - self.noise * eps).square().mean(1)


def start(directory: Path) -> Run:
    """The run in a directory, a new one if there is none."""
    if (directory / "recipe.json").exists():
        return Run.open(directory)
    return Run.create(directory, {"recipe": "toy"}, {"kind": "vectors"})


def kill_at(step: int) -> Hook:
    """SIGKILL this process after a step, before its checkpoint."""

    def call(moment: Moment) -> None:
        if moment.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return Hook(1, call)


def train(directory: Path, options: Options = OPTIONS, hooks: tuple[Hook, ...] = (), dropout: float = 0.1) -> None:
    """Train the toy in a directory, from where it stands, and exit as the command line would."""
    run = start(directory) if os.environ.get("RANK", "0") == "0" else Run(directory)
    try:
        fit(denoising(dropout=dropout), Points(), run, options, held_out=Points(30), hooks=hooks, device="cpu")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)


def changed(**changes: object) -> Options:
    """The toy's options with some changes."""
    return Options.model_validate(OPTIONS.model_dump() | changes)


def weights(directory: Path, step: int = OPTIONS.steps) -> dict[str, dict[str, Tensor]]:
    """All tensors of a checkpoint, by file and name."""
    folder = directory / "checkpoints" / f"step-{step:08d}"
    return {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}


def outcome(directory: Path) -> dict[str, bytes]:
    """Everything a run leaves that has to be the same in every repetition, byte by byte."""
    kept = [directory / "metrics.jsonl", *sorted(directory.glob("checkpoints/*/*.safetensors"))]
    return {str(path.relative_to(directory)): path.read_bytes() for path in kept}


def main() -> None:
    """The program: a directory, JSON options, perhaps a step to be killed at, perhaps dropout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--kill", type=int)
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    hooks = () if args.kill is None else (kill_at(args.kill),)
    train(args.directory, changed(**args.options), hooks, args.dropout)


if __name__ == "__main__":
    main()
