"""Networks: ``network(x, time, cond) -> Tensor`` of the shape of x; and autoencoders, which are told nothing.

They know nothing of schedules, targets or diffusion: time is a number of order 0..1000 a sample, and a
condition is read by the network's :class:`Embedding`, which owns the learned nulls.
"""

from osmotic.nn import count
from osmotic.nn.autoencoder import Autoencoder
from osmotic.nn.blocks import AttentionBlock, ResidualBlock
from osmotic.nn.bottleneck import Bottleneck, Gaussian, Posterior
from osmotic.nn.codebook import Codebook, Health, Quantised, health
from osmotic.nn.coder import Decoder, Encoder
from osmotic.nn.conditioning import Context, Embedding
from osmotic.nn.dense import Dense
from osmotic.nn.discriminator import Discriminator
from osmotic.nn.dit import DiT, DiTBlock
from osmotic.nn.dual import DualEncoder, TextEncoder
from osmotic.nn.embedding import Fourier, Sinusoidal
from osmotic.nn.mlp import MLP, MLPBlock
from osmotic.nn.patch_discriminator import PatchDiscriminator
from osmotic.nn.recompute import Recomputed, gradient_checkpointing
from osmotic.nn.unet import UNet

BLOCKS = (ResidualBlock, AttentionBlock, DiTBlock, MLPBlock)
"""The repeated parts of all networks: what sharding (FSDP2) and regional compilation work on."""

__all__ = [
    "MLP",
    "AttentionBlock",
    "Autoencoder",
    "Bottleneck",
    "Codebook",
    "Context",
    "Decoder",
    "Dense",
    "DiT",
    "DiTBlock",
    "Discriminator",
    "DualEncoder",
    "Embedding",
    "Encoder",
    "Fourier",
    "Gaussian",
    "Health",
    "MLPBlock",
    "PatchDiscriminator",
    "Posterior",
    "Quantised",
    "Recomputed",
    "ResidualBlock",
    "Sinusoidal",
    "TextEncoder",
    "UNet",
    "count",
    "gradient_checkpointing",
    "health",
]
