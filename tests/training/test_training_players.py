"""Several players: turns that differ, optimizers of their own, means over a player's own steps, exact resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_toys import Points, changed, outcome, start, weights

from osmotic.training.counters import Counters
from osmotic.training.hooks import Hook, Moment
from osmotic.training.loop import fit
from osmotic.training.optim import Tuning, learning_rate
from osmotic.training.options import Options
from osmotic.training.task import Batch, Stream, Task

EVERY = 3


class Duel(Task):
    """A player that steps in every third step and one that steps in each; their losses know one another's weights."""

    def __init__(self, tunings: Mapping[str, Tuning] | None = None) -> None:
        torch.manual_seed(0)
        self.players = {"slow": nn.Linear(2, 2), "fast": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2))}
        self.tunings = tunings or {}
        self.turns: list[tuple[str, int]] = []

    def active(self, player: str, step: int) -> bool:
        return player != "slow" or step % EVERY == EVERY - 1

    def tuning(self, player: str) -> Tuning:
        return self.tunings.get(player, Tuning())

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        if batch.training:
            self.turns.append((player, batch.step))
        x = batch.x0 + 0.1 * batch.noise.normal(Stream.NOISE, batch.x0.shape[1:])
        gap = modules["slow"](x) - modules["fast"](x)
        return gap.square().sum(1) if player == "slow" else (gap - x).square().sum(1)


class Counting(Duel):
    """A loss that is the number of the step, with that number as its slope in every weight."""

    def loss(self, player: str, batch: Batch, modules: Mapping[str, nn.Module]) -> Tensor:
        whole = sum(p.sum() for p in self.players[player].parameters())
        assert isinstance(whole, Tensor)
        return (batch.step + 1) * (1 + whole - whole.detach()).expand(len(batch.x0))


class Stop(Exception):
    pass


def stop_at(step: int) -> Hook:
    def call(moment: Moment) -> None:
        if moment.step == step:
            raise Stop

    return Hook(1, call)


def train(directory: Path, task: Task, options: Options, *hooks: Hook, held_out: bool = True) -> None:
    measured = Points(30) if held_out else None
    fit(task, Points(), start(directory), options, held_out=measured, hooks=hooks, device="cpu")


def lines(directory: Path, name: str) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if name in line]


def test_players_step_in_their_own_turns_and_in_order(tmp_path: Path) -> None:
    task = Duel()
    train(tmp_path, task, changed(steps=7))
    expected = [(name, step) for step in range(7) for name in ("slow", "fast") if task.active(name, step)]
    assert task.turns == expected
    assert expected.count(("slow", 2)) == 1


@pytest.mark.parametrize("step", [1, 4, 9, 11, 12, 18])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_gives_equal_bits(tmp_path: Path, step: int, accumulate: int) -> None:
    """Also where a player had not had a turn before the checkpoint, or in the middle of a line of the log."""
    options = changed(steps=20, log_every=5, checkpoint_every=2, accumulate=accumulate)
    tuned = {"slow": Tuning(0.5, (0.0, 0.9))}
    train(tmp_path / "whole", Duel(tuned), options)
    with pytest.raises(Stop):
        train(tmp_path / "broken", Duel(tuned), options, stop_at(step))
    train(tmp_path / "broken", Duel(tuned), options)
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")


def test_means_are_over_a_player_s_own_turns(tmp_path: Path) -> None:
    """In closed form: losses are the steps' numbers, gradient norms those times the root of the number of weights."""
    train(tmp_path, Counting(), changed(steps=24, log_every=4, checkpoint_every=24), held_out=False)
    found = lines(tmp_path, "loss/fast")
    assert len(found) == 6
    for line in found:
        steps = range(int(line["step"]) - 4, int(line["step"]))
        own = {"fast": [s + 1 for s in steps], "slow": [s + 1 for s in steps if s % EVERY == EVERY - 1]}
        for name, numbers in own.items():
            mean = sum(numbers) / len(numbers)
            assert line[f"loss/{name}"] == pytest.approx(mean, rel=1e-6), (name, line)
            assert line[f"gradient_norm/{name}"] == pytest.approx(mean * math.sqrt(6), rel=1e-6), (name, line)


def test_a_line_in_which_a_player_had_no_turn_is_written(tmp_path: Path) -> None:
    train(tmp_path, Counting(), changed(steps=8, log_every=2, checkpoint_every=8), held_out=False)
    found = lines(tmp_path, "loss/fast")
    silent = [line for line in found if line["step"] == 2]
    assert len(found) == 4
    assert len(silent) == 1
    assert silent[0]["loss/slow"] is None  # no number is made up for it, and the others keep their names


def test_rates_are_multiplied_and_count_the_run_s_steps(tmp_path: Path) -> None:
    """With slopes of one sign AdamW moves each weight by its rate, whatever their size: the sum is known.

    betas (0, 0) make it so exactly: the step is the slope over its own size.
    """
    tunings = {"slow": Tuning(0.25, (0.0, 0.0)), "fast": Tuning(2.0, (0.0, 0.0))}
    task, options = Counting(tunings), changed(steps=10, learning_rate=0.01)
    before = {name: module.state_dict() for name, module in Counting().players.items()}
    train(tmp_path, task, options, held_out=False)
    for name, module in task.players.items():
        taken = [learning_rate(options, step) for step in range(10) if task.active(name, step)]
        moved = tunings[name].rate * sum(taken)
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, before[name][key] - moved, rtol=0, atol=1e-6)


def test_betas_are_the_player_s_own(tmp_path: Path) -> None:
    """The stored moments after slopes 1, 2, ..., n (unclipped), against their sums."""
    tunings = {"slow": Tuning(betas=(0.3, 0.6))}
    train(tmp_path, Counting(tunings), changed(steps=9, clip=0.0, checkpoint_every=9), held_out=False)
    stored = weights(tmp_path, 9)["optimizer.safetensors"]
    turns = {"slow": [3, 6, 9], "fast": list(range(1, 10))}
    keys = {"slow": "slow.weight", "fast": "fast.0.weight"}
    for name, (first, second) in {"slow": (0.3, 0.6), "fast": (0.9, 0.999)}.items():
        m = v = 0.0
        for slope in turns[name]:
            m, v = first * m + (1 - first) * slope, second * v + (1 - second) * slope**2
        assert float(stored[f"{keys[name]}.step"]) == len(turns[name])
        torch.testing.assert_close(stored[f"{keys[name]}.exp_avg"], torch.full((2, 2), m), rtol=1e-5, atol=0)
        torch.testing.assert_close(stored[f"{keys[name]}.exp_avg_sq"], torch.full((2, 2), v), rtol=1e-5, atol=0)


def test_averages_follow_a_player_in_its_own_turns_alone(tmp_path: Path) -> None:
    """What has not moved has an average that has not moved."""
    task = Duel()
    before = task.players["slow"].weight.detach().clone()
    train(tmp_path, task, changed(steps=2, checkpoint_every=2))
    for name, tensors in weights(tmp_path, 2).items():
        if name.startswith(("ema", "model")):
            assert torch.equal(tensors["slow.weight"], before), name


def test_counters_come_back_as_they_were() -> None:
    counters = Counters()
    for step in range(5):
        losses = {"fast": 0.1 * step} | ({"slow": 1.0 + step} if step % 2 else {})
        counters.add(losses, losses)
    names = ["slow", "fast"]
    again = Counters.of(counters.tensors(names), names)
    assert again.means() == counters.means()
    assert again.means()[0] == {"slow": 3.0, "fast": pytest.approx(0.2)}
    assert again.turns == {"slow": 2, "fast": 5}
    assert again.good == 5
    again.clear()
    assert all(math.isnan(value) for value in again.means()[0].values())
