"""Models that are told several things: texts, numbers, categories, in any mix, from training to samples."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from osmotic.recipes.distill import distill
from osmotic.recipes.train import train
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Distillation, Process, Recipe

from .conftest import SMALL_NET, TINY

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=2, preview_every=4, evaluate_every=4, ema=(2.0,))
WORDS = [f"a {colour} {form}" for colour in ("red", "blue") for form in ("dot", "bar")]


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Pictures with captions, a size and a form."""
    root = tmp_path_factory.mktemp("captioned")
    rows = []
    for i in range(120):
        grey = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(grey).save(root / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": WORDS[i % 4], "size": i / 8, "form": WORDS[i % 4].split()[2]})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def run(captioned, tmp_path_factory):
    """A run of four steps on them."""
    recipe = Recipe(options=FEW, architecture=Architecture(widths=(8, 16), blocks=1), reading={"condition": ["size"]})
    return train(str(captioned), tmp_path_factory.mktemp("runs") / "run", recipe)


def test_pictures_with_captions_from_the_command_line(captioned, tmp_path, osmotic):
    out = tmp_path / "run"
    code, said, err = osmotic("train", captioned, "--out", out, "--condition", "size", "form", *TINY, *SMALL_NET)
    assert code == 0, err
    assert "captions of up to 3 tokens, 5 words" in said
    code, _, err = osmotic("train", captioned, "--out", out, "--resume", "--steps", 6)
    assert code == 0, err  # the data are read as they were
    words = ["--prompt", "a red dot", "--set", "size", 3.5, "form", "dot", "--guidance", 2, "--negative", "a blue bar"]
    code, said, err = osmotic("sample", out, *words, "--count", 4, "--steps", 2)
    assert code == 0, err
    first = [np.asarray(Image.open(path)) for path in sorted((out / "samples/seed-0/pictures").rglob("*.png"))]
    assert len(first) == 4
    code, _, err = osmotic("evaluate", out, "--count", 40, "--steps", 2)
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "a rde dot"], "did you mean 'red'"),
        (["--set", "size", "99"], "never 99 in the data"),
        (["--set", "sise", "1"], "told no 'sise'; it was told size"),
        (["--class", "1"], "trained without classes"),
        (["--prompt", "a red dot", "--negative", "a blue dot"], "above 1"),
        (["--guidance", "2"], "towards a text; name one"),
    ],
)
def test_what_it_was_never_told_is_refused_in_one_sentence(run, words, said, osmotic):
    code, _, err = osmotic("sample", run.directory, "--count", 2, "--steps", 1, *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_what_is_not_said_is_hidden_and_samples_do_not_depend_on_the_batch(run):
    model = load(run.directory)
    some = {"text": ["a red dot", None, "a blue bar"], "size": [1.0, 2.0, None]}
    shown = model.condition(some, 3, 0, 3)
    assert shown.keep.tolist() == [[True, True], [True, False], [False, True]]
    x = model.sample(3, some, 2.0, steps=2)
    one = model.sample(3, some, 2.0, steps=2, batch_size=1)
    assert torch.allclose(x, one, atol=1e-4)
    assert torch.equal(model.sample(2, "a red dot", steps=2), model.sample(2, {"text": "a red dot"}, steps=2))
    assert model.sample(0, {"text": "a red dot", "size": 1.0}, steps=2).shape == (0, *model.spec.shape)
    nothing = model.sample(2, {"text": None}, steps=2)
    assert torch.equal(nothing, model.sample(2, steps=2))
    same = model.sample(2, "a red dot", 3.0, negative="a red dot", steps=2)
    assert torch.allclose(same, model.sample(2, "a red dot", steps=2), atol=1e-4)


@pytest.mark.parametrize("method", ["consistency", "knowledge", "guided"])
def test_students_are_told_what_their_teacher_is(run, method, tmp_path):
    numbers = {"knowledge": Distillation(pairs=64), "guided": Distillation(jumps=2)}.get(method)
    made = distill(run.directory, tmp_path / method, method, options=FEW, numbers=numbers)
    student = load(made.directory)
    x = student.sample(2, {"text": "a red dot", "size": 2.0})
    assert x.isfinite().all()
    assert student.spec.parts == ("size", "text")


def test_parts_have_their_own_dropout(captioned, tmp_path, osmotic):
    small = [*TINY, *SMALL_NET]
    words = ["train", captioned, "--out", tmp_path / "run", "--part-dropout", "text", 0.5, *small]
    assert osmotic(*words)[0] == 0
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["process"]["part_dropout"] == {"text": 0.5}
    code, _, err = osmotic("train", captioned, "--out", tmp_path / "b", "--part-dropout", "colour", 0.5, *small)
    assert code == 2
    assert "these data tell no such thing, but text" in err
    assert not (tmp_path / "b").exists()


def test_optimal_transport_is_refused_where_the_noise_would_not_be_normal(captioned, tmp_path, osmotic):
    code, _, err = osmotic("train", captioned, "--out", tmp_path / "run", "--coupling", "optimal", *TINY)
    assert code == 2
    assert "leave it out" in err


def test_a_table_comes_back_with_what_it_was_told(tmp_path, osmotic):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["area", "kind", "weight"])
        writer.writerows([i / 2, "ab"[i % 2], i * 0.1] for i in range(60))
    code, _, err = osmotic("train", path, "--out", tmp_path / "run", "--condition", "area", "--label", "kind", *TINY)
    assert code == 0, err
    words = ["--class", "b", "--set", "area", 12.5, "--count", 5, "--steps", 2, "--out", tmp_path / "samples"]
    code, _, err = osmotic("sample", tmp_path / "run", *words)
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "samples" / "samples.csv").open()))
    assert [(row["area"], row["kind"]) for row in rows] == [("12.5", "b")] * 5
    assert list(rows[0]) == ["area", "kind", "weight"]


@pytest.mark.slow
def test_a_model_told_two_things_knows_each_alone(tmp_path):
    """``x = a + 2 b + 0.1 z``, a uniform in [-1, 1], b in {0, 1}: what is not said varies, what is said does not."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, 4000), rng.integers(0, 2, 4000)
    x = (a + 2 * b + 0.1 * rng.normal(size=4000))[:, None]
    data = (x.astype(np.float32), {"a": a, "b": np.where(b == 1, "high", "low")})
    options = Options(steps=1500, batch_size=256, learning_rate=2e-3, ema=(50.0,))
    recipe = Recipe(
        options=options, architecture=Architecture(widths=(64,) * 3), process=Process(condition_dropout=0.2)
    )
    model = load(train(data, tmp_path / "run", recipe).directory)

    def drawn(**said):
        return model.decode(model.sample(2000, said or None, steps=12))[:, 0]

    # Means of 2,000 samples are good to sd / 45; the network itself to about 0.05.
    assert drawn(a=0.5, b="high").mean() == pytest.approx(2.5, abs=0.1)
    assert drawn(a=0.5, b="high").std() == pytest.approx(0.1, abs=0.08)
    assert drawn(b="low").mean() == pytest.approx(0.0, abs=0.12)
    assert drawn(b="low").std() == pytest.approx((1 / 3 + 0.01) ** 0.5, abs=0.08)
    assert drawn(a=-0.5).mean() == pytest.approx(0.5, abs=0.15)
    assert drawn(a=-0.5).std() == pytest.approx(1.0, abs=0.1)
    assert drawn().std() == pytest.approx((1 / 3 + 1.01) ** 0.5, abs=0.1)


def test_what_was_never_hidden_cannot_be_left_out(captioned, tmp_path):
    recipe = Recipe(
        options=FEW,
        architecture=Architecture(widths=(8, 16), blocks=1),
        process=Process(condition_dropout=0.0),
        reading={"condition": ["size"]},
    )
    model = load(train(str(captioned), tmp_path / "run", recipe).directory)
    assert model.sample(1, {"text": "a red dot", "size": 2.0}, steps=1).isfinite().all()
    with pytest.raises(ValueError, match="never trained without its size"):
        model.sample(1, {"text": "a red dot"}, steps=1)


def test_tables_are_drawn_with_some_of_what_they_are_told(tmp_path, osmotic):
    path = tmp_path / "rows.csv"
    rows = [f"{i / 2},{'ab'[i % 2]},{'xyz'[i % 3]},{i * 0.1}" for i in range(60)]
    path.write_text("\n".join(["area,kind,mark,weight", *rows]))
    run = tmp_path / "run"
    words = ["--condition", "area", "mark", "--label", "kind", *TINY]
    assert osmotic("train", path, "--out", run, *words)[0] == 0
    code, _, err = osmotic("sample", run, "--set", "area", 3.5, "--count", 4, "--steps", 2)
    assert code == 0, err
    found = list(csv.DictReader((run / "samples" / "seed-0" / "samples.csv").open()))
    assert [row["kind"] for row in found] == ["a", "b", "a", "b"]  # classes in turn, as the help says
    assert {row["area"] for row in found} == {"3.5"}
    assert {row["mark"] for row in found} == {""}
    assert "told: area" in osmotic("info", run)[1]


def test_the_recipe_of_captioned_pictures(captioned, tmp_path):
    from osmotic.recipes.emoji import ROWS, SIDE, Stages, main
    from osmotic.recipes.prompted import SHOWN

    small = Recipe(options=FEW, architecture=Architecture(widths=(8,), blocks=1), reading={"size": SIDE})
    coder = small.model_copy(update={"process": Process(objective="autoencoder")})
    wide = small.model_copy(update={"architecture": Architecture(widths=(8, 16), blocks=1)})
    for prompts, rows in (((), ROWS), (["a red dot", "a blue bar"], 2)):  # the second finds both trained
        path = main(str(captioned), tmp_path / "out", prompts, Stages(coder, wide), tell=lambda _: None)
        width, height = Image.open(path).size
        assert height / width == pytest.approx(rows / SHOWN, rel=0.35)  # beside it the prompts are written
    (captioned.parent / "bare").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(captioned.parent / "bare" / "0.png")
    with pytest.raises(ValueError, match=r"has no captions; give metadata\.jsonl a field text"):
        main(str(captioned.parent / "bare"), str(tmp_path / "bare-run"))
