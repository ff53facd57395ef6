"""Picture files: the corpus of kinds that naive reading gets wrong, each written by an independent writer."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from osmotic.data.pictures import BadPicture, as_channels, look, pixels

RNG = np.random.default_rng(0)
PHOTO = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).resize((48, 32), Image.Resampling.BICUBIC)
)


def png(width, height, depth, colour, rows, extra=b""):
    """A PNG written chunk by chunk; colour 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join(b"\0" + row for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    )


@pytest.fixture
def written(tmp_path):
    """Writes an image or bytes and gives back the path."""

    def write(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path, **options)
        return path

    return write


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_formats_are_exact(written, ending):
    options = {"lossless": True} if ending == "webp" else {}
    path = written(f"a.{ending}", Image.fromarray(PHOTO), **options)
    np.testing.assert_array_equal(pixels(path), PHOTO)
    seen = look(path)
    assert (seen.width, seen.height, seen.grey) == (48, 32, False)


def test_grey_stays_grey(written):
    path = written("a.png", Image.fromarray(PHOTO[..., 0]))
    np.testing.assert_array_equal(pixels(path), PHOTO[..., 0])
    assert look(path).grey


def test_16_bit_grey_is_scaled_not_clipped(written):
    ramp = (np.arange(64 * 16) * 64).reshape(64, 16).astype(">u2")
    path = written("a.png", png(16, 64, 16, 0, [row.tobytes() for row in ramp]))
    expected = np.rint(ramp.astype(np.float64) / 257)
    assert np.abs(pixels(path).astype(float) - expected).max() <= 0
    assert look(path).deep


def test_16_bit_rgb_is_scaled(written):
    values = RNG.integers(0, 65536, (5, 4, 3)).astype(">u2")
    path = written("a.png", png(4, 5, 16, 2, [row.tobytes() for row in values]))
    assert np.abs(pixels(path) - values / 257).max() <= 1  # Pillow keeps the upper byte


def test_alpha_is_composed_on_white(written):
    rgba = RNG.integers(0, 256, (9, 7, 4), np.uint8)
    path = written("a.png", png(7, 9, 8, 6, [row.tobytes() for row in rgba]))
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(path) - expected).max() <= 1
    assert look(path).alpha


def test_hidden_colour_under_full_transparency_becomes_white(written):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    assert pixels(written("a.png", Image.fromarray(rgba))).min() == 255


def test_grey_with_alpha_stays_grey(written):
    la = RNG.integers(0, 256, (6, 5, 2), np.uint8)
    path = written("a.png", png(5, 6, 8, 4, [row.tobytes() for row in la]))
    alpha = la[..., 1] / 255
    found = pixels(path)
    assert found.shape == (6, 5)
    assert np.abs(found - (la[..., 0] * alpha + 255 * (1 - alpha))).max() <= 1


def test_palette_with_transparency(written):
    palette = b"PLTE" + bytes([10, 20, 30, 200, 0, 0])
    trns = b"tRNS" + bytes([255, 0])
    extra = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (palette, trns))
    found = pixels(written("a.png", png(2, 1, 8, 3, [bytes([0, 1])], extra)))
    np.testing.assert_array_equal(found, [[[10, 20, 30], [255, 255, 255]]])


def test_palette_without_transparency(written):
    image = Image.fromarray(PHOTO).quantize(16)
    np.testing.assert_array_equal(pixels(written("a.png", image)), np.asarray(image.convert("RGB")))


def test_one_bit_pictures(written):
    bits = RNG.random((8, 8)) < 0.5
    np.testing.assert_array_equal(pixels(written("a.png", Image.fromarray(bits))), bits * np.uint8(255))


def test_cmyk_jpeg_becomes_rgb(written):
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = pixels(written("a.jpg", red, quality=95))
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_are_applied(written, turn):
    """The eight orientations as plain array operations: what the file must look like upright."""
    upright = PHOTO[:16, :24]
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    path = written("a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(pixels(path), upright)
    seen = look(path)
    assert (seen.width, seen.height) == (24, 16)
    assert seen.turned == (turn != 1)


def jpeg(quality=90):
    buffer = io.BytesIO()
    Image.fromarray(np.tile(PHOTO, (4, 4, 1))).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def spoilt(data):
    """The same bytes with the compressed pixels overwritten."""
    at = data.index(b"IDAT") + 6
    return data[:at] + b"\xff\xff\xff" + data[at + 3 :]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.jpg", jpeg()[:-800], "cut short"),
        ("cut.png", png(64, 64, 8, 0, [bytes(64)] * 64)[:60], "does not decode|cut short"),
        ("empty.png", b"", "empty file"),
        ("page.png", b"<!DOCTYPE html><html><body>404</body></html>", "not a picture"),
        ("noise.jpg", bytes(RNG.integers(0, 256, 999, np.uint8)), "not a picture"),
        ("eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        ("bomb.png", png(20000, 20000, 8, 0, [b""]), "more"),
        ("big.png", png(9100, 9100, 8, 0, [b""]), "82,810,000|9100 x 9100 pixels are more than the limit"),
        ("spoilt.png", spoilt(png(8, 8, 8, 0, [bytes(8)] * 8)), "does not decode|cut short"),
    ],
)
def test_bad_files_say_why(written, name, content, reason):
    with pytest.raises(BadPicture, match=reason):
        pixels(written(name, content))


def test_a_truncated_jpeg_has_a_good_header(written):
    """The case that looking at headers alone would miss."""
    path = written("cut.jpg", jpeg()[:-800])
    assert look(path).width == 192


def test_floating_point_pixels_are_refused(written):
    path = written("a.tiff", Image.fromarray(RNG.random((4, 4), np.float32)))
    with pytest.raises(BadPicture, match="npy"):
        pixels(path)


def test_resizing_cuts_the_middle_of_the_longer_side(written):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20, 0], wide[:, 20:40, 1], wide[:, 40:, 2] = 255, 255, 255
    middle = pixels(written("a.png", Image.fromarray(wide)), 20)
    np.testing.assert_array_equal(middle, wide[:, 20:40])
    half = pixels(written("b.png", Image.fromarray(wide)), 10)
    assert half.shape == (10, 10, 3)
    np.testing.assert_array_equal(half[:, 3:7], np.broadcast_to([0, 255, 0], (10, 4, 3)))


def test_resizing_is_antialiased(written):
    """A checkerboard of single pixels must become grey, not alias to black or white."""
    board = ((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)
    small = pixels(written("a.png", Image.fromarray(board)), 16)
    assert np.abs(small.astype(float) - 127.5).max() < 3


@pytest.mark.parametrize(("width", "height"), [(7, 99), (99, 7), (33, 32), (1, 1), (1000, 3)])
def test_any_shape_fits(written, width, height):
    assert pixels(written("a.png", Image.new("RGB", (width, height))), 16).shape == (16, 16, 3)


def test_grey_is_repeated_into_rgb():
    grey = PHOTO[..., 0]
    assert as_channels(grey, 1).shape == (32, 48, 1)
    np.testing.assert_array_equal(as_channels(grey, 3), np.stack([grey] * 3, -1))
    assert as_channels(PHOTO, 3) is not None
