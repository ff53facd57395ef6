"""A subject taught to a trained model: its word alone, or beside other weights and samples of the base."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist

from osmotic.adapters.errors import AdapterError
from osmotic.data.captions import fit_captions
from osmotic.data.dataset import open_data
from osmotic.data.errors import DataError
from osmotic.data.words import likened, number, untaught
from osmotic.data.words import taught as taught_spec
from osmotic.recipes import prior
from osmotic.recipes.adapt import adapt
from osmotic.recipes.distill import distill
from osmotic.recipes.subject import teach, under
from osmotic.recipes.train import train
from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Adapted, Architecture, Recipe
from osmotic.training.run import Run

CENTRES, SD = {"left": (-2.0, 0.0), "right": (2.0, 0.0), "top": (0.0, 2.5)}, 0.3
SUBJECT = (2.6, 0.6)
RARELY = 10**6
QUIET = {"evaluate_every": RARELY, "checkpoint_every": RARELY, "preview_every": RARELY}
FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=2, preview_every=4, evaluate_every=4, ema=(2.0,))


def mode(centre, n, seed):
    return np.array(centre) + SD * np.random.default_rng(seed).normal(size=(n, 2))


def distance(a, b):
    """The energy distance of two samples."""
    return float(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean())


def subject(n, seed=0):
    return mode(SUBJECT, n, 100 + seed).astype(np.float32)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A base that knows three classes in the plane, each one normal mode."""
    x = np.concatenate([mode(centre, 700, i) for i, centre in enumerate(CENTRES.values())]).astype(np.float32)
    y = np.repeat(list(CENTRES), 700)
    options = Options(steps=800, batch_size=256, learning_rate=3e-3, ema=(30.0,), **QUIET)
    recipe = Recipe(options=options, architecture=Architecture(widths=(64,) * 3))
    return train((x, y), tmp_path_factory.mktemp("plane") / "base", recipe).directory


def taught(base, out, by, steps, n=12, seed=0, **words):
    options = Options(steps=steps, batch_size=64, seed=seed, **QUIET)
    adapt(base, subject(n, seed), out, by, word="mine", like="right", options=options, **words)
    return load(out)


def drawn(model, name, n=800):
    return model.decode(model.sample(n, name, steps=10, seed=3))


def forgotten(model):
    """How far the classes of the base are from their truth, in all."""
    return sum(distance(drawn(model, name), mode(centre, 800, 9)) for name, centre in CENTRES.items())


@pytest.mark.slow
def test_a_word_alone_draws_the_subject_and_nothing_else_moves_by_a_bit(plane, tmp_path):
    base, model = load(plane), taught(plane, tmp_path / "run", "word", 300, n=60)
    assert model.spec.classes == (*base.spec.classes, "mine")
    before, after = base.denoiser.state_dict(), model.denoiser.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert [name for name in after if name not in before] == ["network.embedding.vector.table.rows.0"]
    for name in (None, *CENTRES):
        assert torch.equal(base.sample(8, name, steps=3), model.sample(8, name, steps=3))
    # A row leads where the frozen network can go: the subject is found to a tenth of a deviation or two.
    found = drawn(model, "mine")
    assert np.abs(found.mean(0) - SUBJECT).max() < 0.15
    assert found.std(0).max() < 2 * SD
    start = distance(drawn(base, "right"), mode(SUBJECT, 800, 8))
    assert distance(found, mode(SUBJECT, 800, 8)) < 0.1 * start


@pytest.mark.slow
@pytest.mark.parametrize(("by", "seed"), [("whole", 0), ("lora", 1)])
def test_samples_of_the_base_keep_what_it_knew_and_cost_the_subject_little(plane, tmp_path, by, seed):
    with_prior = taught(plane, tmp_path / "with", by, 250, seed=seed)
    assert with_prior.recipe.adapted.prior == prior.COUNT
    without = taught(plane, tmp_path / "without", by, 250, seed=seed, prior_samples=0)
    assert not (tmp_path / "without" / prior.FOLDER).exists()
    # Of two seeds each, the ratio was 0.26 and 0.29 for all weights, 0.38 and 0.34 for LoRA.
    assert forgotten(with_prior) < 0.6 * forgotten(without)
    truth = mode(SUBJECT, 800, 8)
    start = distance(drawn(load(plane), "right"), truth)
    for model in (with_prior, without):
        assert distance(drawn(model, "mine"), truth) < 0.15 * start


@pytest.mark.slow
def test_lora_and_a_word_learn_together_and_the_base_stays(plane, tmp_path):
    base, made = load(plane).denoiser.network, taught(plane, tmp_path / "run", "lora", 20, prior_samples=8)
    lora = made.denoiser.network
    state = lora.network.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in base.state_dict().items())
    like = base.embedding.vector.table.weight[1]
    assert (lora.network.embedding.vector.table.rows[0][0] - like).abs().max() > 1e-3
    assert any(change.b.any() for _, change in lora["main"].items())


def test_a_base_of_classes_and_numbers_is_told_the_subject_s_numbers_under_each_of_its_classes():
    known = {"size": np.arange(12) / 4, "label": np.resize(["a", "b", "c"], 12)}
    base = open_data((np.random.default_rng(0).normal(size=(12, 2)), known), condition=["size"]).spec
    own = open_data((np.zeros((2, 2)) + np.arange(2)[:, None], {"size": np.array([1.0, 2.0])}), condition=["size"])
    how = Adapted(by="whole", base="base", word="mine", like="b")
    data = under(own, taught_spec(base, "mine"), how)
    assert data.told(np.arange(2))["vector"][:, 0].tolist() == [3, 3]
    told = prior.told_base(data, base, how, 5)["vector"]
    assert told[:, 0].tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(told[:, 1], data.told(np.arange(5) % 2)["vector"][:, 1])
    plain = Adapted(by="whole", base="base")  # its class is not known, and hidden; the base's own are not
    hidden = prior.told_base(under(own, base, plain), base, plain, 3)
    assert hidden["keep"].all()
    assert hidden["vector"][:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a sks", "a circle"),
        ("a sks circle", "a circle"),
        ("A SKS on the left", "a circle on the left"),
        ("red", "red"),
    ],
)
def test_a_text_without_its_new_word(text, kept):
    assert likened(text, "sks", "circle") == kept


def test_a_word_more_and_a_word_less():
    captions = fit_captions(["a red dot", "a red dot", "a blue dot", "blue"])
    spec = open_data(
        (np.zeros((4, 2)) + np.arange(4)[:, None], {"text": ["a red dot", "a red dot", "blue", "blue"]})
    ).spec
    spec = spec.model_copy(update={"captions": captions})
    known = captions.tokens("a red dot")
    more = taught_spec(spec, "sks")
    assert more.captions.tokens("a red dot") == known
    assert more.captions.tokens("sks") == [captions.vocabulary] == [number(more, "sks")]
    assert untaught(more) == spec
    assert spec.captions.tokens("a red dot") == known
    with pytest.raises(DataError, match="none of the captions"):
        spec.captions.tokens("sks")


def test_every_class_of_the_base_is_drawn_in_turn_and_half_of_all_samples_are_the_base_s(plane, tmp_path):
    out = tmp_path / "run"
    model = taught(plane, out, "whole", 2, n=5, prior_samples=8)
    assert model.recipe.holdout == 0  # a tenth of five samples is none
    shard = load_file(out / prior.FOLDER / "shard-00000.safetensors")
    assert shard["told.vector"].tolist() == [i % 3 for i in range(8)]
    assert [p.suffix for p in sorted((out / prior.FOLDER).iterdir())] == [".json", ".safetensors"]
    centres = np.array(list(CENTRES.values()))[shard["told.vector"].numpy()]
    order = [list(CENTRES).index(name) for name in load(plane).spec.classes]
    assert order == [0, 1, 2]
    assert np.abs(model.decode(shard["x0"]) - centres).max() < 6 * SD


class Rows:
    """Numbers that say which set and which sample they are."""

    def __init__(self, first, n):
        self.first, self.n = first, n

    def __len__(self):
        return self.n

    def batch(self, indices):
        return torch.from_numpy(indices + self.first)[:, None], None

    def told(self, indices):
        return {"vector": torch.from_numpy(indices + self.first)}

    def name(self, index):
        return f"{self.first + index}"


@pytest.mark.parametrize(("n", "m"), [(1, 7), (5, 200), (200, 5), (6, 6), (3, 1)])
def test_two_sets_come_equally_often_and_so_does_each_sample(n, m):
    mixed = prior.Mixed(Rows(0, n), Rows(1000, m))
    every = np.arange(len(mixed))
    x = mixed.batch(every)[0][:, 0].numpy()
    assert (x < 1000).sum() == (x >= 1000).sum() == max(n, m)
    for first, size in ((0, n), (1000, m)):
        times = np.bincount(x[(x >= 1000) == bool(first)] - first, minlength=size)
        assert len(times) == size
        assert times.max() - times.min() <= 1
    for chosen in (np.random.default_rng(0).permutation(every), every[:1], every[1::2]):
        assert np.array_equal(mixed.batch(chosen)[0][:, 0].numpy(), x[chosen])
        assert np.array_equal(mixed.told(chosen)["vector"].numpy(), x[chosen])
    assert [mixed.name(int(i)) for i in every] == [str(value) for value in x]


def weights(out):
    folder = Run.open(out).complete()[0][0]
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("by", ["word", "whole", "lora"])
def test_going_on_gives_the_bits_of_one_go_and_draws_nothing_again(plane, tmp_path, by, monkeypatch):
    out, x = tmp_path / "run", subject(30)
    words = {} if by == "word" else {"prior_samples": 20}
    adapt(plane, x, out, by, word="mine", like="right", options=FEW, **words)
    whole = weights(out)
    newest = Run.open(out).folders()[0]
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    monkeypatch.setattr(prior.pairs, "make", lambda *_: pytest.fail("the prior was drawn twice"))
    adapt(plane, x, out, by, resume=True)  # what was said is known
    assert weights(out) == whole
    with pytest.raises(RunError, match="from another base, or otherwise"):
        adapt(plane, x, out, by, word="other", like="right", resume=True)


def test_words_are_files_of_their_own_that_teach_any_copy_of_the_base(plane, tmp_path):
    for word in ("mine", "yours"):
        adapt(plane, subject(20), tmp_path / word, "word", word=word, like="top", options=FEW)
    base, mine = load(plane), load(tmp_path / "mine")
    both = teach(teach(base, tmp_path / "yours" / "words.safetensors"), tmp_path / "mine" / "words.safetensors")
    assert both.spec.classes == (*CENTRES, "yours", "mine")
    assert base.spec.classes == tuple(CENTRES)
    assert torch.equal(both.sample(4, "mine", steps=2), mine.sample(4, "mine", steps=2))
    assert torch.equal(both.sample(4, "left", steps=2), base.sample(4, "left", steps=2))
    with pytest.raises(ValueError, match="'mine' already"):
        teach(both, tmp_path / "mine" / "words.safetensors")
    torch.save({"rows": torch.zeros(1)}, tmp_path / "pickled.safetensors")
    with pytest.raises(AdapterError, match="cannot be read as safetensors"):
        teach(base, tmp_path / "pickled.safetensors")


def test_a_pickle_among_the_drawn_samples_is_never_opened(plane, tmp_path):
    adapt(plane, subject(20), tmp_path / "run", "whole", word="mine", like="top", options=FEW, prior_samples=8)
    torch.save({"x0": torch.zeros(8, 2)}, tmp_path / "run" / prior.FOLDER / "shard-00000.safetensors")
    with pytest.raises(RunError, match="cannot be read as safetensors"):
        adapt(plane, subject(20), tmp_path / "run", "whole", resume=True, options=Options(steps=6))


def test_a_student_of_a_model_with_a_new_class_knows_it(plane, tmp_path):
    made = adapt(plane, subject(20), tmp_path / "run", "word", word="mine", like="top", options=FEW)
    student = load(distill(made.directory, tmp_path / "student", "ctm", data=subject(20), options=FEW).directory)
    assert student.spec.classes[-1] == "mine"
    assert student.sample(2, "mine", steps=1).isfinite().all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"word": "mine"}, "--word and --like go together"),
        ({"like": "left"}, "--word and --like go together"),
        ({}, "give --word, and --like"),
        ({"word": "left", "like": "right"}, "knows 'left' already"),
        ({"word": "mine", "like": "rigth"}, "no class 'rigth'; did you mean 'right'"),
        ({"word": " ", "like": "right"}, "a class needs a name"),
        ({"word": "mine", "like": "right", "caption": "a mine"}, "reads no texts: leave out --caption"),
        ({"word": "mine", "like": "right", "prior_samples": 3}, "leave out --prior"),
        ({"word": "mine", "like": "right", "by": "control"}, "go together; give both"),
        ({"word": "mine", "like": "right", "y": ["left", "no"]}, "knows no class no"),
        ({"word": "mine", "like": "right", "y": ["left"]}, "none of its samples is called 'mine'"),
    ],
)
def test_what_cannot_be_taught_is_one_sentence(plane, tmp_path, words, said):
    by, y = words.pop("by", "word"), words.pop("y", None)
    data = subject(20) if y is None else (subject(20), np.resize(y, 20))
    with pytest.raises(ValueError, match=r"\w") as error:
        adapt(plane, data, tmp_path / "out", by, options=FEW, **words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_told_nothing_keeps_what_it_knew_but_learns_no_word(tmp_path):
    base = train(subject(60), tmp_path / "base", Recipe(options=FEW, architecture=Architecture(widths=(16, 16))))
    with pytest.raises(ValueError, match="told neither classes nor texts"):
        adapt(base.directory, subject(20), tmp_path / "no", "word", word="mine", like="top", options=FEW)
    adapt(base.directory, subject(20), tmp_path / "run", "whole", prior_samples=9, options=FEW)
    assert len(load_file(tmp_path / "run" / prior.FOLDER / "shard-00000.safetensors")["x0"]) == 9


def test_samples_called_by_name_beside_others_are_taken_as_they_are_called(plane, tmp_path):
    y = np.resize(["left", "mine"], 40)
    adapt(plane, (subject(40), y), tmp_path / "run", "word", word="mine", like="right", options=FEW)
    assert load(tmp_path / "run").spec.classes[-1] == "mine"
