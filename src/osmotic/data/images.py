"""Samples as files: numbered PNGs that carry how they were made, and the .npz that evaluators of the field read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .whole import whole


def save_images(
    images: NDArray[np.uint8], folder: Path, start_index: int = 0, texts: Sequence[Mapping[str, str]] | None = None
) -> list[Path]:
    """Writes (B, H, W, 1|3) uint8 as `folder/000000.png`, ... numbered from `start_index`; returns the paths.

    `texts`: for each image, keys and values written into the PNG (seed, command, ...). Raises ValueError for any other
    dtype or shape. Each file appears complete or not at all.
    """
    _check(images)
    notes = texts if texts is not None else [{}] * len(images)
    paths = [folder / f"{start_index + i:06d}.png" for i in range(len(images))]
    for image, path, note in zip(images, paths, notes, strict=True):
        info = PngInfo()
        for key, value in note.items():
            info.add_itxt(key, value)
        grey = image[..., 0] if image.shape[-1] == 1 else image
        with whole(path) as part:
            Image.fromarray(np.ascontiguousarray(grey)).save(part, format="PNG", pnginfo=info)
    return paths


def save_npz(images: NDArray[np.uint8], path: Path, labels: ArrayLike | None = None) -> Path:
    """Writes `arr_0` (B, H, W, 1|3) uint8 and, with labels, `arr_1` (B,) int64: the format of ADM's evaluator.

    (Dhariwal, Nichol 2021, arXiv 2105.05233.) Grey stays 1 channel. The file appears complete or not at all.
    """
    _check(images)
    arrays = {"arr_0": np.asarray(images)}
    if labels is not None:
        arrays["arr_1"] = np.asarray(labels, np.int64)
        if arrays["arr_1"].shape != (len(images),):
            raise ValueError(f"{arrays['arr_1'].shape} labels do not fit {len(images)} images: give one each")
    with whole(path) as part:
        np.savez_compressed(part, allow_pickle=False, **arrays)
    return path


def _check(images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be (B, H, W, 1 or 3) uint8, not {images.shape} {images.dtype}")
