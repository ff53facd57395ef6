"""Images beside pictures: read from files and arrays, over their pictures to the pixel, and refused in one sentence."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from osmotic.data import folder
from osmotic.data.controls import Beside
from osmotic.data.dataset import Under, open_data, split
from osmotic.data.errors import DataError
from osmotic.data.folder import OnDemand
from osmotic.data.pictures import as_channels, pixels
from osmotic.data.spec import Spec

RNG = np.random.default_rng(0)


def save(path, size, mode="RGB"):
    """A smooth random picture of a size (width, height) in a mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = RNG.integers(0, 256, (4, 5, bands), np.uint8)
    image = Image.fromarray(noise[..., 0] if bands == 1 else noise, mode)
    image.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def pairs(root, sizes, mode="RGB", other="RGB", **more):
    """A folder of pictures after/i.png with before/i.png beside them; rows say so."""
    rows = []
    for i, size in enumerate(sizes):
        after, before = size if isinstance(size[0], tuple) else (size, size)
        save(root / f"after/{i}.png", after, mode)
        save(root / f"before/{i}.png", before, other)
        rows.append({"file_name": f"after/{i}.png", "before": f"before/{i}.png", "text": f"make it {i % 2}", **more})
    write(root, rows)
    return rows


def write(root, rows):
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def of(data, i):
    """A picture and the image beside it, as the network sees them."""
    return data.batch(np.array([i]))[0][0], data.told(np.array([i]))["image"][0]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    ("mode", "other"), [("RGB", "RGB"), ("L", "RGB"), ("RGB", "L"), ("RGBA", "RGB"), ("RGB", "RGBA")]
)
def test_pairs_of_several_modes_are_read_as_their_files_are(tmp_path, monkeypatch, mode, other, stored):
    if not stored:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    pairs(tmp_path, [(9, 7)] * 6, mode, other)
    data = open_data(tmp_path, control="before")
    depth, deep = (1 if m == "L" else 3 for m in (mode, other))
    assert isinstance(data.source, OnDemand) is not stored
    assert data.spec.shape == (depth, 7, 9)
    assert data.spec.control == Beside(name="before", channels=deep)
    assert data.spec.parts == ("text", "image")
    assert Spec.model_validate_json(data.spec.model_dump_json()) == data.spec
    for i in range(6):
        for found, name, channels in zip(of(data, i), ("after", "before"), (depth, deep), strict=True):
            raw = as_channels(pixels(tmp_path / f"{name}/{i}.png"), channels)
            np.testing.assert_allclose(found.numpy(), np.moveaxis(raw, -1, 0) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    "sizes", [[(12, 8), (8, 12), (20, 16)], [((24, 16), (12, 8)), ((9, 14), (18, 28)), ((8, 8), (8, 8))]]
)
def test_images_are_scaled_and_cut_as_their_pictures(tmp_path, sizes):
    """A picture beside itself, perhaps of another resolution, stays over itself: a ramp tells every place."""
    rows = []
    for i, size in enumerate(sizes):
        for name, (width, height) in zip(
            ("after", "before"), size if isinstance(size[0], tuple) else (size, size), strict=True
        ):
            across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
            ramp = np.rint(np.stack([255 * across, 255 * down, 0 * down], -1)).astype(np.uint8)
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(ramp).save(tmp_path / name / f"{i}.png")
        rows.append({"file_name": f"after/{i}.png", "before": f"before/{i}.png"})
    write(tmp_path, rows)
    data = open_data(tmp_path, control="before", size=8)
    for i, size in enumerate(sizes):
        picture, image = of(data, i)
        alike = not isinstance(size[0], tuple) or size[0] == size[1]
        # At another resolution the filter's ends differ near the rim: a quarter of a pixel's step of the ramp.
        assert (picture - image).abs()[:, 1:-1, 1:-1].max() < (1e-6 if alike else 0.25 * 2 / 8)
        if alike:
            assert torch.equal(picture, image)


def test_several_pictures_may_share_an_image_and_files_of_pairs_are_not_left_out(tmp_path):
    rows = pairs(tmp_path, [(6, 6)] * 4)
    for row in rows:
        row["before"] = "./before/0.png"
    save(tmp_path / "alone.png", (6, 6))
    write(tmp_path, rows)
    data = open_data(tmp_path, control="before")
    assert all(torch.equal(of(data, i)[1], of(data, 0)[1]) for i in range(4))
    assert any("4 pictures without a row" in fact for fact in data.spec.facts)  # before/1, 2, 3 and alone
    facts = open_data(tmp_path).spec.facts
    assert any("also says before: --control NAME tells the model" in fact for fact in facts)
    assert "told an image beside each: before, RGB" in data.spec.describe()


def test_a_bad_image_takes_its_picture_with_it_and_the_others_stay_together(tmp_path):
    pairs(tmp_path, [(6, 6)] * 5)
    good = open_data(tmp_path, control="before")
    for bad in (b"", b"no picture", (tmp_path / "before/3.png").read_bytes()[:-40]):
        (tmp_path / "before/1.png").write_bytes(bad)
        data = open_data(tmp_path, control="before")
        assert [data.name(i) for i in range(4)] == [f"after/{i}.png" for i in (0, 2, 3, 4)]
        assert any("1 bad file skipped (before/1.png:" in fact for fact in data.spec.facts)
        for i, j in enumerate((0, 2, 3, 4)):
            assert all(torch.equal(a, b) for a, b in zip(of(data, i), of(good, j), strict=True))
        with pytest.raises(DataError, match=r"1 of 5 pictures cannot be read.*before/1\.png"):
            open_data(tmp_path, control="before", max_bad=0.0)


def broken(root, rows, how):
    """The rows with one thing wrong."""
    if how == "link":
        (root.parent / "outside").mkdir(exist_ok=True)
        save(root.parent / "outside/a.png", (6, 6))
        os.symlink(root.parent / "outside/a.png", root / "before/link.png")
    wrong = {
        "outside": "../outside.png", "absolute": "/etc/passwd", "drive": "C:\\a.png", "windows": "..\\a.png",
        "link": "before/link.png", "missing": "before/99.png", "hidden": ".hidden/a.png", "number": 3, "empty": "",
        "folder": "before", "none": None,
    }  # fmt: skip
    rows[2]["before"] = wrong[how]
    write(root, rows)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("outside", r"the row of 'after/2\.png': '\.\./outside\.png' leads outside the folder"),
        ("absolute", "leads outside the folder"),
        ("drive", "leads outside the folder"),
        ("windows", "leads outside the folder"),
        ("link", r"1 file named there as 'before' cannot be used \(before/link\.png\)"),
        ("missing", r"cannot be used \(before/99\.png\): each must be a picture inside the folder"),
        ("hidden", "cannot be used"),
        ("folder", "cannot be used"),
        ("number", r"1 row without a text as 'before' \(after/2\.png\): add it"),
        ("none", r"1 row without a text as 'before' \(after/2\.png\): add it"),
        ("empty", 'has no "before": name the picture'),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path, how, says):
    root = tmp_path / "data"
    rows = pairs(root, [(6, 6)] * 4)
    (root / ".hidden").mkdir()
    save(root / ".hidden/a.png", (6, 6))
    broken(root, rows, how)
    with pytest.raises(DataError, match=says):
        open_data(root, control="before")


@pytest.mark.parametrize(
    ("sizes", "options", "says"),
    [
        ([(6, 6), ((6, 6), (8, 8))], {}, r"pictures of 2 sizes \(3 of 6 x 6, 1 of 8 x 8\): pass --size N"),
        ([(6, 6), ((6, 6), (8, 6))], {"size": 6}, r"differ in shape \(after/1\.png: 6 x 6 beside 8 x 6\)"),
        ([((6, 8), (8, 6))], {"size": 6}, "cut both to one"),
        ([(6, 6)], {"control": "befor"}, "no row has 'befor'; did you mean 'before'"),
        ([(6, 6)], {"control": "egdes"}, "no row has 'egdes'; did you mean 'edges'"),
        ([(6, 6)], {"control": "text"}, "no row has 'text'"),
        ([(6, 6)], {"condition": ("before",)}, "named as an image .* and as a condition"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, sizes, options, says):
    pairs(tmp_path, sizes)
    with pytest.raises(DataError, match=says):
        open_data(tmp_path, **{"control": "before", **options})


def test_sources_without_images_are_refused_by_what_they_lack(tmp_path):
    save(tmp_path / "a.png", (6, 6))
    with pytest.raises(DataError, match=r"no metadata\.jsonl there, whose rows would say before: write one"):
        open_data(tmp_path, control="before")
    with pytest.raises(DataError, match="has no image 'edgs' beside each sample; did you mean 'edges'"):
        open_data("digits", control="edgs")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n2,3\n")
    with pytest.raises(DataError, match="a table has no image 'before' beside each sample"):
        open_data(tmp_path / "t.csv", control="before")


PICTURES = RNG.integers(0, 256, (12, 6, 5, 3), np.uint8)
IMAGES = RNG.integers(0, 256, (12, 6, 5), np.uint8)


def test_arrays_in_memory_and_in_a_file_tell_the_same(tmp_path):
    texts = np.array(["make it red", "make it blue"] * 6)
    np.savez(tmp_path / "data.npz", x=PICTURES, before=IMAGES, text=texts, y=np.arange(12) % 3)
    known = {"before": IMAGES, "text": texts, "label": np.arange(12) % 3}
    found = [
        open_data(tmp_path / "data.npz", control="before"),
        open_data((PICTURES, known), control="before"),
        open_data({"x": PICTURES, **known}, control="before"),
        open_data({"x": torch.from_numpy(PICTURES), **known, "before": torch.from_numpy(IMAGES)}, control="before"),
    ]
    rows = np.array([7, 2])
    for data in found:
        assert data.spec.parts == ("class", "text", "image")
        assert data.spec.control == Beside(name="before", channels=1)
        image = data.told(rows)["image"].numpy()
        np.testing.assert_allclose(image, IMAGES[rows][:, None] / 127.5 - 1, atol=1e-6)
    part = split(found[0], 0.25, 0)[1]
    assert torch.equal(part.told(np.arange(3))["image"], found[0].told(part.indices)["image"])


def test_images_are_in_the_range_of_their_pictures():
    """A dark image beside pictures of [-1, 1] is dark, whatever range it would have alone."""
    x = RNG.uniform(-1, 1, (10, 4, 4, 3)).astype(np.float32)
    image = RNG.uniform(0, 0.1, (10, 4, 4, 3)).astype(np.float32)
    told = open_data({"x": x, "before": image}, control="before").told(np.arange(10))["image"]
    np.testing.assert_allclose(told.numpy(), np.moveaxis(image, -1, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (IMAGES[:5], r"an array of shape \(5, 6, 5\) is no image for each of 12 samples"),
        (IMAGES[:, :4], "images of 5 x 4 beside pictures of 5 x 6: make them alike"),
        (IMAGES / 255.0, "holds float64, and the pictures uint8: give both in the same units"),
        (IMAGES.astype(int) * 2, "do not fit the range 0 to 255"),
        (np.full((12, 6, 5), "a"), "same units"),
        (np.zeros((12, 6, 5, 4), np.uint8), "cannot be read as images"),
    ],
)
def test_arrays_that_are_no_images_of_the_pictures_are_refused(image, says):
    with pytest.raises(DataError, match=says):
        open_data((PICTURES, {"before": image}), control="before")


def test_names_that_nothing_has_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no image called 'befor' .*did you mean 'before'"):
        open_data((PICTURES, {"before": IMAGES}), control="befor")
    with pytest.raises(DataError, match="name it with control='before' if it is an image"):
        open_data((PICTURES, {"before": IMAGES}))
    np.savez(tmp_path / "data.npz", x=PICTURES, before=IMAGES)
    with pytest.raises(DataError, match="holds no 'befor'; did you mean 'before'"):
        open_data(tmp_path / "data.npz", control="befor")
    with pytest.raises(DataError, match="an image stands beside a picture, and these are vectors"):
        open_data((np.zeros((12, 3)), {"before": IMAGES}), control="before")


def test_images_under_another_s_description(tmp_path):
    whole = open_data((PICTURES, {"before": IMAGES}), control="before")
    same = Under(open_data((PICTURES[:4], {"before": IMAGES[:4]}), control="before"), whole.spec)
    assert torch.equal(same.told(np.arange(4))["image"], whole.told(np.arange(4))["image"])
    assert "keep" not in same.told(np.arange(4))
    none = Under(open_data(PICTURES[:4]), whole.spec).told(np.arange(2))
    assert none["keep"].tolist() == [[False]] * 2  # it is hidden where nothing is known of it
    assert none["image"].shape == (2, 1, 6, 5)
    with pytest.raises(DataError, match="have 3 channels, and those that the model is told 1"):
        Under(open_data((PICTURES, {"before": PICTURES}), control="before"), whole.spec)


def test_a_mask_of_true_and_false_is_seen_as_its_picture_would_be():
    x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).random((6, 8, 8)) < 0.5
    data = open_data({"x": x, "mask": mask}, control="mask")
    seen = data.told(np.arange(6))["image"]
    assert torch.equal(seen[:, 0], torch.from_numpy(np.where(mask, 1.0, -1.0)).float())
    with pytest.raises(DataError, match="nothing above 1 beside pictures of 0 to 255"):
        open_data({"x": x, "mask": mask.astype(np.uint8)}, control="mask")
