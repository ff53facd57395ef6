"""Super-resolution and cascades on Fashion-MNIST: python benchmarks/upscale.py TRAIN.npz TEST.npz FOLDER [PART ...]

Parts: fashion (7 x 7 held-out pictures made 28 x 28, beside Lanczos), cascade (7 to 28 pixels, at several levels of the
noise over what is enlarged), texture (windows of a texture that repeats, 64 of them by area). Runs are made in FOLDER
and kept; benchmarks/results/upscale.md is written from upscale.json beside it, where each part that was measured takes
the place of what stood there.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import osmotic
from osmotic.data.counter import permutation
from osmotic.guidance import Downsample
from osmotic.metrics import frechet
from osmotic.metrics.features import default_features
from osmotic.recipes.upscale import lanczos, upscale
from osmotic.report import pictures
from osmotic.tiled import starts
from osmotic.training.cascade import Cascade
from osmotic.training.model import Model
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

ROOT = Path(__file__).parent
KEPT, TABLE, PICTURE = (
    ROOT / "results" / "upscale.json",
    ROOT / "results" / "upscale.md",
    ROOT.parent / "docs" / "upscale.png",
)
COUNT, REFERENCE, FITTED = 600, 5000, 6000
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3)
SIDE = 32  # of the texture's windows; the picture has 8 of them along each side
Array = np.ndarray[Any, Any]
Row = dict[str, object]


def run(
    data: Array, out: Path, steps: int, ema: float, batch: int, rate: float, widths: tuple[int, ...], **reading: int
) -> Model:
    """A small run, made or gone on with."""
    options = Options(
        steps=steps,
        batch_size=batch,
        learning_rate=rate,
        ema=(ema,),
        preview_every=steps,
        evaluate_every=steps,
        checkpoint_every=500,
    )
    recipe = Recipe(options=options, architecture=Architecture(widths=widths, blocks=1, attention=()), reading=reading)
    osmotic.train(data, out, recipe, resume=out.exists(), tell=print)
    return osmotic.load(out, device="cpu")


class Judge:
    """The features that ``osmotic evaluate`` uses of pictures, and held-out pictures that nothing was made of."""

    def __init__(self, train: Array, test: Array) -> None:
        self.features = default_features("images", train[:FITTED])
        self.reference = self.features(test[COUNT : COUNT + REFERENCE])

    def __call__(self, images: Array) -> float:
        return round(frechet(self.features(images), self.reference), 1)


def decibel(one: Array, other: Array) -> float | str:
    """PSNR of pictures of 8 bits."""
    error = float(((one.astype(float) - other.astype(float)) ** 2).mean())
    return round(10 * math.log10(255**2 / error), 1) if error else "exact"


def small(images: Array, factor: int) -> Array:
    """Means over blocks, ``(N, h, w, C)`` float64."""
    return Downsample(factor)(torch.from_numpy(images.astype(float)).movedim(-1, 1)).movedim(1, -1).numpy()


def fashion(train: Array, test: Array, folder: Path) -> list[Row]:
    """Held-out pictures of which the model is told 7 x 7 pixels of 8 bits."""
    model, truth = run(train, folder / "fashion", 1500, 150.0, 32, 1.5e-3, (24, 48, 64), upscale=4), test[:COUNT]
    judge = Judge(train, test)
    given = np.rint(small(truth, 4)).astype(np.uint8)
    x = torch.from_numpy(given.astype(np.float32) / 127.5 - 1).movedim(-1, 1)
    begun = time.monotonic()
    ours = model.decode(upscale(model, x, batch_size=200))
    seconds = time.monotonic() - begun
    plain = model.decode(model.sample(COUNT, {"image": list(x)}, batch_size=200))
    ways = {"nearest": given.repeat(4, 1).repeat(4, 2), "Lanczos": lanczos(given, 4), "model, not put right": plain}
    ways |= {"model (osmotic upscale)": ours, "truth": truth}
    show = np.concatenate([row[:10] for row in (ways["nearest"], ways["Lanczos"], ours, truth)])
    pictures.save(pictures.grid(show, 10, ["given", "Lanczos", "osmotic", "truth"]), PICTURE)
    rows: list[Row] = [
        {
            "pictures": name,
            "feature distance": judge(images),
            "made small again, dB": decibel(small(images, 4), given),
            "to the truth, dB": decibel(images, truth),
        }
        for name, images in ways.items()
    ]
    rows[-2]["seconds for all"] = round(seconds, 1)
    return rows


def cascade(train: Array, test: Array, folder: Path) -> list[Row]:
    """Samples from noise through both stages, with the level of the noise over what is enlarged."""
    base = run(train, folder / "base", 2500, 200.0, 48, 2e-3, (32, 64), reduce=4)
    stages = Cascade([base, run(train, folder / "fashion", 1500, 150.0, 32, 1.5e-3, (24, 48, 64), upscale=4)])
    judge, rows = Judge(train, test), []
    for level in LEVELS:
        drawn = stages.decode(stages.sample(COUNT, augmentation=level, batch_size=200))
        rows.append({"level": level, "feature distance": judge(drawn)})
        print(rows[-1], flush=True)
    return rows


def texture(train: Array, test: Array, folder: Path) -> list[Row]:
    """Steps between neighbours across the edges of windows beside all other steps, of a picture of 8 x 8 windows."""
    rng = np.random.default_rng(0)
    wide = waves(8 * SIDE + 2048, rng)[None]
    corners = rng.integers(0, 2048, (4000, 2))
    crops = np.stack([wide[0, a : a + SIDE, b : b + SIDE] for a, b in corners])
    model = run(crops, folder / "texture", 400, 40.0, 32, 2e-3, (16, 32), upscale=4)
    truth = wide[:, 2048:, 2048:]
    given = np.rint(small(truth, 4)).astype(np.uint8)
    low = torch.from_numpy(given.astype(np.float32) / 127.5 - 1).movedim(-1, 1)
    ours = model.spec.encoding.decode(upscale(model, low).numpy())
    apart = np.concatenate([np.concatenate([_alone(model, low, i, j) for j in range(8)], 2) for i in range(8)], 1)
    rows = []
    for name, images, stride in (
        ("truth", truth, 24),
        ("model, windows that agree", ours, 24),
        ("windows apart", apart, SIDE),
    ):
        edges = {e for s in starts(8 * SIDE, SIDE, stride) for e in (s, s + SIDE)} - {0, 8 * SIDE}
        seam = np.isin(np.arange(1, 8 * SIDE), list(edges))
        steps = [
            np.abs(np.diff(part[0, ..., 0].astype(float), axis=axis)).mean(1 - axis)
            for part in (images, truth)
            for axis in (0, 1)
        ]
        ratio = np.stack([steps[0] / steps[2], steps[1] / steps[3]])
        across, within = ratio[:, seam], ratio[:, ~seam]
        error = (across.var() / across.size + within.var() / within.size) ** 0.5
        rows.append(
            {
                "picture": name,
                "steps across edges": round(float(across.mean()), 3),
                "all other steps": round(float(within.mean()), 3),
                "standard error": round(float(error), 3),
                "to the truth, dB": decibel(images, truth),
            }
        )
    return rows


def _alone(model: Model, low: torch.Tensor, i: int, j: int) -> Array:
    n = SIDE // 4
    part = low[..., i * n : (i + 1) * n, j * n : (j + 1) * n]
    drawn: Array = model.spec.encoding.decode(upscale(model, part, numbers=[8 * i + j]).numpy())
    return drawn


def waves(side: int, rng: np.random.Generator) -> Array:
    """A texture that repeats every 64 pixels, ``(side, side, 1)`` uint8: waves of 3 to 20 pixels, at random phases."""
    y, x = np.mgrid[:64, :64] * (2 * np.pi / 64)
    total = np.zeros((64, 64))
    for _ in range(60):
        a, b = rng.integers(-20, 21, 2)
        if 9 <= a * a + b * b <= 400:
            total += np.cos(a * x + b * y + rng.uniform(0, 2 * np.pi)) / np.hypot(a, b)
    eight = np.clip(127.5 + 50 * total / total.std(), 0, 255).astype(np.uint8)
    return np.tile(eight, (side // 64 + 1, side // 64 + 1))[:side, :side, None]


PARTS = {"fashion": fashion, "cascade": cascade, "texture": texture}
WORDS = {
    "fashion": f"{COUNT:,} held-out pictures, 7 x 7 made 28 x 28. Feature distance: Frechet, random convolutions as in "
    f"`osmotic evaluate`, to {REFERENCE:,} other held-out pictures; that of the truth is what a perfect model gets.",
    "cascade": f"{COUNT:,} samples through both stages, likewise.",
    "texture": "A texture that repeats every 64 pixels, 64 x 64 made 256 x 256 by windows of 32 x 32: mean absolute "
    "step between neighbours, as a share of the truth's at the same place. Windows apart are drawn one by one and put "
    "side by side.",
}


def table(rows: list[Row]) -> list[str]:
    """Markdown."""
    heads = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(str(row.get(name, "")) for name in heads) + " |" for row in rows]


def main(train: str, test: str, folder: str, *parts: str) -> None:
    """Measure, store, write the table."""
    # Files may be sorted by class.
    data = [x[permutation(0, 0, len(x))] for x in (np.load(path)["x"] for path in (train, test))]
    found = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for part in parts or PARTS:
        found[part] = PARTS[part](*data, Path(folder))
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
        lines = ["`python benchmarks/upscale.py TRAIN.npz TEST.npz FOLDER`, CPU, one thread, ten steps of flow-2pc"]
        for name in PARTS:
            if name in found:
                lines += ["", f"## {name}", "", WORDS[name], "", *table(found[name])]
        TABLE.write_text("\n".join(lines) + "\n")
        print("\n".join(table(found[part])), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
