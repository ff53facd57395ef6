"""Low-rank adapters over every kind of network."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from adapting import NETWORKS, base, bits, same, stir, told
from nn_family import Member, distance, inputs
from torch import nn

from osmotic.adapters import AdapterError, LoRA, every, usual
from osmotic.data.dataset import open_data
from osmotic.nn import MLP, count
from osmotic.recipes.demo import recipe
from osmotic.training import build, defaults

RANK = 3
ROUNDING = 2e-5  # float32 sums in another order, relative to the output

networks = pytest.mark.parametrize("member", NETWORKS, ids=str)
choices = pytest.mark.parametrize("layers", [usual, every])


def adapted(member: Member, layers=usual, names=("style",), learned: bool = True) -> LoRA:
    lora = LoRA(base(member))
    for seed, name in enumerate(names):
        lora.add(name, RANK, layers, torch.Generator().manual_seed(seed))
        if learned:
            stir(lora[name], seed)
    return lora


@networks
@choices
def test_a_new_adapter_changes_nothing_bit_for_bit(member: Member, layers) -> None:
    net, (x, time), cond = base(member), inputs(member), told(member)
    before, output = bits(net), net(x, time, cond)
    lora = LoRA(net)
    assert torch.equal(lora(x, time, cond), output)
    lora.add("style", RANK, layers)
    assert torch.equal(lora(x, time, cond), output)
    assert same(net.state_dict(), before)  # names too: a checkpoint and an average go by them
    assert lora.network is net
    stir(lora["style"])
    assert distance(lora(x, time, cond), output) > 1e-2
    lora.rescale("style", 0.0)
    assert torch.equal(lora(x, time, cond), output)
    lora.remove("style")
    assert torch.equal(lora(x, time, cond), output)
    assert same(net.state_dict(), before)


@networks
@choices
def test_gradients_reach_the_adapter_alone(member: Member, layers) -> None:
    lora, (x, time), cond = adapted(member, layers), inputs(member), told(member)
    before = bits(lora.network)
    learning = {name for name, p in lora.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in lora.named_parameters() if name.startswith("adapters.")}
    optimizer = torch.optim.AdamW((p for p in lora.parameters() if p.requires_grad), lr=1e-2, weight_decay=0.1)
    lora(x, time, cond).square().mean().backward()
    assert all(p.grad is None for p in lora.network.parameters())
    assert all(p.grad is not None and p.grad.any() for p in lora["style"].parameters())
    optimizer.step()
    assert same(lora.network.state_dict(), before)


@networks
def test_at_first_only_b_has_a_gradient(member: Member) -> None:
    lora, (x, time), cond = adapted(member, learned=False), inputs(member), told(member)
    lora(x, time, cond).square().mean().backward()
    for name, p in lora["style"].named_parameters():
        assert bool(p.grad.any()) == name.endswith(".b"), name


@networks
def test_a_step_along_the_gradient_lowers_the_loss_as_it_predicts(member: Member) -> None:
    """The gradient is checked against a difference: d loss = <grad, step>."""
    lora, (x, time), cond = adapted(member).double(), inputs(member), told(member)
    x = x.double()

    def loss() -> torch.Tensor:
        return lora(x, time, cond).square().mean()

    loss().backward()
    parameters = list(lora["style"].parameters())
    size = 1e-5 / sum(float(p.grad.square().sum()) for p in parameters) ** 0.5
    ends = []
    with torch.no_grad():
        for sign in (1, -2):
            for p in parameters:
                p.add_(p.grad, alpha=sign * size)
            ends.append(float(loss()))
    slope = (ends[0] - ends[1]) / (2 * size)
    expected = sum(float(p.grad.square().sum()) for p in parameters)
    assert slope == pytest.approx(expected, rel=1e-4)


@networks
@choices
def test_merged_weights_act_as_the_adapters_do_and_go_again(member: Member, layers) -> None:
    lora = adapted(member, layers, ("style", "subject"))
    (x, time), cond = inputs(member), told(member)
    lora.rescale("subject", -0.7)
    before, names = bits(lora.network), list(lora.network.state_dict())
    output = lora(x, time, cond)
    lora.merge()
    assert lora.merged
    assert distance(lora(x, time, cond), output) < ROUNDING
    assert distance(lora.network(x, time, cond), output) < ROUNDING
    assert list(lora.network.state_dict()) == names
    moved = {name for name in names if not torch.equal(lora.network.state_dict()[name], before[name])}
    assert moved == {f"{layer}.weight" for layer, _ in lora["style"].items()}
    lora.unmerge()
    assert not lora.merged
    assert same(lora.network.state_dict(), before)
    assert torch.equal(lora(x, time, cond), output)


@networks
@choices
def test_what_is_merged_is_of_low_rank_and_what_the_matrices_say(member: Member, layers) -> None:
    lora = adapted(member, layers)
    lora.rescale("style", 1.7)
    lora.double()
    before = bits(lora.network)
    lora.merge()
    after = lora.network.state_dict()
    full = 0
    for layer, change in lora["style"].items():
        difference = (after[f"{layer}.weight"] - before[f"{layer}.weight"]).flatten(1)
        a, b = change.a.detach(), change.b.detach()
        expected = 1.7 * torch.einsum("or,ri->oi", b, a)
        torch.testing.assert_close(difference, expected, rtol=0, atol=1e-12)
        values = torch.linalg.svdvals(difference)
        assert (values[RANK:] < 1e-12 * values[0]).all()
        full += int(len(values) > RANK and values[RANK - 1] > 1e-3 * values[0])
    assert full > 0  # somewhere the rank is used to the full, so the bound says something


@networks
def test_adapters_add_up_each_at_its_scale(member: Member) -> None:
    """The changed weights are linear in the scales; an adapter with the opposite scale takes it back."""
    lora = adapted(member, names=("style", "subject"))
    (x, time), cond = inputs(member), told(member)
    both = lora(x, time, cond)
    lora.rescale("subject", 0.0)
    style = lora(x, time, cond)
    alone = adapted(member, names=("style",))
    assert torch.equal(alone(x, time, cond), style)
    assert distance(both, style) > 1e-2
    lora.adapters["twin"] = copy.deepcopy(lora["style"])
    lora.rescale("twin", -1.0)
    assert distance(lora(x, time, cond), lora.network(x, time, cond)) < ROUNDING
    assert lora.scales == {"style": 1.0, "subject": 0.0, "twin": -1.0}


@networks
def test_scales_may_change_while_merged(member: Member) -> None:
    lora, (x, time), cond = adapted(member, names=("style", "subject")), inputs(member), told(member)
    before = bits(lora.network)
    lora.rescale("style", 0.3)
    output = lora(x, time, cond)
    lora.rescale("style", 0.0)
    lora.rescale("subject", 0.0)
    lora.merge()  # of nothing
    lora.rescale("subject", 1.0)
    lora.rescale("style", 0.3)
    assert lora.merged
    assert distance(lora.network(x, time, cond), output) < ROUNDING
    lora.unmerge()
    assert same(lora.network.state_dict(), before)


@networks
def test_copies_are_whole_and_apart(member: Member) -> None:
    lora, (x, time), cond = adapted(member), inputs(member), told(member)
    output = lora(x, time, cond)
    for merged in (False, True):
        if merged:
            lora.merge()
        twin = copy.deepcopy(lora)
        assert distance(twin(x, time, cond), output) < ROUNDING
        twin.unmerge()
        stir(twin["style"], 5)
        assert distance(twin(x, time, cond), output) > 1e-2
        assert distance(lora(x, time, cond), output) < ROUNDING
        twin.remove("style")
        lora.unmerge()
        assert torch.equal(twin(x, time, cond), lora.network(x, time, cond))


@networks
@choices
def test_files_give_the_adapter_back(member: Member, layers, tmp_path: Path) -> None:
    lora, (x, time), cond = adapted(member, layers), inputs(member), told(member)
    lora.rescale("style", 0.5)
    path = tmp_path / "style.safetensors"
    lora.save("style", path)
    assert [p.name for p in tmp_path.iterdir()] == ["style.safetensors"]
    other = LoRA(base(member))
    assert other.load(path) == "style"
    assert other.scales == {"style": 0.5}
    assert torch.equal(other(x, time, cond), lora(x, time, cond))
    assert other.load(path, "again") == "again"
    assert not torch.equal(other(x, time, cond), lora(x, time, cond))
    lora.network.double()
    low = LoRA(base(member).to(torch.bfloat16))
    low.load(path)
    assert {p.dtype for p in low["style"].parameters()} == {torch.bfloat16}


def test_the_state_of_a_model_with_adapters(tmp_path: Path) -> None:
    """It is the base's under ``network.``, and the adapters'; merged, nothing is stored that would count twice."""
    member = NETWORKS[1]
    lora, (x, time), cond = adapted(member), inputs(member), told(member)
    state = lora.state_dict()
    own = {name.removeprefix("network."): t for name, t in state.items() if name.startswith("network.")}
    assert same(own, lora.network.state_dict())
    assert {name.split(".")[0] for name in state} == {"network", "adapters"}
    lora.merge()
    with pytest.raises(ValueError, match=r"call unmerge\(\) first"):
        lora.state_dict()
    with pytest.raises(ValueError, match=r"call unmerge\(\) first"):
        lora.load_state_dict(state)
    plain = base(member, seed=7)
    plain.load_state_dict(lora.network.state_dict())  # strictly: an ordinary network's file
    assert torch.equal(plain(x, time, cond), lora(x, time, cond))
    for call in (lambda: lora.add("b"), lambda: lora.remove("style"), lora.merge, lambda: lora.load(tmp_path / "x")):
        with pytest.raises((ValueError, AdapterError)):
            call()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("name", ["unet-7x13", "dit-7x13", "mlp-2"])
def test_compiles_as_one_graph_and_runs_in_bfloat16(name: str, merged: bool) -> None:
    member = next(m for m in NETWORKS if m.name == name)
    lora, (x, time), cond = adapted(member), inputs(member), told(member)
    if merged:
        lora.merge()
    y = lora(x, time, cond)
    compiled = torch.compile(lora, fullgraph=True, backend="eager")
    assert distance(compiled(x, time, cond), y) < ROUNDING
    with torch.autocast("cpu", torch.bfloat16):
        low = lora(x, time, cond)
    assert ((low - y).square().mean() / y.square().mean()).sqrt() < 0.03


def test_rank_four_on_the_digits_network_is_a_twentieth_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    spec = open_data("digits").spec
    network = build.denoiser(defaults.fill(recipe(), spec), spec, torch.device("cpu")).network
    whole = count.parameters(network)
    lora = LoRA(network)
    lora.add("style")
    share = count.parameters(lora) / whole
    with capsys.disabled():
        print(f"\nrank 4 on the digits' U-Net: {count.parameters(lora):,} of {whole:,} parameters, {share:.2%}")
    assert 0.005 < share <= 0.05


@networks
def test_the_usual_layers(member: Member) -> None:
    names = [name for name, _ in adapted(member)["style"].items()]
    assert not any("embedding" in name or name.endswith("first") for name in names)
    kinds = {name.rpartition(".")[2] for name in names if not name.startswith("shrink")}
    expected = {
        "unet": {"second", "past", "read", "ask", "write", "stem", "out"},
        "dit": {"read", "ask", "write"},
        "mlp": {"second"},
    }
    assert kinds == expected[member.name.split("-")[0]]


def test_wrong_uses_are_refused_in_a_sentence() -> None:
    lora = LoRA(MLP((2,), (8, 8)))
    lora.add("style", 2)
    for call, match in [
        (lambda: lora.add("style"), "'style' is none or is taken"),
        (lambda: lora.add("a.b"), "without dots"),
        (lambda: lora.add(""), "needs a name"),
        (lambda: lora.add("keys"), "is taken"),
        (lambda: lora.add("b", 0), "at least 1, not 0"),
        (lambda: lora.add("b", layers=lambda name, layer: False), "None of the network's layers"),
        (lambda: lora["other"], "no adapter 'other' on this network; there are: style"),
        (lambda: lora.remove("other"), "no adapter 'other'"),
        (lambda: lora.rescale("other", 1.0), "no adapter 'other'"),
        (lambda: lora.rescale("style", float("nan")), "finite number, not nan"),
    ]:
        with pytest.raises(ValueError, match=match) as error:
            call()
        assert "\n" not in str(error.value)
    assert lora.scales == {"style": 1.0}


@pytest.mark.parametrize("layer", [nn.Linear(4, 6), nn.Conv2d(4, 6, 3, groups=2), nn.Conv1d(4, 6, 1)], ids=str)
def test_a_change_is_that_of_its_layer(layer: nn.Module) -> None:
    """Against the side branch of the paper: ``layer(x) + scale B(A(x))``, with A a layer of r outputs."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x, time, cond=None):
            return self.layer(x)

    lora = LoRA(Net())
    adapter = lora.add("a", 2, every)
    stir(adapter)
    lora.rescale("a", 0.4)
    (_, change), *_ = adapter.items()
    shape = {nn.Linear: (5, 4), nn.Conv1d: (5, 4, 7), nn.Conv2d: (5, 4, 7, 6)}[type(layer)]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if getattr(layer, "groups", 1) == 1:
        if isinstance(layer, nn.Linear):
            side = (x @ change.a.T) @ change.b.T
        else:
            side = torch.einsum("or,ri,bi...->bo...", change.b, change.a, x)
    else:  # two groups: B's first outputs read A of the first inputs, the others of the others
        down = [nn.functional.conv2d(part, change.a.view(2, 2, 3, 3)) for part in x.chunk(2, 1)]
        side = torch.cat([torch.einsum("or,brhw->bohw", b, d) for b, d in zip(change.b.chunk(2), down, strict=True)], 1)
    torch.testing.assert_close(lora(x, None), layer(x) + 0.4 * side, rtol=1e-5, atol=1e-5)
