"""Pictures of several sizes: which sizes there are, which one each picture takes, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from osmotic.data import folder
from osmotic.data.dataset import Subset, main_size, open_data, split
from osmotic.data.errors import DataError
from osmotic.data.sizes import alike, bucketed, nearest, parsed, shapes, size, spoken
from osmotic.data.source import Sized

RNG = np.random.default_rng(0)

# (width, height): how many of each.
MIXED = {(32, 16): 5, (16, 32): 3, (60, 32): 1}


def write(root, sizes=MIXED, **metadata):
    """Pictures of a left-to-right and top-to-bottom ramp, which show how they were scaled and cut."""
    root.mkdir(exist_ok=True)
    number = 0
    for (width, height), count in sizes.items():
        for _ in range(count):
            right, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
            ramp = np.stack(
                [np.tile(right, (height, 1)), np.tile(down[:, None], (1, width)), np.full((height, width), number)], -1
            )
            Image.fromarray(ramp.astype(np.uint8)).save(root / f"{number:02d}.png")
            number += 1
    return root


def test_sizes_are_said_by_width_and_height():
    assert size("320x192") == (192, 320)
    assert size((192, 320)) == (192, 320)
    assert parsed(["256x256", "320x192", "256x256"]) == ((256, 256), (192, 320))
    assert parsed(["256"]) == parsed([256]) == 256
    assert spoken((192, 320)) == "320 x 192"


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (["320"] * 2, "a single number is the side"),
        (["320x192", "64"], "a single number is the side"),
        (["0"], "positive"),
        (["320x192x3"], "is no size of a picture: write WIDTHxHEIGHT"),
        (["0x4"], "is no size of a picture"),
        (["x"], "is no size of a picture"),
        ([(1, 2, 3)], "is no size of a picture"),
    ],
)
def test_words_that_are_no_sizes_are_refused(said, match):
    with pytest.raises(DataError, match=match):
        parsed(said)


@pytest.mark.parametrize("side", [8, 16, 50, 64, 256, 1024])
def test_found_shapes_have_about_one_area_and_go_from_tall_to_wide(side):
    found = np.array(shapes(side))
    step = {8: 1, 16: 1, 50: 2, 64: 4, 256: 16, 1024: 64}[side]
    assert (found % step == 0).all()
    ratio = found[:, 0] / found[:, 1]
    assert ratio.max() <= 4
    assert ratio.min() >= 1 / 4
    assert ratio.max() > 3
    # Of each height the width is the nearest multiple, so the area is off by half a step's column at most.
    assert (np.abs(found.prod(1) - side**2) <= step / 2 * found[:, 0] + 1e-9).all()
    assert len({tuple(row) for row in found}) == len(found)
    if side % step == 0:
        assert (side, side) in shapes(side)


def test_the_shapes_of_sdxl_are_among_them():
    """Appendix I of arXiv 2307.01952, between 1 to 2 and 2 to 1: of each height its width of the nearest area."""
    table = {(704, 1408), (704, 1344), (768, 1344), (832, 1216), (896, 1152), (960, 1088), (1024, 1024), (1152, 896)}
    found = set(shapes(1024))
    assert {(832, 1280), (896, 1152), (960, 1088), (1024, 1024), (1152, 896)} <= found
    assert len(found & table) >= 4


def test_each_picture_takes_the_nearest_ratio_and_of_equals_the_nearest_area():
    sizes = [(64, 64), (256, 256), (128, 256)]
    pictures = [(60, 60), (1000, 1000), (100, 190), (300, 200), (128, 128)]
    # 128 lies as far from 64 as from 256: the first of them.
    assert nearest(sizes, pictures).tolist() == [0, 1, 2, 1, 0]


def test_bucketing_is_a_partition_and_drops_what_nobody_takes():
    pictures = [(int(h), int(w)) for h, w in RNG.integers(100, 900, (400, 2))]
    for said in (["256"], ["256x256", "320x192", "192x320", "2000x10"]):
        found = bucketed(said, pictures)
        counts = np.bincount(found.buckets, minlength=len(found.sizes))
        assert counts.sum() == 400
        assert (counts > 0).all()
        assert (np.diff(counts) <= 0).all()  # the commonest first
        assert len(set(found.sizes)) == len(found.sizes)
        again = nearest(found.sizes, pictures)
        assert (again == found.buckets).all()
    rare = bucketed(["64"], [(64, 64)] * 300 + [(64, 128)])
    assert rare.sizes == ((64, 64),)
    assert len(bucketed(["64"], [(64, 64)] * 30 + [(64, 128)]).sizes) == 2


def test_groups_of_one_size_keep_their_order():
    buckets = np.array([0, 1, 0, 2, 1])
    groups = alike(np.array([4, 0, 1, 2]), buckets)
    assert [group.tolist() for group in groups] == [[0, 2], [4, 1]]
    assert [group.tolist() for group in alike(np.array([3, 1]), None)] == [[3, 1]]


@pytest.mark.parametrize("stored", [True, False])
def test_a_folder_of_mixed_sizes(tmp_path, monkeypatch, stored):
    if not stored:
        monkeypatch.setattr(folder, "IN_MEMORY", 0)
    data = open_data(write(tmp_path / "p"), sizes=["32x16", "16x32"])
    assert isinstance(data.source, Sized) is stored
    assert data.spec.shape == (3, 16, 32)
    assert data.spec.sizes == ((16, 32), (32, 16))
    assert data.buckets.tolist() == [0] * 5 + [1] * 3 + [0]
    assert any("2 sizes, width x height: 6 of 32 x 16, 3 of 16 x 32; 1 picture resized" in f for f in data.spec.facts)
    wide, _ = data.batch(np.array([8, 0, 2]))
    tall, _ = data.batch(np.array([7, 5]))
    assert wide.shape == (3, 3, 16, 32)
    assert tall.shape == (2, 3, 32, 16)
    raw = data.spec.decode(wide.numpy())
    assert raw[1, 0, :, 2].tolist() == [0] * 32
    assert raw[1, 0, [0, -1], 0].tolist() == [0, 255]
    # 60 x 32 becomes 32 x 17 and loses a row, or 30 x 16 would not cover: its sides are all there, a rim is not.
    assert abs(int(raw[0, 0, 0, 0]) - 2) <= 3
    assert raw[0, -1, 0, 1] < 255
    np.testing.assert_array_equal(data.spec.decode(tall.numpy())[1, :, 0, 1], np.linspace(0, 255, 32).astype(np.uint8))
    with pytest.raises(DataError, match=r"several sizes \(32 x 16, 16 x 32\) cannot stand in one batch.*--size N"):
        data.batch(np.array([0, 5]))


def test_parts_keep_their_sizes_and_the_main_one_can_be_had_alone(tmp_path):
    data = open_data(write(tmp_path / "p"), sizes=["32x16", "16x32"])
    training, held = split(data, 0.3, 0)
    assert len(training.buckets) == len(training)
    for part in (training, held):
        alone = main_size(part)
        assert isinstance(alone, Subset)
        assert (alone.buckets == 0).all()
        assert alone.batch(np.arange(len(alone)))[0].shape[1:] == (3, 16, 32)
    assert len(main_size(training)) + len(main_size(held)) == 6


def test_one_shape_of_area_is_no_set_of_sizes(tmp_path):
    data = open_data(write(tmp_path / "p", {(32, 16): 3, (64, 32): 2}), sizes=["16"])
    assert data.spec.sizes == ()
    assert data.buckets is None
    height, width = data.spec.shape[1:]
    assert abs(height * width - 256) <= 24
    assert width == 2 * height or abs(width / height - 2) < 0.2


def test_images_beside_are_brought_to_the_size_of_their_picture(tmp_path):
    root = write(tmp_path / "p", {(32, 16): 2, (16, 32): 2})
    rows = []
    for i in range(4):
        with Image.open(root / f"{i:02d}.png") as picture:
            picture.resize((picture.width // 2, picture.height // 2)).save(root / f"edge{i}.png")
        rows.append(f'{{"file_name": "{i:02d}.png", "edge": "edge{i}.png"}}')
    (root / "metadata.jsonl").write_text("\n".join(rows))
    data = open_data(root, sizes=["32x16", "16x32"], control="edge")
    assert data.told(np.array([0, 1]))["image"].shape == (2, 3, 16, 32)
    assert data.told(np.array([3]))["image"].shape == (1, 3, 32, 16)


def test_mixed_sizes_without_a_word_say_both_ways(tmp_path):
    with pytest.raises(DataError, match=r"pass --size N to bring.*or --sizes N"):
        open_data(write(tmp_path / "p"))


def test_sizes_mean_nothing_elsewhere(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="'sizes' means nothing"):
        open_data(tmp_path / "a.npy", sizes=["8x8"])
    with pytest.raises(DataError, match="give one of them"):
        open_data(tmp_path / "a.npy", sizes=["8x8"], size=8)
