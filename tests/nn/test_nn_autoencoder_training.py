"""Autoencoders that are trained: the linear one finds the principal components, the others beat or match them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from osmotic.nn import Autoencoder, Codebook, Gaussian, health
from osmotic.objectives import commitment, kl_normal, pseudo_huber


def principal(training: Tensor, x: Tensor, components: int) -> Tensor:
    """Reconstructions of x ``(N, *S)`` by the principal components of the training data, by numpy."""
    flat = training.flatten(1).double().numpy()
    mean = flat.mean(0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:components]
    rest = x.flatten(1).double().numpy() - mean
    return torch.from_numpy(mean + rest @ axes.T @ axes).view(x.shape)


def test_a_linear_autoencoder_reaches_the_error_of_principal_components() -> None:
    """Nothing linear is below it (Eckart & Young 1936), and training ends within two per cent above."""
    draws = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=draws))[0]
    x = torch.randn(1000, 12, generator=draws) * 0.7 ** torch.arange(12.0) @ turn + 2
    torch.manual_seed(0)
    net = Autoencoder.dense((12,), (), (4,), Gaussian())
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(600):
        optimizer.zero_grad()
        made, _ = net(x)
        (made - x).square().mean().backward()
        optimizer.step()
    found = float((net(x)[0] - x).double().square().mean())
    least = float((principal(x, x, 4) - x).square().mean())
    assert least * (1 - 1e-6) <= found <= 1.02 * least


def digits() -> tuple[Tensor, Tensor]:
    """8 x 8 digits in [-1, 1], a fifth held out."""
    x = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    held = torch.arange(len(x)) % 5 == 0
    return x[~held], x[held]


def psnr(made: Tensor, x: Tensor) -> float:
    """Decibels of values in [-1, 1]."""
    return 10 * math.log10(4 / float((made - x).double().square().mean()))
