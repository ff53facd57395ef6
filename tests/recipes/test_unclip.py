"""unCLIP: the chain of prior and decoder against exact laws, and the recipe on a few pictures."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from osmotic.condition import Condition
from osmotic.data.dataset import open_data
from osmotic.data.embedding import Embedding, sphere
from osmotic.data.encoding import Standard
from osmotic.data.spec import Spec
from osmotic.data.with_embedding import WithEmbedding
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.oracles import Gaussian, GaussianMixture
from osmotic.recipes import unclip as recipe
from osmotic.recipes.embeddings import embed, reader
from osmotic.recipes.held_out import halves
from osmotic.recipes.unclip import CONTRASTIVE, Recipes, main, unclip
from osmotic.recipes.unclip_shapes import main as judged
from osmotic.recipes.unclipped import Unclip, load_unclip
from osmotic.samplers import CATALOG, prior, sample
from osmotic.schedules import VP, Rectified
from osmotic.times import LogSNR
from osmotic.training.build import network
from osmotic.training.contrast import load_dual
from osmotic.training.defaults import fill
from osmotic.training.errors import Interrupted, RunError
from osmotic.training.model import Model, load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe
from tests.clips import stored_clip

# The chain on exact laws


class Given(Denoiser):
    """The exact denoiser of ``x0 | c = N(A c, C)`` where c is the condition's vector."""

    def __init__(self, schedule, matrix: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self.schedule, self.matrix = schedule, matrix
        self.around_zero = Gaussian(schedule, torch.zeros(len(matrix), dtype=matrix.dtype), covariance)
        self.anchor = nn.Parameter(torch.zeros(1))  # a model knows its device by its parameters

    def forward(self, x, t, cond=None, s=None):
        mean = cond.vector.to(x) @ self.matrix.to(x).T
        (alpha,) = like(x, self.schedule.numbers(t)[0])
        found = self.around_zero(x - alpha * mean, t)
        return Estimate(found.x0 + mean, found.eps)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("path", [VP(), Rectified()], ids=["vp", "rectified"])
def test_exact_stages_give_the_joint_law_of_a_gaussian_chain(path):
    """text -> embedding -> picture: all covariances between the three, within five standard errors."""
    texts, embedded, drawn, n = 2, 3, 4, 6000
    b, a = draws(embedded, texts, seed=1), draws(drawn, embedded, seed=2) * 0.7
    spread = [m @ m.T / 4 + 0.1 * torch.eye(len(m)) for m in (draws(embedded, embedded, seed=3), draws(drawn, drawn))]
    text, last = draws(n, texts, seed=5), None
    for number, (matrix, covariance) in enumerate(zip((b, a), spread, strict=True)):
        stage = Given(path, matrix, covariance)
        keyed = torch.Generator().manual_seed(10 + number)
        x = prior(stage, (n, len(matrix)), keyed, "cpu").double()
        times = LogSNR(0.002, 80.0)(path, 60, stage.start)
        told = Condition(vector=text if last is None else last)
        with torch.no_grad():
            made = sample(CATALOG["dpmpp-3m"](), stage, x, times, told)
        text, last = (text, made) if last is None else (torch.cat([text, last], 1), made)
    found = torch.cat([text, last], 1)
    ab = a @ b
    of_e = b @ b.T + spread[0]
    of_x = a @ of_e @ a.T + spread[1]
    rows = [[torch.eye(texts), b.T, ab.T], [b, of_e, of_e @ a.T], [ab, a @ of_e, of_x]]
    expected = torch.cat([torch.cat([part.double() for part in row], 1) for row in rows])
    covariance = torch.cov(found.T)
    sizes = expected.diagonal()
    error = ((sizes[:, None] * sizes + expected**2) / n).sqrt()
    assert float(((covariance - expected) / error).abs().max()) < 5
    assert float((found.mean(0) / (sizes / n).sqrt()).abs().max()) < 5


D, TEXTS = 4, ["one", "other"]
AWAY = torch.eye(D)[:2]  # of the texts
SEEN = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]]), dim=1)
SHARES = [0.3, 0.7, 0.8, 0.2]  # of the first two embeddings given the first text, of the last two given the other
MATRIX, SPREAD = draws(3, D, seed=4).float(), 0.04


class Reads:
    """Texts by a table; of a picture ``A sqrt(D) e`` plus noise, the e that is nearest."""

    width, fingerprint = D, "f"

    def prompt(self, text: str) -> None:
        TEXTS.index(text)

    def texts(self, texts: list[str]) -> Tensor:
        return AWAY[[TEXTS.index(text) for text in texts]]

    def pictures(self, x: Tensor) -> Tensor:
        return SEEN[torch.cdist(x, D**0.5 * SEEN @ MATRIX.T).argmin(1)]


class Prior(Denoiser):
    """A mixture of unit vectors for each text."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.anchor = VP(), nn.Parameter(torch.zeros(1))
        self.mixture = GaussianMixture(VP(), SEEN, 1e-4, SHARES, [0, 0, 1, 1])

    def forward(self, x, t, cond=None, s=None):
        return self.mixture(x, t, Condition(vector=(cond.vector @ AWAY.T).argmax(1)))


def modelled(denoiser: Denoiser, width: int, of: str) -> Model:
    encoding = Standard(dtype="float32", mean=(0.0,) * width, std=(1.0,) * width)
    told = Embedding(of=of, width=D, fingerprint="f")
    spec = Spec(kind="vectors", shape=(width,), source="oracle", count=100, encoding=encoding, embedding=told)
    return Model(denoiser, spec, Recipe(), 0)


def chain() -> Unclip:
    decoder = modelled(Given(VP(), MATRIX, SPREAD * torch.eye(3)), 3, "picture")
    return Unclip(Reads(), modelled(Prior(), D, "text"), decoder)


def test_pictures_of_texts_follow_the_chain():
    """Shares of the embeddings given a text, and a picture's mean and spread given its embedding."""
    model, n = chain(), 2000
    texts = [TEXTS[i % 2] for i in range(n)]
    vectors = model.imagine(n, texts, steps=30)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(n))
    which = (vectors @ SEEN.T).argmax(1)
    for text in (0, 1):
        own = which[text::2]
        assert set(own.tolist()) == {2 * text, 2 * text + 1}
        share = float((own == 2 * text).float().mean())
        expected = SHARES[2 * text] / (SHARES[2 * text] + SHARES[2 * text + 1])
        assert share == pytest.approx(expected, abs=5 * (expected * (1 - expected) / (n / 2)) ** 0.5)
    x = model.sample(n, texts, 1.0, steps=30)
    rest = x - D**0.5 * vectors @ MATRIX.T
    # With one noise for both draws the rest would know which embedding was drawn.
    for number in range(4):
        own = rest[which == number]
        error = (SPREAD / len(own)) ** 0.5
        assert float(own.mean(0).abs().max()) < 5 * error
        assert float((own.var(0) / SPREAD - 1).abs().max()) < 5 * (2 / len(own)) ** 0.5
    assert torch.equal(model.sample(2, texts[:2], 1.0, steps=30), x[:2])


def test_variations_keep_what_the_encoder_sees_and_ways_lead_from_end_to_end():
    model, means = chain(), D**0.5 * SEEN @ MATRIX.T
    found = model.variations(means[2], 400, 1.0, steps=20)
    assert float((found.mean(0) - means[2]).abs().max()) < 5 * (SPREAD / 400) ** 0.5
    assert float((found.var(0) / SPREAD - 1).abs().max()) < 5 * (2 / 400) ** 0.5
    way = model.between(means[0], means[3], 3, 1.0, steps=20)
    # One noise for all: they differ by their means alone, the middle one's being that of the middle of the arc.
    middle = torch.nn.functional.normalize(SEEN[0] + SEEN[3], dim=0) * D**0.5 @ MATRIX.T
    torch.testing.assert_close(way - way[0], torch.stack([means[0], middle, means[3]]) - means[0], atol=1e-3, rtol=1e-3)
    changed = model.changed(means[0], "one", "other", 2, 1.0, 1.0, steps=20)
    towards = D**0.5 * torch.nn.functional.normalize(AWAY[1] - AWAY[0], dim=0) @ MATRIX.T
    torch.testing.assert_close(changed[1] - changed[0], towards - means[0], atol=1e-3, rtol=1e-3)


def test_what_does_not_fit_is_refused():
    model = chain()
    with pytest.raises(RunError, match="another encoder"):
        Unclip(Reads(), model.prior, Model(model.decoder.denoiser, other(model.decoder.spec), Recipe(), 0))
    with pytest.raises(RunError, match="no embedding of a text"):
        Unclip(Reads(), model.decoder, model.decoder)
    with pytest.raises(ValueError, match="3 texts were given for 2"):
        model.sample(2, ["one"] * 3)
    for none in (
        lambda: model.sample(0, []),
        lambda: model.variations(torch.zeros(3), 0),
        lambda: model.changed(torch.zeros(3), "one", "other", 0),
    ):
        with pytest.raises(ValueError, match="ask for 1 or more"):
            none()
    with pytest.raises(ValueError, match="two ends"):
        model.between(torch.zeros(3), torch.zeros(3), 1)
    with pytest.raises(ValueError, match="one to the encoder"):
        model.changed(torch.zeros(3), "one", "one", 2)


def other(spec: Spec) -> Spec:
    assert spec.embedding is not None
    return spec.model_copy(update={"embedding": spec.embedding.model_copy(update={"fingerprint": "g"})})


# The recipe

SIDE, COUNT = 8, 40
SAID = ["a dark one", "a bright one"]
FEW = Options(
    steps=2, batch_size=8, warmup=1, evaluate_every=2, checkpoint_every=2, preview_every=2, ema=(2.0,), seed=1
)


def small() -> Recipes:
    return Recipes(
        Recipe(options=FEW, process=CONTRASTIVE.process, architecture=Architecture(widths=(8, 16))),
        Recipe(options=FEW, architecture=Architecture(widths=(8,))),
        Recipe(options=FEW, architecture=Architecture(widths=(8,), blocks=1)),
    )


def data(seed: int = 0):
    rng, which = np.random.default_rng(seed), np.arange(COUNT) % 2
    x = (rng.integers(0, 55, (COUNT, SIDE, SIDE, 3)) + 200 * which[:, None, None, None]).astype(np.uint8)
    return open_data({"x": x, "text": [SAID[i] for i in which]})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of the recipe after two steps of each stage."""
    folder = tmp_path_factory.mktemp("unclip") / "made"
    unclip(data(), folder, small())
    return folder


def test_the_recipe_goes_on_where_it_stopped(made, tmp_path):
    """Interrupted after the prior, it ends with the same weights and embeddings as one that was not."""
    shards = sorted((made / "embeddings").iterdir())
    told = json.loads((made / "unclip.json").read_text())
    assert told == {"encoder": "encoder", "prior": "prior", "decoder": "decoder"}

    class Stop(Exception):
        pass

    def until(line: str) -> None:
        if line.startswith("decoder"):
            raise Stop

    with pytest.raises(Stop):
        unclip(data(), tmp_path / "again", small(), tell=until)
    with pytest.raises(RunError, match="no finished unCLIP"):
        load_unclip(tmp_path / "again")
    model = unclip(data(), tmp_path / "again", small())
    for shard in shards:
        assert (tmp_path / "again" / "embeddings" / shard.name).read_bytes() == shard.read_bytes()
    one = load_unclip(made)
    assert torch.equal(model.sample(2, SAID, steps=2), one.sample(2, SAID, steps=2))
    assert model.sample(2, SAID, steps=2).shape == (2, 3, SIDE, SIDE)


def test_embeddings_are_made_once_and_never_old(made, tmp_path):
    read, asked = load_dual(made / "encoder"), []

    class Counting:
        width, fingerprint, prompt = read.width, read.fingerprint, read.prompt

        def pictures(self, x):
            asked.append(len(x))
            return read.pictures(x)

        def texts(self, texts):
            return read.texts(texts)

    first = embed(data(), Counting(), tmp_path)
    again = embed(data(), Counting(), tmp_path)
    assert asked == [COUNT]
    np.testing.assert_array_equal(first.pictures, again.pictures)
    np.testing.assert_allclose(first.pictures, read.pictures(data().batch(np.arange(COUNT))[0]).numpy(), atol=1e-6)
    np.testing.assert_allclose(first.texts, read.texts([SAID[i % 2] for i in range(COUNT)]).numpy(), atol=1e-6)
    embed(data(seed=1), Counting(), tmp_path)  # other pictures
    Counting.fingerprint = "another"
    embed(data(seed=1), Counting(), tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"half of a file")
    embed(data(seed=1), Counting(), tmp_path)
    assert asked == [COUNT] * 4


def stored_data(path):
    """The same samples in a file, of another size than the models'."""
    rng, which = np.random.default_rng(0), np.arange(3 * COUNT) % 2
    x = (rng.integers(0, 55, (3 * COUNT, 2 * SIDE, 2 * SIDE, 3)) + 200 * which[:, None, None, None]).astype(np.uint8)
    for i, picture in enumerate(x):
        Image.fromarray(picture).save(path / f"{i:03d}.png")
    lines = [json.dumps({"file_name": f"{i:03d}.png", "text": SAID[i % 2]}) for i in range(3 * COUNT)]
    (path / "metadata.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def from_files(tmp_path_factory):
    """The recipe's folder, of pictures in files, read at a size."""
    files, folder = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("unclip") / "made"
    stored_data(files)
    chosen = small()
    unclip(files, folder, Recipes(chosen.encoder, chosen.prior, chosen.decoder, {"size": SIDE}))
    return folder


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_the_data_of_a_stage_are_found_again_with_their_embeddings(from_files, stage, osmotic, tmp_path):
    """Read at the recipe's size, told what its encoder says of them, for distilling and all else that needs data."""
    run, read = from_files / stage, load_dual(from_files / "encoder")
    training, held = halves(run)
    source = load(run).spec.source.removeprefix("embeddings of ")
    samples = open_data(source, size=SIDE)
    x, texts = samples.batch(held.indices)[0], [samples.texts[i] for i in held.indices.tolist()]
    told = held.told(np.arange(len(held)))["vector"]
    given = read.texts(texts) if stage == "prior" else read.pictures(x)
    torch.testing.assert_close(told, torch.from_numpy(sphere(given.numpy())))
    assert len(training) + len(held) == 3 * COUNT
    if stage == "prior":  # pictures are measured by features that take half a minute to learn
        code, _, err = osmotic("evaluate", run, "--count", 16, "--steps", 1)
        assert code == 0, err
    code, _, err = osmotic("train", source, "--out", run, "--resume")
    assert (code, "go on with `python -m osmotic.recipes.unclip train" in err) == (2, True)
    student = tmp_path / "student"
    code, _, err = osmotic("distill", run, "--method", "consistency", "--out", student, "--steps", 2)
    assert code == 0, err
    assert load(student).sample(2, {"embedding": given[0]}, steps=1).shape[0] == 2
    again = halves(student)[1]  # by the encoder that lies beside its teacher
    torch.testing.assert_close(again.told(np.arange(len(again)))["vector"], told)


def test_data_that_are_not_those_of_a_stage_leave_its_embeddings_alone(from_files, tmp_path):
    before = {path: path.read_bytes() for path in (from_files / "embeddings").iterdir()}
    with pytest.raises(RunError, match="is not what"):
        halves(from_files / "decoder", data())
    assert {path: path.read_bytes() for path in (from_files / "embeddings").iterdir()} == before
    shutil.copytree(from_files / "decoder", tmp_path / "decoder")
    with pytest.raises(RunError, match="has no encoder of them"):
        halves(tmp_path / "decoder")


def test_the_commands_draw_what_they_say(made, tmp_path, capsys):
    pictures = [tmp_path / f"{i}.png" for i in (0, 1)]
    for path, raw in zip(pictures, data().spec.decode(data().batch(np.arange(2))[0].numpy()), strict=True):
        Image.fromarray(raw).save(path)
    few, files = ["--count", "2", "--steps", "2"], [str(path) for path in pictures]
    texts = ["--before", SAID[0], "--after", SAID[1]]
    for words in (
        ["sample", str(made), "--prompt", *SAID, *few, "--out", str(tmp_path / "a.png")],
        ["vary", str(made), *files, *few, "--out", str(tmp_path / "b.png")],
        ["between", str(made), *files, *few, "--out", str(tmp_path / "c.png")],
        ["change", str(made), files[0], *texts, *few, "--out", str(tmp_path / "d.png")],
    ):
        assert main(words) == 0
        assert capsys.readouterr().out.strip().endswith(".png")
    sizes = {name: Image.open(tmp_path / f"{name}.png").size for name in "abcd"}
    assert sizes["b"][0] > sizes["c"][0]  # the picture itself before its variations
    assert sizes["b"][1] > sizes["c"][1]  # a row for each
    assert sizes["a"][1] == sizes["b"][1]


def test_bad_input_is_one_sentence(made, tmp_path, capsys):
    for words, says in (
        (["sample", str(made), "--prompt", "a purple one"], "purple"),
        (["sample", str(made), "--prompt", "a dark one", "--count", "0"], "ask for 1 or more"),
        (["sample", str(tmp_path), "--prompt", "a"], "no finished unCLIP"),
        (["vary", str(made), str(tmp_path / "none.png")], "no such file"),
        (["train", "digits", str(tmp_path / "run")], "no captions"),
        (["train", "shapes", str(tmp_path / "run"), "--clip", str(tmp_path)], "no CLIP"),
    ):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert says in told
        assert told.count("\n") == 1
    assert not (tmp_path / "run" / "encoder").exists()
    flipped = small().decoder.model_copy(update={"flip": True})
    with pytest.raises(ValueError, match="without augmentations"):
        unclip(data(), tmp_path / "run", Recipes(small().encoder, small().prior, flipped))
    with pytest.raises(RunError, match="reads other data"):
        reader(made / "encoder", data().spec.model_copy(update={"shape": (3, 4, 4)}))


def test_an_interruption_is_one_line_with_its_own_code(tmp_path, monkeypatch, capsys):
    def stopped(*words, **more):
        raise Interrupted(signal.SIGINT, 5, tmp_path)

    monkeypatch.setattr(recipe, "unclip", stopped)
    assert main(["train", "shapes", str(tmp_path)]) == 130
    told = capsys.readouterr().err
    assert "stopped after step 5" in told
    assert told.endswith("the same command goes on.\n")
    assert told.count("\n") == 1


def test_runs_told_embeddings_of_another_encoder_do_not_go_on(made, tmp_path):
    """An encoder that was trained further has another space: what learned in the old one is refused, not mixed up."""
    shutil.copytree(made, tmp_path / "copy")
    longer = small().encoder.model_copy(update={"options": Options(steps=3)})
    with pytest.raises(RunError, match="learned from another encoder"):
        unclip(data(), tmp_path / "copy", Recipes(longer, small().prior, small().decoder))


def test_the_encoder_is_an_ordinary_run_of_the_command_line(osmotic, tmp_path):
    rng, which = np.random.default_rng(0), np.arange(COUNT) % 2
    x = (rng.integers(0, 55, (COUNT, SIDE, SIDE, 3)) + 200 * which[:, None, None, None]).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=x, text=np.array([SAID[i] for i in which]))
    words = ["train", tmp_path / "data.npz", "--out", tmp_path / "pairs", "--objective", "contrastive"]
    code, out, err = osmotic(*words, "--steps", 2, "--batch-size", 8, "--widths", 8, 16)
    assert code == 0, err
    assert "each picture among the captions of a step" in out
    assert "path" not in out.split("objective")[0].split("network")[1]  # it has no noise
    assert "held-out pairs" in err
    code, _, err = osmotic("sample", tmp_path / "pairs")
    assert (code, err.count("\n")) == (2, 1)
    assert "draws nothing" in err
    code, _, err = osmotic(*words[:-3], tmp_path / "other", *words[-2:], "--accumulate", 2)
    assert (code, err.count("\n")) == (2, 1)
    assert "without --accumulate" in err


def test_a_decoder_attends_for_that_is_how_it_knows_where_things_are():
    told = WithEmbedding(data(), np.ones((COUNT, 3), np.float32), Embedding(of="picture", width=3, fingerprint="f"))
    architecture = fill(Recipe(), told.spec).architecture
    assert architecture.attention == (1,)
    assert network(architecture, told.spec).embedding.attended
    flat = architecture.model_copy(update={"network": "mlp"})
    assert not network(flat, told.spec).embedding.attended  # which has no attention, and reads the vector
    plain = told.spec.model_copy(update={"embedding": None})
    assert fill(Recipe(), plain).architecture.attention == ()


def test_a_ready_clip_takes_the_place_of_the_encoder(tmp_path):
    """The prior's and the decoder's data are embeddings by the CLIP of a folder, whose weights are asked for again."""
    pytest.importorskip("transformers")
    from osmotic.data.clip import load_clip

    stored_clip(tmp_path / "clip")
    model = unclip(data(), tmp_path / "run", small(), clip=str(tmp_path / "clip"))
    assert model.reader.width == 12
    raw = data().spec.decode(data().batch(np.arange(3))[0].numpy())
    found = model.reader.pictures(data().batch(np.arange(3))[0])
    torch.testing.assert_close(found, load_clip(str(tmp_path / "clip")).pictures(raw))
    assert load_unclip(tmp_path / "run").sample(2, "any words", steps=2).shape == (2, 3, SIDE, SIDE)
    assert not (tmp_path / "run" / "encoder").exists()
    load_clip.cache_clear()
    stored_clip(tmp_path / "clip", seed=1)
    with pytest.raises(RunError, match="another encoder"):
        load_unclip(tmp_path / "run")
    load_clip.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pictures_of_shapes_show_what_their_texts_say(tmp_path):
    """Measured once, before decoders also read an embedding as tokens: 93 % and 96 %."""
    found = judged(tmp_path / "run")
    assert found.both >= 0.8
    assert found.varied >= 0.85
