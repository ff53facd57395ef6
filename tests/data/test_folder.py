"""Folders of pictures: classes, captions, sizes, colours, bad files up to a share, hostile metadata, links."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from osmotic.data import folder
from osmotic.data.dataset import open_data
from osmotic.data.errors import DataError, NoSuchData

RNG = np.random.default_rng(0)


def picture(path, size=(8, 8), grey=False, value=None):
    """Writes a random (or constant) picture and returns its pixels (H, W, C)."""
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    values = RNG.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values if not grey else values[..., None]


def metadata(root, *rows):
    (root / "metadata.jsonl").write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def test_flat_folder_round_trip(tmp_path):
    names = [f"{i:02d}.png" for i in (3, 1, 2, 0)]
    raw = {name: picture(tmp_path / name) for name in names}
    data = open_data(tmp_path)
    assert len(data) == 4
    assert data.spec.shape == (3, 8, 8)
    assert data.spec.classes is None
    assert [data.name(i) for i in range(4)] == sorted(names)
    x, labels = data.batch(np.array([2, 0]))
    assert labels is None
    np.testing.assert_array_equal(data.spec.decode(x.numpy()), np.stack([raw["02.png"], raw["00.png"]]))


def test_subfolders_are_classes_sorted_by_name(tmp_path):
    for name in ("dog/b.png", "cat/z.png", "cat/deep/a.png", "ant/q.png"):
        picture(tmp_path / name)
    data = open_data(tmp_path)
    assert data.spec.classes == ("ant", "cat", "dog")
    found = {data.name(i): int(data.batch(np.array([i]))[1]) for i in range(4)}
    assert found == {"ant/q.png": 0, "cat/deep/a.png": 1, "cat/z.png": 1, "dog/b.png": 2}


@pytest.mark.parametrize("names", [("a.png", "sub/b.png", "sub2/c.png"), ("one/a.png", "one/b.png")])
def test_subfolders_that_are_no_classes_are_stated(tmp_path, names):
    for name in names:
        picture(tmp_path / name)
    data = open_data(tmp_path)
    assert data.spec.classes is None
    assert any("not read as classes" in fact for fact in data.spec.facts)


def test_grey_only_when_all_are(tmp_path):
    grey = [picture(tmp_path / f"{i}.png", grey=True) for i in range(3)]
    data = open_data(tmp_path)
    assert data.spec.shape == (1, 8, 8)
    np.testing.assert_array_equal(data.spec.decode(data.batch(np.arange(3))[0].numpy()), np.stack(grey))
    colour = picture(tmp_path / "z.png")
    mixed = open_data(tmp_path)
    assert mixed.spec.shape == (3, 8, 8)
    assert any(fact.startswith("3 of 4 pictures are grey") for fact in mixed.spec.facts)
    back = mixed.spec.decode(mixed.batch(np.arange(4))[0].numpy())
    np.testing.assert_array_equal(back[3], colour)
    np.testing.assert_array_equal(back[0], np.repeat(grey[0], 3, -1))


def test_mixed_sizes_are_named_and_size_settles_them(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png", (8, 8))
    picture(tmp_path / "wide.png", (12, 6))
    with pytest.raises(DataError, match=r"2 sizes \(3 of 8 x 8, 1 of 12 x 6\): pass --size N.*smallest side is 6"):
        open_data(tmp_path)
    data = open_data(tmp_path, size=6)
    assert data.spec.shape == (3, 6, 6)
    assert any("4 pictures resized to 6 x 6" in fact for fact in data.spec.facts)
    picture(tmp_path / "tall.png", (4, 6))
    with pytest.raises(DataError, match="3 sizes"):
        open_data(tmp_path)


def test_non_square_pictures_of_one_size(tmp_path):
    raw = picture(tmp_path / "a.png", (5, 9))
    data = open_data(tmp_path)
    assert data.spec.shape == (3, 9, 5)
    np.testing.assert_array_equal(data.spec.decode(data.batch(np.array([0]))[0].numpy())[0], raw)


def spoil(path):
    path.write_bytes(path.read_bytes()[:60])


def test_bad_files_are_named_counted_and_skipped(tmp_path):
    raw = [picture(tmp_path / f"{i:03d}.png") for i in range(100)]
    spoil(tmp_path / "041.png")
    data = open_data(tmp_path)
    assert len(data) == 99
    assert any("1 bad file skipped (041.png: " in fact for fact in data.spec.facts)
    assert data.name(41) == "042.png"
    np.testing.assert_array_equal(data.spec.decode(data.batch(np.array([41]))[0].numpy())[0], raw[42])


def test_beyond_the_share_it_stops_with_the_list(tmp_path):
    for i in range(100):
        picture(tmp_path / f"{i:03d}.png")
    spoil(tmp_path / "041.png")
    (tmp_path / "077.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 100 pictures cannot be read, and 1 may be") as info:
        open_data(tmp_path)
    assert "077.png: empty file" in str(info.value)
    assert "041.png: " in str(info.value)
    assert len(open_data(tmp_path, max_bad=0.02)) == 98
    with pytest.raises(DataError, match="and 0 may be"):
        open_data(tmp_path, max_bad=0)


def test_one_bad_file_of_few_may_be_skipped_but_not_all(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no")
    assert len(open_data(tmp_path)) == 1
    (tmp_path / "a.png").write_bytes(b"no")
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match="1 of 1 picture cannot be read"):
        open_data(tmp_path)


def test_a_bad_file_takes_its_label_with_it(tmp_path):
    for i in range(4):
        picture(tmp_path / "cat" / f"{i}.png")
        picture(tmp_path / "dog" / f"{i}.png")
    spoil(tmp_path / "cat" / "2.png")
    data = open_data(tmp_path)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.name(2) == "cat/3.png"


def test_large_folders_are_decoded_on_demand_with_the_same_result(tmp_path, monkeypatch):
    for i in range(6):
        picture(tmp_path / "ab"[i % 2] / f"{i}.png", (9, 7))
    spoil(tmp_path / "a" / "2.png")
    kept = open_data(tmp_path, size=5)
    monkeypatch.setattr(folder, "IN_MEMORY", 100)
    lazy = open_data(tmp_path, size=5)
    assert isinstance(lazy.source, folder.OnDemand)
    indices = np.array([4, 0, 0, 3])
    assert torch.equal(lazy.batch(indices)[0], kept.batch(indices)[0])
    assert torch.equal(lazy.batch(indices)[1], kept.batch(indices)[1])
    assert [lazy.name(i) for i in range(5)] == [kept.name(i) for i in range(5)]
    assert "decoded again for every batch" in lazy.spec.facts[-1]
    spoil(tmp_path / "b" / "1.png")
    with pytest.raises(DataError, match=r"b/1.png: .*it was readable when the data was opened"):
        lazy.batch(np.arange(5))


def test_metadata_gives_captions_and_labels(tmp_path):
    for name in ("x/b.png", "a.png", "unlisted.png"):
        picture(tmp_path / name)
    metadata(
        tmp_path,
        {"file_name": "x/b.png", "text": "a bee", "label": "insect"},
        "",
        {"file_name": "./a.png", "text": "ün ape", "label": "ape"},
    )
    data = open_data(tmp_path)
    assert [data.name(i) for i in range(2)] == ["a.png", "x/b.png"]
    assert list(data.texts) == ["ün ape", "a bee"]
    assert data.spec.classes == ("ape", "insect")
    assert data.labels.tolist() == [0, 1]
    assert "1 picture without a row in metadata.jsonl left out" in data.spec.facts
    metadata(tmp_path, {"file_name": "a.png", "label": 3})
    assert open_data(tmp_path).spec.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../out.png",
        "x/../../out.png",
        "C:\\x.png",
        "C:x.png",
        "..\\out.png",
        "\\\\host\\x.png",
        "\\x.png",
    ],
)
def test_metadata_cannot_lead_outside(tmp_path, name):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "out.png")
    metadata(tmp_path / "in", {"file_name": "a.png"}, {"file_name": name})
    with pytest.raises(DataError, match=r"line 2: .* leads outside the folder"):
        open_data(tmp_path / "in")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["{broken"], "line 1: not a JSON object"),
        (["[" * 100_000], "line 1: not a JSON object"),
        (["[1]"], "line 1: not a JSON object"),
        ([{"text": "a"}], 'has no "file_name"'),
        ([{"file_name": 3}], 'has no "file_name"'),
        ([{"file_name": "a.png"}, {"file_name": "a.png"}], "line 2: 'a.png' stands there twice"),
        ([{"file_name": "gone.png"}], r"1 file named there cannot be used \(gone.png\)"),
        ([{"file_name": "a.png", "label": 1}, {"file_name": "b.png"}], r"1 row without .* as 'label' \(b.png\)"),
        ([{"file_name": "a.png", "label": 1}, {"file_name": "b.png", "label": "x"}], "some labels are texts"),
        ([{"file_name": "a.png", "label": True}], "without a text or a whole number as 'label'"),
        ([{"file_name": "a.png", "text": ["x"]}], "without a text as 'text'"),
        ([{"file_name": "a.png", "label": -1}], "negative"),
        ([""], "names no pictures"),
    ],
)
def test_bad_metadata(tmp_path, rows, says):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    metadata(tmp_path, *rows)
    with pytest.raises(DataError, match=says):
        open_data(tmp_path)


def test_metadata_must_be_utf8(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a.png", "text": "\xff"}')
    with pytest.raises(DataError, match="UTF-8"):
        open_data(tmp_path)


def test_links_leading_outside_are_not_followed(tmp_path):
    root = tmp_path / "in"
    picture(root / "a.png", value=1)
    picture(tmp_path / "secret" / "s.png", value=2)
    (root / "file.png").symlink_to(tmp_path / "secret" / "s.png")
    (root / "dir").symlink_to(tmp_path / "secret", target_is_directory=True)
    (root / "same.png").symlink_to(root / "a.png")
    data = open_data(root)
    assert [data.name(i) for i in range(len(data))] == ["a.png", "same.png"]
    assert "2 links to places outside the folder not followed" in data.spec.facts


def test_pipes_and_dead_links_do_not_stop_the_reading(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "gone.png")
    assert len(open_data(tmp_path)) == 1


def test_a_turn_announced_after_the_pixels_is_seen(tmp_path):
    upright = picture(tmp_path / "a.png", (5, 9))
    Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1))).save(tmp_path / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = (tmp_path / "b.png").read_bytes()
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "b.png").write_bytes(data[:-12] + late + data[-12:])
    found = open_data(tmp_path)
    assert "1 picture turned upright as EXIF says" in found.spec.facts
    np.testing.assert_array_equal(found.spec.decode(found.batch(np.array([1]))[0].numpy())[0], upright)


def test_a_picture_that_changes_while_the_folder_is_read_is_bad(tmp_path, monkeypatch):
    for name in "ab":
        picture(tmp_path / f"{name}.png", (5, 9))
    look_over = folder.look_over

    def look_then_change(listing):
        survey = look_over(listing)
        picture(tmp_path / "b.png", (9, 5))
        return survey

    monkeypatch.setattr(folder, "look_over", look_then_change)
    found = open_data(tmp_path)
    assert len(found) == 1
    assert any("b.png: decodes to 9 x 5, unlike its header" in fact for fact in found.spec.facts)


def test_hidden_files_are_no_data(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / ".thumbs" / "a.png")
    picture(tmp_path / "__MACOSX" / "a.png")
    (tmp_path / "._a.png").write_bytes(b"junk")
    (tmp_path / "Thumbs.db").write_bytes(b"junk")
    assert len(open_data(tmp_path)) == 1


def test_what_is_no_folder_of_pictures_is_said_in_one_sentence(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "texts" / "b.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, says in (("texts", r"no pictures in this folder \(2 x .txt\)"), ("empty", "it is empty")):
        with pytest.raises(DataError, match=says):
            open_data(tmp_path / name)
    with pytest.raises(NoSuchData, match="did you mean 'texts'"):
        open_data(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="does not exist either"):
        open_data(tmp_path / "no" / "where")
    with pytest.raises(NoSuchData, match="did you mean 'digits'"):
        open_data("digit")
    with pytest.raises(DataError, match="not known"):
        open_data(tmp_path / "texts" / "a.txt")
    with pytest.raises(DataError, match="'label' means nothing for a folder of pictures"):
        open_data(tmp_path / "texts", label="y")


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.pickle", "a.ckpt"])
def test_pickles_are_refused_with_the_reason(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="can run code"):
        open_data(tmp_path / name)
