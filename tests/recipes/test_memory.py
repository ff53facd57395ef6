"""How much memory is left, by what Linux and a container say, and how much a run will take."""

import pytest
import torch

from osmotic.data.dataset import open_data
from osmotic.recipes import memory, plan
from osmotic.recipes.train import resolve, tasked
from osmotic.training.autoencoding import Autoencoding
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe

CPU = torch.device("cpu")


def test_the_smaller_of_the_machine_and_the_container_counts(tmp_path, monkeypatch):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:  3000 kB\nHugePages_Total:  0\n")
    monkeypatch.setattr(memory, "MEMINFO", info)
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.free(CPU) == 3000 << 10
    (tmp_path / "memory.current").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 20000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free(CPU) == 3000 << 10
    (tmp_path / "memory.max").write_text("1500000\n")
    assert memory.free(CPU) == 1_020_000
    info.unlink()
    assert memory.free(CPU) == 1_020_000
    (tmp_path / "memory.max").unlink()
    assert memory.free(CPU) is None


@pytest.mark.parametrize("adversarial", [0.0, 0.5])
def test_a_plan_counts_every_player(adversarial):
    """Weights, gradients, two moments and the averages of all that is trained, and no less than that."""
    recipe = resolve(
        Recipe(
            process=Process(objective="autoencoder"),
            architecture=Architecture(widths=(8,), blocks=1),
            autoencoder=Autoencoding(adversarial=adversarial),
            options=Options(batch_size=1, ema=(2.0,)),
        ),
        data := open_data("digits"),
    )
    task = tasked(recipe, data.spec, CPU)
    weights = [sum(p.numel() for p in player.parameters()) for player in task.players.values()]
    assert len(weights) == (2 if adversarial else 1)
    found = plan.measure(task, data, recipe, data.spec, CPU)
    activations = found.memory - 4 * 5 * sum(weights)
    # One picture's turn of the greediest player: more than the numbers of its first layers, in single precision.
    assert 4 * 64 * 8 < activations < 2**19
    assert found.memory == plan.measure(task, data, recipe, data.spec, CPU).memory
