"""Two passes with the same dropout, and the slow copy that a loss looks at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from osmotic.denoiser import NeuralDenoiser
from osmotic.distill.shadow import Shadow
from osmotic.distill.twin import Twin
from osmotic.estimate import V
from osmotic.nn import MLP, Embedding
from osmotic.schedules import Rectified
from tests.distill.toys import devices


def student(dropout: float = 0.5, seed: int = 0) -> NeuralDenoiser:
    torch.manual_seed(seed)
    network = MLP((3,), (32, 32), dropout, Embedding(16))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    return NeuralDenoiser(network, Rectified(), V())


@devices
def test_two_branches_see_the_same_dropout(device: str) -> None:
    """The loss of two equal branches is exactly 0, as it must be where r = t; with streams of their own it is not.

    On an accelerator the masks come from its own generator: a twin that kept the CPU's state alone fails here.
    """
    denoiser = student().to(device)
    x, t = torch.randn(64, 3, device=device), torch.full((64,), 0.5, dtype=torch.float64)
    for _ in range(3):
        twin = Twin(torch.device(device))
        first = denoiser(x, t).x0
        with twin.again(), torch.no_grad():
            second = denoiser(x, t).x0
        assert torch.equal(first, second)
        with torch.no_grad():
            assert not torch.equal(first, denoiser(x, t).x0)


@devices
def test_a_twin_leaves_no_trace(device: str) -> None:
    """What is drawn afterwards is what would have come without the second branch."""

    def draws(again: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        twin = Twin(torch.device(device))
        found = [torch.rand(5, device=device)]
        if again:
            with twin.again():
                assert torch.equal(torch.rand(5, device=device), found[0])
                torch.rand(7)
        return [*found, torch.rand(5, device=device), torch.rand(5)]

    for one, other in zip(draws(True), draws(False), strict=True):
        assert torch.equal(one, other)


def test_a_shadow_is_the_running_mean_of_what_it_follows() -> None:
    """``(1 - decay) sum_i decay^(n - i) w_i + decay^n w_0`` after n updates, buffers as they are now."""
    followed = student()
    followed.network.register_buffer("calls", torch.zeros(()))
    shadow = Shadow(followed, 0.8)
    expected = {name: p.detach().double() for name, p in followed.named_parameters()}
    for step in range(1, 5):
        with torch.no_grad():
            for p in followed.parameters():
                p.add_(torch.randn_like(p))
        followed.network.calls += step
        shadow.update(followed)
        for name, p in followed.named_parameters():
            expected[name] = 0.8 * expected[name] + 0.2 * p.detach().double()
    for name, p in shadow.denoiser.named_parameters():
        torch.testing.assert_close(p.double(), expected[name], rtol=0, atol=1e-6)
        assert not p.requires_grad
    assert float(shadow.denoiser.network.calls) == 10


def test_a_shadow_without_memory_is_the_student() -> None:
    followed, shadow = student(seed=1), Shadow(student(), 0.0)
    shadow.update(followed)
    for mine, theirs in zip(shadow.denoiser.parameters(), followed.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_shadow_s_state_makes_another_equal_bit_for_bit() -> None:
    first, second = Shadow(student(seed=1), 0.9), Shadow(student(seed=2), 0.9)
    first.update(student(seed=3))
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    assert all(name.startswith("shadow.") for name in state)
    second.load_state(state | {"law.other": torch.zeros(1)})
    for name, tensor in second.state().items():
        assert torch.equal(tensor, state[name])
    before = second.state()["shadow.network.out.bias"].clone()
    for shadow in (first, second):
        shadow.update(student(seed=4))
    assert not torch.equal(before, second.state()["shadow.network.out.bias"])
    for name, tensor in second.state().items():
        assert torch.equal(tensor, first.state()[name])


def test_following_does_not_touch_the_student() -> None:
    followed = student()
    shadow = Shadow(followed, 0.5)
    with torch.no_grad():
        for p in shadow.denoiser.parameters():
            p.zero_()
    assert all(bool(p.abs().sum() > 0) and p.requires_grad for p in followed.parameters())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Shadow(student(), decay)


def test_dropout_is_what_the_tests_above_need() -> None:
    assert any(isinstance(module, nn.Dropout) and module.p == 0.5 for module in student().modules())
