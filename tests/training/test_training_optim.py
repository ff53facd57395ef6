"""Averages, rates and the optimizer against closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_toys import Net

from osmotic.training.distributed import World
from osmotic.training.ema import Average
from osmotic.training.optim import learning_rate, optimizer
from osmotic.training.options import Options
from osmotic.training.player import Player
from osmotic.training.precision import autocast_dtype

CPU = torch.device("cpu")


def test_the_average_is_the_published_sum() -> None:
    """After n steps, sum_i w_i (1 - b_i) prod_{j > i} b_j, with EDM's warmed-up half-lives."""
    module = nn.Linear(1, 1, bias=False).double()
    values = np.random.default_rng(0).normal(size=31)
    halflife, ramp = 4.0, 0.3
    nn.init.constant_(module.weight, values[0])
    average = Average(module, halflife, ramp)
    for step in range(1, 31):
        nn.init.constant_(module.weight, values[step])
        average.update(step)
    beta = [0.0, *(2 ** (-1 / min(halflife, ramp * n)) for n in range(1, 31))]
    weights = [(1 - beta[i]) * math.prod(beta[i + 1 :]) for i in range(31)]
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    assert average.tensors["weight"].item() == pytest.approx(float(np.dot(weights, values)), abs=1e-12)


def test_a_step_decays_to_a_half_after_one_halflife() -> None:
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    average = Average(module, 7.0, 1.0)
    nn.init.ones_(module.weight)
    for step in range(1000, 1007):
        average.update(step)
    assert average.tensors["weight"].item() == pytest.approx(0.5, abs=1e-12)


def test_buffers_are_copied_and_tied_weights_averaged_under_both_names() -> None:
    torch.manual_seed(0)
    module = Net()
    average = Average(module, 10.0, 1.0)
    first = module.again.weight.detach().clone()
    with torch.no_grad():
        module.again.weight.add_(1)
    module.calls += 3
    average.update(100)
    assert average.tensors["calls"] == 3
    expected = first + (1 - 0.5 ** (1 / 10))
    for name in ("again.weight", "blocks.0.0.weight"):
        torch.testing.assert_close(average.tensors[name], expected)


def test_lent_weights_come_back_bit_for_bit_even_after_an_error() -> None:
    torch.manual_seed(0)
    module = Net()
    average = Average(module, 10.0, 1.0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(1.1)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    borrowed = []

    def fail_inside() -> None:
        with average.applied():
            borrowed.extend(torch.equal(tensor, average.tensors[name]) for name, tensor in module.state_dict().items())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert borrowed == [True] * len(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_rate_warms_up_and_follows_a_cosine() -> None:
    options = Options(steps=110, warmup=10, learning_rate=0.5, floor=0.2)
    rates = [learning_rate(options, step) for step in range(110)]
    np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11))
    np.testing.assert_allclose(rates[10:], 0.1 + 0.4 * (1 + np.cos(np.pi * np.arange(100) / 100)) / 2)
    assert rates[60] == pytest.approx(0.3)  # half way: the mean of peak and floor


@pytest.mark.parametrize("change", [{"warmup": 0}, {"warmup": 500}, {"floor": 1.0}, {"steps": 1}])
def test_the_rate_is_positive_and_never_above_the_peak(change: dict[str, float]) -> None:
    options = Options.model_validate({"steps": 100, "learning_rate": 1.0, "warmup": 10} | change)
    rates = [learning_rate(options, step) for step in range(options.steps)]
    assert all(0 < rate <= 1 for rate in rates)
    if options.floor == 1:
        assert set(rates[10:]) == {1.0}


def _step(options: Options, weight: float, gradient: float) -> float:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, weight)
    player = Player("p", module, module, World(0, 1, CPU), options)
    module.weight.grad = torch.full((1, 1), gradient)
    player.step(0, float(player.norm()))
    return module.weight.item()


def test_the_first_step_is_adamw_s() -> None:
    """m / sqrt(v) is the gradient's sign after one step, and the decay is decoupled from it."""
    options = Options(learning_rate=0.1, warmup=0, weight_decay=0.5, clip=0)
    assert _step(options, 2.0, 3.0) == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


def test_gradients_are_clipped_to_the_norm_and_no_further() -> None:
    module = nn.Linear(2, 1, bias=False)
    player = Player("p", module, module, World(0, 1, CPU), Options(clip=1.0))
    for scale, expected in ((10.0, 1.0), (0.01, 0.05)):
        module.weight.grad = torch.tensor([[3.0, 4.0]]) * scale
        norm = float(player.norm())
        assert norm == pytest.approx(5 * scale)
        player.step(0, norm)
        assert module.weight.grad.norm().item() == pytest.approx(expected)


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.GroupNorm(1, 3), nn.Linear(3, 3))
    decays = {
        id(p): g["weight_decay"] for g in optimizer(module, Options(weight_decay=0.1)).param_groups for p in g["params"]
    }
    assert {name: decays[id(p)] for name, p in module.named_parameters()} == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.1, "2.bias": 0.0,
    }  # fmt: skip


def test_precision_is_what_was_asked_for() -> None:
    assert autocast_dtype("float32", CPU) is None
    assert autocast_dtype("bfloat16", CPU) is torch.bfloat16


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor's own list of features is Linux's")
def test_auto_takes_bfloat16_where_the_processor_has_it() -> None:
    flags = Path("/proc/cpuinfo").read_text()
    fast = "avx512_bf16" in flags or "amx_tile" in flags
    assert autocast_dtype("auto", CPU) is (torch.bfloat16 if fast else None)
