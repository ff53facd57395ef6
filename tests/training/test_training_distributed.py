"""One process or two: the same samples, steps and weights, whoever dies when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import training_toys as toys
from tests.launching import launch
from torch import Tensor, nn
from training_toys import OPTIONS, Points, Regression, changed, kill_at, outcome, start, train, weights

from osmotic.training import checkpoint, distributed
from osmotic.training.distributed import joined, shard
from osmotic.training.errors import SaveFailed
from osmotic.training.hooks import Hook, Moment
from osmotic.training.loop import fit
from osmotic.training.options import Options
from osmotic.training.run import Run

SMOOTH = 0.0  # dropout cannot be the same for another number of processes, everything else is


def difference(one: Path, other: Path) -> float:
    """The largest difference of any tensor in the last checkpoints, but for the buffer that counts passes."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(a[name].keys() == b[name].keys() for name in a)
    kept = [(f, k) for f in a for k in a[f] if not k.endswith(".calls")]
    return max(float((a[f][k].double() - b[f][k].double()).abs().max()) for f, k in kept)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone")
    train(directory, OPTIONS, (), SMOOTH)
    return directory


@pytest.mark.parametrize(
    "change", [{}, {"shard": True}, {"accumulate": 2}, {"accumulate": 2, "shard": True}, {"workers": 0}], ids=str
)
def test_two_processes_train_like_one(alone: Path, tmp_path: Path, change: dict[str, object]) -> None:
    assert launch(train, tmp_path, changed(**change), (), SMOOTH) == [0, 0]
    assert difference(alone, tmp_path) <= 1e-5
    one, two = Run.open(alone).metrics(), Run.open(tmp_path).metrics()
    assert [line["step"] for line in one] == [line["step"] for line in two]
    losses = ([line["loss"] for line in lines if "loss" in line] for lines in (one, two))
    np.testing.assert_allclose(*losses, rtol=1e-5)


def recorded(directory: Path, notes: Path, options: Options) -> None:
    """Train the regression, and note which samples this process took."""
    points, task = Points(), Regression(noise=1.0)
    fit(task, points, start(directory) if os.environ["RANK"] == "0" else Run(directory), options, device="cpu")
    rows = [np.stack([np.full(len(b.indices), b.step), b.positions, b.indices], axis=1) for b in task.seen]
    np.save(notes / f"{os.environ['RANK']}-of-{os.environ['WORLD_SIZE']}.npy", np.concatenate(rows))


def test_processes_share_each_batch_and_leave_nothing_out(tmp_path: Path) -> None:
    options = Options(steps=7, batch_size=25, accumulate=2, workers=2)
    for size in (1, 2, 3):
        assert launch(recorded, tmp_path / f"run-{size}", tmp_path, options, size=size) == [0] * size
    taken = {
        size: np.concatenate([np.load(tmp_path / f"{rank}-of-{size}.npy") for rank in range(size)])
        for size in (1, 2, 3)
    }
    for size in (2, 3):
        order = np.argsort(taken[size][:, 1])
        np.testing.assert_array_equal(taken[size][order], taken[1])


@pytest.mark.parametrize("shard", [False, True])
def test_killed_and_resumed_by_other_numbers_of_processes(alone: Path, tmp_path: Path, shard: bool) -> None:
    two = changed(shard=shard)
    assert launch(train, tmp_path, OPTIONS, (kill_at(6),), SMOOTH, size=1) == [-signal.SIGKILL]
    assert launch(train, tmp_path, two, (kill_at(14),), SMOOTH) == [-signal.SIGKILL] * 2
    train(tmp_path, OPTIONS, (), SMOOTH)
    assert difference(alone, tmp_path) <= 1e-5


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_resume_bit_for_bit(tmp_path: Path, shard: bool) -> None:
    options = changed(shard=shard)
    assert launch(train, tmp_path / "unbroken", options) == [0, 0]
    assert launch(train, tmp_path / "killed", options, (kill_at(10),)) == [-signal.SIGKILL] * 2
    assert launch(train, tmp_path / "killed", options) == [0, 0]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")


def interrupt_one(directory: Path) -> None:
    def call(moment: Moment) -> None:
        if moment.step == 9 and moment.world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    train(directory, OPTIONS, (Hook(1, call),))


def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path: Path) -> None:
    assert launch(interrupt_one, tmp_path) == [0, 0]
    assert Run.open(tmp_path).folders()[0].name == "step-00000010"


def poisoned(directory: Path, notes: Path) -> None:
    task = Regression()
    run = start(directory) if os.environ["RANK"] == "0" else Run(directory)
    fit(task, Points(100, spoilt=(42,)), run, Options(steps=20, batch_size=16, warmup=0), device="cpu")
    torch.save(task.module.weight.detach(), notes / os.environ["RANK"])


def test_a_batch_that_is_bad_on_one_process_is_skipped_by_all(tmp_path: Path) -> None:
    assert launch(poisoned, tmp_path / "run", tmp_path) == [0, 0]
    first, second = (torch.load(tmp_path / rank, weights_only=True) for rank in "01")
    assert torch.equal(first, second)
    assert bool(torch.isfinite(first).all())
    skips = [line["skipped"] for line in Run.open(tmp_path / "run").metrics() if "skipped" in line]
    assert 3 <= len(skips) <= 4  # 320 positions are three epochs and a bit
    assert all(skip["samples"] == ["point 42"] for skip in skips)


def full_disk(directory: Path) -> None:
    def full(tensors: dict[str, Tensor], path: Path) -> None:
        raise OSError(28, "No space left on device")

    checkpoint.save_file = full
    with pytest.raises(SaveFailed, match="No space left"):
        train(directory)


def test_no_process_waits_for_one_that_failed_to_save(tmp_path: Path) -> None:
    assert launch(full_disk, tmp_path) == [0, 0]
    assert list((tmp_path / "checkpoints").iterdir()) == []


def sharded_blocks(notes: Path) -> None:
    with joined("cpu") as world:
        torch.manual_seed(0)
        net = toys.Net(dropout=0.0)
        expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        shard(net, world, smallest=10)
        kinds = [isinstance(block, torch.distributed.fsdp.FSDPModule) for block in net.blocks]
        assert kinds == [False, True]  # the first one's weight is used outside of it
        for name, tensor in net.state_dict().items():
            assert torch.equal(distributed.whole(tensor), expected[name])
            if isinstance(tensor, torch.distributed.tensor.DTensor):
                assert distributed.local(tensor).numel() < tensor.numel() or tensor.shape[0] == 1
        net.eval()
        cond = toys.Points().batch(np.arange(4))
        with torch.no_grad():
            y = net(cond[0], torch.zeros(4), toys.Condition(vector=cond[1]))
        torch.manual_seed(0)
        plain = toys.Net(dropout=0.0).eval()
        assert torch.allclose(y, plain(cond[0], torch.zeros(4), toys.Condition(vector=cond[1])), atol=1e-6)
        (notes / f"done-{world.rank}").touch()


def test_blocks_are_sharded_one_by_one_unless_they_share_weights(tmp_path: Path) -> None:
    assert launch(sharded_blocks, tmp_path) == [0, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done-0", "done-1"]


def nested() -> None:
    with joined("cpu") as outer, joined("cpu") as inner:
        assert (outer.rank, outer.size) == (inner.rank, inner.size) == (int(os.environ["RANK"]), 2)
        total = inner.sum(torch.tensor([1.0 + inner.rank]))
        assert total.item() == 3
        module = nn.Linear(2, 2)
        nn.init.constant_(module.weight, float(inner.rank))
        distributed.equalise(module, inner)
        assert not module.weight.any()
        with pytest.raises(KeyError, match="lost"):
            inner.from_main(lambda: {}["lost"])
    assert not dist.is_initialized()


def test_joining_nests_and_ends(tmp_path: Path) -> None:
    assert launch(nested) == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_torchrun(alone: Path, tmp_path: Path, shard: bool) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    program = [toys.__file__, str(tmp_path), "--dropout", "0", "--options", f'{{"shard": {str(shard).lower()}}}']
    subprocess.run([*launcher, *program], check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert difference(alone, tmp_path) <= 1e-5
