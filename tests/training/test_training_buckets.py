"""Batches of one size each: a pure function of the step, fair to every sample."""

import numpy as np
import pytest
import torch

from osmotic.training.distributed import World
from osmotic.training.feed import Feed
from osmotic.training.options import Options
from osmotic.training.order import Buckets, Order, ordered

COUNTS = [(50, 23, 7), (8, 8), (3, 1), (100, 1), (64, 64, 64)]
counts = pytest.mark.parametrize("each", COUNTS, ids=str)


def numbered(each, seed=0) -> np.ndarray:
    """Bucket numbers in a mixed order."""
    buckets = np.repeat(np.arange(len(each)), each)
    return np.random.default_rng(seed).permutation(buckets)


def steps(order, n: int, batch: int) -> np.ndarray:
    return np.stack([order.indices(order.positions(step, range(batch))) for step in range(n)])


@counts
@pytest.mark.parametrize("batch", [1, 8, 16])
def test_every_batch_has_one_size_and_sizes_have_their_share(each, batch):
    buckets = numbered(each)
    order, n = Buckets(buckets, batch, seed=3), sum(each)
    epochs = 12
    total = sum(epochs * count // batch for count in each)
    found = steps(order, total, batch)
    assert (buckets[found] == buckets[found[:, :1]]).all()
    taken = np.bincount(buckets[found[:, 0]], minlength=len(each))
    assert taken.tolist() == [epochs * count // batch for count in each]
    # After so many epochs a sample was seen so often, or once more or less (a batch of its size is under way) for each
    # time that a batch goes around a size smaller than itself.
    seen = np.bincount(found.flatten(), minlength=n)
    for bucket, count in enumerate(each):
        own = seen[buckets == bucket]
        assert own.max() - own.min() <= 1
        assert epochs - -(-batch // count) <= own.min() <= own.max() <= epochs


@counts
def test_the_order_is_a_function_of_seed_and_step_alone(each):
    buckets = numbered(each)
    whole = steps(Buckets(buckets, 8, seed=5), 40, 8)
    fresh = Buckets(buckets, 8, seed=5)
    for step in (39, 0, 17):  # asked for in any order, from any thread's copy
        assert (fresh.indices(fresh.positions(step, range(8))) == whole[step]).all()
    parts = [fresh.indices(fresh.positions(9, slots)) for slots in (range(3), range(3, 8))]
    assert (np.concatenate(parts) == whole[9]).all()
    far = Buckets(buckets, 8, seed=5)
    once = far.indices(far.positions(10**7, range(8)))
    assert (once == fresh.indices(fresh.positions(10**7, range(8)))).all()


def test_sizes_come_mixed_and_seeds_differ():
    buckets = numbered((80, 80))
    sizes = [buckets[steps(Buckets(buckets, 8, seed=seed), 60, 8)[:, 0]] for seed in (0, 1)]
    assert (sizes[0] != sizes[1]).any()
    for own in sizes:
        # 20 steps an epoch, half of each size: within an epoch a run of ten of one size has probability 2e-5.
        assert max(len(list(run)) for run in np.split(own, np.flatnonzero(np.diff(own)) + 1)) < 15
    epochs = sizes[0].reshape(3, 20)
    assert (epochs.sum(1) == 10).all()
    assert (epochs[0] != epochs[1]).any()


def test_one_size_is_the_usual_order_to_the_bit():
    for buckets in (None, np.zeros(30, np.int64)):
        order = ordered(30, buckets, 8, 2)
        assert isinstance(order, Order)
        assert (steps(order, 9, 8) == steps(Order(30, 8, 2), 9, 8)).all()
    assert isinstance(ordered(30, numbered((20, 10)), 8, 2), Buckets)


class Mixed:
    """Pictures of two sizes, whose first entry is their number."""

    buckets = numbered((30, 12))

    def __len__(self) -> int:
        return len(self.buckets)

    def batch(self, indices):
        (bucket,) = np.unique(self.buckets[indices])
        x = torch.zeros(len(indices), 1, *((4, 2), (2, 4))[bucket])
        x[:, 0, 0, 0] = torch.from_numpy(indices).float()
        return x, None

    def told(self, indices):
        return {}

    def name(self, index: int) -> str:
        return str(index)


def test_passes_and_processes_of_a_step_share_its_size():
    options = Options(batch_size=12)
    cpu = torch.device("cpu")
    whole = Feed(Mixed(), (), options, World(0, 1, cpu))
    split = options.model_copy(update={"accumulate": 2})
    shares = [Feed(Mixed(), (), split, World(rank, 3, cpu)) for rank in range(3)]
    shapes = set()
    for step in range(12):
        (one,) = whole.batches(step)
        parts = [batch for share in shares for batch in share.batches(step)]
        assert len(parts) == 6
        assert torch.equal(torch.cat([part.x0 for part in parts]), one.x0)
        assert torch.equal(torch.cat([part.eps() for part in parts]), one.eps())
        shapes.add(tuple(one.x0.shape[1:]))
    assert shapes == {(1, 4, 2), (1, 2, 4)}
