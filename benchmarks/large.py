"""What large pictures cost in memory: python benchmarks/large.py

The networks that `osmotic train` chooses for 256 and 512 pixels, one picture a step, float32. Weights, gradients, the
two moments of AdamW and one average are counted from the parameters; activations are the bytes that a forward pass
keeps for its gradient (`nn.count.watched`), weights left out. They are an affine function of the number of positions,
since attention is fused: counted at two small sizes, checked exactly at a third, and carried to the size in the
table. With gradient checkpointing the largest block, which is computed again for a moment, is added. What an
allocator adds (fragments, workspaces of convolutions and of matrix products, the data) is not in the table, nor was
anything here run at these sizes or on a GPU.

Then, measured here on one thread: what checkpointing costs a step, and what decoding by pieces costs a decode.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from osmotic.codecs import Neural, Tiled
from osmotic.nn import Autoencoder, DiT, Gaussian, UNet, count, gradient_checkpointing

RESULTS = Path(__file__).parent / "results" / "large.md"
MIB = 2**20
COPIES = 5  # weights, gradients, two moments, one average


class Case(NamedTuple):
    """A network, the channels of what it sees, and two sides to count at and one to check."""

    name: str
    make: Callable[[], nn.Module]
    channels: int
    factor: int  # picture's side over the network's
    sides: tuple[int, int, int]


WIDE, MIDDLE = (64, 128, 192, 256, 256), (64, 128, 192, 256)
CASES = [
    Case("U-Net 64-128-192-256-256", lambda: UNet(3, WIDE, attention={3, 4}), 3, 1, (32, 64, 96)),
    Case("DiT 256 wide, 8 deep, patch 2", lambda: DiT(3, (2, 2), 256, 8), 3, 1, (16, 32, 48)),
    Case("U-Net 64-128-192-256", lambda: UNet(4, MIDDLE, attention={2, 3}), 4, 8, (16, 32, 48)),
    Case("DiT 256 wide, 8 deep, patch 2", lambda: DiT(4, (2, 2), 256, 8), 4, 8, (16, 32, 48)),
]


def kept(net: nn.Module, channels: int, side: int, checkpointing: bool) -> int:
    """Bytes that one picture keeps, and what recomputing the largest block takes if that is how it is done."""
    found = []
    for on in (False, True) if checkpointing else (False,):
        gradient_checkpointing(net, on).train()
        with count.watched(net) as seen:
            net(torch.zeros(1, channels, side, side), torch.zeros(1))
        found.append(seen)
    return found[0].total if not checkpointing else found[1].total + found[0].largest


def activations(case: Case, net: nn.Module, side: int, checkpointing: bool) -> int:
    """The same at a side that is not run: a line through two small ones, which a third must lie on."""
    first, second, third = (kept(net, case.channels, s, checkpointing) for s in case.sides)
    a, b, c = (s * s for s in case.sides)

    def line(positions: int) -> int:
        whole, rest = divmod((second - first) * (positions - a), b - a)
        assert rest == 0
        return first + whole

    assert line(c) == third, (case.name, line(c), third)
    return line(side * side)


def memory() -> list[str]:
    """The table of bytes."""
    lines = [
        "| network | pictures | it sees | parameters | weights, gradients, moments, average | activations | "
        "with checkpointing | in all | with checkpointing |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, picture in itertools.product(CASES, (256, 512)):
        torch.manual_seed(0)
        net, side = case.make(), picture // case.factor
        parameters = count.parameters(net)
        fixed = 4 * COPIES * parameters
        plain, forgetting = (activations(case, net, side, on) for on in (False, True))
        sees = f"{side} x {side} x {case.channels}" + ("" if case.factor == 1 else f" (latent, f{case.factor})")
        numbers = [fixed, plain, forgetting, fixed + plain, fixed + forgetting]
        cells = " | ".join(f"{n / MIB:,.0f} MiB" for n in numbers)
        lines.append(f"| {case.name} | {picture} | {sees} | {parameters / 1e6:.1f} M | {cells} |")
    return lines


def timed(work: Callable[[], object], repeats: int) -> float:
    """The median of some seconds, after one that warms up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def steps() -> list[str]:
    """What checkpointing costs in time, at 64 pixels."""
    lines = ["| network | pixels | a pass forward and back | with checkpointing | ratio |", "|---|---|---|---|---|"]
    for case in CASES[:2]:
        net = case.make().train()
        x, t = torch.randn(2, 3, 64, 64), torch.rand(2) * 1000

        def work(net: nn.Module = net, x: torch.Tensor = x, t: torch.Tensor = t) -> None:
            net(x, t).square().mean().backward()

        seconds = []
        for on in (False, True):
            gradient_checkpointing(net, on)
            seconds.append(timed(work, 3))
        lines.append(f"| {case.name} | 64 | {seconds[0]:.2f} s | {seconds[1]:.2f} s | {seconds[1] / seconds[0]:.2f} |")
    return lines


def decoding() -> list[str]:
    """Whole, by pieces, and by pieces that normalise themselves: seconds, the largest tensor within, the difference."""
    torch.manual_seed(0)
    network = Autoencoder.convolutional((3, 64, 64), (32, 48, 64, 64), 4, Gaussian()).eval()
    with torch.no_grad():
        for p in network.parameters():  # as after training: no weight at zero
            p.copy_(torch.randn(p.shape) * (0.1 if p.dim() == 1 else p[0].numel() ** -0.5))
    codec = Neural(network, torch.zeros(4), torch.ones(4))
    tiled = Tiled(codec, 16)
    ramp = torch.linspace(-1, 1, 64)
    z = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1)) + ramp
    reach, sizes = tiled.reach("decode", z), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, out: sizes.append(out.numel()))

    def naive() -> torch.Tensor:
        """Pieces of the same sizes, each with its own statistics."""
        whole = torch.empty(1, 3, 512, 512)
        for a, b in itertools.product(range(0, 64, 16), repeat=2):
            low, high = [max(0, n - reach) for n in (a, b)], [min(64, n + 16 + reach) for n in (a, b)]
            piece = codec.decode(z[..., low[0] : high[0], low[1] : high[1]])
            top, left = 8 * (a - low[0]), 8 * (b - low[1])
            whole[..., 8 * a : 8 * a + 128, 8 * b : 8 * b + 128] = piece[..., top : top + 128, left : left + 128]
        return whole

    lines = [
        f"Autoencoder 32-48-64-64, f8, to 512 x 512 pixels; a value depends on {reach} latent positions to each side.",
        "",
        "| decoding | seconds | largest tensor within | largest difference from the whole (of its largest value) |",
        "|---|---|---|---|",
    ]
    with torch.no_grad():
        truth = codec.decode(z)
        for name, run in (
            ("whole", lambda: codec.decode(z)),
            ("16 pieces, statistics of the whole", lambda: tiled.decode(z)),
            ("16 pieces, each its own statistics", naive),
        ):
            sizes.clear()
            start = time.perf_counter()
            y = run()
            seconds = time.perf_counter() - start
            off = float((y - truth).abs().max() / truth.abs().max())
            lines.append(f"| {name} | {seconds:.1f} | {4 * max(sizes) / MIB:.1f} MiB | {off:.1e} |")
    return lines


def main() -> None:
    """Print and store."""
    torch.set_num_threads(1)
    parts = [
        ["`python benchmarks/large.py`", "", "One picture a step, float32; see the file for what is counted.", ""],
        memory(),
        ["", "One thread of this machine, two pictures:", ""],
        steps(),
        [""],
        decoding(),
    ]
    text = "\n".join(itertools.chain(*parts)) + "\n"
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
