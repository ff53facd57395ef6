"""``osmotic edit`` on tables and arrays: what is told and not drawn, what was never seen, and files that do not fit."""

import csv

import numpy as np
import pytest
from PIL import Image

from osmotic.recipes.train import train
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))
TINY = Recipe(options=FEW, architecture=Architecture(widths=(16,)))
FAST = ["--steps", 4, "--particles", 2, "--each", 2]
HEAD = "area,price,day,kind"


@pytest.fixture(scope="module")
def flats(tmp_path_factory):
    """A model of areas that is told prices, days and kinds."""
    root = tmp_path_factory.mktemp("flats")
    lines = [f"{20 + i / 2},{500 + 10 * i},2020-01-{1 + i % 28:02d},{'ab'[i % 2]}" for i in range(60)]
    (root / "rows.csv").write_text("\n".join([HEAD, *lines]))
    reading = {"label": "kind", "condition": ["price", "day"]}
    train(str(root / "rows.csv"), root / "run", TINY.model_copy(update={"reading": reading}))
    return root / "run"


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """A model of sequences of one channel and length 16."""
    x = np.random.default_rng(0).normal(size=(60, 1, 16)).astype(np.float32)
    recipe = TINY.model_copy(update={"reading": {"kind": "sequences"}})
    recipe = recipe.model_copy(update={"architecture": Architecture(network="mlp", widths=(16,))})
    return train(x, tmp_path_factory.mktemp("waves") / "run", recipe).directory


def edited(osmotic, run, path, tmp_path, *words):
    code, _, err = osmotic("edit", run, path, *FAST, *words, "--out", tmp_path / "out")
    assert code == 0, err
    return list(csv.DictReader((tmp_path / "out" / "edited.csv").open())), err


def rows(tmp_path, *lines):
    (tmp_path / "gaps.csv").write_text("\n".join([HEAD, *lines]))
    return tmp_path / "gaps.csv"


def test_what_is_said_fills_the_gaps_of_told_columns_and_is_written(flats, tmp_path, osmotic):
    path = rows(tmp_path, ",700,2020-01-05,a", ",,,", ",700,2020-01-06,b")
    words = ["--set", "price", 700, "day", "2020-01-07", "--class", "b"]
    code, _, err = osmotic("edit", flats, path, *FAST, *words, "--out", tmp_path / "no")
    assert code == 2
    assert "Row 0 says itself that its" in err
    path = rows(tmp_path, ",700,,b", ",,,", ",700,2020-01-07,b")
    found, err = edited(osmotic, flats, path, tmp_path, *words)
    assert [row["price"] for row in found] == ["700"] * 6
    assert [row["day"] for row in found] == ["2020-01-07"] * 6
    assert [row["kind"] for row in found] == ["b"] * 6
    assert "told" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "price", 700], "Row 1 says itself that its price is 1000, and --set price says 700"),
        (["--set", "day", "2020-01-09"], "that its day is 2020-01-05, and --set day says 2020-01-09"),
        (["--class", "b"], "that its class is a, and --class says b"),
    ],
)
def test_a_cell_and_a_person_may_not_contradict_each_other(flats, tmp_path, words, said, osmotic):
    path = rows(tmp_path, ",,,", ",1000,2020-01-05,a")
    code, _, err = osmotic("edit", flats, path, *words, "--out", tmp_path / "out")
    assert code == 2
    assert said in err
    # A change of the whole row is another matter: then what is asked for is what it becomes.
    path = rows(tmp_path, "30,1000,2020-01-05,a")
    code, _, err = osmotic("edit", flats, path, "--strength", 0.5, *words, "--out", tmp_path / "out")
    assert code == 0, err


def test_gaps_of_told_columns_stay_and_it_is_said(flats, tmp_path, osmotic):
    found, err = edited(osmotic, flats, rows(tmp_path, ",,,a"), tmp_path)
    assert [(row["price"], row["day"], row["kind"]) for row in found] == [("", "", "a")] * 2
    assert "price, day are told, not drawn; gaps stay" in err
    code, _, err = osmotic("edit", flats, rows(tmp_path, "30,,2020-01-05,a"), "--out", tmp_path / "no")
    assert code == 2
    assert "The gaps are in price, which this model is told and does not draw" in err


def test_cells_beyond_the_data_stay_and_it_is_said(flats, tmp_path, osmotic):
    found, err = edited(osmotic, flats, rows(tmp_path, ",99999,2031-01-05,a", ",600,2020-01-05,"), tmp_path)
    assert [row["price"] for row in found] == ["99999"] * 2 + ["600"] * 2
    assert found[0]["day"] == "2031-01-05"
    assert "price was never 99999 in the data but 500 to 1090 (row 0); it stays, read as the nearest" in err
    assert "day was never 2031-01-05 in the data (row 0)" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ([",abc,2020-01-05,a"], "line 2 has 'abc', where the model's column holds int64"),
        ([",600,2020-01-05,a", "30,600,2020-01-05,q"], "row 1: kind is never 'q'"),
        ([",600,2020-01-05,a", "inf,600,2020-01-05,a"], "column 'area' is infinite in row 1: put a number there"),
        ([], "holds no rows: give a line of column names, and rows below it"),
        ([""], "but no rows: give at least one"),
    ],
)
def test_cells_that_are_none_are_named_with_their_row(flats, tmp_path, text, said, osmotic):
    code, _, err = osmotic("edit", flats, rows(tmp_path, *text), "--out", tmp_path / "out")
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["picture.png", "array.npy"])
def test_a_model_of_tables_takes_tables(flats, tmp_path, name, osmotic):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "picture.png")
    np.save(tmp_path / "array.npy", np.zeros((2, 4)))
    code, _, err = osmotic("edit", flats, tmp_path / name, "--out", tmp_path / "out")
    assert code == 2
    assert "this model takes tables: give a .csv or .parquet" in err
    code, _, err = osmotic("edit", flats, tmp_path / name, "--grey", "--out", tmp_path / "out")
    assert code == 2
    assert "table" in err


@pytest.mark.parametrize(
    ("shape", "value", "said"),
    [
        ((3, 1, 12), 0, "does not fit samples of shape (1, 16): append NaN to length 16"),
        ((3, 20), 0, "cut it to length 16"),
        ((3, 2, 16), 0, "give (samples, 1, 16)"),
        ((3, 16), np.inf, "infinite in row 0, 1, 2: put a number there, or NaN for a gap"),
    ],
)
def test_an_array_that_does_not_fit_says_what_would(waves, tmp_path, shape, value, said, osmotic):
    x = np.full(shape, value, np.float64)
    x[..., -1] = np.nan
    np.save(tmp_path / "x.npy", x)
    code, _, err = osmotic("edit", waves, tmp_path / "x.npy", "--out", tmp_path / "out")
    assert code == 2
    assert said in err


@pytest.mark.parametrize("shape", [(16,), (1, 16), (1, 1, 16)])
def test_one_sequence_may_come_alone(waves, tmp_path, shape, osmotic):
    x = np.linspace(-1, 1, 16)
    x[10:] = np.nan
    np.save(tmp_path / "x.npy", x.reshape(shape))
    code, _, err = osmotic("edit", waves, tmp_path / "x.npy", *FAST, "--out", tmp_path / "out")
    assert code == 0, err
    with np.load(tmp_path / "out" / "edited.npz") as archive:
        assert archive["x"].shape == (2, 1, 16)
        assert np.allclose(archive["x"][:, 0, :10], x[:10])
