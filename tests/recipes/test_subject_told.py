"""A subject taught from the command line to models of texts, tables, sequences and pictures of a class."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from osmotic.recipes import prior
from osmotic.recipes.adapt import adapt
from osmotic.recipes.held_out import parts
from osmotic.recipes.subject import teach
from osmotic.recipes.train import train
from osmotic.training.denoise import PLAYER
from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe
from osmotic.training.run import Run

from .conftest import SMALL_NET, TINY

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=2, preview_every=4, evaluate_every=4, ema=(2.0,))
WORDS = [f"a {colour} {form}" for colour in ("red", "blue") for form in ("dot", "bar")]


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """A base trained for four steps on pictures with captions, and pictures of a subject without."""
    root = tmp_path_factory.mktemp("captioned")
    for folder, n in (("base", 60), ("subject", 6)):
        (root / folder).mkdir()
        for i in range(n):
            grey = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(grey).save(root / folder / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "text": WORDS[i % 4]} for i in range(60)]
    (root / "base" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train(str(root / "base"), root / "run", Recipe(options=FEW, architecture=Architecture(widths=(8, 16), blocks=1)))
    return root


@pytest.mark.parametrize(
    ("by", "caption", "kept"),
    [("word", None, None), ("lora", None, "a dot"), ("whole", "a red rex dot", "a red dot")],
)
def test_a_word_of_texts_from_the_command_line(captioned, tmp_path, osmotic, by, caption, kept):
    out = tmp_path / "run"
    words = ["--word", "Rex", "--like", "dot", *([] if caption is None else ["--caption", caption])]
    words += [] if by == "word" else ["--prior", 5]
    command = ["adapt", captioned / "run", captioned / "subject", "--out", out, "--by", by]
    code, said, err = osmotic(*command, *words, *TINY)
    if caption is not None:
        assert code == 2  # four tokens, and no caption of the base had more than three
        assert "shorten it" in err
        code, said, err = osmotic(*command, *words[:4], "--caption", "rex dot", "--prior", 5, *TINY)
        kept = "dot"
    assert code == 0, err
    assert "new word: 'rex', beginning as 'dot'" in said
    assert ("prior: 5 samples of the base, drawn under what the subject is told but the new word" in said) == bool(kept)
    before, model = load(captioned / "run"), load(out)
    assert model.spec.captions.words == (*before.spec.captions.words, "rex")
    if kept:
        drawn_under = load_file(out / prior.FOLDER / "shard-00000.safetensors")
        ids, mask = before.spec.captions.encode([kept] * 5)
        assert torch.equal(drawn_under["told.tokens"], torch.from_numpy(ids))
        assert torch.equal(drawn_under["told.mask"], torch.from_numpy(mask))
    code, _, err = osmotic(*command, "--resume", "--steps", 6)
    assert code == 0, err
    code, _, err = osmotic("sample", out, "--prompt", "a red Rex", "--count", 2, "--steps", 2, "--guidance", 2)
    assert code == 0, err
    assert "word rex, like dot" in osmotic("info", out)[1]
    with pytest.raises(RunError, match="trained on all of its data"):
        parts(out)
    assert (out / "words.safetensors").exists() == (by == "word")
    if by == "word":
        model = load(out)
        again = teach(before, out / "words.safetensors")
        assert torch.equal(again.sample(2, "a rex", steps=2), model.sample(2, "a rex", steps=2))
        assert torch.equal(before.sample(2, "a red dot", steps=2), model.sample(2, "a red dot", steps=2))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--word", "red", "--like", "dot"], "knows 'red' already"),
        (["--word", "rex", "--like", "dog"], "no word 'dog'; did you mean 'dot'"),
        (["--word", "my cat", "--like", "dot"], "one word without spaces and signs, and 'my cat' is 2"),
        (["--word", "rex", "--like", "dot", "--caption", "a red dot"], "none of its samples is called 'rex'"),
        (["--word", "rex", "--like", "dot", "--caption", "a rexx"], "the word 'rexx' stands in none of the captions"),
        (["--by", "whole", "--prior", -1], "--prior is at least 0; got -1"),
    ],
)
def test_words_that_cannot_be_are_one_sentence(captioned, tmp_path, osmotic, words, said):
    by = [] if "--by" in words else ["--by", "word"]
    command = ["adapt", captioned / "run", captioned / "subject", "--out", tmp_path / "out"]
    code, _, err = osmotic(*command, *by, *words, *TINY)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_captions_that_use_the_word_are_taken_and_told_to_the_base_without_it(captioned, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (40 * i, 90, 0)).save(own / f"{i}.png")
    texts = ["a red rex", "a blue rex", "a blue bar", "rex"]
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    (own / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = {"word": "rex", "like": "dot", "prior_samples": 6}
    adapt(captioned / "run", str(own), tmp_path / "run", "whole", options=FEW, **words)
    told = load_file(tmp_path / "run" / prior.FOLDER / "shard-00000.safetensors")["told.tokens"]
    kept = ["a red dot", "a blue dot", "a blue bar", "dot", "a red dot", "a blue dot"]
    assert np.array_equal(told, load(captioned / "run").spec.captions.encode(kept)[0])
    assert load(tmp_path / "run").recipe.adapted.caption is None


def test_a_subject_of_five_pictures_is_a_class_of_the_digits(tmp_path, osmotic):
    base = train("digits", tmp_path / "base", Recipe(options=FEW, architecture=Architecture(widths=(8,), blocks=1)))
    (tmp_path / "rex").mkdir()
    for i in range(5):
        Image.new("L", (8, 8), 40 * i).save(tmp_path / "rex" / f"{i}.png")
    out = tmp_path / "run"
    words = ["--by", "whole", "--word", "rex", "--like", "3", "--prior", 12]
    code, _, err = osmotic("adapt", base.directory, tmp_path / "rex", "--out", out, *words, *TINY)
    assert code == 0, err
    assert json.loads((out / "recipe.json").read_text())["holdout"] == 0
    told = load_file(out / prior.FOLDER / "shard-00000.safetensors")["told.vector"]
    assert told.tolist() == [i % 10 for i in range(12)]
    assert load(out).spec.classes == (*map(str, range(10)), "rex")
    assert osmotic("sample", out, "--class", "rex", "--count", 2, "--steps", 2)[0] == 0


def test_data_with_captions_speak_for_themselves(captioned, tmp_path, osmotic):
    command = ["adapt", captioned / "run", captioned / "base", "--out", tmp_path / "out", "--by", "word"]
    code, _, err = osmotic(*command, "--word", "rex", "--like", "dot", "--caption", "a rex", *TINY)
    assert code == 2
    assert "captions of its own: leave out --caption" in err
    code, _, err = osmotic(*command, "--word", "rex", "--like", "dot", *TINY)
    assert code == 2
    assert "none of its samples is called 'rex'" in err


def test_a_new_class_of_a_table_comes_back_in_its_column(tmp_path, osmotic):
    base, mine, out = tmp_path / "base.csv", tmp_path / "mine.csv", tmp_path / "run"
    base.write_text("\n".join(["area,kind,weight", *(f"{i / 2},{'ab'[i % 2]},{i * 0.1}" for i in range(60))]))
    mine.write_text("\n".join(["area,weight", *(f"{i / 2},{i * 0.1}" for i in range(12))]))
    assert osmotic("train", base, "--out", tmp_path / "model", "--label", "kind", *TINY)[0] == 0
    words = ["adapt", tmp_path / "model", mine, "--out", out, "--by", "word", "--word", "c", "--like", "b"]
    code, _, err = osmotic(*words, *TINY)
    assert code == 0, err
    code, _, err = osmotic("sample", out, "--class", "c", "a", "--count", 4, "--steps", 2)
    assert code == 0, err
    rows = list(csv.DictReader((out / "samples" / "seed-0" / "samples.csv").open()))
    assert [row["kind"] for row in rows] == ["c", "a", "c", "a"]


@pytest.mark.parametrize("by", ["word", "lora"])
def test_a_new_class_of_sequences(tmp_path, osmotic, by):
    t = np.linspace(0, 6, 16)
    x = np.stack([np.sin(t * (1 + i % 2) + i) for i in range(60)]).astype(np.float32)
    np.savez(tmp_path / "base.npz", x=x[:, None], y=np.arange(60) % 2)
    np.save(tmp_path / "mine.npy", x[:20, None] * 0.5)
    small = [*TINY, *SMALL_NET]
    code, _, err = osmotic("train", tmp_path / "base.npz", "--out", tmp_path / "base", "--kind", "sequences", *small)
    assert code == 0, err
    words = ["adapt", tmp_path / "base", tmp_path / "mine.npy", "--kind", "sequences", "--out", tmp_path / "run"]
    code, said, err = osmotic(*words, "--by", by, "--word", "soft", "--like", "1", *TINY)
    assert code == 0, err
    assert ("prior: 200 samples of the base, drawn under its classes in turn" in said) == (by == "lora")
    code, _, err = osmotic("sample", tmp_path / "run", "--class", "soft", "--count", 2, "--steps", 2)
    assert code == 0, err
    code, _, err = osmotic("evaluate", tmp_path / "run", "--count", 2, "--steps", 2)
    assert "Too few samples were held out" in err or code == 0  # it found the data again under the new name
    assert f"{PLAYER}.network" in next(iter(load_file(Run.open(tmp_path / "run").folders()[0] / "model.safetensors")))


@pytest.mark.parametrize(("word", "said"), [("01", "has the class 1 already"), ("--3", "are whole numbers"), ("7", "")])
def test_new_classes_of_whole_numbers(tmp_path, word, said):
    from osmotic.data.dataset import open_data
    from osmotic.data.errors import DataError
    from osmotic.data.words import taught

    rows = "\n".join(f"{i / 7},{i * 3},{i % 3}" for i in range(30))
    (tmp_path / "t.csv").write_text("a,b,kind\n" + rows)
    spec = open_data(str(tmp_path / "t.csv"), label="kind").spec
    if said:
        with pytest.raises(DataError, match=said):
            taught(spec, word)
        return
    new = taught(spec, word)
    assert new.classes == ("0", "1", "2", "7")
    assert new.encoding.label.column.categories == (0, 1, 2, 7)
