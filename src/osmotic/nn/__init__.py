"""Networks: ``network(x, time, cond) -> Tensor`` of the shape of x.

They know nothing of schedules, targets or diffusion: time is a number of order 0..1000 a sample, and a
condition is read by the network's :class:`Embedding`, which owns the learned nulls.
"""

from osmotic.nn import count
from osmotic.nn.blocks import AttentionBlock, ResidualBlock
from osmotic.nn.conditioning import Context, Embedding
from osmotic.nn.discriminator import Discriminator
from osmotic.nn.dit import DiT, DiTBlock
from osmotic.nn.embedding import Fourier, Sinusoidal
from osmotic.nn.mlp import MLP, MLPBlock
from osmotic.nn.unet import UNet

BLOCKS = (ResidualBlock, AttentionBlock, DiTBlock, MLPBlock)
"""The repeated parts of all networks: what sharding (FSDP2) and regional compilation work on."""

__all__ = [
    "BLOCKS",
    "MLP",
    "AttentionBlock",
    "Context",
    "DiT",
    "DiTBlock",
    "Discriminator",
    "Embedding",
    "Fourier",
    "MLPBlock",
    "ResidualBlock",
    "Sinusoidal",
    "UNet",
    "count",
]
