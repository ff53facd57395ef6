"""Scans: everything planted in a folder is found and said."""

import numpy as np
import pytest
from PIL import Image

from osmotic.data.errors import DataError
from osmotic.data.scan import scan

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """25 cats, 2 dogs; one copy under another format, one broken file, one other size, one grey, one text."""
    for i in range(25):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "cat" / f"{i:02d}.png")
    (tmp_path / "dog").mkdir()
    Image.fromarray(RNG.integers(0, 256, (9, 4, 3), np.uint8)).save(tmp_path / "dog" / "wide.png")
    Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "dog" / "grey.png")
    Image.open(tmp_path / "cat" / "07.png").save(tmp_path / "cat" / "copy.bmp")
    (tmp_path / "dog" / "broken.jpg").write_bytes(b"<html>")
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def test_everything_planted_is_found(folder):
    found = scan(folder)
    assert found.count == 28
    assert found.bad == (("dog/broken.jpg", "not a picture, whatever its name says"),)
    assert found.sizes == {"8 x 8": 27, "4 x 9": 1}
    assert found.modes == {"RGB": 27, "L": 1}
    assert found.duplicates == (("cat/07.png", "cat/copy.bmp"),)
    assert found.classes == {"cat": 26, "dog": 2}
    assert any("1 x .txt" in fact for fact in found.facts)
    advice = " ".join(found.advice)
    for part in ("--size N", "1 file cannot be read", "28 samples only", "smallest is dog with 2", "copies of others"):
        assert part in advice
    text = "\n".join(found.lines())
    for part in ("28 good samples", "dog/broken.jpg: not a picture", "cat/07.png, cat/copy.bmp", "cat (26), dog (2)"):
        assert part in text


def test_a_clean_folder_has_nothing_to_complain_about(tmp_path):
    for i in range(3):
        Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
    found = scan(str(tmp_path))
    assert (found.bad, found.duplicates, found.classes) == ((), (), {})
    assert len(found.advice) == 1  # that it is small


def test_embedded_arrays_and_tables():
    digits = scan("digits")
    assert digits.count == 1797
    assert digits.classes["1"] == 182
    assert digits.sizes == {"1 x 8 x 8": 1797}
    iris = scan("iris")
    assert iris.duplicates  # the real set holds a flower twice
    assert any(fact.startswith("column sepal length (cm): numbers 4.3 to 7.9") for fact in iris.facts)
    repeated = scan(np.repeat(RNG.normal(size=(1500, 2)), 2, 0))
    assert len(repeated.duplicates) == 1500
    assert any(line.startswith("50% of the samples are copies") for line in repeated.advice)


def test_shapes_are_part_of_the_content(tmp_path):
    Image.new("L", (4, 9)).save(tmp_path / "a.png")
    Image.new("L", (9, 4)).save(tmp_path / "b.png")
    assert scan(tmp_path).duplicates == ()


def test_nothing_to_scan(tmp_path):
    with pytest.raises(DataError, match="it is empty"):
        scan(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        scan(tmp_path / "gone")
    (tmp_path / "a.png").write_bytes(b"x")
    assert "none of the pictures can be read: replace them" in scan(tmp_path).advice
