"""Diffusion of latents beside diffusion of pixels: python benchmarks/latents.py TRAIN.npz TEST.npz FOLDER [PART ...]

Parts: rate (pictures a second of 32 x 32, at equal parameters and evaluations, decoding included), fashion (an
autoencoder of Fashion-MNIST, then a model of its latents and one of pixels for equal seconds of one thread, beside
held-out pictures). Runs are made in FOLDER and kept; benchmarks/results/latents.md is written from latents.json beside
it, where each part that was measured takes the place of what stood there.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import osmotic
from osmotic.data.counter import permutation
from osmotic.metrics import frechet
from osmotic.metrics.features import default_features
from osmotic.nn import count
from osmotic.training import coding
from osmotic.training.model import Model, load
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Process, Recipe
from osmotic.training.run import Run

ROOT = Path(__file__).parent
KEPT, TABLE = ROOT / "results" / "latents.json", ROOT / "results" / "latents.md"
COUNT, REFERENCE, FITTED, DRAWN = 2000, 8000, 6000, 2000
SECONDS = 250.0
"""Of one thread's own time, for each of the two models."""

ROUNDS, BATCH = 5, 32
Array = np.ndarray[Any, Any]
Row = dict[str, object]
NET = Architecture(network="unet", widths=(64, 128), blocks=1, attention=())


def trained(data: Any, out: Path, recipe: Recipe, **more: Any) -> Model | None:
    """A run, made or gone on with."""
    osmotic.train(data, out, recipe, resume=(out / "recipe.json").exists(), tell=print, device="cpu", **more)
    return None if recipe.process.objective == "autoencoder" else load(out, device="cpu")


def rate(train: Array, test: Array, folder: Path) -> list[Row]:
    """Pictures a second from noise, two models by turns; weights do not matter, so they are hardly trained."""
    x = np.pad(train[:256], ((0, 0), (2, 2), (2, 2), (0, 0)))
    few = Options(steps=1, batch_size=32)
    trained(x, folder / "rate-ae", Recipe(options=few, process=Process(objective="autoencoder")))
    models = {
        "pixels": trained(x, folder / "rate-pixels", Recipe(options=few, architecture=NET)),
        "latents": trained(x, folder / "rate-latents", Recipe(options=few, architecture=NET), codec=folder / "rate-ae"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            assert model is not None
            begun = time.process_time()
            model.sample(BATCH, steps=10, seed=1)
            seconds[name].append(time.process_time() - begun)
    rows: list[Row] = []
    for name, model in models.items():
        assert model is not None
        rows.append(
            {
                "model of": name,
                "seen as": " x ".join(map(str, model.seen.shape)),
                "parameters": count.parameters(model.denoiser),
                "pictures a second": round(BATCH / median(seconds[name]), 1),
            }
        )
    for row in rows:
        row["times pixels"] = round(median(seconds["pixels"]) / median(seconds[str(row["model of"])]), 2)
    return rows


def fashion(train: Array, test: Array, folder: Path) -> list[Row]:
    """Quality at equal seconds."""
    ae, mark = folder / "ae", folder / "ae.json"
    if not mark.exists():
        began = time.process_time()
        trained(train, ae, Recipe(process=Process(objective="autoencoder")))
        mark.write_text(json.dumps(time.process_time() - began))
    spent = json.loads(mark.read_text())
    models, rows = {}, []
    for name, more in (("pixels", {}), ("latents", {"codec": ae})):
        steps, used = timed(train, folder / name, more)
        models[name] = load(folder / name, device="cpu")
        rows.append(
            {"model of": name, "steps": steps, "seconds": round(used), "before it": 0 if not more else round(spent)}
        )
    features = default_features("images", train[:FITTED])
    held = features(test[COUNT : COUNT + REFERENCE])
    codec = coding.kept(Run.open(folder / "latents"), models["latents"].recipe)
    assert codec is not None
    x = torch.from_numpy(test[:COUNT].astype(np.float32) / 127.5 - 1).movedim(-1, 1)
    with torch.no_grad():
        made = torch.cat([codec.decode(codec.encode(part)) for part in x.split(200)])
    psnr = float(10 * torch.log10(4 / (made.clamp(-1, 1) - x).square().mean()))
    for row in rows:
        drawn = models[str(row["model of"])].sample(DRAWN, batch_size=250)
        row["feature distance"] = round(frechet(features(models["pixels"].decode(drawn)), held), 1)
    rows.append(
        {
            "model of": "reconstructions",
            "feature distance": round(frechet(features(models["pixels"].decode(made)), held), 1),
        }
    )
    rows.append({"model of": "held-out data", "feature distance": round(frechet(features(test[:COUNT]), held), 1)})
    rows[1]["reconstruction, dB"] = round(psnr, 2)
    rows[1]["numbers, times fewer"] = round(x[0].numel() / codec.encode(x[:1])[0].numel(), 1)
    return rows


def timed(data: Array, out: Path, more: dict[str, Any]) -> tuple[int, float]:
    """Train for as many steps as take :data:`SECONDS` of this thread, found from the first hundred; once.

    Returns:
        Steps and seconds.
    """
    kept = out.with_suffix(".json")
    if kept.exists():
        steps, seconds = json.loads(kept.read_text())
        return steps, seconds

    def options(steps: int) -> Options:
        return Options(steps=steps, batch_size=64, learning_rate=1e-3, ema=(200.0,), preview_every=10**6,
                       evaluate_every=10**6, checkpoint_every=500)  # fmt: skip

    def go(steps: int) -> float:
        begun = time.process_time()
        trained(data, out, Recipe(options=options(steps), architecture=NET), **more)
        return time.process_time() - begun

    first = go(20)
    each = go(120) / 100
    steps = 120 + int((SECONDS - first - 100 * each) / each)
    seconds = first + 100 * each + go(steps)
    kept.write_text(json.dumps([steps, seconds]))
    return steps, seconds


def table(rows: list[Row]) -> list[str]:
    """Rows as Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return lines + ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]


PARTS = {"rate": rate, "fashion": fashion}


def main(train: str, test: str, folder: str, *parts: str) -> None:
    """Measure some parts and write the table."""
    torch.set_num_threads(1)
    pictures = []
    for path in (train, test):
        with np.load(path) as archive:
            x = archive["x"]
        pictures.append((x if x.ndim == 4 else x[..., None])[permutation(0, 0, len(x))])  # files are sorted by class
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for part in parts or tuple(PARTS):
        kept[part] = PARTS[part](*pictures, Path(folder))
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    lines = ["Made by `python benchmarks/latents.py TRAIN.npz TEST.npz FOLDER`, on one thread of a shared machine.", ""]
    for part, rows in kept.items():
        lines += [f"## {part}", "", *table(rows), ""]
    TABLE.write_text("\n".join(lines).rstrip() + "\n")
    print(TABLE.read_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
