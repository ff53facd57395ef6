"""A small run to serve, and its page on a free port."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from osmotic.cli.main import main

NET = ["--widths", 8, 16, "--blocks", 1, "--attention", 1]
TINY = ["--steps", 4, "--batch-size", 8, "--evaluate-every", 4, "--preview-every", 4, "--checkpoint-every", 4]


def train(*words) -> None:
    assert main([str(w) for w in ["train", *words, *TINY]]) == 0


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run trained for four steps on real digits of three classes, one with a name that must be escaped."""
    root = tmp_path_factory.mktemp("pictures")
    bunch = load_digits(n_class=3)
    for i in range(60):
        folder = root / ["zero", "one", "<b>two & 'more'"][bunch.target[i]]
        folder.mkdir(exist_ok=True)
        Image.fromarray((bunch.images[i] * 15.9).astype(np.uint8)).save(folder / f"{i}.png")
    train(root, "--out", root.parent / "digits-run", *NET)
    return root.parent / "digits-run"


@pytest.fixture(scope="session")
def served(run):
    """The page of the run, in a thread."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from osmotic.web.serve import Server

    with Server(run, port=0) as server:
        yield server
