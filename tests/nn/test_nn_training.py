"""Networks learn, on one process and on several."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from nn_family import FAMILY, Member, condition, distance, inputs, network, settled
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from osmotic.condition import Condition
from osmotic.nn import BLOCKS, MLP, DiT, Embedding, UNet


def _targets(labels: torch.Tensor, time: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Turn even classes upside down, and scale by time: needs x, the label and the time."""
    turned = torch.where((labels % 2 == 0)[:, None, None, None], x.flip(2), x)
    return turned * (time / 500 - 1)[:, None, None, None]


LEARNERS = {
    "unet": lambda e: UNet(1, (16, 24), blocks=1, attention={1}, embedding=e),
    "dit": lambda e: DiT(1, (2, 2), width=48, depth=3, head_width=24, embedding=e),
    "mlp": lambda e: MLP((1, 6, 6), (128, 128), embedding=e),
}


@pytest.mark.parametrize("build", LEARNERS.values(), ids=LEARNERS)
def test_a_small_network_fits_a_fixed_mapping(build) -> None:
    torch.manual_seed(0)
    net = build(Embedding(64, classes=4))
    x, time, labels = torch.randn(32, 1, 6, 6), torch.rand(32) * 1000, torch.arange(32) % 4
    y, cond = _targets(labels, time, x), Condition(vector=labels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss = (net(x, time, cond) - y).square().mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (net(x, time, cond) - y).square().mean() / y.square().mean()
        wrong = (net(x, time, Condition(vector=(labels + 1) % 4)) - y).square().mean() / y.square().mean()
    assert error < 0.1
    assert wrong > 4 * error


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")  # a view of the output, which nobody writes into
@pytest.mark.parametrize("name", ["unet-7x13", "dit-7x13", "mlp-2"])
def test_distributed_wrappers_change_nothing(name: str, one_process: None) -> None:
    """DDP refuses a second step if a parameter had no gradient; FSDP2 shards the named blocks."""
    member = next(m for m in FAMILY if m.name == name)
    batches = [(*inputs(member, seed=s), condition(member, seed=s) if s else None) for s in (0, 1, 2)]
    losses = {}
    for kind in ("plain", "ddp", "fsdp"):
        net: nn.Module = network(member)
        if kind == "ddp":
            net = DistributedDataParallel(net)
        if kind == "fsdp":
            mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
            for module in [m for m in net.modules() if isinstance(m, BLOCKS)]:
                fully_shard(module, mesh=mesh)
            fully_shard(net, mesh=mesh)
        losses[kind] = _steps(net, batches)
    assert losses["plain"] == pytest.approx(losses["ddp"], rel=1e-5)
    assert losses["plain"] == pytest.approx(losses["fsdp"], rel=1e-5)
    assert losses["plain"][0] > 1.02 * losses["plain"][-1]


def _steps(net: nn.Module, batches: list) -> list[float]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for x, time, cond in [*batches, batches[0]]:
        optimizer.zero_grad()
        loss = (net(x, time, cond) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("levels", [2, 3])
@torch.no_grad()
def test_skip_connections_carry_what_the_coarse_levels_cannot(levels: int) -> None:
    """With the way down cut, nothing but the skips of the finest level leads from x to the output."""
    member = Member("unet", (1, 8, 8), lambda e: UNet(1, (8,) * levels, embedding=e))
    net, (x, time) = settled(member, Embedding(16)), inputs(member)
    whole = net(x, time)
    nn.init.zeros_(net.shrink[0].weight)
    cut = net(x, time)
    assert distance(cut, whole) > 1e-3
    pixel = x.clone()
    pixel[:, :, 3, 3] += 1
    change = (net(pixel, time) - cut).abs()
    assert change[:, :, 3, 3].min() > 1e-3
