"""Small real data in the user's own formats, and the command line in this process."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_wine

from osmotic.cli.main import main


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of real digits, 3 classes, 16 x 12 pixels, RGB."""
    root = tmp_path_factory.mktemp("pictures")
    bunch = load_digits(n_class=3)
    for i in range(60):
        folder = root / ["zero", "one", "two"][bunch.target[i]]
        folder.mkdir(exist_ok=True)
        grey = np.kron((bunch.images[i] * 15.9).astype(np.uint8), np.ones((2, 2), np.uint8))[:, 2:14]
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], -1)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def wine(tmp_path_factory):
    """Real wines as CSV: two measurements, a rounded one, a category and the cultivar."""
    path = tmp_path_factory.mktemp("tables") / "wine.csv"
    bunch = load_wine()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["alcohol", "ash", "magnesium", "strong", "cultivar"])
        for row, kind in zip(bunch.data, bunch.target, strict=True):
            strong = "yes" if row[0] > 13 else "no"
            writer.writerow([row[0], row[2], int(row[4]), strong, bunch.target_names[kind]])
    return path


@pytest.fixture
def osmotic(capsys):
    """Runs ``osmotic WORDS``; gives (exit code, stdout, stderr)."""

    def run(*words):
        capsys.readouterr()
        try:
            code = main([str(w) for w in words])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


TINY = ["--steps", 4, "--batch-size", 8, "--evaluate-every", 4, "--preview-every", 4, "--checkpoint-every", 4]
SMALL_NET = ["--widths", 8, 16, "--blocks", 1, "--attention", 1]


@pytest.fixture(scope="session")
def picture_run(pictures, tmp_path_factory):
    """A run trained for four steps on the pictures."""
    run = tmp_path_factory.mktemp("runs") / "pictures"
    assert main([str(w) for w in ["train", pictures, "--out", run, *TINY, *SMALL_NET]]) == 0
    return run


def lend(monkeypatch, room, oracle) -> None:
    """Every model that a recipe's module loads denoises with an exact denoiser instead of its network."""
    load = room.load

    def loaded(*words):
        model = load(*words)
        oracle.anchor = torch.nn.Parameter(torch.zeros(1))  # a model knows its device by its parameters
        model.denoiser = oracle
        return model

    monkeypatch.setattr(room, "load", loaded)
