"""The network behind FID: Inception v3 as the TensorFlow graph of 2015-12-05 computes it.

The layout is that of Szegedy et al. 2015 (arXiv 1512.00567). Heusel et al. 2017 (arXiv 1706.08500) measured FID with
one TensorFlow graph of it, which differs in details that change the score: average pools do not count their padding,
the last block pools by the maximum, and there are 1008 outputs. Names of parameters are those of torchvision and of
pytorch-fid, so that their files fit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pool = Callable[[Tensor], Tensor]
Side = int | tuple[int, int]
# One convolution of a branch: its name in the files, output channels, kernel.
Step = tuple[str, int, Side]


def average(x: Tensor) -> Tensor:
    """The mean of each 3 x 3 neighbourhood, of the elements that exist."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    """The maximum of each 3 x 3 neighbourhood."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halved(x: Tensor) -> Tensor:
    """The maximum of every second 3 x 3 neighbourhood, without padding."""
    return F.max_pool2d(x, 3, stride=2)


class Conv(nn.Module):
    """A convolution without bias, batch normalisation with epsilon 1e-3, and a ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Side, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Branches side by side, their outputs joined along the channels.

    Args:
        inputs: channels of the input.
        branches: chains of convolutions; a chain may end in a fork, whose two arms read the same maps.
        pool: what the last branch does first.
        pooled: channels of the 1 x 1 convolution after the pool; 0 for none.
        halve: the last convolution of each chain takes every second pixel, without padding.
    """

    def __init__(
        self, inputs: int, branches: list[list[Step]], pool: Pool, pooled: int = 0, halve: bool = False
    ) -> None:
        super().__init__()
        self.chains = [[name for name, _, _ in branch] for branch in branches]
        self.pool = pool
        for branch in branches:
            channels = inputs
            for i, (name, width, kernel) in enumerate(branch):
                last = halve and i == len(branch) - 1
                self.add_module(name, Conv(channels, width, kernel, 2 if last else 1, padded=not last))
                channels = channels if _forked(name) else width
        self.branch_pool: nn.Module = Conv(inputs, pooled, 1) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for chain in self.chains:
            y = x
            for name in chain:
                arm = self.get_submodule(name)(y)
                if _forked(name):
                    outputs.append(arm)
                else:
                    y = arm
            if not _forked(chain[-1]):
                outputs.append(y)
        return torch.cat([*outputs, self.branch_pool(self.pool(x))], 1)


def _forked(name: str) -> bool:
    """Whether a convolution is one arm of a fork, `..._2a` and `..._2b`: it reads what came before both."""
    return name[-1] in "ab"


def block_a(inputs: int, pooled: int) -> Block:
    """35 x 35 maps: kernels 1, 5 and twice 3."""
    branches: list[list[Step]] = [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Block(inputs, branches, average, pooled)


def block_b(inputs: int) -> Block:
    """35 x 35 to 17 x 17 maps."""
    branches: list[list[Step]] = [
        [("branch3x3", 384, 3)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
    ]
    return Block(inputs, branches, halved, halve=True)


def block_c(inputs: int, width: int) -> Block:
    """17 x 17 maps: kernels of 7 split into rows and columns, once and twice."""
    row, column = (1, 7), (7, 1)
    dbl = "branch7x7dbl_"
    branches: list[list[Step]] = [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", width, 1), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)],
        [
            (dbl + "1", width, 1),
            (dbl + "2", width, column),
            (dbl + "3", width, row),
            (dbl + "4", width, column),
            (dbl + "5", 192, row),
        ],
    ]
    return Block(inputs, branches, average, 192)


def block_d(inputs: int) -> Block:
    """17 x 17 to 8 x 8 maps."""
    branches: list[list[Step]] = [
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)],
        [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3),
        ],
    ]
    return Block(inputs, branches, halved, halve=True)


def block_e(inputs: int, pool: Pool) -> Block:
    """8 x 8 maps: forks of a row and a column."""
    row, column = (1, 3), (3, 1)
    branches: list[list[Step]] = [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), ("branch3x3_2a", 384, row), ("branch3x3_2b", 384, column)],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            ("branch3x3dbl_3a", 384, row),
            ("branch3x3dbl_3b", 384, column),
        ],
    ]
    return Block(inputs, branches, pool, 192)


class InceptionNetwork(nn.Module):
    """Inception v3 of FID: ``(B, 3, 299, 299)`` in [-1, 1] to ``(B, 2048)``, the mean over the last 8 x 8 maps.

    `fc` maps these to 1008 logits. The weights mean nothing until a state is loaded; on the meta device they cost
    nothing.
    """

    CLASSES = 1008

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, padded=False)
        self.Mixed_5b = block_a(192, 32)
        self.Mixed_5c = block_a(256, 64)
        self.Mixed_5d = block_a(288, 64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, 128)
        self.Mixed_6c = block_c(768, 160)
        self.Mixed_6d = block_c(768, 160)
        self.Mixed_6e = block_c(768, 192)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280, average)
        self.Mixed_7c = block_e(2048, maximum)
        self.fc = nn.Linear(2048, self.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halved(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halved(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))
