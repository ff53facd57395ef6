"""Runs written by hand, as training would leave them, with scores that are invented for these tests."""

import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from osmotic.data.encoding import Pixels
from osmotic.data.spec import Spec
from osmotic.recipes.scores import Bench, Point, Quality, Sampled, Score, keep
from osmotic.training import defaults
from osmotic.training.manifest import Manifest, entry
from osmotic.training.recipe import Process, Recipe
from osmotic.training.run import Run
from osmotic.training.sampling import Entry, Tuned, Tuning

SHAPES = {"network.stem.weight": (32, 1, 3, 3), "network.stem.bias": (32,)}
PARAMETERS = 32 * 9 + 32


def spec(classes=("zero", "one"), source="digits (embedded)") -> Spec:
    return Spec(
        kind="images", shape=(1, 8, 8), classes=classes, source=source, count=500, encoding=Pixels(), facts=("grey",)
    )


def written(
    place: Path, classes=("zero", "one"), recipe=None, source="digits (embedded)", steps=2000, rate=0.3
) -> Path:
    """A finished run: recipe, data, logs, one checkpoint, three previews."""
    data = spec(classes, source)
    recipe = recipe or Recipe(process=Process(sigma_data=0.5))
    recipe = defaults.fill(recipe, data)
    run = Run.create(place, recipe.model_dump(mode="json"), data.model_dump(mode="json"))
    logged, timed = [], []
    for step in range(0, steps + 1, 50):
        loss = rate + 0.8 * np.exp(-step / 200)
        if step:
            values = {"loss": loss, "gradient_norm": loss / 2, "learning_rate": 1e-3, "skipped_in_all": 0}
            logged.append({"step": step, **values})
            timed.append({"step": step, "seconds": step / 10, "samples_per_second": 1000.0 + step % 70})
        if step % 500 == 0:
            bins = {"log_snr ..-4": 0.5, "log_snr -4..0": 0.3, "log_snr 0..": 0.6}
            losses = {"raw": {"loss": loss * 1.1, **bins}, "ema-500": {"loss": loss * 1.05, **bins}}
            logged.append({"step": step, "held_out": losses})
    run.metrics_path.write_text("".join(json.dumps(record) + "\n" for record in logged))
    run.timing_path.write_text("".join(json.dumps(record) + "\n" for record in timed))
    checkpoint(run, steps)
    for step in (0, 500, steps):
        picture(run.samples / f"step-{step:08d}.png", step)
    return place


def checkpoint(run: Run, step: int) -> None:
    """A whole checkpoint: a manifest and a file of weights."""
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True)
    header, at = {}, 0
    for name, shape in SHAPES.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    manifest = Manifest(format=1, step=step, held_out=None, options={}, files={path.name: entry(path)}).sealed()
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def picture(path: Path, seed: int, side: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def scores(shift: float = 0.0) -> tuple[Score, ...]:
    """Invented ones; ``shift`` moves the first by so many of its intervals."""
    value = 3.2 + shift * 0.4
    return (
        Score(
            name="Frechet distance",
            value=value,
            low=value - 0.2,
            high=value + 0.2,
            better="lower",
            real=1.1,
            samples=1000,
            about="How far apart the distributions are.",
        ),
        Score(
            name="precision", value=0.83, low=0.81, high=0.85, better="higher", real=0.9, samples=1000, about="True."
        ),
        Score(name="share closer", value=0.52, low=0.48, high=0.56, better="real", real=0.5, samples=1000),
        Score(name="effective number", value=41.0, better="real", real=44.0, samples=1000),
    )


def measured(run: Path, shift: float = 0.0, **changes) -> Path:
    """The same run with everything that the other commands store."""
    for name in ("neighbours", "beside", "trajectory"):
        picture(run / "evaluation" / f"{name}.png", len(name))
    quality = Quality(
        command=f"osmotic evaluate {run}",
        date="2026-01-05T10:11:12+00:00",
        seconds=93.2,
        step=2000,
        weights="ema-500",
        kind="images",
        shape=(1, 8, 8),
        features="64 principal components of pixels",
        samples=1000,
        held_out=50,
        training=450,
        sampled=Sampled(sampler="flow-2pc", grid="span", steps=10, evaluations=20),
        scores=scores(shift),
        warnings=("Few held-out samples.",),
        pictures=("neighbours.png", "beside.png", "trajectory.png"),
    ).model_copy(update=changes)
    keep(run, "quality", quality)
    keep(run, "bench", bench(run, shift))
    mean = {"mean": 2.71, "standard_error": 0.02, "from_draws": None}
    likelihood = {"nats": mean, "bits": mean, "unit": "nothing", "count": 40, "held_out": 50, "dimensions": 64}
    likelihood |= {"evaluations": 140.0, "seconds": 60.0, "settings": {"draws": 2, "noise": 0.01}}
    (run / "evaluation" / "likelihood.json").write_text(json.dumps(likelihood))
    choice = Entry(sampler="flow-2pc", grid="span", steps=2, evaluations=4, error=0.01, confirmed=0.02)
    usual = Entry(sampler="ddim", grid="span", steps=4, evaluations=4, error=0.07, confirmed=0.08)
    tuned = Tuned(
        nfe=4,
        choice=choice,
        log_snr=(0.0,),
        step=2000,
        weights="ema-500",
        guidance=1.0,
        count=64,
        seed=0,
        reference=0.001,
        default=usual,
        table=(choice, usual),
    )
    Tuning(Run.open(run)).store(tuned)
    return run


def bench(run: Path, shift: float = 0.0, others: tuple[str, ...] = ()) -> Bench:
    """Two solvers at three budgets, also of other runs."""
    points = tuple(
        Point(
            run=name,
            sampler=sampler,
            grid="span",
            steps=n,
            evaluations=n,
            seconds=n / 5,
            value=1 + shift + k / n,
            low=0.9 + shift + k / n,
            high=1.1 + shift + k / n,
        )
        for name in (str(run), *others)
        for sampler, k in (("ddim", 9.0), ("flow-2pc", 3.0))
        for n in (4, 8, 16)
    )
    return Bench(
        command=f"osmotic bench {run}",
        date="2026-01-05T10:11:12+00:00",
        seconds=40.0,
        score="Frechet distance",
        better="lower",
        features="64 principal components of pixels",
        samples=500,
        real=1.1,
        points=points,
    )
