"""What is known of samples besides themselves: captions and attributes from every kind of source."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osmotic.data.attributes import fit, parse
from osmotic.data.captions import BYTES, LONGEST, Captions, fit_captions
from osmotic.data.dataset import Under, open_data, split
from osmotic.data.errors import DataError
from osmotic.data.table import to_table

CAPTIONS = ["a red circle", "A RED square", "a blue circle", "a blue square"]


def test_words_that_captions_repeat_have_ids_and_case_does_not_count():
    captions = fit_captions(CAPTIONS)
    assert set(captions.words) == {"a", "red", "blue", "circle", "square"}
    assert not captions.spelled
    assert captions.length == 3
    ids, mask = captions.encode(["a Red circle", "blue"])
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    assert ids[0].tolist() == [BYTES + captions.words.index(word) for word in ("a", "red", "circle")]
    assert captions.vocabulary == BYTES + 5
    assert Captions.model_validate_json(captions.model_dump_json()) == captions


def test_a_word_of_a_closed_set_is_refused_with_the_nearest_one():
    with pytest.raises(DataError, match=r"'rde' stands in none.*did you mean 'red'"):
        fit_captions(CAPTIONS).tokens("a rde circle")


def test_rare_words_are_spelled_and_then_every_word_can_be():
    captions = fit_captions([*CAPTIONS, "a café"])
    assert captions.spelled
    assert captions.tokens("café") == [*"café".encode(), 32]
    assert captions.tokens("dog") == [*b"dog", 32]
    assert max(captions.tokens("日本 a")) < captions.vocabulary


def test_texts_do_not_collide():
    """Two different texts of words, spelled or not, never have the same ids."""
    captions = fit_captions([*CAPTIONS, "once", "ab", "a b"])
    texts = ["a b", "ab", "b a", "red a", "reda", "a,b", "a ,b", ""]
    tokens = [tuple(captions.tokens(text)) for text in texts]
    assert tokens[5] == tokens[6]  # blanks around a sign mean nothing
    assert len(set(tokens)) == len(texts) - 1


def test_long_captions_are_cut_and_long_prompts_refused():
    captions = fit_captions([" ".join(["word"] * 300), "word"])
    assert captions.length == LONGEST
    ids, mask = captions.encode([" ".join(["word"] * 300)])
    assert ids.shape == (1, LONGEST)
    assert mask.all()
    with pytest.raises(DataError, match="shorten it"):
        captions.prompt(" ".join(["word"] * 300))


def test_attributes_of_numbers_and_categories():
    size, raw = fit("size", [1.0, 2.0, None, 4.0], "here")
    assert size.categories is None
    assert np.isnan(size.encode(raw)[2])
    assert np.all(np.diff(size.encode(raw)[[0, 1, 3]]) > 0)
    form, codes = fit("form", ["square", None, "circle", "circle"], "here")
    assert form.categories == 2
    assert form.encode(codes)[[0, 2, 3]].tolist() == [1, 0, 0]
    assert np.isnan(form.encode(codes)[1])
    found = parse((size, form), {"form": "square"})
    assert np.isnan(found[0])
    assert found[1] == 1
    assert parse((size, form), {"size": "2.5", "form": None})[0] == 2.5


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"size": 5}, "never 5 in the data, but 1 to 4"),
        ({"size": "big"}, "size is a number, and 'big' is none"),
        ({"form": "sqare"}, "did you mean 'square'"),
        ({"colour": 1}, "there is no attribute 'colour'"),
    ],
)
def test_attributes_that_cannot_be_are_refused(said, words):
    size, _ = fit("size", [1.0, 4.0], "here")
    form, _ = fit("form", ["square", "circle"], "here")
    with pytest.raises(DataError, match=words):
        parse((size, form), said)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([None, None], "no values at all"),
        ([1.0, np.inf], "infinite"),
        ([1, "a"], "holds int, str"),
        ([[1]], "holds list"),
    ],
)
def test_values_that_are_no_attribute_are_refused(values, words):
    with pytest.raises(DataError, match=words):
        fit("size", values, "here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures with captions and two more fields."""
    rows = []
    for i in range(8):
        name = f"{i}.png"
        Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(tmp_path / name)
        rows.append({"file_name": name, "text": CAPTIONS[i % 4], "size": i / 2, "form": "ab"[i % 2]})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_a_folder_of_pictures_tells_texts_and_what_is_asked_for(folder):
    plain = open_data(folder)
    assert plain.spec.parts == ("text",)
    assert any("also says form, size" in fact for fact in plain.spec.facts)
    data = open_data(folder, condition=("form", "size"))
    assert data.spec.parts == ("form", "size", "text")
    told = data.told(np.array([5, 0]))
    assert told["vector"].shape == (2, 2)
    assert told["vector"][:, 0].tolist() == [1, 0]
    assert told["tokens"].shape == told["mask"].shape == (2, 3)
    training, held = split(data, 0.25, 0)
    some = held.told(np.array([0]))
    assert torch.equal(some["tokens"], data.told(held.indices[:1])["tokens"])
    assert len(training.texts) == 6


def test_fields_that_metadata_lack_are_named(folder, tmp_path):
    with pytest.raises(DataError, match="no row has 'sise'; did you mean 'size'"):
        open_data(folder, condition=("sise",))
    for name, why in (("text", "is the caption"), ("label", "is the class"), ("file_name", "names a picture")):
        with pytest.raises(DataError, match=f"'{name}' {why}.*: leave it out"):
            open_data(folder, condition=(name,))
    (folder / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match=r"no metadata\.jsonl"):
        open_data(folder, condition=("size",))


def test_an_array_with_a_mapping_and_an_npz_tell_the_same(tmp_path):
    x, sizes = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) / 2
    texts, labels = np.array(CAPTIONS + CAPTIONS[:2]), np.arange(6) % 2
    memory = open_data((x, {"text": texts, "size": sizes, "label": labels}))
    np.savez(tmp_path / "data.npz", x=x, y=labels, text=texts, size=sizes, other=sizes)
    stored = open_data(tmp_path / "data.npz", condition=("size",))
    assert memory.spec.parts == stored.spec.parts == ("class", "size", "text")
    for name, values in memory.told(np.arange(6)).items():
        assert torch.equal(values, stored.told(np.arange(6))[name])
    assert memory.told(np.arange(6))["vector"][:, 0].tolist() == labels.tolist()
    with pytest.raises(DataError, match="holds no 'weight'"):
        open_data(tmp_path / "data.npz", condition=("weight",))
    with pytest.raises(DataError, match="one value each"):
        open_data((x, {"size": sizes[:3]}))
    with pytest.raises(DataError, match="cannot be called 'image'"):
        open_data((x, {"image": sizes}))


def test_a_table_gives_its_told_columns_back_where_they_stood(tmp_path):
    path = tmp_path / "table.csv"
    rows = [f"{i / 2},{'ab'[i % 2]},{i * i},{'xyz'[i % 3]}" for i in range(12)]
    path.write_text("\n".join(["size,kind,area,mark", *rows]))
    data = open_data(path, condition=("area", "size"), label="kind")
    assert data.spec.parts == ("class", "size", "area")
    assert [column.name for column in data.spec.encoding.columns] == ["mark"]
    x, labels = data.batch(np.arange(12))
    table = to_table(x.numpy(), data.spec, labels.numpy(), data.attributes)
    assert table.column_names == ["size", "kind", "area", "mark"]
    assert table.column("area").to_pylist() == [i * i for i in range(12)]
    assert table.column("size").to_pylist() == [i / 2 for i in range(12)]
    without = to_table(x.numpy(), data.spec, labels.numpy())
    assert without.column_names == ["kind", "mark"]
    with pytest.raises(DataError, match="is the label and also a condition"):
        open_data(path, condition=("kind",), label="kind")
    with pytest.raises(DataError, match="told and also dropped"):
        open_data(path, condition=("area",), drop=("area",))


def test_words_have_the_same_ids_in_every_process():
    """Sets have another order in every process; ranks and later commands must read captions alike."""
    program = (
        "from osmotic.data.captions import fit_captions;"
        "print(fit_captions(['a red fox', 'a red fox', 'the blue owl', 'the blue owl']).words)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert "fox" in said.pop()


def test_composed_and_decomposed_letters_are_one_and_any_text_can_be_spelled():
    captions = fit_captions(["caf\u00e9", "caf\u00e9", "rare"])
    assert captions.tokens("cafe\u0301") == captions.tokens("caf\u00e9")
    assert captions.tokens("\ud800")


def test_another_table_is_read_in_the_model_s_columns(tmp_path):
    (tmp_path / "a.csv").write_text("n,kind,extra\n" + "\n".join(f"{10 * i},{'abc'[i % 3]},{i}" for i in range(12)))
    (tmp_path / "b.csv").write_text("n,kind,extra\n" + "\n".join(f"{20 + 5 * i},{'cb'[i % 2]},{i}" for i in range(8)))
    base = open_data(tmp_path / "a.csv", condition=("extra",)).spec
    under = Under(open_data(tmp_path / "b.csv", condition=("extra",)), base)
    raw = base.decode(under.batch(np.arange(8))[0].numpy())
    numeric, kinds = base.encoding.columns
    numbers = numeric.origin + numeric.unit * raw[:, 0]
    assert np.abs(numbers - (20 + 5 * np.arange(8))).max() <= numeric.unit / 2  # a model of tens has no fives
    assert [kinds.categories[int(code)] for code in raw[:, 1]] == ["cb"[i % 2] for i in range(8)]
    assert under.attributes[:, 0].tolist() == list(range(8))
    (tmp_path / "c.csv").write_text("n,kind,extra\n1,z,2\n2,a,3")
    with pytest.raises(DataError, match="never saw z"):
        Under(open_data(tmp_path / "c.csv", condition=("extra",)), base)
    (tmp_path / "d.csv").write_text("m,kind,extra\n1,a,2\n2,a,3")
    with pytest.raises(DataError, match="its columns are m, kind"):
        Under(open_data(tmp_path / "d.csv", condition=("extra",)), base)
    with pytest.raises(DataError, match="is told no kind"):
        Under(open_data(tmp_path / "b.csv", condition=("kind",)), open_data(tmp_path / "a.csv", drop=("kind",)).spec)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"title": [f"title {i}" for i in range(1500)]}, "too many for categories"),
        ({"size": [float("nan")] * 1500}, "no values at all"),
    ],
)
def test_attributes_that_say_nothing_or_too_much_are_refused(known, words):
    with pytest.raises(DataError, match=words):
        open_data((np.zeros((1500, 2)), known))


def test_conditions_that_nobody_gave_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    with pytest.raises(DataError, match="nothing called size"):
        open_data(tmp_path / "x.npy", condition=("size",))
    (tmp_path / "t.csv").write_text("class,b\n1,2\n2,3\n3,4")
    with pytest.raises(DataError, match="cannot be called 'class'"):
        open_data(tmp_path / "t.csv", condition=("class",))
