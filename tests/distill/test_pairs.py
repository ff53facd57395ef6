"""Pairs: the exact map on Gaussians, numbered pairs, shards that are whole or absent."""

import copy

import numpy as np
import pytest
import torch

from osmotic.condition import Condition
from osmotic.distill import pairs
from osmotic.distill.base import Start
from osmotic.distill.pairs import Pairs, begun, chord, claim, fill, fingerprint, make, read
from osmotic.guidance import ClassifierFree
from osmotic.noise import generators
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.samplers import CATALOG as SAMPLERS
from osmotic.samplers import prior, sample
from osmotic.schedules import CATALOG
from osmotic.times import suggested
from osmotic.training.errors import RunError
from osmotic.training.recipe import Distillation
from tests.distill.toys import deviation, five, generator, two_modes


def start(schedule, sigma_data=0.5, classes=0):
    return Start(schedule, sigma_data, 1, bool(classes), Distillation())


def gaussian(schedule):
    return Gaussian(schedule, torch.tensor([0.3, -0.2]), torch.tensor([0.2, 0.3]))


@pytest.mark.parametrize("path", list(CATALOG))
def test_pairs_of_a_gaussian_are_its_exact_map_on_every_path(path):
    oracle = gaussian(CATALOG[path]())
    x0, noise = make(oracle, (2,), start(oracle.schedule), 64, seed=3).unbind(1)
    assert torch.allclose(oracle.flow(begun(oracle, noise), 1.0, 0.0), x0, atol=2e-3)
    assert abs(float(noise.std()) - 1) < 0.15  # unit noise, whatever the path's own scale


def test_pairs_start_where_sampling_does():
    oracle = gaussian(CATALOG["ve"]())
    noise = torch.randn(5, 2, generator=generator(1))
    assert torch.equal(begun(oracle, noise), prior(oracle, (5, 2), generator(1)))


def test_the_noise_of_pairs_is_not_that_of_samples():
    oracle = gaussian(CATALOG["vp"]())
    noise = make(oracle, (2,), start(oracle.schedule), 4, seed=3)[:, 1]
    drawn = prior(oracle, (4, 2), generators(3, range(4)))
    assert float((begun(oracle, noise) - drawn).abs().min()) > 1e-4


def test_pairs_are_converged_on_mixtures():
    for oracle in (five(), two_modes(16)):
        d = oracle.means.shape[1]
        x0, noise = make(oracle, (d,), start(oracle.schedule, deviation(oracle)), 256, seed=0).unbind(1)
        grid = suggested(deviation(oracle))(oracle.schedule, 300)
        truth = sample(SAMPLERS["rk4"](), oracle.double(), begun(oracle, noise.double()), grid)
        assert float((x0 - truth).norm(dim=1).square().mean().sqrt()) < 0.01


def test_a_pair_is_the_same_in_any_batch_and_count():
    oracle, said = five(), start(five().schedule)
    whole = make(oracle, (2,), said, 12, seed=5)
    part = make(oracle, (2,), said, 4, seed=5, first=6, batch_size=3)
    assert torch.equal(part[:, 1], whole[6:10, 1])
    assert torch.allclose(part, whole[6:10], atol=1e-5)
    assert not torch.equal(make(oracle, (2,), said, 12, seed=6)[:, 1], whole[:, 1])


def test_each_pair_is_told_its_own_label():
    oracle = GaussianMixture(CATALOG["vp"](), torch.tensor([[-1.0], [1.0]]), 0.01)
    labels = torch.tensor([0, 1, 1, 0, 1])
    made = make(oracle, (1,), start(oracle.schedule), 5, 0, cond=Condition(vector=labels), batch_size=2)
    assert torch.equal(made[:, 0, 0] > 0, labels == 1)
    with pytest.raises(ValueError, match="5 pairs need 5 conditions; got 3"):
        make(oracle, (1,), start(oracle.schedule), 5, 0, cond=Condition(vector=labels[:3]))


def test_a_teacher_is_asked_in_evaluation_mode_and_left_as_it_was():
    oracle = five().train()
    seen = []
    oracle.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    make(oracle, (2,), start(oracle.schedule), 2, 0)
    assert seen
    assert not any(seen)
    assert oracle.training


@pytest.mark.parametrize("path", list(CATALOG))
def test_the_straight_line_of_a_pair_passes_through_where_sampling_starts(path):
    oracle = gaussian(CATALOG[path]())
    x0, noise = torch.randn(2, 6, 2, generator=generator(0), dtype=torch.float64)
    eps = chord(oracle.schedule, x0, noise)
    alpha, sigma = oracle.schedule.scalars(1.0)
    assert torch.allclose(alpha * x0 + sigma * eps, begun(oracle, noise), atol=1e-12)
    if alpha == 0:
        assert torch.allclose(eps, noise, atol=1e-12)


def test_a_fingerprint_is_of_the_weights_and_of_what_is_said():
    one, other = five(), five()
    assert fingerprint(one, 1.0) == fingerprint(copy.deepcopy(one), 1.0)
    assert fingerprint(one, 1.0) != fingerprint(one, 2.0)
    other.means[0, 0] += 1e-6
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(ClassifierFree(one, 2.0)) != fingerprint(one)


@pytest.fixture
def small(monkeypatch):
    """Shards of eight pairs, and a list of the first pairs that were made."""
    monkeypatch.setattr(pairs, "SHARD", 8)
    made, honest = [], pairs.make

    def spied(teacher, shape, start, count, seed, first=0, *rest):
        made.append(first)
        return honest(teacher, shape, start, count, seed, first, *rest)

    monkeypatch.setattr(pairs, "make", spied)
    return made


def store(folder, seed=1, name="teacher", labels=None, count=20, **rest):
    known = {} if labels is None else {"vector": labels}
    oracle = GaussianMixture(CATALOG["vp"](), torch.tensor([[-1.0], [1.0]]), 0.01)
    claim(folder, name, (1,), count, seed, known)
    fill(folder, oracle, (1,), start(oracle.schedule), count, seed, known, **rest)
    return read(folder)


def test_an_interrupted_making_goes_on_with_the_missing_shards_alone(tmp_path, small):
    labels = torch.arange(20) % 2
    told = []

    def interrupt(made, total):
        told.append((made, total))
        if made > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "a", labels=labels, progress=interrupt)
    assert told == [(8, 20), (16, 20)]
    with pytest.raises(RunError, match=r"lacks shard-00001.safetensors: its making was interrupted"):
        read(tmp_path / "a")
    small.clear()
    resumed = store(tmp_path / "a", labels=labels)
    assert small == [8, 16]
    whole = store(tmp_path / "b", labels=labels)
    assert torch.equal(resumed.x, whole.x)
    assert torch.equal(resumed.known["vector"], labels)
    small.clear()
    assert torch.equal(store(tmp_path / "a", labels=labels).x, whole.x)
    assert small == []


def test_a_folder_of_another_making_is_refused(tmp_path, small):
    store(tmp_path, count=8)
    with pytest.raises(RunError, match=r"pairs of another teacher .* delete the folder or choose another"):
        store(tmp_path, count=8, name="other")
    with pytest.raises(RunError, match="pairs of another seed"):
        store(tmp_path, count=8, seed=2)
    with pytest.raises(RunError, match="pairs of another count"):
        store(tmp_path, count=16)
    with pytest.raises(RunError, match="pairs of another conditions"):
        store(tmp_path, count=8, labels=torch.zeros(8, dtype=torch.int64))
    assert small == [0]


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, small):
    with pytest.raises(RunError, match=r"holds no pairs; it has no pairs.json"):
        read(tmp_path)
    store(tmp_path, count=8)
    shard = tmp_path / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        read(tmp_path)
    (tmp_path / "pairs.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        store(tmp_path / "file" / "inside")


def test_pairs_are_a_data_set_with_a_held_out_part():
    x = torch.arange(20.0).reshape(10, 2, 1)
    whole = Pairs(x, {"vector": torch.arange(10)})
    training, held_out = whole.split(0.2)
    assert (len(training), len(held_out)) == (8, 2)
    batch, _ = held_out.batch(np.array([1, 0]))
    assert torch.equal(batch, x[[9, 8]])
    assert held_out.told(np.array([1, 0]))["vector"].tolist() == [9, 8]
    assert held_out.name(1) == "pair 9"
    assert Pairs(x).told(np.array([3])) == {}
    assert len(whole.split(0.0)[1]) == 0
    for share in (1.0, -0.1, 0.99):
        with pytest.raises(ValueError, match="cannot be held out"):
            whole.split(share)
