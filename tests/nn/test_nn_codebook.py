"""Vector quantisation: the nearest code, the straight-through gradient, moving averages, dead codes, health."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from osmotic.nn import Codebook, health
from osmotic.nn import codebook as module
from osmotic.nn.codebook import DEAD, rows

SHAPES = [(), (7,), (3, 5), (2, 3, 2)]
every = pytest.mark.parametrize("positions", SHAPES, ids=str)


def begun(size: int = 11, channels: int = 3, decay: float = 0.9, seed: int = 0) -> Codebook:
    """A codebook in the middle of training: all codes alive."""
    draws = torch.Generator().manual_seed(seed)
    codebook = Codebook(size, channels, decay)
    codebook.vectors.data.copy_(torch.randn(size, channels, generator=draws))
    codebook.counts.copy_(1 + torch.rand(size, generator=draws))
    return codebook


def features(*positions: int, batch: int = 4, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, channels, *positions, generator=torch.Generator().manual_seed(seed))


@every
def test_the_nearest_is_that_of_brute_force(positions: tuple[int, ...]) -> None:
    codebook, h = begun(), features(*positions)
    law = codebook(h)
    assert law.nearest.shape == h.shape
    assert law.indices.shape == (4, *positions)
    flat = law.indices.flatten().tolist()
    for row, quantised, found in zip(rows(h).double(), rows(law.nearest), flat, strict=True):
        distances = [float((row - vector).norm()) for vector in codebook.vectors.double()]
        assert distances[found] <= min(distances) + 1e-6
        assert torch.equal(quantised, codebook.vectors[found])
    assert len(set(flat)) > 1


def test_far_from_the_origin_the_nearest_is_still_found() -> None:
    """|e|^2 / 2 - h e rounds by about 2^-24 |e|^2: codes 0.1 apart are told from 30 away."""
    codebook = begun(50)
    codebook.vectors.data.copy_(30 + 0.1 * torch.arange(50.0)[:, None].expand(50, 3))
    wanted = torch.randint(50, (200,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(codebook.indices(codebook.look_up(wanted) + 0.01), wanted)


def test_large_batches_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    codebook, h = begun(), features(9, 9)
    whole = codebook.indices(h)
    monkeypatch.setattr(module, "ROOM", 5 * len(codebook.vectors))
    assert torch.equal(codebook.indices(h), whole)


@every
def test_the_gradient_passes_straight_through(positions: tuple[int, ...]) -> None:
    codebook, h = begun(), features(*positions).requires_grad_()
    law = codebook(h)
    z = law.drawn()
    assert torch.equal(z, law.nearest), "the value is the code to the bit"
    slope = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    z.backward(slope)
    assert torch.equal(h.grad, slope)
    assert torch.equal(codebook.snap(law.nearest), law.nearest), "codes are their own nearest"
    assert torch.equal(law.latent(), h)


def test_calling_changes_nothing() -> None:
    codebook = begun()
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    law = codebook.train()(features(6))
    codebook.seen(law)
    codebook.candidates(law.h, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())
    assert not any(p.requires_grad for p in codebook.parameters())


def test_averages_move_as_computed_by_hand() -> None:
    """Two codes on a line, decay 0.75: n = (4, 2) at e = (0, 10) meet {1, 2, 3} and {13}."""
    codebook = Codebook(2, 1, decay=0.75)
    codebook.vectors.data.copy_(torch.tensor([[0.0], [10.0]]))
    codebook.counts.copy_(torch.tensor([4.0, 2.0]))
    law = codebook(torch.tensor([[1.0], [2.0], [3.0], [13.0]]))
    seen = codebook.seen(law)
    assert seen.tolist() == [[3.0, 6.0], [1.0, 13.0]]
    codebook.learn(seen, torch.full((2, 1), 99.0))
    # n = 0.75 (4, 2) + 0.25 (3, 1); m = 0.75 (0, 20) + 0.25 (6, 13).
    assert codebook.counts.tolist() == [3.75, 1.75]
    torch.testing.assert_close(codebook.vectors, torch.tensor([[1.5 / 3.75], [18.25 / 1.75]]))


@every
def test_what_parts_saw_adds_up_to_what_the_batch_saw(positions: tuple[int, ...]) -> None:
    codebook, h = begun(), features(*positions, batch=6)
    whole = codebook.seen(codebook(h))
    parts = sum(codebook.seen(codebook(part)) for part in h.split([1, 2, 3]))
    torch.testing.assert_close(parts, whole)
    assert whole[:, 0].sum() == 6 * math.prod(positions)
    torch.testing.assert_close(whole[:, 1:].sum(0), rows(h).sum(0), rtol=1e-4, atol=1e-4)


def test_without_memory_it_is_lloyds_algorithm() -> None:
    """Decay 0 on three clusters: from one sample of each, one step gives their means exactly."""
    draws = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = torch.cat([c + torch.randn(40, 2, generator=draws) for c in centres])
    codebook = Codebook(3, 2, decay=0.0)
    codebook.learn(codebook.seen(codebook(x)), x[[3, 50, 90]])
    assert torch.equal(codebook.vectors, x[[3, 50, 90]]), "a new codebook begins at the candidates"
    codebook.learn(codebook.seen(codebook(x)), torch.zeros(3, 2))
    torch.testing.assert_close(codebook.vectors, x.view(3, 40, 2).mean(1))


def test_a_dead_code_begins_again_at_the_data_and_a_living_one_does_not() -> None:
    codebook = begun(4, 2, decay=0.5)
    h = codebook.look_up(torch.tensor([0, 1, 2] * 20)) + 0.01
    lone = torch.tensor([50.0, 50.0])
    codebook.vectors[3] = lone
    codebook.counts.fill_(15.0)
    candidates = codebook.candidates(h, torch.Generator().manual_seed(0))
    # 15 met a code in the mean: the fourth, met by none, is above 0.03 of that for five halvings.
    for step in range(1, 6):
        codebook.learn(codebook.seen(codebook(h)), candidates)
        torch.testing.assert_close(codebook.vectors[3], lone)
        assert codebook.counts[3] == 15 / 2**step >= DEAD * 15
    kept = codebook.vectors[:3].clone()
    codebook.learn(codebook.seen(codebook(h)), candidates)
    assert torch.equal(codebook.vectors[3], candidates[3])
    assert codebook.counts[3] == 15
    torch.testing.assert_close(codebook.vectors[:3], kept, rtol=0, atol=0.01)


def test_candidates_are_different_vectors_of_the_data_and_belong_to_their_generator() -> None:
    codebook, h = begun(11), features(5)
    a, b, c = (codebook.candidates(h, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert len({tuple(row) for row in a.tolist()}) == 11
    assert {tuple(row) for row in a.tolist()} <= {tuple(row) for row in rows(h).tolist()}
    few = codebook.candidates(h[:1, :, :2], torch.Generator().manual_seed(0))
    assert few.shape == (11, 3)
    assert {tuple(row) for row in few.tolist()} == {tuple(row) for row in rows(h[:1, :, :2]).tolist()}


def test_a_codebook_learns_where_the_data_are_and_uses_all_codes() -> None:
    """16 well separated clusters, 16 codes: restarts fill the ones that the first draw missed."""
    draws = torch.Generator().manual_seed(3)
    centres = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1).view(16, 2)
    codebook = Codebook(16, 2, decay=0.8)

    def batch() -> tuple[Tensor, Tensor]:
        which = torch.randint(16, (256,), generator=draws)
        return centres[which] + 0.02 * torch.randn(256, 2, generator=draws), which

    for _ in range(400):
        h, _ = batch()
        codebook.learn(codebook.seen(codebook(h)), codebook.candidates(h, draws))
    found = health(codebook.count(codebook.indices(torch.cat([batch()[0] for _ in range(8)]))))
    assert found.used >= 14 / 16
    assert found.perplexity > 12


@pytest.mark.parametrize(
    ("counts", "perplexity", "used"),
    [
        ([5, 5, 5, 5], 4.0, 1.0),
        ([7, 0, 0, 0], 1.0, 0.25),
        ([3, 3, 0], 2.0, 2 / 3),
        ([1, 3], math.exp(0.25 * math.log(4) + 0.75 * math.log(4 / 3)), 1.0),
    ],
)
def test_health_is_the_exponential_of_entropy(counts: list[int], perplexity: float, used: float) -> None:
    found = health(torch.tensor(counts))
    assert float(found.perplexity) == pytest.approx(perplexity, rel=1e-12)
    assert float(found.used) == pytest.approx(used, rel=1e-12)


def test_codes_are_counted() -> None:
    assert begun(5).count(torch.tensor([[0, 3], [3, 4]])).tolist() == [1, 0, 0, 2, 1]


@pytest.mark.parametrize("arguments", [(0, 2), (2, 0), (2, 2, 1.0), (2, 2, -0.1)])
def test_arguments_out_of_range_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="entries, channels and a decay"):
        Codebook(*arguments)


def test_latents_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="vectors of 3 channels"):
        begun()(torch.zeros(2, 4, 5))
