"""Grids of pictures, pixel for pixel."""

import itertools

import numpy as np
import pytest

from osmotic.report import pictures


@pytest.mark.parametrize(("classes", "each"), [(1, 64), (1, 5), (2, 32), (2, 31), (10, 6), (3, 1)])
def test_a_block_is_about_square_and_holds_every_picture_beside_its_name(classes, each):
    shades = np.arange(classes * each, dtype=np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (len(shades), 64, 64, 1))
    block = np.asarray(pictures.block(images, [str(i) for i in range(classes)] if classes > 1 else ()))
    assert set(shades.tolist()) <= set(block[..., 0].ravel().tolist())
    assert max(block.shape[:2]) / min(block.shape[:2]) < 3.2
    # From left to right, line by line, those of a class stay together.
    places = [np.argwhere(block[..., 0] == shade)[0] for shade in shades]
    lines = np.array([line for line, _ in places]).reshape(classes, each)
    assert all(before.max() < after.min() for before, after in itertools.pairwise(lines))
