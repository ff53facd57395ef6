"""Autoencoders in the loop: principal axes, exact resuming, passes and processes that are one, codes of averages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.launching import launch
from torch import Tensor
from training_toys import changed, outcome, start, weights

from osmotic.metrics.features import RandomConv
from osmotic.nn import Autoencoder, Codebook, Gaussian, PatchDiscriminator
from osmotic.objectives import Adversarial, absolute, perceptual, pseudo_huber
from osmotic.training.autoencode import DISCRIMINATOR, Errors, Reconstruction
from osmotic.training.autoencoding import AUTOENCODER
from osmotic.training.hooks import Hook, Moment
from osmotic.training.loop import fit
from osmotic.training.options import Options
from osmotic.training.perceptual import RandomFeatures
from osmotic.training.task import Batch, Domain, Noise

SHAPE = (1, 8, 6)
OPTIONS = changed(steps=12, batch_size=8, checkpoint_every=4, evaluate_every=6, warmup=2, learning_rate=1e-3)


class Rows:
    """Samples that are given, told nothing."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        return self.x[torch.from_numpy(indices)], None

    def told(self, indices: np.ndarray) -> dict[str, Tensor]:
        return {}

    def name(self, index: int) -> str:
        return f"row {index}"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def waves(n: int = 40) -> Rows:
    """Pictures of a few degrees of freedom."""
    places = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(6.0), indexing="ij"))
    return Rows(torch.sin((drawn(n, 2, 1, 1) * places).sum(1, keepdim=True) + drawn(n, 1, 1, 1, seed=1)))


def task(kind: str, weight: float = 0.0, begin: int = 6) -> Reconstruction:
    """A small autoencoder of pictures, perhaps with an adversary."""
    torch.manual_seed(0)
    bottleneck = Gaussian() if kind == "kl" else Codebook(10, 2, decay=0.8)
    network = Autoencoder.convolutional(SHAPE, (8,), 2, bottleneck, patch=2)
    judge = PatchDiscriminator(1, (4, 4)) if weight else None
    return Reconstruction(network, Errors(pseudo_huber), 5e-3, judge, Adversarial(weight, begin))


def run(directory: Path, kind: str, weight: float = 0.0, options: Options = OPTIONS, *hooks: Hook) -> Reconstruction:
    """Train it, from where the directory stands."""
    made = task(kind, weight)
    fit(made, waves(), start(directory), options, held_out=Rows(waves(12).x), hooks=hooks, device="cpu")
    return made


def test_a_linear_autoencoder_finds_the_principal_axes(tmp_path: Path) -> None:
    """Of a Gaussian, without the KL term: the error is within 2 % of the least, and the axes' planes are the same."""
    turn = torch.linalg.qr(drawn(8, 8, seed=3))[0]
    x = drawn(2000, 8) * torch.tensor([2.0, 1.8, 1.6, *[0.4] * 5]) @ turn + 0.5
    torch.manual_seed(0)
    network = Autoencoder.dense((8,), (), (3,), Gaussian())
    squared = Errors(lambda made, x: (made - x).square().mean(1))
    options = Options(steps=600, batch_size=64, learning_rate=3e-2, warmup=10, ema=(), workers=0)
    options = options.model_copy(update={"log_every": 600, "checkpoint_every": 600})
    fit(Reconstruction(network, squared, 0.0), Rows(x), start(tmp_path), options, device="cpu")
    with torch.no_grad():
        found = network.decode(network.encode(x)) - x
    values, axes = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    least = float(values[:-3].sum())
    assert least * (1 - 1e-4) <= float(found.square().sum(1).mean()) <= 1.02 * least
    plane = torch.linalg.qr(network.decoder.out.weight.detach())[0]
    cosines = torch.linalg.svdvals(plane.T @ axes[:, -3:])
    assert cosines.min() > 0.995


@pytest.mark.parametrize(("kind", "weight"), [("kl", 0.5), ("vq", 0.5)])
def test_a_resumed_run_gives_the_same_bits(kind: str, weight: float, tmp_path: Path) -> None:
    """With a codebook that learns and an adversary that begins between the checkpoints."""

    def stop(moment: Moment) -> None:
        if moment.step == 7:
            raise KeyboardInterrupt

    run(tmp_path / "whole", kind, weight)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", kind, weight, OPTIONS, Hook(1, stop))
    run(tmp_path / "cut", kind, weight)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    tensors = weights(tmp_path / "whole", OPTIONS.steps)["model.safetensors"]
    assert {name.split(".")[0] for name in tensors} == {AUTOENCODER, DISCRIMINATOR}


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_passes_add_up_to_one(kind: str, tmp_path: Path) -> None:
    """Up to the rounding of sums: 1e-5 of weights of order 1, after twelve steps."""
    one = run(tmp_path / "one", kind).autoencoder.state_dict()
    three = run(tmp_path / "three", kind, 0.0, OPTIONS.model_copy(update={"accumulate": 3})).autoencoder.state_dict()
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_two_processes_train_like_one(kind: str, tmp_path: Path) -> None:
    run(tmp_path / "one", kind)
    assert launch(run_shared, tmp_path / "two", kind) == [0, 0]
    one, two = (weights(tmp_path / name, OPTIONS.steps) for name in ("one", "two"))
    for file in ("model.safetensors", "ema-2.safetensors"):
        for name, value in one[file].items():
            torch.testing.assert_close(two[file][name], value, rtol=1e-4, atol=1e-5, msg=name)


def run_shared(directory: Path, kind: str) -> None:
    """:func:`run` in one of several processes, the first of which makes the run."""
    import os

    from osmotic.training.run import Run

    where = start(directory) if os.environ.get("RANK", "0") == "0" else Run(directory)
    fit(task(kind), waves(), where, OPTIONS, held_out=Rows(waves(12).x), device="cpu")


def batch(x: Tensor, total: int, first: int, domain: Domain = Domain.TRAINING) -> Batch:
    slots = np.arange(first, first + len(x))
    noise = Noise(0, 3, total, first, len(x), torch.device("cpu"), domain)
    return Batch(x, None, slots, slots, 3, noise)


def test_what_a_codebook_is_told_is_the_whole_steps_whatever_the_passes() -> None:
    made, x = task("vq"), waves(9).x
    made.codebook.vectors.data.copy_(drawn(10, 2, seed=5))
    whole = made.passed(AUTOENCODER, batch(x, 9, 0), made.players)[1]
    parts = [made.passed(AUTOENCODER, batch(x[a:b], 9, a), made.players)[1] for a, b in ((0, 4), (4, 5), (5, 9))]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-5)
    h = made.autoencoder.encode(x).detach().movedim(1, -1).reshape(-1, 2)
    assert float(whole[:, 0].sum()) == len(h)
    near = torch.cdist(h, made.codebook.vectors).argmin(1)
    for code in range(10):
        torch.testing.assert_close(whole[code, 1:3], h[near == code].sum(0), rtol=1e-4, atol=1e-5)
    # Ten different vectors of the step, at which codes may begin.
    distance, which = torch.cdist(whole[:, 3:], h, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert distance.max() < 1e-4
    assert len(set(which.tolist())) == 10
    assert made.passed(AUTOENCODER, batch(x, 9, 0, Domain.HELD_OUT), made.players)[1] is None


def test_averages_have_codes_of_their_own_and_the_log_tells_how_codes_are(tmp_path: Path) -> None:
    made = run(tmp_path, "vq")
    files = weights(tmp_path, OPTIONS.steps)
    name = f"{AUTOENCODER}.bottleneck.vectors"
    raw, average = files["model.safetensors"][name], files["ema-8.safetensors"][name]
    assert torch.equal(raw, made.codebook.vectors)
    assert not torch.equal(raw, average)
    assert (raw - average).norm() < raw.norm()  # it follows
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if "codebook/perplexity" in line]
    assert [line["step"] for line in told] == [3, 6, 9, 12]
    assert all(1 <= line["codebook/perplexity"] <= 10 for line in told)
    assert told[-1]["codebook/died_in_all"] == int(files["state.safetensors"]["task.died"])


def test_an_adversary_waits_for_its_step(tmp_path: Path) -> None:
    """Until then it is as it was, and the autoencoder as without one."""
    until = OPTIONS.model_copy(update={"steps": 6, "floor": 1.0})
    first = task("kl", 0.5).players[DISCRIMINATOR].state_dict()
    with_one, without = run(tmp_path / "a", "kl", 0.5, until), run(tmp_path / "b", "kl", 0.0, until)
    assert all(torch.equal(value, first[name]) for name, value in with_one.players[DISCRIMINATOR].state_dict().items())
    for name, value in without.autoencoder.state_dict().items():
        assert torch.equal(with_one.autoencoder.state_dict()[name], value)
    later = run(tmp_path / "a", "kl", 0.5, until.model_copy(update={"steps": 7}))
    alone = run(tmp_path / "b", "kl", 0.0, until.model_copy(update={"steps": 7}))
    judge = later.players[DISCRIMINATOR].state_dict()
    assert not any(torch.equal(judge[name], value) for name, value in first.items() if name.endswith("weight"))
    assert not torch.equal(later.autoencoder.decoder.last, alone.autoencoder.decoder.last)


def test_held_out_losses_leave_the_adversary_out() -> None:
    made, x = task("kl", 0.5, begin=0), waves(8).x
    plain = task("kl")
    held = batch(x, 8, 0, Domain.HELD_OUT)
    torch.testing.assert_close(made.loss(AUTOENCODER, held, made.players), plain.loss(AUTOENCODER, held, plain.players))
    training = batch(x, 8, 0)
    pulled = made.loss(AUTOENCODER, training, made.players) - plain.loss(AUTOENCODER, training, plain.players)
    assert pulled.abs().min() > 1e-6
    # The discriminator's hinge is 2 where it says nothing.
    for parameter in made.players[DISCRIMINATOR].parameters():
        parameter.data.zero_()
    torch.testing.assert_close(made.loss(DISCRIMINATOR, training, made.players), torch.full((8,), 2.0))


@pytest.mark.parametrize("channels", [1, 3])
def test_perceptual_features_are_those_of_the_metrics(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 9, channels), dtype=np.uint8)
    x = torch.from_numpy(pixels).movedim(-1, 1).float() / 127.5 - 1
    maps = RandomFeatures()(x)
    pooled = [part for h in maps for part in (h.mean((2, 3)), h.std((2, 3), correction=0))]
    np.testing.assert_allclose(torch.cat(pooled, 1).numpy(), RandomConv()(pixels), rtol=1e-4, atol=1e-5)
    made = x.clone().requires_grad_(True)
    loss = perceptual(RandomFeatures(), made + 0.3 * torch.sin(20 * made), x)
    torch.autograd.backward(loss.sum())
    assert made.grad is not None
    assert bool(made.grad.isfinite().all())
    assert float(made.grad.abs().sum()) > 0
    assert float(perceptual(RandomFeatures(), x, x).abs().max()) == 0


def test_the_perceptual_error_is_added_with_its_weight() -> None:
    x, made = drawn(2, 1, 8, 6), drawn(2, 1, 8, 6, seed=1)
    sees = lambda a, b: (a - b).square().flatten(1).sum(1)  # noqa: E731
    whole = Errors(absolute, sees, 0.25)(made, x)
    torch.testing.assert_close(whole, absolute(made, x) + 0.25 * sees(made, x))
