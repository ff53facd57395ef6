"""Images beside pictures in training: whatever changes a picture changes its image alike, to the pixel."""

import itertools

import numpy as np
import pytest
import torch

from osmotic.data.augment import HorizontalFlip, Shift, Turn, VerticalFlip
from osmotic.data.dataset import open_data, split
from osmotic.training.distributed import World
from osmotic.training.feed import Feed
from osmotic.training.options import Options

ALL = {"flip": HorizontalFlip(), "upend": VerticalFlip(), "turn": Turn(), "shift": Shift(2)}
CHOICES = [names for k in (1, 2, 4) for names in itertools.combinations(ALL, k)]
WORLD = World(0, 1, torch.device("cpu"))


def paired():
    """Pictures and images that are a known function of them, pixel by pixel: 255 minus their second channel."""
    x = np.random.default_rng(0).integers(0, 256, (64, 6, 6, 3), np.uint8)
    return open_data({"x": x, "before": 255 - x[..., 1], "size": np.arange(64)}, control="before")


@pytest.mark.parametrize("names", CHOICES, ids="-".join)
def test_the_pair_stays_aligned(names):
    data, plain = (split(paired(), 0.2, 0)[0] for _ in range(2))
    options = Options(batch_size=32, seed=3, steps=10)
    feeds = [
        Feed(samples, changes, options, WORLD) for samples, changes in ((data, [ALL[n] for n in names]), (plain, []))
    ]
    changed = 0
    for step in range(3):
        (batch,), (before,) = (feed.batches(step) for feed in feeds)
        assert torch.allclose(batch.cond.image[:, 0], -batch.x0[:, 1], atol=1e-6)
        assert torch.equal(batch.cond.vector, before.cond.vector)
        moved = (batch.x0 != before.x0).flatten(1).any(1)
        assert torch.equal(moved, (batch.cond.image != before.cond.image).flatten(1).any(1))
        changed += int(moved.sum())
    assert changed > 20  # of 96: the rarest of them leaves half as they are
