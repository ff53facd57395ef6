"""What the page asks of a model: the same samples as the library's, nothing beyond the caps."""

import base64
import dataclasses
import io
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from osmotic.cli.flags import parse
from osmotic.cli.main import main
from osmotic.cli.sample import Sample
from osmotic.data.dataset import open_data
from osmotic.recipes.held_out import parts
from osmotic.training.errors import RunError
from osmotic.training.model import load
from osmotic.web import html
from osmotic.web.nearest import Training
from osmotic.web.session import COUNT, POINTS, SEEDS, STEPS, VARIANTS, Draw, Session

from .conftest import NET, train


@pytest.fixture(scope="module")
def session(run):
    return Session(load(run), run)


DRAW = Draw(count=6, seed=7, label=None, guidance=1.0, sampler="ddim", steps=4)
DRAWS = [
    DRAW,
    dataclasses.replace(DRAW, label=2, guidance=2.5, sampler="dpmpp-2m", steps=7),
    dataclasses.replace(DRAW, sampler="ddpm", seed=2**53 - 1),
    dataclasses.replace(DRAW, guidance=0.0, sampler="heun", count=1),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_samples_are_those_of_the_library_bit_for_bit(session, draw):
    labels = [i % 3 for i in range(draw.count)] if draw.label is None else draw.label
    expected = session.model.sample(draw.count, labels, draw.guidance, draw.sampler, draw.steps, draw.seed)
    assert torch.equal(session.samples(draw), expected)


@pytest.mark.parametrize("draw", DRAWS)
def test_the_python_that_is_shown_gives_the_same_bits(session, draw):
    names = {}
    exec(session.python(draw), names)
    assert torch.equal(names["x"], session.samples(draw))
    assert np.array_equal(names["samples"], session.model.decode(session.samples(draw)))


@pytest.mark.parametrize("draw", DRAWS)
def test_the_command_that_is_shown_writes_the_same_pictures(session, draw, tmp_path):
    words = shlex.split(session.command(draw))
    assert words[:2] == ["osmotic", "sample"]
    assert main([*words[1:], "--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("*.npz")
    assert np.array_equal(np.load(path)["arr_0"], session.model.decode(session.samples(draw)))


def test_a_class_that_looks_like_a_flag_or_a_number_is_named_so_that_the_command_finds_it(session):
    spec = session.model.spec.model_copy(update={"classes": ("-x", "0", "a b")})
    other = Session(load(session.run), session.run)
    other.model.spec = spec
    for label, name in enumerate(spec.classes):
        words = shlex.split(other.command(dataclasses.replace(DRAW, label=label)))
        assert parse(Sample, "sample", words[2:]).wanted.classes == (name,)


def test_frames_go_from_unit_noise_to_the_samples(session):
    frames = list(session.watch(DRAW))
    assert [f.step for f in frames] == list(range(DRAW.steps + 1))
    assert {f.last for f in frames} == {DRAW.steps}
    # 6 x 64 numbers of variance 1: the mean square is 1 within four of its deviations, sqrt(2 / 384) each.
    assert float(frames[0].x.square().mean()) == pytest.approx(1, abs=4 * (2 / 384) ** 0.5)
    assert torch.equal(frames[-1].x, session.samples(DRAW))


def test_samples_are_remembered_and_forgotten(session):
    fresh = Session(session.model, session.run)
    first = fresh.samples(DRAW)
    assert fresh.samples(DRAW) is first
    for seed in range(20):
        fresh.samples(dataclasses.replace(DRAW, seed=100 + seed, count=1, steps=1))
    again = fresh.samples(DRAW)
    assert again is not first
    assert torch.equal(again, first)


WRONG = [
    ("count", 0, "The number of samples must be a whole number from 1 to 64; got 0"),
    ("count", COUNT + 1, "The number of samples"),
    ("count", 2.5, "The number of samples"),
    ("count", True, "The number of samples"),
    ("count", "9" * 10**5, "The number of samples"),
    ("steps", 0, "The number of steps"),
    ("steps", STEPS + 1, "The number of steps"),
    ("steps", None, "The number of steps"),
    ("seed", -1, "The seed"),
    ("seed", SEEDS, "The seed"),
    ("label", 3, "The class number must be a whole number from 0 to 2; got 3"),
    ("label", "zero", "The class number"),
    ("guidance", float("nan"), r"The guidance scale must lie in \[0, 20\]; got nan"),
    ("guidance", 1e9, "The guidance scale"),
    ("guidance", "3", "The guidance scale"),
    ("sampler", "../../etc/passwd", "There is no solver"),
    ("sampler", "jump", "There is no solver"),
    ("sampler", ["ddim"], "There is no solver"),
]


@pytest.mark.parametrize(("name", "value", "text"), WRONG)
def test_what_is_outside_the_caps_is_refused_in_one_sentence(session, name, value, text):
    with pytest.raises(ValueError, match=text) as caught:
        next(session.watch(dataclasses.replace(DRAW, **{name: value})))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("index", [-1, 6, 1.0, None, "0", [0]])
def test_samples_that_are_not_there_are_refused(session, index):
    with pytest.raises(ValueError, match=r"There is no sample .*; they are numbered 0 to 5\."):
        session.sample(DRAW, index)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "flow-2pc", "rk4"])
def test_repainting_changes_what_is_painted_and_nothing_else(session, sampler):
    draw = dataclasses.replace(DRAW, sampler=sampler, steps=6)
    painted = "".join("1" if 16 <= i < 40 else "0" for i in range(64))  # rows 2 to 4
    out, known = session.repaint(draw, 1, painted), session.samples(draw)[1]
    assert out.shape == (VARIANTS, *known.shape)
    same = (out == known)[:, 0]
    assert bool(same[:, [0, 1, 5, 6, 7]].all())
    assert not bool(same[:, 2:5].any())
    assert not torch.equal(out[0], out[1])
    assert torch.equal(session.repaint(draw, 1, painted), out)


@pytest.mark.parametrize("painted", [None, "", "1", "1" * 63, "1" * 65, "2" * 64, "1" * 63 + "\n", 5, ["1"] * 64])
def test_masks_that_do_not_fit_are_refused(session, painted):
    with pytest.raises(ValueError, match="The mask must hold 64 characters 0 or 1"):
        session.repaint(DRAW, 0, painted)


def test_an_empty_mask_is_refused(session):
    with pytest.raises(ValueError, match="Nothing is painted"):
        session.repaint(DRAW, 0, "0" * 64)


def test_neighbours_are_scikit_learns(session, run):
    training = Training(run)
    data, held_out = parts(run)
    x = session.samples(DRAW)
    reals, _ = data.batch(np.arange(len(data)))
    flat = reals.flatten(1).double().numpy()
    truth = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(flat)
    distance, index = truth.kneighbors(x.flatten(1).double().numpy())
    for i in range(len(x)):
        found = training.nearest(x[i])
        assert [n.distance for n in found] == pytest.approx(distance[i], rel=1e-9)
        assert [n.name for n in found] == [data.name(int(j)) for j in index[i]]
        assert all(torch.equal(n.x, reals[j]) for n, j in zip(found, index[i], strict=True))
        assert [n.label for n in found] == [int(data.labels[j]) for j in index[i]]
    some, _ = held_out.batch(np.arange(len(held_out)))
    nearest, _ = truth.kneighbors(some.flatten(1).double().numpy(), 1)
    # torch's median is the lower of the two in the middle.
    assert training.usual == pytest.approx(np.sort(nearest[:, 0])[(len(nearest) - 1) // 2], rel=1e-9)


def test_a_training_sample_is_its_own_neighbour_and_large_data_are_read_in_blocks(run, monkeypatch):
    monkeypatch.setattr("osmotic.web.nearest.KEPT", 0)
    monkeypatch.setattr("osmotic.web.nearest.BLOCK", 7)
    x, _ = parts(run)[0].batch(np.array([11]))
    training = Training(run)
    assert training.nearest(x[0], 1)[0].distance == 0
    assert training._whole is None
    monkeypatch.undo()
    assert [n[:3] for n in Training(run).nearest(x[0])] == [n[:3] for n in training.nearest(x[0])]


def test_data_that_are_gone_are_a_sentence(tmp_path):
    rows = tmp_path / "rows.npy"
    np.save(rows, np.random.default_rng(0).normal(size=(40, 3)))
    train(rows, "--out", tmp_path / "run", "--widths", 8)
    rows.unlink()
    with pytest.raises(RunError, match=r"was trained on .*rows\.npy, which is not there"):
        Training(tmp_path / "run").nearest(torch.zeros(3))
    other = Session(load(tmp_path / "run"), tmp_path / "run")
    with pytest.raises(ValueError, match="Only pictures can be repainted"):
        other.repaint(other.usual(), 0, "1")
    with pytest.raises(ValueError, match="trained without classes"):
        other.check(dataclasses.replace(other.usual(), label=0))
    assert other.usual().count == other.most == POINTS
    expected = other.model.sample(POINTS, sampler="ddim", steps=3, seed=1)
    assert torch.equal(other.samples(Draw(POINTS, 1, None, 1.0, "ddim", 3)), expected)


def test_large_pictures_lower_the_cap(session, monkeypatch):
    monkeypatch.setattr("osmotic.web.session.NUMBERS", 640)
    assert Session(session.model, session.run).most == 10
    monkeypatch.setattr("osmotic.web.session.NUMBERS", 10)
    assert Session(session.model, session.run).most == 1


def test_names_from_the_data_cannot_become_markup():
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    text = html.gallery(pictures, ["<script>alert('x')</script>\"><img src=x onerror=alert(1)>"])
    assert "<script" not in text
    assert text.count("<img ") == 1
    assert "onerror=alert(1)&gt;" in text
    assert "<b>" not in html.note("<b>no</b>")


def test_pictures_in_the_page_are_the_pictures():
    for channels in (1, 3):
        picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
        data = base64.b64decode(html.source(picture).partition(",")[2])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(picture.shape), picture)


def test_sequences_become_one_plot_a_sample():
    waves = np.sin(np.linspace(0, 6, 32) + np.arange(8)[:, None, None]).astype(np.float32)
    spec = open_data(waves, kind="sequences").spec
    one, eight = (
        Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", html.plot(waves[:n], spec))[1])))
        for n in (1, 8)
    )
    assert eight.width == 4 * one.width
    assert eight.height == 2 * one.height


def test_the_session_needs_no_gradio(run):
    code = (
        "import sys\nfrom pathlib import Path\nfrom osmotic.training.model import load\n"
        f"from osmotic.web.session import Session\nSession(load({str(run)!r}), Path('x')).usual()\n"
        "print('gradio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


def test_embedded_data_are_found_again(tmp_path):
    train("moons", "--out", tmp_path / "run", "--widths", 8)
    training = Training(tmp_path / "run")
    assert len(training.data[0]) + len(training.data[1]) == len(open_data("moons"))
    assert training.some(10).shape == (10, 2)


def test_neighbours_are_shown_where_nothing_was_held_out(tmp_path):
    """There is only nothing to compare their distance with."""
    train("digits", "--out", tmp_path / "run", "--network", "mlp", "--widths", 8, "--holdout", 0)
    training = Training(tmp_path / "run")
    assert len(training.data[0]) == 1797
    assert training.usual is None
    pytest.importorskip("gradio", reason="gradio is not installed")
    from osmotic.web.page import Page

    page = Page(Session(load(tmp_path / "run"), tmp_path / "run"), training)
    assert page.judged(3, 1.5).endswith("nothing was held out to compare with.")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """The session of a model of captioned pictures of two classes."""
    root = tmp_path_factory.mktemp("captioned")
    rows = []
    for i in range(40):
        picture = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(picture).save(root / f"{i}.png")
        text = ("a red dot", "a blue bar")[i % 2]
        rows.append({"file_name": f"{i}.png", "text": text, "label": ("one", "two")[i // 2 % 2]})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train(root, "--out", root.parent / "captioned-run", *NET)
    return Session(load(root.parent / "captioned-run"), root.parent / "captioned-run")


@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize("text", ["", "a red dot", "blue"])
def test_texts_are_told(captioned, text, label, tmp_path):
    draw = dataclasses.replace(DRAW, text=text, label=label, guidance=2.0)
    classes = [("one", "two")[i % 2 if label is None else label] for i in range(draw.count)]
    cond = ({"text": text} if text else {}) | ({} if text and label is None else {"class": classes})
    expected = captioned.model.sample(draw.count, cond, 2.0, draw.sampler, draw.steps, draw.seed)
    assert torch.equal(captioned.samples(draw), expected)
    names = {}
    exec(captioned.python(draw), names)
    assert torch.equal(names["x"], expected)
    assert main([*shlex.split(captioned.command(draw))[1:], "--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("*.npz")
    assert np.array_equal(np.load(path)["arr_0"], captioned.model.decode(expected))
    assert captioned.repaint(draw, 0, "1" * 32 + "0" * 32).shape == (VARIANTS, 3, 8, 8)


def test_texts_that_cannot_be_told_are_refused_in_one_sentence(captioned, session):
    for at, text, said in (
        (session, "a red dot", "trained without texts; leave the text out"),
        (captioned, "green", "the word 'green' stands in none of the captions"),
        (captioned, "x" * 1001, "at most 1,000 letters"),
        (captioned, ["a"], "at most 1,000 letters"),
    ):
        with pytest.raises(ValueError, match=said):
            at.check(dataclasses.replace(DRAW, text=text))


def test_latents_are_shown_and_repainted_as_data(tmp_path):
    """By a rotation; without one there is no exact way to keep what is not painted, and that is said."""
    for codec in ("haar", "whitening"):
        train("digits", "--out", tmp_path / codec, "--codec", codec, *(NET if codec == "haar" else ()))
        session = Session(load(tmp_path / codec), tmp_path / codec)
        draw = dataclasses.replace(DRAW, count=2)
        frames = list(session.watch(draw))
        assert all(frame.x.shape == (2, 1, 8, 8) for frame in frames)
        assert torch.equal(frames[-1].x, session.model.sample(2, [0, 1], sampler="ddim", steps=4, seed=7))
        painted = "0" * 32 + "1" * 32
        if codec == "whitening":
            with pytest.raises(ValueError, match="no rotation"):
                session.repaint(draw, 0, painted)
            continue
        made = session.repaint(draw, 0, painted)
        assert torch.equal(made[:, :, :4], frames[-1].x[:1, :, :4].expand_as(made[:, :, :4]))
