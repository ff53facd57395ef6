"""``osmotic edit``: gaps of pictures, tables and sequences filled by the same call, restoring, redrawing, changing."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from osmotic.data.given import ROUNDING
from osmotic.guidance.operators import Blur, Downsample
from osmotic.inverse import draw
from osmotic.noise import generator
from osmotic.oracles import Gaussian
from osmotic.recipes.edit import Way, between, fill, redraw, restore, swap
from osmotic.recipes.train import train
from osmotic.schedules import VE
from osmotic.training.model import load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

FEW = Options(steps=4, batch_size=8, warmup=1, checkpoint_every=4, preview_every=4, evaluate_every=4, ema=(2.0,))
SMALL = Architecture(widths=(8, 16), blocks=1, attention=())
FAST = ["--steps", 4, "--particles", 2, "--each", 2]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A model of digits of a few steps: what it draws does not matter here."""
    return train("digits", tmp_path_factory.mktemp("runs") / "digits", Recipe(options=FEW, architecture=SMALL))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two real digits as files, one small one, and a mask of the lower half."""
    root = tmp_path_factory.mktemp("pictures")
    images = (load_digits().images * 255 / 16).round().astype(np.uint8)
    for i in range(2):
        Image.fromarray(images[i]).save(root / f"{i}.png")
    Image.fromarray(images[0].reshape(4, 2, 4, 2).mean((1, 3)).round().astype(np.uint8)).save(root / "small.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save(root / "mask.png")
    Image.fromarray(mask * 0).save(root / "dark.png")
    (root / "no-picture.png").write_text("text")
    (root / "rows.csv").write_text("a,b\n1,2\n")
    np.save(root / "rows.npy", np.zeros((2, 8, 8)))
    return root


def results(folder):
    with np.load(next(folder.glob("*.npz"))) as archive:
        return archive["arr_0" if "arr_0" in archive.files else "x"]


def test_a_hole_is_filled_and_the_rest_is_kept_to_the_bit(digits, pictures, tmp_path, osmotic):
    words = [pictures / "0.png", pictures / "1.png", "--mask", pictures / "mask.png", "--out", tmp_path / "out", *FAST]
    code, said, err = osmotic("edit", digits.directory, *words)
    assert code == 0, err
    found = results(tmp_path / "out")[..., 0]
    before = [np.asarray(Image.open(pictures / f"{i}.png")) for i in range(2)]
    assert found.shape == (4, 8, 8)
    for i in range(4):
        assert np.array_equal(found[i, :4], before[i // 2][:4])
        assert not np.array_equal(found[i, 4:], before[i // 2][4:])
    assert "grid.png" in said


@pytest.mark.parametrize(
    "words",
    [
        ["--blurred", 1.0, "--noise", 0.05, *FAST],
        ["--strength", 0.4, "--steps", 4],
        ["--strength", 1, "--class", "3", "--guidance", 2, "--steps", 4],
        ["--from", "0", "--class", "8", "--each", 1],
    ],
    ids=str,
)
def test_pictures_are_restored_and_changed(digits, pictures, tmp_path, words, osmotic):
    code, _, err = osmotic("edit", digits.directory, pictures / "0.png", *words, "--out", tmp_path / "out")
    assert code == 0, err
    found = results(tmp_path / "out")
    assert found.shape[1:] == (8, 8, 1)
    assert (tmp_path / "out" / "grid.png").is_file()


def test_small_pictures_become_large_and_two_are_joined(digits, pictures, tmp_path, osmotic):
    run = digits.directory
    code, _, err = osmotic("edit", run, pictures / "small.png", "--downsampled", 2, *FAST, "--out", tmp_path / "a")
    assert code == 0, err
    assert results(tmp_path / "a").shape == (2, 8, 8, 1)
    words = [pictures / "0.png", pictures / "1.png", "--between", 3, "--out", tmp_path / "b"]
    code, _, err = osmotic("edit", run, *words)
    assert code == 0, err
    found = results(tmp_path / "b")[..., 0].astype(int)
    for i, place in ((0, 0), (1, 2)):  # the ends come back
        assert np.abs(found[place] - np.asarray(Image.open(pictures / f"{i}.png")).astype(int)).max() <= 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0.png"], "Everything of the input is known"),
        (["0.png", "--mask", "small.png"], "the mask is 4 x 4, and the pictures are 8 x 8"),
        (["small.png", "--strength", 0.5], "the picture is 4 x 4, and this model takes 8 x 8"),
        (["nowhere.png", "--strength", 0.5], "nowhere.png"),
        (["0.png", "--strength", 0.5, "--grey"], "--grey and --strength are two different edits"),
        (["0.png", "--grey"], "without colours"),
        (["0.png", "--strength", 2], "--strength"),
        (["0.png", "--strength", 0.5, "--noise", 0.1], "--noise is of a measured picture"),
        (["0.png", "--between", 3], "give two, not 1"),
        (["0.png", "--strength", 0.5, "--class", "12"], "There is no class '12'"),
        ([], "Nothing to edit"),
        (["0.png", "--strength", 0], "--strength should be greater than 0"),
        (["0.png", "--strength", 0.5, "--particles", 4], "--particles are for gaps and measurements"),
        (
            ["0.png", "--from", "0", "--class", "8", "--steps", 4],
            "--from follows the flow in as many steps as it needs",
        ),
        (["0.png", "--from", "0"], "say with --class or --prompt what it should become"),
        (["0.png", "--class", "3", "--set", "a", "1", "a", "2"], "--set a is given twice"),
        (["0.png", "--set", "a", "1", "--set", "b", "2"], "--set is given 2 times"),
        (["0.png", "--mask", "dark.png"], "the mask is dark everywhere: paint white what is to be drawn anew"),
        (["0.png", "--mask", "small.png"], "and the pictures are 8 x 8: make it 8 x 8"),
        (["small.png", "--strength", 0.5], "bring it to that size, or say --downsampled 2"),
        (["0.png", "--downsampled", 3], "are not 3 times a smaller one's size: take 2 or 4 or 8"),
        (["no-picture.png", "--strength", 0.5], "not a picture, whatever its name says: give a picture (.png"),
        (["rows.csv", "--strength", 0.5], "this model draws pictures: give a .png, .jpg, .jpeg, ..."),
        (["rows.npy", "--strength", 0.5], "this model draws pictures"),
    ],
)
def test_what_cannot_be_edited_is_one_sentence(digits, pictures, tmp_path, words, said, osmotic):
    words = [pictures / w if str(w).endswith((".png", ".csv", ".npy")) else w for w in words]
    code, _, err = osmotic("edit", digits.directory, *words, "--out", tmp_path / "out")
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_empty_cells_of_a_table_are_filled_and_the_others_kept(tmp_path, osmotic):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["area", "kind", "mark", "weight"])
        writer.writerows([i / 2, "ab"[i % 2], "xyz"[i % 3], i * 0.1] for i in range(60))
    code, _, err = osmotic("train", path, "--out", tmp_path / "run", "--label", "kind", "--steps", 4, "--batch-size", 8)
    assert code == 0, err
    rows = ["area,kind,mark,weight", "3.5,a,,1.25", ",,z,2.5", "100,b,x,"]
    (tmp_path / "gaps.csv").write_text("\n".join(rows))
    code, _, err = osmotic("edit", tmp_path / "run", tmp_path / "gaps.csv", *FAST, "--out", tmp_path / "out")
    assert code == 0, err
    found = list(csv.DictReader((tmp_path / "out" / "edited.csv").open()))
    assert list(found[0]) == ["area", "kind", "mark", "weight"]
    assert [row["kind"] for row in found] == ["a", "a", "", "", "b", "b"]
    assert {row["weight"] for row in found[:2]} == {"1.25"}
    assert {row["area"] for row in found[4:]} == {"100"}  # also beyond what was seen
    assert all(row[name] for row in found for name in ("area", "mark", "weight"))
    (tmp_path / "gaps.csv").write_text("area,kind\n1,a")
    code, _, err = osmotic("edit", tmp_path / "run", tmp_path / "gaps.csv", "--out", tmp_path / "no")
    assert code == 2
    assert "has no column mark, weight" in err


def test_a_sequence_goes_on(tmp_path, osmotic):
    """Sines of one frequency and any phase: half of one says how it goes on, and a small network learns that."""
    rng = np.random.default_rng(0)
    time = np.arange(16)
    x = np.sin(0.6 * time + rng.uniform(0, 2 * np.pi, (2000, 1)))[:, None].astype(np.float32)
    options = Options(steps=900, batch_size=128, learning_rate=2e-3, ema=(40.0,))
    recipe = Recipe(
        options=options,
        architecture=Architecture(network="mlp", widths=(128,) * 3),
        reading={"kind": "sequences"},
    )
    train(x, tmp_path / "run", recipe)
    whole = np.sin(0.6 * time + np.array([[0.3], [2.0], [4.4]]))[:, None]
    past = whole.copy()
    past[:, :, 8:] = np.nan
    np.save(tmp_path / "past.npy", past)
    words = ["--each", 4, "--steps", 30, "--out", tmp_path / "out"]
    code, _, err = osmotic("edit", tmp_path / "run", tmp_path / "past.npy", *words)
    assert code == 0, err
    found = results(tmp_path / "out").reshape(3, 4, 1, 16)
    assert np.allclose(found[:, :, :, :8], past[:, None, :, :8], atol=1e-6)
    error = np.sqrt(np.square(found - whole[:, None])[..., 8:].mean())
    assert error < 0.25, f"{error:.2f} of 0.71"


def test_results_do_not_depend_on_the_batch_and_identities_hold(digits):
    model = load(digits.directory)
    x = torch.rand(2, 1, 8, 8) * 2 - 1
    gap = x.clone()
    gap[:, :, 4:] = float("nan")
    way = Way(each=2, steps=4, particles=2)
    for made in (
        lambda way: fill(model, gap, way),
        lambda way: redraw(model, x, 0.5, way),
        lambda way: restore(model, x[..., ::2, ::2], Downsample(2), 0.0, way),
    ):
        together, apart = made(way), made(Way(each=2, steps=4, particles=2, batch_size=1))
        assert torch.allclose(together, apart, atol=1e-4)
        assert not torch.equal(together[0], together[1])
    kept = restore(model, Downsample(2)(x), Downsample(2), 0.0, way)
    assert torch.allclose(Downsample(2)(kept), Downsample(2)(x).repeat_interleave(2, 0), atol=1e-5)
    # Told the same on both ways, a sample comes back; both ends of a path between two come back.
    assert torch.allclose(swap(model, x, 3, Way(cond=3)), x, atol=1e-2)
    path = between(model, x[0], x[1], 3, Way(cond=3))
    assert torch.allclose(path[[0, 2]], x, atol=1e-2)
    near = (redraw(model, x, 0.02, Way(steps=10)) - x).square().mean()
    far = (redraw(model, x, 0.6, Way(steps=10)) - x).square().mean()
    assert near < 0.02 < far


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A model of a table of dates, whole numbers in tens, texts that look like numbers, and a class of floats."""
    root = tmp_path_factory.mktemp("rows")
    lines = [f"2020-01-{1 + i % 28:02d},{10 * (i % 6)},{['01', '02', 'x'][i % 3]},{i % 3}.0" for i in range(60)]
    (root / "rows.csv").write_text("\n".join(["day,tens,mark,kind", *lines]))
    recipe = Recipe(options=FEW, architecture=Architecture(widths=(16,)), reading={"label": "kind"})
    train(str(root / "rows.csv"), root / "run", recipe)
    return root


def test_cells_come_back_as_they_stood_whatever_their_type(rows, tmp_path, osmotic):
    (tmp_path / "gaps.csv").write_text("day,tens,mark,kind\n2020-01-05,15,,1.0\n,20,01,2.0\n2020-01-09,,02,\n")
    code, _, err = osmotic("edit", rows / "run", tmp_path / "gaps.csv", *FAST, "--out", tmp_path / "out")
    assert code == 0, err
    found = list(csv.DictReader((tmp_path / "out" / "edited.csv").open()))
    assert [row["day"] for row in found[:2]] == ["2020-01-05"] * 2
    assert [row["tens"] for row in found[:4]] == ["15", "15", "20", "20"]
    assert [row["mark"] for row in found[2:]] == ["01", "01", "02", "02"]
    assert all(row[name] for row in found for name in ("day", "tens", "mark"))


def test_drawing_over_rows_changes_them_and_gaps_are_filled_first(rows, tmp_path, osmotic):
    (tmp_path / "whole.csv").write_text("day,tens,mark,kind\n2020-01-05,10,01,1.0\n2020-01-06,20,02,2.0\n")
    words = [rows / "run", tmp_path / "whole.csv", "--strength", 0.95, "--steps", 4, "--each", 2]
    code, _, err = osmotic("edit", *words, "--out", tmp_path / "out")
    assert code == 0, err
    found = list(csv.DictReader((tmp_path / "out" / "edited.csv").open()))
    assert len(found) == 4
    assert any(row["day"] not in ("2020-01-05", "2020-01-06") for row in found)
    (tmp_path / "gaps.csv").write_text("day,tens,mark,kind\n2020-01-05,,01,1.0\n")
    code, _, err = osmotic("edit", rows / "run", tmp_path / "gaps.csv", "--strength", 0.5, "--out", tmp_path / "no")
    assert code == 2
    assert "fill them first" in err


def test_pictures_go_from_one_to_another_under_a_class(digits, pictures, tmp_path, osmotic):
    words = [pictures / "0.png", pictures / "1.png", "--between", 3, "--class", "1", "--out", tmp_path / "out"]
    code, _, err = osmotic("edit", digits.directory, *words)
    assert code == 0, err
    assert len(results(tmp_path / "out")) == 3


def test_a_file_is_rounded_to_8_bits_and_that_is_its_noise(digits, pictures, tmp_path, osmotic):
    found = []
    for noise in ([], ["--noise", 1 / 255 / 3**0.5], ["--noise", 0]):
        out = tmp_path / str(len(found))
        words = [pictures / "0.png", "--blurred", 1, "--seed", 3, *FAST, *noise]
        code, _, err = osmotic("edit", digits.directory, *words, "--out", out)
        assert code == 0, err
        found.append(results(out))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_blurred_digits_of_8_bits_come_out_clean_with_that_noise_alone():
    """The exact denoiser of a Gaussian of the digits' moments: its draws should miss the truth by the closed form."""
    images = torch.from_numpy(load_digits().images).flatten(1) / 8 - 1
    mean, covariance = images.mean(0), torch.cov(images.T) + 1e-4 * torch.eye(64, dtype=torch.float64)
    oracle = Gaussian(VE(), mean.reshape(1, 8, 8), covariance)
    x, blur = oracle.sample(64, generator(1)), Blur.gaussian(1.0)
    y = ((blur(x) + 1) * 127.5).round() / 127.5 - 1
    matrix = blur(torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)).flatten(1).T
    seen = matrix @ covariance @ matrix.T + ROUNDING**2 * torch.eye(64)
    left = covariance - covariance @ matrix.T @ torch.linalg.solve(seen, matrix @ covariance)
    expected = (2 * left.trace() / 64).sqrt()  # the truth and a draw are two samples of one posterior
    error = {
        noise: (restored - x).square().mean().sqrt()
        for noise in (0.0, ROUNDING)
        for restored in [draw(oracle, blur, y, noise, steps=30, particles=2, generator=generator(0))]
    }
    assert error[ROUNDING] == pytest.approx(float(expected), rel=0.1)
    assert error[0.0] > 3 * error[ROUNDING]
