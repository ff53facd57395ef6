"""Editing and adapting on real data: python benchmarks/editing.py FOLDER [PART ...]

Parts: prompts (captioned shapes, read by a detector), digits (the lower half of held-out digits drawn anew), tables
(cells that are missing, beside scikit-learn's IterativeImputer), edges (a ControlNet), style (LoRA). Runs are made in
FOLDER and kept; docs/editing.md is written from benchmarks/results/editing.json, where each part that was measured
takes the place of what stood there.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import osmotic
from osmotic.data.controls import edges
from osmotic.data.dataset import Dataset, open_data, split
from osmotic.data.given import read_given
from osmotic.metrics import agreement, energy_distance, fit_classifier, sliced
from osmotic.recipes import shapes
from osmotic.recipes.adapt import adapt
from osmotic.recipes.demo import everything
from osmotic.recipes.edit import Way, fill
from osmotic.report import pictures
from osmotic.training.model import Model
from osmotic.training.recipe import Recipe

JUDGED = 500
MISSING, DRAWS = 0.2, 64
ROOT = Path(__file__).parent
KEPT, DOC = ROOT / "results" / "editing.json", ROOT.parent / "docs" / "editing.md"
Row = dict[str, object]
TITLE = """# Editing, prompts and adapters

`python benchmarks/editing.py FOLDER`, CPU, one thread, networks and steps by default (prompts:
by `osmotic.recipes.shapes`). Lower is better for errors and
distances. Energy distances are unbiased, and the sets share their known cells, so they lie below zero."""


def prompts(folder: Path) -> list[Row]:
    """What a detector sees in 500 pictures of captions, and in 500 that were led away from a colour or a form."""
    out = folder / "shapes"
    osmotic.train("shapes", out, shapes.RECIPE, resume=out.exists(), tell=print)
    model = osmotic.load(out)
    found = shapes.judge(model)
    shapes.show(model, DOC.parent / "prompts.png")
    shares: Row = {f"{name}, %": 100 * share for name, share in vars(found).items()}
    return [{"pictures": shapes.PROMPTS, **shares}]


def base(folder: Path) -> tuple[Model, Dataset, Dataset]:
    """A model of the digits with 500 of them held out."""
    data = open_data("digits")
    share = JUDGED / len(data)
    out = folder / "base"
    osmotic.train(data, out, Recipe(holdout=share), resume=out.exists(), tell=print)
    return osmotic.load(out), *split(data, share, 0)


def digits(folder: Path) -> list[Row]:
    """How often a classifier of real digits reads a digit whose lower half is zero, or was drawn; class not told."""
    model, training, held = base(folder)
    x, labels = everything(held)
    referee = fit_classifier(*everything(training))
    half, zeros = x.copy(), x.copy()
    half[:, :, 4:], zeros[:, :, 4:] = np.nan, -1.0  # no ink
    began = time.perf_counter()
    drawn = fill(model, torch.from_numpy(half), Way(batch_size=JUDGED)).numpy()
    seconds = time.perf_counter() - began
    rows = np.concatenate([x[:12], zeros[:12], drawn[:12]])
    pictures.save(pictures.grid(model.spec.decode(rows), 12), DOC.parent / "digits.png")
    return [
        {
            "digits": len(x),
            "known pixels that changed": int((drawn[:, :, :4] != x[:, :, :4]).sum()),
            "read whole, %": 100 * agreement(referee, x, labels),
            "read with zeros, %": 100 * agreement(referee, zeros, labels),
            "read inpainted, %": 100 * agreement(referee, drawn, labels),
            "seconds": seconds,
        }
    ]


def tables(folder: Path) -> list[Row]:
    """Missing cells of rows that were not trained on, each way fitted to the same complete rows, three splits."""
    return [row for name in ("wine", "breast-cancer") for row in _table(folder, name)]


def _table(folder: Path, name: str) -> list[Row]:
    from sklearn.datasets import load_breast_cancer, load_wine

    x = {"wine": load_wine, "breast-cancer": load_breast_cancer}[name]().data
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(x))
        training, test = x[order[: len(x) * 4 // 5]], x[order[len(x) * 4 // 5 :]]
        mask = rng.random(test.shape) < MISSING
        gaps, unit = np.where(mask, np.nan, test), training.std(0)
        for way, draws in {
            **_imputers(training, gaps),
            "osmotic": _imputed(folder, name, seed, training, gaps),
        }.items():
            error = ((draws.mean(0) - test) / unit)[mask]
            near = float(np.mean([energy_distance(draw / unit, test / unit) for draw in draws[:8]]))
            found.setdefault(way, []).append((np.abs(error).mean(), np.sqrt((error**2).mean()), near))
    names = ("mean absolute error", "root mean square error", "energy distance")
    return [
        {"table": name, "way": way} | dict(zip(names, np.mean(some, 0).tolist(), strict=True))
        for way, some in found.items()
    ]


def _imputers(training: np.ndarray, gaps: np.ndarray) -> dict[str, np.ndarray]:
    """scikit-learn's, ``(draws, N, D)``."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    def drawn(**options: object) -> np.ndarray:
        return IterativeImputer(max_iter=50, **options).fit(training).transform(gaps)

    posterior = [drawn(sample_posterior=True, random_state=i) for i in range(8)]
    return {"IterativeImputer": drawn(random_state=0)[None], "IterativeImputer, posterior": np.stack(posterior)}


def _imputed(folder: Path, name: str, seed: int, training: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """By a model with the defaults for tables, ``(draws, N, D)``."""
    out = folder / f"{name}-{seed}"
    data = open_data(str(_written(folder / f"{name}-{seed}.csv", training)))
    osmotic.train(data, out, resume=out.exists(), tell=print)
    model = osmotic.load(out)
    given = read_given([_written(folder / f"{name}-{seed}-gaps.csv", gaps)], model.spec)
    x = fill(model, torch.from_numpy(given.x), Way(each=DRAWS, batch_size=1024))
    known = np.repeat(gaps, DRAWS, 0)
    raw = np.where(np.isnan(known), model.decode(x), known)
    return raw.reshape(len(gaps), DRAWS, -1).swapaxes(0, 1)


def _written(path: Path, x: np.ndarray) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"c{i}" for i in range(x.shape[1])])
        writer.writerows([["" if np.isnan(value) else value for value in row] for row in x.tolist()])
    return path


def edged(folder: Path) -> list[Row]:
    """F1 of the edges of what was drawn, and those that it was told to follow, of held-out digits."""
    model, _, held = base(folder)
    x, labels = everything(held)
    asked = edges(x)
    data, out = open_data("digits", control="edges"), folder / "edges"
    own = split(data, JUDGED / len(data), 0)[0]
    adapt(folder / "base", own, out, "control", reading={"control": "edges"}, resume=out.exists(), tell=print)
    controlled = osmotic.load(out)
    rows: list[Row] = []
    for name, drawn in {
        "told class and edges": controlled.sample(JUDGED, {"class": labels, "image": asked}),
        "told edges": controlled.sample(JUDGED, {"image": asked}),
        "told class": model.sample(JUDGED, labels),
    }.items():
        found = edges(drawn.numpy())
        both = float((found * asked).sum())
        rows.append({"digits drawn": name, "F1": 2 * both / float(found.sum() + asked.sum())})
    return rows


def style(folder: Path) -> list[Row]:
    """Digits in black on white, learned by low-rank changes of a model of white on black."""
    model, training, held = base(folder)
    plain = [everything(part) for part in (training, held)]
    turned, out = [(-x, y) for x, y in plain], folder / "style"
    raw, reading = training.spec.decode(turned[0][0]), {"kind": "images", "value_range": (0.0, 255.0)}
    adapt(folder / "base", (raw, turned[0][1]), out, "lora", reading=reading, resume=out.exists(), tell=print)
    adapted, labels = osmotic.load(out), np.arange(2000) % 10
    learns = sum(p.numel() for p in adapted.denoiser.parameters()) - sum(p.numel() for p in model.denoiser.parameters())
    rows: list[Row] = []
    for name, one, (seen, unseen) in (
        ("base, its own digits", model, plain),
        ("LoRA, black on white", adapted, turned),
    ):
        x = one.sample(2000, labels).numpy()
        agreed = 100 * agreement(fit_classifier(*seen), x, labels)
        rows.append({"digits": name, "agreement, %": agreed, "distance": sliced(x, unseen[0])})
    rows[1]["parameters, % of the base"] = 100 * learns / sum(p.numel() for p in model.denoiser.parameters())
    return rows


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "prompts": prompts,
    "digits": digits,
    "tables": tables,
    "edges": edged,
    "style": style,
}


def document(kept: dict[str, list[Row]]) -> str:
    """docs/editing.md."""
    parts = [TITLE]
    for name in (name for name in PARTS if name in kept):
        rows = kept[name]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        about = " ".join((PARTS[name].__doc__ or "").split())
        lines = [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns))]
        lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
        shown = [f"![{name}]({name}.png)"] if (DOC.parent / f"{name}.png").exists() else []
        parts += [f"## {name.capitalize()}", about, "\n".join(lines), *shown]
    return "\n\n".join(parts) + "\n"


def _cell(value: object) -> str:
    return (
        ""
        if value is None
        else f"{value:.3f}"
        if isinstance(value, float) and abs(value) < 10
        else (f"{value:.1f}" if isinstance(value, float) else str(value))
    )


def main(folder: Path, parts: list[str]) -> None:
    """Measure, keep, write."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for part in parts:
        kept[part] = PARTS[part](folder)
        print(json.dumps({part: kept[part]}, indent=1), flush=True)
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
        DOC.write_text(document(kept))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(PARTS))
