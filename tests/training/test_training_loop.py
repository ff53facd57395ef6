"""The loop against an independent one in numpy, and what it does when things go wrong."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_toys import OPTIONS, Points, Regression, changed, denoising, outcome, start, train, weights

from osmotic.data.counter import permutation
from osmotic.training.errors import Diverged, OutOfMemory, RunError, SaveFailed
from osmotic.training.hooks import Hook, Moment
from osmotic.training.loop import fit
from osmotic.training.options import Options
from osmotic.training.task import Batch, Task

PLAIN = Options(
    steps=20, batch_size=16, warmup=5, learning_rate=0.3, ema=(3.0,), ema_ramp=0.5, log_every=4, checkpoint_every=5
)


def plain(**changes: object) -> Options:
    return Options.model_validate(PLAIN.model_dump() | changes)


def by_hand(points: Points, options: Options) -> dict[str, np.ndarray | list[float]]:
    """Regression trained by formulas alone: order, gradient, clipping, AdamW and average."""
    x, n, b = points.x.double().numpy(), len(points), options.batch_size
    order = np.concatenate([permutation(options.seed, epoch, n) for epoch in range(options.steps * b // n + 1)])
    w, m, v, average = (np.zeros(2) for _ in range(4))
    losses, norms = [], []
    for step in range(options.steps):
        batch = x[order[step * b : (step + 1) * b]]
        losses.append(np.mean((w - batch) ** 2))
        gradient = w - batch.mean(0)
        norms.append(np.linalg.norm(gradient))
        if options.clip and norms[-1] > options.clip:
            gradient *= options.clip / norms[-1]
        rate = options.learning_rate
        if step < options.warmup:
            rate *= (step + 1) / options.warmup
        else:
            rate *= 0.5 * (1 + np.cos(np.pi * (step - options.warmup) / (options.steps - options.warmup)))
        w = w - rate * options.weight_decay * w
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - rate * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
        beta = 0.5 ** (1 / min(options.ema[0], options.ema_ramp * (step + 1)))
        average = beta * average + (1 - beta) * w
    return {"w": w, "average": average, "losses": losses, "norms": norms}


@pytest.mark.parametrize("change", [{}, {"clip": 0}, {"clip": 0.1}, {"weight_decay": 0.3}, {"accumulate": 3}], ids=str)
def test_it_is_the_published_algorithm(tmp_path: Path, change: dict[str, object]) -> None:
    options = plain(**change)
    expected = by_hand(Points(), options)
    task = Regression(dtype=torch.float64)
    run = fit(task, Points(), start(tmp_path), options, device="cpu")
    np.testing.assert_allclose(task.module.weight.detach().numpy()[:, 0], expected["w"], rtol=1e-6)
    saved = weights(tmp_path, options.steps)
    np.testing.assert_allclose(saved["ema-3.safetensors"]["weight.weight"][:, 0], expected["average"], rtol=1e-6)
    lines = [line for line in run.metrics() if "loss" in line]
    np.testing.assert_allclose(
        [line["loss"] for line in lines], np.reshape(expected["losses"], (5, 4)).mean(1), rtol=1e-6
    )
    np.testing.assert_allclose(
        [line["gradient_norm"] for line in lines], np.reshape(expected["norms"], (5, 4)).mean(1), rtol=1e-6
    )


@pytest.mark.parametrize("accumulate", [2, 5, 16])
def test_passes_see_the_same_samples_and_noise(tmp_path: Path, accumulate: int) -> None:
    one, many = Regression(noise=1.0, dtype=torch.float64), Regression(noise=1.0, dtype=torch.float64)
    fit(one, Points(), start(tmp_path / "one"), plain(), device="cpu")
    fit(many, Points(), start(tmp_path / "many"), plain(accumulate=accumulate), device="cpu")
    assert len(many.seen) == accumulate * len(one.seen)
    for name in ("indices", "positions"):
        np.testing.assert_array_equal(*(np.concatenate([getattr(b, name) for b in task.seen]) for task in (one, many)))
    torch.testing.assert_close(one.module.weight, many.module.weight, rtol=1e-12, atol=1e-12)


def test_workers_change_nothing(tmp_path: Path) -> None:
    outcomes = []
    for workers in (0, 1, 3):
        train(tmp_path / str(workers), changed(workers=workers, steps=8))
        outcomes.append(outcome(tmp_path / str(workers)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def draw_globally(moment: Moment) -> None:
    torch.rand(3)


def test_global_state_is_left_alone(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  the global state is the point
    task = denoising()
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    hook = Hook(1, draw_globally)
    fit(task, Points(), start(tmp_path), changed(steps=3), held_out=Points(10), hooks=[hook], device="cpu")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_dropout_is_keyed_by_the_step_and_differs_between_steps(tmp_path: Path) -> None:
    masks: list[Tensor] = []

    class Dropping(Regression):
        def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
            masks.append(nn.functional.dropout(torch.ones(64), 0.5))
            return super().loss(player, batch, modules)

    for name, disturbance in (("a", 0), ("b", 5)):
        torch.manual_seed(disturbance)
        fit(Dropping(), Points(), start(tmp_path / name), plain(steps=3, accumulate=2), device="cpu")
    assert all(torch.equal(one, other) for one, other in zip(masks[:6], masks[6:], strict=True))
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(masks[:6], 2))


def test_augmentations_get_the_position_of_each_sample(tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def shift(x: Tensor, seed: int, positions: np.ndarray) -> Tensor:
        seen.append(positions)
        return x + torch.from_numpy(positions).float()[:, None]

    task = Regression()
    fit(task, Points(), start(tmp_path), plain(steps=3, workers=0), augmentations=(shift,), device="cpu")
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(48))
    for batch in task.seen:
        expected = Points().x[batch.indices] + torch.from_numpy(batch.positions).float()[:, None]
        assert torch.equal(batch.x0, expected)


# Two players.


class Chase(Task):
    """b goes to 1; a goes to b."""

    def __init__(self) -> None:
        self.players = {name: nn.Linear(1, 1, bias=False) for name in ("a", "b")}
        for module in self.players.values():
            nn.init.zeros_(module.weight)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        one = torch.ones(len(batch.x0), 1)
        a, b = modules["a"](one), modules["b"](one)
        return ((a - b) if player == "a" else (b - 1 + 0 * a)).square()[:, 0]


def test_players_learn_from_their_own_loss_alone(tmp_path: Path) -> None:
    task = Chase()
    run = fit(
        task,
        Points(),
        start(tmp_path),
        plain(steps=300, learning_rate=0.02, checkpoint_every=300),
        held_out=Points(5),
        device="cpu",
    )
    assert task.players["a"].weight.item() == pytest.approx(1, abs=0.02)
    assert task.players["b"].weight.item() == pytest.approx(1, abs=0.02)
    assert all(module.weight.requires_grad for module in task.players.values())
    line = next(line for line in run.metrics() if "loss/a" in line)
    assert {"loss/a", "loss/b", "gradient_norm/a", "gradient_norm/b"} <= line.keys()
    assert set(weights(tmp_path, 300)["model.safetensors"]) == {"a.weight", "b.weight"}


def test_a_player_without_gradient_from_others_stays(tmp_path: Path) -> None:
    class Still(Chase):
        def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
            loss = super().loss(player, batch, modules)
            return loss if player == "a" else loss * 0

    task = Still()
    nn.init.ones_(task.players["b"].weight)
    fit(task, Points(), start(tmp_path), plain(steps=50, learning_rate=0.1, checkpoint_every=50), device="cpu")
    assert task.players["b"].weight.item() == 1  # a's loss pulls at b as well, but it is not b's turn
    assert task.players["a"].weight.item() > 0.5


# What is not finite.


def test_a_poisoned_sample_is_skipped_counted_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    points = Points(100, spoilt=(42,))
    task = Regression()
    run = fit(task, points, start(tmp_path), plain(steps=30, log_every=5), held_out=Points(5), device="cpu")
    order = np.concatenate([permutation(0, epoch, 100) for epoch in range(6)])
    hit = [step + 1 for step in range(30) if 42 in order[step * 16 : (step + 1) * 16]]
    skips = [line for line in run.metrics() if "skipped" in line]
    assert [line["step"] for line in skips] == hit
    assert all(line["skipped"]["samples"] == ["point 42"] and line["skipped"]["what"] == "loss" for line in skips)
    assert [line for line in run.metrics() if "loss" in line][-1]["skipped_in_all"] == len(hit)
    assert capfd.readouterr().err.count("point 42") == len(hit)
    for tensors in weights(tmp_path, 30).values():
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    steps_taken = weights(tmp_path, 30)["optimizer.safetensors"]["weight.weight.step"]
    assert steps_taken == 30 - len(hit)


class Rough(Regression):
    """A gradient that is not finite at some steps, from a loss that is."""

    bad = (3, 4)

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        loss = super().loss(player, batch, modules)
        if batch.step in self.bad:
            root = (loss * 0).sqrt()  # infinite slope times zero
            return loss + root
        return loss


def test_a_gradient_that_is_not_finite_is_skipped_too(tmp_path: Path) -> None:
    task = Rough()
    before: list[Tensor] = []
    hook = Hook(1, lambda moment: before.append(task.module.weight.detach().clone()))
    run = fit(task, Points(), start(tmp_path), plain(), hooks=[hook], device="cpu")
    skips = [line for line in run.metrics() if "skipped" in line]
    assert [(line["step"], line["skipped"]["what"], line["skipped"]["samples"]) for line in skips] == [
        (4, "gradient", []),
        (5, "gradient", []),
    ]
    assert torch.equal(before[3], before[5])
    assert not torch.equal(before[5], before[6])


def test_too_many_in_a_row_stop_at_the_last_good_checkpoint(tmp_path: Path) -> None:
    task = Rough()
    task.bad = tuple(range(12, 20))
    with pytest.raises(Diverged, match=r"step 16:.*4 steps in a row.*step-00000015.*--resume") as caught:
        fit(task, Points(), start(tmp_path), plain(max_skips=3), device="cpu")
    assert caught.value.exit_code == 3
    task = Rough()  # the cause is gone, and the run goes on
    task.bad = ()
    fit(task, Points(), start(tmp_path), plain(max_skips=3), device="cpu")
    assert start(tmp_path).folders()[0].name == "step-00000020"


def test_now_and_then_is_too_often_in_the_long_run(tmp_path: Path) -> None:
    task = Rough()
    task.bad = tuple(range(0, 200, 2))
    with pytest.raises(Diverged, match=r"step 9: 1 steps in a row.* 5 in all"):
        fit(task, Points(), start(tmp_path), plain(steps=200, max_skips=4), device="cpu")


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    task = Regression()

    def spoil(moment: Moment) -> None:
        if moment.step == 9:
            with torch.no_grad():
                task.module.weight[1] = float("nan")

    with pytest.raises(Diverged, match="step-00000005"):
        fit(task, Points(), start(tmp_path), plain(max_skips=0), hooks=[Hook(1, spoil)], device="cpu")
    task = Regression()
    with pytest.raises(Diverged, match=r"After step 10.*weight\.weight.*step-00000005"):
        fit(task, Points(), start(tmp_path), plain(max_skips=9), hooks=[Hook(1, spoil)], device="cpu")
    assert [folder.name for folder in start(tmp_path).folders()] == ["step-00000005"]


# Measurements, hooks and logs.


def test_the_held_out_loss_is_exact_and_picks_the_best_checkpoint(tmp_path: Path) -> None:
    task = Regression()
    trace: dict[int, Tensor] = {}
    hook = Hook(1, lambda moment: trace.update({moment.step: task.module.weight.detach().clone()}))
    options = plain(evaluate_every=5, learning_rate=2.0, keep_last=1)
    run = fit(task, Points(), start(tmp_path), options, held_out=Points(30), hooks=[hook], device="cpu")
    lines = {line["step"]: line["held_out"] for line in run.metrics() if "held_out" in line}
    assert list(lines) == [0, 5, 10, 15, 20]
    for step, line in lines.items():
        assert line["raw"]["loss"] == pytest.approx((trace[step].T - Points(30).x).square().mean().item(), rel=1e-5)
    best = min((5, 10, 15, 20), key=lambda step: lines[step]["ema-3"]["loss"])
    assert {folder.name for folder in run.folders()} == {f"step-{best:08d}", "step-00000020"}
    assert {m.held_out for _, m in run.complete()} == {lines[step]["ema-3"]["loss"] for step in (best, 20)}


def test_measuring_uses_the_same_noise_each_time(tmp_path: Path) -> None:
    task = Regression(noise=1.0)
    options = plain(steps=6, evaluate_every=1, learning_rate=1e-30)
    run = fit(task, Points(), start(tmp_path), options, held_out=Points(3), device="cpu")
    losses = [line["held_out"]["raw"]["loss"] for line in run.metrics() if "held_out" in line]
    assert len(losses) == 7
    assert len(set(losses)) == 1
    x = Points(3).x
    # w = 0: the loss is E (x + eps)^2 = mean(x^2) + 1, from 2048 * 2 draws of standard deviation below 4.
    assert losses[0] == pytest.approx(x.square().mean().item() + 1, abs=5 * 4 / 64)


def test_hooks_see_averages_and_change_nothing(tmp_path: Path) -> None:
    calls: list[int] = []

    def look(moment: Moment) -> None:
        calls.append(moment.step)
        torch.rand(3)
        module = moment.modules["denoiser"]
        assert not module.training
        raw = [p.clone() for p in module.parameters()]
        with moment.averaged(1):
            averaged = [p.clone() for p in module.parameters()]
        assert all(torch.equal(p, q) for p, q in zip(raw, module.parameters(), strict=True))
        assert all(torch.equal(p, q) for p, q in zip(raw, averaged, strict=True)) == (moment.step == 0)

    train(tmp_path / "hooked", changed(steps=10), (Hook(4, look),))
    train(tmp_path / "plain", changed(steps=10))
    assert calls == [0, 4, 8, 10]
    assert outcome(tmp_path / "hooked") == outcome(tmp_path / "plain")


def test_tensorboard_and_the_log_tell_the_same(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = np.zeros((4, 5, 3), np.uint8)
    hook = Hook(8, lambda moment: moment.log.picture(moment.step, "samples", picture))
    run = fit(denoising(), Points(), start(tmp_path), OPTIONS, held_out=Points(9), hooks=[hook], device="cpu")
    board = EventAccumulator(str(run.tensorboard))
    board.Reload()
    told = {event.step: event.value for event in board.Scalars("loss")}
    assert told == pytest.approx({line["step"]: line["loss"] for line in run.metrics() if "loss" in line}, rel=1e-6)
    levels = [tag for tag in board.Tags()["scalars"] if tag.startswith("held_out/ema-2/log_snr")]
    assert len(levels) == 6
    assert [event.step for event in board.Images("samples")] == [0, 8, 16, 24]


def test_progress_is_said_in_plain_lines_without_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(Regression(), Points(), start(tmp_path), plain(), device="cpu")
    said = capfd.readouterr()
    assert "step 20/20, 0:00 left, loss " in said.err
    assert said.out == ""


def test_nothing_is_written_outside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fit(Regression(), Points(), start(tmp_path / "run"), plain(), device="cpu")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "run"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        ".lock", "recipe.json", "data.json", "metrics.jsonl", "timing.jsonl", "checkpoints", "tb",
    }  # fmt: skip


# Refusals.


def test_a_disk_that_fills_stops_the_run_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from osmotic.training import checkpoint

    real = checkpoint.save_file

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        if "00000010" in str(path):
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(SaveFailed, match="No space left"):
        fit(Regression(), Points(), start(tmp_path), plain(), device="cpu")
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    monkeypatch.undo()
    fit(Regression(), Points(), start(tmp_path), plain(), device="cpu")
    fit(Regression(), Points(), start(tmp_path / "unbroken"), plain(), device="cpu")
    assert outcome(tmp_path)["metrics.jsonl"] == outcome(tmp_path / "unbroken")["metrics.jsonl"]


def test_no_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no training samples"):
        fit(Regression(), Points(0), start(tmp_path), plain(), device="cpu")
    with pytest.raises(RunError, match="no held-out samples"):
        fit(Regression(), Points(), start(tmp_path), plain(), held_out=Points(0), device="cpu")


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")],
)
def test_out_of_memory_says_what_to_change(tmp_path: Path, error: RuntimeError) -> None:
    class Huge(Regression):
        def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
            raise error

    with pytest.raises(OutOfMemory, match="--accumulate 4"):
        fit(Huge(), Points(), start(tmp_path), plain(accumulate=2), device="cpu")


def test_sharding_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="torchrun"):
        fit(denoising(), Points(), start(tmp_path), changed(shard=True), device="cpu")
