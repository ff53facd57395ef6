"""Killed and resumed is never killed, bit for bit: weights, averages, optimizer, adaptive law and log."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.utils.tensorboard  # imported once here, not in each forked child
import training_toys as toys
from training_toys import OPTIONS, changed, kill_at, outcome, train

from osmotic.training.errors import RunError
from osmotic.training.hooks import Hook, Moment
from osmotic.training.run import Run

FORK = multiprocessing.get_context("fork")


def child(directory: Path, *arguments: object) -> multiprocessing.process.BaseProcess:
    """The toy's training in a process of its own, which starts fast because it is a fork."""
    process = FORK.Process(target=train, args=(directory, *arguments))
    process.start()
    return process


def ended(process: multiprocessing.process.BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """The outcome of a run that nobody disturbed, by number of passes."""
    known: dict[int, dict[str, bytes]] = {}

    def get(accumulate: int) -> dict[str, bytes]:
        if accumulate not in known:
            directory = tmp_path_factory.mktemp("unbroken")
            assert ended(child(directory, changed(accumulate=accumulate))) == 0
            known[accumulate] = outcome(directory)
        return known[accumulate]

    return get


def test_the_outcome_is_not_trivially_equal(unbroken: Callable[[int], dict[str, bytes]], tmp_path: Path) -> None:
    assert len(unbroken(1)) == 1 + 2 * 5  # the log, and five files in each of two checkpoints
    train(tmp_path, changed(seed=1))
    assert outcome(tmp_path).keys() == unbroken(1).keys()
    assert all(outcome(tmp_path)[name] != content for name, content in unbroken(1).items())


@pytest.mark.parametrize(
    ("kills", "workers", "accumulate"),
    [((0,), 0, 1), ((5,), 1, 1), ((7, 10, 23), 2, 1), ((13,), 0, 2), ((3, 4), 1, 2), ((20,), 2, 2)],
    ids=str,
)
def test_killed_and_resumed_is_never_killed(
    unbroken: Callable[[int], dict[str, bytes]], tmp_path: Path, kills: tuple[int, ...], workers: int, accumulate: int
) -> None:
    options = changed(workers=workers, accumulate=accumulate)
    for step in kills:
        assert ended(child(tmp_path, options, (kill_at(step),))) == -signal.SIGKILL
    assert ended(child(tmp_path, options)) == 0
    assert outcome(tmp_path) == unbroken(accumulate)


@pytest.mark.parametrize("step", [pytest.param(step, marks=pytest.mark.slow) for step in range(OPTIONS.steps + 1)])
def test_killed_at_any_step(unbroken: Callable[[int], dict[str, bytes]], tmp_path: Path, step: int) -> None:
    assert ended(child(tmp_path, OPTIONS, (kill_at(step),))) == -signal.SIGKILL
    assert ended(child(tmp_path, changed(workers=step % 3))) == 0
    assert outcome(tmp_path) == unbroken(1)


def test_killed_at_random_moments_while_saving_all_the_time(tmp_path: Path) -> None:
    """Kills fall into saves, renames and deletions; the newest checkpoint is always whole."""
    options = changed(steps=80, checkpoint_every=1, evaluate_every=50)
    start = time.monotonic()
    assert ended(child(tmp_path / "unbroken", options)) == 0
    whole = time.monotonic() - start
    draw = random.Random(0)
    killed = 0
    for _ in range(8):
        process = child(tmp_path / "killed", options)
        # No kill comes later than a fifth of a whole run, so several land however fast the machine is.
        time.sleep(draw.uniform(0.02, 0.2) * whole)
        process.kill()
        killed += ended(process) == -signal.SIGKILL
    assert ended(child(tmp_path / "killed", options)) == 0
    assert killed >= 3
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")


@pytest.mark.parametrize("kills", [(17,), pytest.param((2, 6, 11, 21), marks=pytest.mark.slow)], ids=str)
def test_a_fresh_interpreter_goes_on_alike(
    unbroken: Callable[[int], dict[str, bytes]], tmp_path: Path, kills: tuple[int, ...]
) -> None:
    def program(*arguments: str) -> int:
        command = [sys.executable, toys.__file__, str(tmp_path), *arguments]
        return subprocess.run(
            command, capture_output=True, timeout=60, env=os.environ | {"OMP_NUM_THREADS": "1"}
        ).returncode

    for step in kills:
        assert program("--kill", str(step)) == -signal.SIGKILL
    assert program("--options", '{"workers": 2}') == 0
    assert outcome(tmp_path) == unbroken(1)


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bits(
    unbroken: Callable[[int], dict[str, bytes]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(child(tmp_path, OPTIONS, (kill_at(18),))) == -signal.SIGKILL
    path = tmp_path / "checkpoints" / "step-00000016" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    train(tmp_path)
    said = capfd.readouterr().err
    assert "step-00000016/optimizer.safetensors is damaged" in said
    assert "Going on from step 12" in said
    assert outcome(tmp_path) == unbroken(1)


def signal_in_step(step: int, number: int) -> Hook:
    """Interrupt the step that follows ``step``: a timer is set, and the step is long because the loss waits for it."""

    def call(moment: Moment) -> None:
        if moment.step == step:
            original = type(moment.modules["denoiser"]).forward

            def slow(self: torch.nn.Module, *arguments: object) -> object:
                if self.training:
                    type(moment.modules["denoiser"]).forward = original  # type: ignore[method-assign]
                    os.kill(os.getpid(), number)
                return original(self, *arguments)  # type: ignore[arg-type]

            type(moment.modules["denoiser"]).forward = slow  # type: ignore[method-assign]

    return Hook(1, call)


@pytest.mark.parametrize(
    ("number", "code", "step"), [(signal.SIGINT, 130, 0), (signal.SIGINT, 130, 10), (signal.SIGTERM, 0, 15)]
)
def test_an_interrupt_in_a_step_saves_and_says_how_to_go_on(
    unbroken: Callable[[int], dict[str, bytes]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    number: int,
    code: int,
    step: int,
) -> None:
    start = time.monotonic()
    assert ended(child(tmp_path, OPTIONS, (signal_in_step(step, number),))) == code
    assert time.monotonic() - start < 10
    assert f"stopped after step {step + 1}" in (said := capfd.readouterr().err)
    assert "--resume" in said
    assert Run.open(tmp_path).folders()[0].name == f"step-{step + 1:08d}"
    assert ended(child(tmp_path)) == 0
    assert outcome(tmp_path)["metrics.jsonl"] == unbroken(1)["metrics.jsonl"]
    last = f"checkpoints/step-{OPTIONS.steps:08d}"
    for name, content in unbroken(1).items():
        if name.startswith(last):
            assert outcome(tmp_path)[name] == content


def test_a_finished_run_has_nothing_to_do_and_may_be_extended(tmp_path: Path) -> None:
    train(tmp_path)
    before = outcome(tmp_path)
    train(tmp_path)
    assert outcome(tmp_path) == before
    train(tmp_path, changed(steps=30))
    assert Run.open(tmp_path).folders()[0].name == "step-00000030"
    with pytest.raises(RunError, match="--steps 30"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [({"seed": 1}, "--seed 0"), ({"batch_size": 25}, "--batch-size 24"), ({"ema": (3.0,)}, "--ema")],
)
def test_what_would_not_be_the_same_run_is_refused(tmp_path: Path, changes: dict[str, object], flag: str) -> None:
    train(tmp_path, changed(steps=4))
    before = outcome(tmp_path)
    with pytest.raises(RunError, match=flag):
        train(tmp_path, changed(**changes))
    assert outcome(tmp_path) == before


def test_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, changed(steps=4))
    monkeypatch.setattr(toys.Net, "__init__", _wider)
    with pytest.raises(RunError, match=r"denoiser\.network\.outside\..*another model"):
        train(tmp_path)


def _wider(self: toys.Net, dropout: float = 0.1) -> None:
    ORIGINAL(self, dropout)
    self.outside = torch.nn.Linear(16, 3)


ORIGINAL = toys.Net.__init__
