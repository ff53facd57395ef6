"""Order and draws are pure functions of counters: the same however a batch is cut up."""

import itertools
import threading

import numpy as np
import pytest
import torch

from osmotic.data.counter import permutation
from osmotic.training.distributed import World
from osmotic.training.errors import RunError
from osmotic.training.order import Order
from osmotic.training.prefetch import Prefetch
from osmotic.training.task import Domain, Noise, Stream

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (7, 7), (3, 8), (1, 5), (100, 64)])
def test_the_stream_is_one_permutation_after_another(n: int, batch: int) -> None:
    order = Order(n, batch, seed=5)
    steps = -(-4 * n // batch)
    stream = np.concatenate([order.indices(order.positions(step, range(batch))) for step in range(steps)])
    for epoch in range(4):
        np.testing.assert_array_equal(stream[epoch * n : (epoch + 1) * n], permutation(5, epoch, n))


def test_a_step_far_ahead_needs_no_history() -> None:
    order = Order(1000, 64, seed=1)
    one = order.indices(order.positions(10**9, range(64)))
    order.indices(order.positions(3, range(64)))
    np.testing.assert_array_equal(one, Order(1000, 64, seed=1).indices(order.positions(10**9, range(64))))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("total", [40, 64, 129])
def test_shares_cover_the_batch_once(total: int, size: int, parts: int) -> None:
    shares = [World(rank, size, CPU).share(total, parts) for rank in range(size)]
    slots = [slot for share in shares for part in share for slot in part]
    assert slots == list(range(total))
    lengths = [len(part) for share in shares for part in share]
    assert max(lengths) - min(lengths) <= 1


def test_a_batch_too_small_to_share_is_refused() -> None:
    with pytest.raises(RunError, match="--batch-size 8"):
        World(0, 4, CPU).share(7, 2)


@pytest.mark.parametrize(
    "cuts", [[0, 200], [0, 1, 200], [0, 63, 64, 65, 200], [0, 100, 150, 199, 200], list(range(201))]
)
def test_draws_do_not_depend_on_how_the_batch_is_cut(cuts: list[int]) -> None:
    whole = Noise(3, 17, 200, 0, 200, CPU)
    parts = [Noise(3, 17, 200, a, b - a, CPU) for a, b in itertools.pairwise(cuts)]
    for draw in (lambda noise: noise.normal(Stream.NOISE, (2, 3)), lambda noise: noise.uniform(Stream.DROP)):
        assert torch.equal(torch.cat([draw(part) for part in parts]), draw(whole))


def test_draws_differ_by_every_part_of_their_key() -> None:
    base = {"seed": 1, "step": 1, "total": 64, "start": 0, "count": 64, "device": CPU}
    draws = [Noise(**base).normal(stream, (4,)) for stream in (Stream.NOISE, Stream.DROP)]
    draws += [Noise(**base | change).normal(Stream.NOISE, (4,)) for change in ({"seed": 2}, {"step": 2})]
    draws.append(Noise(**base, domain=Domain.HELD_OUT).normal(Stream.NOISE, (4,)))
    draws.append(Noise(**base | {"total": 128, "start": 64}).normal(Stream.NOISE, (4,)))
    for i, one in enumerate(draws):
        for other in draws[:i]:
            # 256 independent pairs: a correlation beyond 5 / sqrt(256) has probability 6e-7.
            assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 5 / 16


def test_noise_is_standard_normal() -> None:
    from scipy import stats

    draw = torch.cat([Noise(0, step, 100, 0, 100, CPU).normal(Stream.NOISE, (10,)) for step in range(20)])
    assert stats.kstest(draw.flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_prefetch_gives_what_was_asked_for_and_no_more(workers: int) -> None:
    made: list[int] = []
    lock = threading.Lock()

    def make(k: int) -> int:
        with lock:
            made.append(k)
        return k * k

    with Prefetch(make, stop=20, workers=workers) as squares:
        assert [squares(k) for k in range(7, 20)] == [k * k for k in range(7, 20)]
    assert sorted(made) == list(range(7, 20))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_arrives_where_its_batch_is_used(workers: int) -> None:
    def make(k: int) -> int:
        if k == 3:
            raise ValueError("bad file")
        return k

    with Prefetch(make, stop=10, workers=workers) as batches:
        assert [batches(k) for k in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="bad file"):
            batches(3)
