"""ControlNet over U-Nets and transformers of every dimension."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapting import GRIDS, base, bits, same, stir, told
from nn_family import BATCH, Member, distance, inputs

from osmotic import NeuralDenoiser, samplers, schedules
from osmotic.adapters import ControlNet, LoRA
from osmotic.condition import Condition
from osmotic.estimate import V
from osmotic.guidance import ClassifierFree
from osmotic.nn import MLP, DiT, Embedding, UNet, count
from osmotic.samplers import sample
from osmotic.times import LogSNR

CHANNELS = 2
ROUNDING = 2e-5

grids = pytest.mark.parametrize("member", GRIDS, ids=str)


def picture(member: Member, seed: int = 0) -> torch.Tensor:
    return torch.randn(BATCH, CHANNELS, *member.shape[1:], generator=torch.Generator().manual_seed(seed))


def controlled(member: Member) -> ControlNet:
    control = ControlNet(base(member), CHANNELS)
    stir(control)
    return control


@grids
def test_untrained_it_is_the_base_bit_for_bit(member: Member) -> None:
    net, (x, time), cond = base(member), inputs(member), told(member)
    before, output, null = bits(net), net(x, time, cond), net(x, time)
    control = ControlNet(net, CHANNELS)
    seeing = replace(cond, image=1e3 * picture(member))
    assert torch.equal(control(x, time, seeing), output)
    assert torch.equal(control(x, time, Condition(image=picture(member))), null)
    assert torch.equal(control(x, time, cond), output)
    assert torch.equal(control(x, time), null)
    valid = torch.rand(BATCH, *member.shape[1:], generator=torch.Generator().manual_seed(5)) > 0.4
    padded = replace(seeing, valid=valid)
    assert torch.equal(control(x, time, padded), net(x, time, replace(cond, valid=valid)))
    assert same(net.state_dict(), before)


@grids
def test_first_the_zeros_learn_then_the_copy_and_never_the_base(member: Member) -> None:
    control, (x, time) = ControlNet(base(member), CHANNELS), inputs(member)
    cond = replace(told(member), image=picture(member))
    before = bits(control.network)
    optimizer = torch.optim.Adam((p for p in control.parameters() if p.requires_grad), lr=1e-2)

    def step() -> dict[str, bool]:
        optimizer.zero_grad()
        (control(x, time, cond) - x.cos()).square().mean().backward()
        optimizer.step()
        return {name: bool(p.grad.any()) for name, p in control.branch.named_parameters()}

    first, second, third = step(), step(), step()
    assert {name for name, moved in first.items() if moved} == {n for n in first if n.startswith("say.")}
    copied = {name for name in second if name.startswith("encoder.")}
    assert copied <= {name for name, moved in second.items() if moved}
    assert all(third.values()), [name for name, moved in third.items() if not moved]
    assert all(p.grad is None for p in control.network.parameters())
    assert same(control.network.state_dict(), before)


@grids
def test_everything_it_is_told_acts_and_each_sample_for_itself(member: Member) -> None:
    control, (x, time) = controlled(member), inputs(member)
    cond = replace(told(member), image=picture(member))
    y = control(x, time, cond)
    assert distance(y, control.network(x, time, replace(cond, image=None))) > 1e-2
    assert distance(control(x, time, replace(cond, image=-cond.image)), y) > 1e-3
    one = control(x[1:2], time[1:2], cond[1:2])
    assert distance(one, y[1:2]) < ROUNDING
    control.scale = 0.0
    assert torch.equal(control(x, time, cond), control.network(x, time, replace(cond, image=None)))


@grids
def test_a_hidden_image_may_be_anything_and_leaves_the_base(member: Member) -> None:
    control, (x, time) = controlled(member), inputs(member)
    cond = replace(told(member), image=picture(member))
    keep = torch.tensor([True, False, True])
    mixed = control(x, time, cond.drop(keep))
    plain = control.network(x, time)
    assert distance(mixed[~keep], plain[~keep]) < ROUNDING
    assert distance(mixed[keep], control(x, time, cond)[keep]) < ROUNDING
    wild = replace(cond, image=cond.image.clone())
    wild.image[1] = float("nan")
    y = control(x, time, wild.drop(keep))
    assert torch.equal(y, mixed)
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in control.branch.parameters())


@grids
def test_each_part_of_the_condition_may_be_hidden_on_its_own(member: Member) -> None:
    """The columns of ``keep`` are the label's, the tokens' and, last, the image's."""
    control, (x, time) = controlled(member), inputs(member)
    cond, on, off = replace(told(member), image=picture(member)), torch.ones(BATCH), torch.zeros(BATCH)

    def seen(label: torch.Tensor, tokens: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return control(x, time, cond.drop(torch.stack([label, tokens, image], dim=1).bool()))

    base_keep = torch.stack([on, off], dim=1).bool()
    assert torch.equal(seen(on, off, off), control.network(x, time, told(member).drop(base_keep)))
    assert torch.equal(seen(on, on, on), control(x, time, cond))
    assert torch.equal(seen(off, off, on), control(x, time, Condition(image=cond.image)))
    assert torch.equal(control(x, time, cond.drop(off.bool()[:, None])), control.network(x, time))
    with pytest.raises(
        ValueError, match="each of the 3 parts of the condition, the image last, or one for all; found 2"
    ):
        control(x, time, cond.drop(base_keep))


@grids
def test_padded_positions_of_the_image_do_not_act(member: Member) -> None:
    control, (x, time) = controlled(member), inputs(member)
    valid = torch.rand(BATCH, *member.shape[1:], generator=torch.Generator().manual_seed(5)) > 0.4
    cond = replace(told(member), image=picture(member), valid=valid)
    y = control(x, time, cond)
    hole = ~valid[:, None]
    junk = replace(cond, image=torch.where(hole, float("nan"), cond.image))
    assert torch.equal(control(torch.where(hole, float("nan"), x), time, junk), y)
    assert torch.equal(y * hole, torch.zeros_like(y))


@grids
def test_files_and_copies_give_it_back(member: Member, tmp_path: Path) -> None:
    control, (x, time) = controlled(member), inputs(member)
    cond = replace(told(member), image=picture(member))
    y, path = control(x, time, cond), tmp_path / "control.safetensors"
    control.save(path)
    assert torch.equal(ControlNet.load(path, base(member))(x, time, cond), y)
    twin = copy.deepcopy(control)
    assert torch.equal(twin(x, time, cond), y)
    stir(twin, 9)
    assert distance(twin(x, time, cond), y) > 1e-3
    assert torch.equal(control(x, time, cond), y)


@grids
def test_lora_may_lie_beneath_or_around(member: Member) -> None:
    """A base with merged adapters is controlled like any; adapters around a control change its base and its copy."""
    net, (x, time) = base(member), inputs(member)
    cond = replace(told(member), image=picture(member))
    lora = LoRA(net)
    stir(lora.add("style", 2))
    styled = lora(x, time, told(member))
    lora.merge()
    control = ControlNet(lora.network, CHANNELS)
    assert distance(control(x, time, cond), styled) < ROUNDING
    around = LoRA(stir(control))
    before = around(x, time, cond)
    adapter = around.add("more", 2)
    assert torch.equal(around(x, time, cond), before)
    assert {name.split(".")[0] for name, _ in adapter.items()} == {"branch", "network"}
    stir(adapter)
    assert distance(around(x, time, cond), before) > 1e-3


@pytest.mark.parametrize("name", ["unet-7x13", "dit-7x13"])
def test_compiles_as_one_graph_and_runs_in_bfloat16(name: str) -> None:
    member = next(m for m in GRIDS if m.name == name)
    control, (x, time) = controlled(member), inputs(member)
    cond = replace(told(member), image=picture(member)).drop(torch.tensor([True, False, True]))
    y = control(x, time, cond)
    assert distance(torch.compile(control, fullgraph=True, backend="eager")(x, time, cond), y) < ROUNDING
    with torch.autocast("cpu", torch.bfloat16):
        low = control(x, time, cond)
    assert ((low - y).square().mean() / y.square().mean()).sqrt() < 0.03
    assert 1 < count.flops(control, member.shape, cond[:1]) / count.flops(control.network, member.shape) < 2.2


FLOW_MAPS = {"jump", "consistency"}  # these sample denoisers that aim at a time


@pytest.mark.parametrize("name", sorted(set(samplers.CATALOG) - FLOW_MAPS))
def test_any_sampler_takes_it_guided(name: str) -> None:
    """Untrained and under guidance it draws the base's samples, bit for bit; trained it draws others."""
    member = next(m for m in GRIDS if m.name == "dit-37")
    net, cond = base(member), told(member)
    with torch.no_grad():
        net.embedding.time.layers[2].weight.zero_()  # adaptive solvers take thousands of steps through a rough flow
    seeing = replace(cond, image=picture(member))
    schedule = schedules.Cosine()
    times = LogSNR()(schedule, 2, 1.0)
    noise = torch.randn(BATCH, *member.shape, generator=torch.Generator().manual_seed(3))

    def drawn(network: torch.nn.Module, cond: Condition) -> torch.Tensor:
        denoiser = ClassifierFree(NeuralDenoiser(network, schedule, V()), 3.0)
        with torch.no_grad():
            return sample(samplers.CATALOG[name](), denoiser, noise, times, cond, torch.Generator().manual_seed(4))

    control = ControlNet(net, CHANNELS)
    expected = drawn(net, cond)
    assert torch.equal(drawn(control, seeing), expected)
    stir(control)
    assert distance(drawn(control, seeing), expected) > 1e-3


def test_wrong_uses_are_refused_in_a_sentence() -> None:
    unet, dit = UNet(1, (8,)), DiT(1, width=8, depth=1)
    x, time = torch.zeros(2, 1, 4, 4), torch.zeros(2)
    seen = Condition(image=torch.zeros(2, 1, 4, 4))
    for call, match in [
        (lambda: ControlNet(MLP((2,), (8,)), 1), "a MLP has neither"),
        (lambda: ControlNet(UNet(1, (8,), embedding=Embedding(8, image_channels=1)), 1), "image port of its own"),
        (lambda: ControlNet(unet, 0), "at least one channel, not 0"),
        (lambda: ControlNet(unet, 2)(x, time, seen), r"expected shape \(2, 2, 4, 4\), found \(2, 1, 4, 4\)"),
        (lambda: ControlNet(dit, 1)(x[..., :2], time, seen), r"expected shape \(2, 1, 4, 2\)"),
        (lambda: ControlNet(unet, 1)(x.repeat(1, 2, 1, 1), time, seen), "This U-Net takes"),
        (lambda: ControlNet(dit, 1)(x.repeat(1, 2, 1, 1), time, seen), "This DiT takes"),
        (lambda: ControlNet(unet, 1)(x, time[:1], seen), "one number a sample"),
    ]:
        with pytest.raises(ValueError, match=match) as error:
            call()
        assert "\n" not in str(error.value)
