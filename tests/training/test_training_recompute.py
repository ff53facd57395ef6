"""Gradient checkpointing in the loop: with passes, averages and two players the run's bits do not change."""

from pathlib import Path

import torch
from torch import Tensor, nn

from osmotic.denoiser import NeuralDenoiser
from osmotic.estimate import V
from osmotic.laws import Uniform
from osmotic.nn import Discriminator, Embedding, Recomputed, UNet
from osmotic.schedules import Rectified
from osmotic.training.denoise import Denoising
from osmotic.training.loop import fit
from osmotic.training.options import Options
from osmotic.training.run import Run
from osmotic.training.task import Batch, Task

OPTIONS = Options(
    steps=3, batch_size=6, accumulate=2, warmup=1, ema=(2.0, 4.0), log_every=1, evaluate_every=3, checkpoint_every=3
)


class Squares:
    """A few small pictures."""

    x = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices):
        return self.x[torch.from_numpy(indices)], None

    def told(self, indices):
        return {}

    def name(self, index: int) -> str:
        return str(index)


class Two(Task):
    """A network that is pulled to the data and to what a judge likes, and the judge."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        body = UNet(1, (8,), blocks=1, dropout=0.3, embedding=Embedding(16))
        self.players = {"network": body, "judge": Discriminator(1, (8,), 2)}

    def loss(self, player: str, batch: Batch, modules) -> Tensor:
        time = torch.zeros(len(batch.x0))
        made = modules["network"](batch.eps(), time)
        judge = modules["judge"]
        if player == "judge":
            return (judge(made.detach(), time) - judge(batch.x0, time)).tanh()
        return (made - batch.x0).square().flatten(1).mean(1) - 0.1 * judge(made, time)


def denoising() -> Denoising:
    torch.manual_seed(1)
    body = UNet(1, (8, 8), blocks=1, attention={1}, dropout=0.3, embedding=Embedding(16))
    return Denoising(NeuralDenoiser(body, Rectified(), V()), Uniform())


def trained(make, directory: Path, on: bool) -> dict[str, bytes]:
    """All weights of a run, and that its blocks were told to forget."""
    task = make()
    run = Run.create(directory, {}, {})
    options = OPTIONS.model_copy(update={"gradient_checkpointing": on})
    fit(task, Squares(), run, options, Squares(), device="cpu")
    blocks = [p for player in task.players.values() for p in player.modules() if isinstance(p, Recomputed)]
    assert blocks
    assert all(block.recompute is on for block in blocks)
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.glob("checkpoints/*/*.safetensors")}


def check(make, directory: Path) -> None:
    plain, forgetting = (trained(make, directory / str(on), on) for on in (False, True))
    assert len(plain) >= 4
    assert plain == forgetting


def test_a_denoiser_is_the_same_to_the_bit(tmp_path: Path) -> None:
    check(denoising, tmp_path)


def test_two_players_are_the_same_to_the_bit(tmp_path: Path) -> None:
    check(Two, tmp_path)


def test_a_run_may_begin_to_forget_when_it_is_resumed(tmp_path: Path) -> None:
    """It changes no bit, so it is no fixed option."""
    whole = trained(denoising, tmp_path / "whole", False)
    run = Run.create(tmp_path / "parts", {}, {})
    fit(denoising(), Squares(), run, OPTIONS.model_copy(update={"steps": 2}), Squares(), device="cpu")
    again = Run.open(tmp_path / "parts")
    fit(denoising(), Squares(), again, OPTIONS.model_copy(update={"gradient_checkpointing": True}), None, device="cpu")
    last = "checkpoints/step-00000003/model.safetensors"
    assert (tmp_path / "parts" / last).read_bytes() == whole[last]


def test_evaluation_keeps_what_it_keeps() -> None:
    """Guidance by gradients through a model in use must not pay a second pass."""
    net: nn.Module = denoising().players["denoiser"].network
    calls = []
    for part in net.modules():
        if isinstance(part, Recomputed):
            part.recompute = True
            part.register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    net.eval()(x, torch.zeros(2)).sum().backward()
    once = len(calls)
    net.train()(x, torch.zeros(2)).sum().backward()
    assert len(calls) == 3 * once
